"""Layers of strokes and results: made once, then updated in place, never in the user's way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.axes import data_of, spread_axis

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_cellda.core.images import Image
    from napari_cellda.ui.axes import ImageChoice
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

STROKES_OPACITY = 0.9
TAG = "napari-cellda"
"""Our layers carry this key in their metadata, so that they are known after a rename."""


def geometry(painted: PaintedImage) -> dict[str, Any]:
    """Return scale, translation, rotation and so on for strokes and results of an image.

    Returns
    -------
    dict
        Keyword arguments of a layer whose data has the image's axes without channels (with them
        where `spread_axis` says so).
    """
    ndim = len(painted.image.label_axes) + (_spread_axis(painted.choice) is not None)
    return last_axes(painted.layer, ndim)


def last_axes(layer: Any, ndim: int) -> dict[str, Any]:
    """Return scale, translation, rotation and so on of a layer's last axes, for one on top of it.

    Parameters
    ----------
    layer : napari layer
    ndim : int
        How many axes the other layer has.
    """
    first = layer.ndim - ndim
    keep = list(range(first, layer.ndim))
    affine = layer.affine.set_slice(keep)
    return {
        "scale": layer.scale[first:],
        "translate": layer.translate[first:],
        "rotate": layer.rotate[first:, first:],
        "shear": _shear(layer.shear, first),
        "affine": affine,
        "units": layer.units[first:],
        "axis_labels": layer.axis_labels[first:],
    }


def _shear(shear: np.ndarray, first: int) -> np.ndarray:
    """Cut the shear of the last axes out of napari's upper triangle, given as a vector."""
    shear = np.asarray(shear)
    if shear.ndim == 2:
        return shear[first:, first:]
    ndim = int((1 + np.sqrt(1 + 8 * len(shear))) / 2)
    matrix = np.zeros((ndim, ndim))
    matrix[np.triu_indices(ndim, 1)] = shear
    rest = matrix[first:, first:]
    return rest[np.triu_indices(len(rest), 1)]


def _spread_axis(choice: ImageChoice) -> int | None:
    return spread_axis(choice.axes, bool(choice.layer.rgb))


def spread_for_viewer(choice: ImageChoice, array: Any) -> Any:
    """Return an array of an image's `label_shape` as the viewer needs it (see `spread_axis`)."""
    from napari_cellda.ui.arrays import spread

    axis = _spread_axis(choice)
    length = 1 if axis is None else data_of(choice.layer).shape[axis]
    return spread(array, axis, length)


def labels_on(choice: ImageChoice, layer: Any) -> Any:
    """Return a layer's labels in the image's `label_shape`, whatever the viewer needs of them.

    The opposite of `spread_for_viewer`; labels of any other shape are returned as they are.

    Parameters
    ----------
    choice : ImageChoice
        The image that they belong to.
    layer : napari Labels layer
        Made for the viewer, or with channels of its own: reading those raises a `UserError` where
        they differ, since only one of them could count.
    """
    from napari_cellda.ui.arrays import same_along

    array, axis = data_of(layer), _spread_axis(choice)
    if axis is None or tuple(array.shape) != tuple(data_of(choice.layer).shape):
        return array
    own = own_labels(choice, layer)
    if own is not None:
        return own
    complaint = (
        f"The layer '{layer.name}' has other labels in one channel of '{choice.layer.name}' than "
        "in another; expected the same in all channels."
    )
    return same_along(array, axis, complaint)


def own_labels(choice: ImageChoice, layer: Any) -> Any:
    """Return what `spread_for_viewer` made a layer's data of; None if it was made otherwise."""
    from napari_cellda.ui.arrays import unspread

    return unspread(data_of(layer), _spread_axis(choice))


def on_layer(choice: ImageChoice, array: Any) -> tuple[Any, dict[str, Any]]:
    """Return an array of the image's `label_shape` as the viewer needs it, and its place."""
    shown = spread_for_viewer(choice, array)
    return shown, last_axes(choice.layer, shown.ndim)


def make_strokes(session: Session, painted: PaintedImage, array: Any = None) -> Any:
    """Give an image its strokes layer, on top of all others and ready to be painted on.

    Parameters
    ----------
    session : Session
    painted : PaintedImage
        Gets `strokes_array` and `strokes`.
    array : integer array of the image's `label_shape`, optional
        Strokes to begin with. None: nothing painted; large ones live in a zarr on disk.

    Returns
    -------
    napari Labels layer
    """
    from napari.layers import Labels

    if array is None:
        array = session.scratch.zeros(painted.image.label_shape, np.uint8)
    painted.strokes_array = array
    layer = Labels(
        spread_for_viewer(painted.choice, array),
        name=f"Strokes · {painted.name}",
        colormap=stroke_colormap(session),
        opacity=STROKES_OPACITY,
        metadata={TAG: {"role": "strokes"}},
        **geometry(painted),
    )
    layer.brush_size = brush_size(painted.image)
    layer.selected_label = 1
    painted.strokes = layer
    with keep_selection(session.viewer):
        session.viewer.add_layer(layer)
    return layer


def brush_size(image: Image) -> int:
    """Return a brush, in pixels, that suits small images as well as large ones."""
    return max(3, min(10, min(image.limits[1:]) // 60))


def stroke_colormap(session: Session) -> Any:
    """Return napari's colormap for strokes: id k + 1 in the colour of class k."""
    return _label_colormap({k + 1: item.color for k, item in enumerate(session.classes)})


def mask_colormap(session: Session) -> Any:
    """Return napari's colormap for masks: id k in the colour of class k, background clear."""
    return _label_colormap({k: item.color for k, item in enumerate(session.classes) if k})


def _label_colormap(colors: dict[int, str]) -> Any:
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    table.update(colors.items())
    return DirectLabelColormap(color_dict=table)


def fade_in(color: str) -> Any:
    """Return a colormap from clear (0) to `color` (1): what is unlikely hides nothing."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    solid = np.array(ensure_colormap(color).map(np.ones(1, np.float32))[0])
    clear = solid.copy()
    clear[3] = 0
    return Colormap([clear, solid], name=f"clear to {color}")


def diverging(below: str, above: str) -> Any:
    """Return a colormap from `below` (lowest) over clear (middle) to `above` (highest)."""
    from napari.utils.colormaps import Colormap

    low, high = (fade_in(color).colors[-1] for color in (below, above))
    clear = [np.append(color[:3], 0) for color in (low, high)]
    return Colormap([low, *clear, high], controls=[0, 0.5, 0.5, 1], name=f"{below} to {above}")


def ensure_layer(
    session: Session,
    painted: PaintedImage,
    role: str,
    array: Any,
    *,
    name: str,
    kind: str = "image",
    visible: bool = True,
    **settings: Any,
) -> Any:
    """Show an array as a result layer: make the layer, or let the one that is there show it.

    Parameters
    ----------
    session : Session
    painted : PaintedImage
        The image that the result belongs to; gives place, scale and rotation.
    role : str
        What it is, e.g. ``"mask"``; the layer is found again by it, whatever it is called by then.
    array : array of the image's `label_shape`
        Kept in ``painted.arrays[role]``; write to it and call `refresh_layers` to update.
    name : str
        For a new layer, to which the image's name is added from the second image on; a layer that
        is there keeps the name that the user may have given it.
    kind : {"image", "labels"}
    visible : bool
        For a new layer. One that is there stays as visible as it is.
    **settings
        Further arguments of the layer, for a new one (colormap, opacity, blending...).

    Returns
    -------
    napari layer, or None
        None if the user deleted this layer; it stays away while its role is in `unwanted`.
    """
    layer = painted.results.get(role)
    if layer is not None:
        if painted.arrays.get(role) is not array:
            painted.arrays[role] = array
            layer.data = _data_for_viewer(painted, role)
        return layer
    painted.arrays[role] = array
    if role in painted.unwanted:
        return None
    from napari.layers import Image, Labels

    if kind == "image":
        settings = {"contrast_limits": (0, 1), **settings}
    layer = {"image": Image, "labels": Labels}[kind](
        _data_for_viewer(painted, role),
        multiscale=bool(painted.levels.get(role)),
        name=_layer_name(session, painted, name),
        visible=visible,
        metadata={TAG: {"role": role}},
        **geometry(painted),
        **settings,
    )
    painted.results[role] = layer
    with keep_selection(session.viewer):
        session.viewer.layers.insert(_place_for(session.viewer, painted, role), layer)
    layer.metadata[TAG]["name"] = layer.name  # the viewer may have added a number
    return layer


def rename_layer(session: Session, painted: PaintedImage, layer: Any, name: str) -> None:
    """Call a result by a new name, with the image's as in `ensure_layer`; a user's name stays."""
    tag = layer.metadata[TAG]
    if layer.name == tag.get("name"):
        layer.name = _layer_name(session, painted, name)
        tag["name"] = layer.name


def _data_for_viewer(painted: PaintedImage, role: str) -> Any:
    """Return a result's array, or the list of its levels if its planes are large."""
    arrays = [painted.arrays[role], *painted.levels.get(role, ())]
    spread_out = [spread_for_viewer(painted.choice, array) for array in arrays]
    return spread_out if len(arrays) > 1 else spread_out[0]


def _layer_name(session: Session, painted: PaintedImage, name: str) -> str:
    """Name a result short as long as it is clear which image it belongs to."""
    return name if session.images[:1] == [painted] else f"{name} · {painted.name}"


STACKING = ("uncertainty", "boundary", "mask", "forest:0", "forest", "enhanced", "difference")
"""Groups of results from below to above; others lie above these."""


def stacking_place(role: str) -> int:
    """Return how high a role lies among the results of its image."""
    group = role if role in STACKING else role.split(":")[0]
    return STACKING.index(group) if group in STACKING else len(STACKING)


def _place_for(viewer: Any, painted: PaintedImage, role: str) -> int:
    """Return where a new result goes: below the strokes and the results that belong above it."""
    place = stacking_place(role)
    above = [layer for r, layer in painted.results.items() if stacking_place(r) > place]
    above.append(painted.strokes)
    places = [viewer.layers.index(layer) for layer in above if layer in viewer.layers]
    return int(min(places, default=len(viewer.layers)))


@contextmanager
def keep_selection(viewer: Any) -> Iterator[None]:
    """Add layers without changing what the user had selected (napari selects new ones)."""
    selection = viewer.layers.selection
    before, active = set(selection), selection.active
    yield
    if before:
        selection.intersection_update(before)
        selection.update(layer for layer in before if layer in viewer.layers)
        selection.active = active if active in viewer.layers else None


def refresh_layers(
    painted: PaintedImage, roles: Iterable[str], *, thumbnails: bool = False
) -> None:
    """Let result layers show what was written to their arrays; hidden ones cost nothing."""
    for role in roles:
        layer = painted.results.get(role)
        if layer is not None and layer.visible:
            layer.refresh(thumbnail=thumbnails, highlight=False, extent=False)


def drop_results(session: Session, painted: PaintedImage, roles: Iterable[str]) -> None:
    """Take result layers out of the viewer, with their arrays, e.g. of a class that was removed."""
    for role in list(roles):
        layer = painted.results.pop(role, None)
        painted.arrays.pop(role, None)
        painted.levels.pop(role, None)
        if layer is not None and session.viewer is not None and layer in session.viewer.layers:
            session.viewer.layers.remove(layer)


def follow_geometry(painted: PaintedImage) -> None:
    """Keep strokes and results on the image when its scale, position or rotation is changed."""

    def update(event: Any = None) -> None:
        new = geometry(painted)
        for layer in (painted.strokes, *painted.results.values()):
            if layer is not None:
                for name in ("scale", "translate", "rotate", "shear", "affine", "units"):
                    setattr(layer, name, new[name])

    for name in ("scale", "translate", "rotate", "shear", "affine", "units"):
        getattr(painted.layer.events, name).connect(update)
