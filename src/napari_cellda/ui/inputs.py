"""Inputs of a run: folders as they are, layers written to the run's folder first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.paths import safe_stem, stem
from napari_cellda.ui.axes import CHOSEN_AXES, ImageChoice, axes_of, data_of
from napari_cellda.ui.layers import TAG, labels_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.events import Stop

MOST_COMPARED = 2**22
"""Values up to which a layer is compared with its file as a whole."""
SIDE_COMPARED = 1024
Kind = Literal["image", "labels", "points"]


@dataclass(frozen=True)
class Picked:
    """What the user chose for one input: a folder or file, or layers; never both."""

    path: Path | None = None
    layers: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return self.path is not None or bool(self.layers)


@dataclass(frozen=True)
class Prepared:
    """Where an input will lie, and what has to be done before."""

    path: Path
    write: Callable[..., None] | None = None
    """To be called in the background, with a `Stop` or without; None when it lies there already."""


COLUMNS = {"t": "t", "z": "z", "y": "row", "x": "col"}
"""Columns of a table of points, by the axes of their image."""


def prepare(
    picked: Picked,
    kind: Kind,
    folder: Path,
    names: Sequence[str] = (),
    images: Sequence[Any] = (),
) -> Prepared:
    """Say where an input will lie. Called in the window's thread; nothing is written yet.

    Parameters
    ----------
    picked : Picked
    kind : {"image", "labels", "points"}
    folder : Path
        For layers: a folder of this input's own, inside the run's.
    names : sequence of str
        File names without ending, by which the layers pair with images; by default those of the
        layers themselves.
    images : sequence of napari Image layers
        The image of each layer of points or labels: in its pixels points are written, and labels
        have its size.

    Raises
    ------
    UserError
        If nothing is chosen, names are given but not as many as layers, or a layer does not fit its
        image.
    """
    if picked.path is not None:
        return Prepared(picked.path)
    if not picked.layers:
        raise UserError("Nothing is chosen.")
    if len(picked.layers) == 1 and kind == "image" and not names:
        source = getattr(picked.layers[0].source, "path", None)
        if source and _shows_file(picked.layers[0], Path(source)):
            return Prepared(Path(source))
    if names and len(names) != len(picked.layers):
        raise UserError(
            f"{len(picked.layers)} layers are chosen for {len(names)} images; choose one per "
            "image, in the same order."
        )
    stems = list(names) or layer_stems(picked.layers)
    for layer, image in zip(picked.layers, images, strict=False):
        _check_fit(layer, kind, image)
    # The layers as they are now: the user may go on painting while they are written.
    if kind == "points":
        partners = images or [None] * len(stems)
        places = [points_on(*pair) for pair in zip(picked.layers, partners, strict=True)]
        return Prepared(folder, partial(_write_tables, stems, places, folder))
    frozen = [_frozen(layer, kind, image) for layer, image in zip_longest(picked.layers, images)]

    def write(stop: Stop = never) -> None:
        for name, (data, meta) in zip(stems, frozen, strict=True):
            if stop():
                return
            write_layer(data, meta, kind, folder / f"{name}.tif")

    return Prepared(folder, write)


def _check_fit(layer: Any, kind: Kind, image: Any) -> None:
    """Refuse labels of another size than their image, and points outside it."""
    sizes = dict(zip(axes_of(image), data_of(image).shape, strict=True))
    size = " x ".join(str(n) for axis, n in sizes.items() if axis != "c" and n > 1)
    if kind == "labels":
        choice = ImageChoice(image, axes_of(image), "all")
        own = " x ".join(str(n) for n in labels_on(choice, layer).shape if n > 1)
        if own != size:
            raise UserError(
                f"The layer '{layer.name}' has {own} pixels, its image '{image.name}' {size}."
            )
    elif kind == "points":
        points, axes = points_on(layer, image)
        limits = np.array([sizes.get(axis, np.inf) for axis in axes])
        outside = ~((points > -0.5) & (points < limits - 0.5)).all(axis=1)
        if outside.any():
            row, column = points[outside][0, -2:]
            raise UserError(
                f"The layer '{layer.name}' has {outside.sum()} point(s) outside its image "
                f"'{image.name}', such as row {row:.0f}, column {column:.0f}; the image has {size} "
                "pixels."
            )


def _shows_file(layer: Any, path: Path) -> bool:
    """Whether a layer shows the whole of a file, unchanged, so that the file can stand for it.

    A layer may be one channel of its file, or have got other data since. Of large images the middle
    is compared: this is the window's thread.
    """
    from napari_cellda.core.images.label_arrays import same_but_for_ones
    from napari_cellda.core.images.readers import read_file

    shown = data_of(layer)
    try:
        file = read_file(path)
        on_disk = file.array
        chosen = layer.metadata.get(CHOSEN_AXES)
        if chosen and _long(chosen, shown.shape) != _long(file.axes, on_disk.shape):
            return False
        if not same_but_for_ones(shown.shape, on_disk.shape):
            return False
        ours, theirs = (_part(array, 3 if layer.rgb else 2) for array in (shown, on_disk))
    except (UserError, OSError, ValueError, RuntimeError, KeyError):
        return False  # gone, damaged, or of a kind that only a reader of napari's knows
    return np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")


def _long(axes: str, shape: Sequence[int]) -> str:
    """Return the axes along which there is more than one."""
    return "".join(axis for axis, size in zip(axes, shape, strict=True) if size > 1)


def _part(array: Any, plane_axes: int) -> np.ndarray:
    """Load an array, or of a large one the middle of its middle plane; without axes of size 1."""
    from napari_cellda.core.tiles import middle_slice

    index: tuple[Any, ...] = (...,)
    if math.prod(array.shape) > MOST_COMPARED:
        planes, sides = array.shape[:-plane_axes], array.shape[-plane_axes:]
        index = (*(n // 2 for n in planes), *(middle_slice(n, SIDE_COMPARED) for n in sides))
    return np.squeeze(np.asarray(array[index]))


def _frozen(layer: Any, kind: Kind, image: Any) -> tuple[Any, dict[str, Any]]:
    """Return a layer's data and attributes, with an image's axes as the panel Paint takes them."""
    data, meta, _ = layer.as_layer_data_tuple()
    if kind == "image":
        return data, {**meta, "axis_labels": spatial_axes(layer)}
    if image is None:
        return data, meta
    axes = axes_of(image)
    own = labels_on(ImageChoice(image, axes, "all"), layer)
    if len(own.shape) == layer.ndim:
        return data, meta
    scale = [step for axis, step in zip(axes, layer.scale, strict=True) if axis != "c"]
    units = [unit for axis, unit in zip(axes, layer.units, strict=True) if axis != "c"]
    changed = {"axis_labels": axes.replace("c", ""), "scale": scale, "units": units}
    return own, {**meta, **changed, "multiscale": False}


def spatial_axes(layer: Any) -> str:
    """Return the axes of an Image layer; the colours of RGB are left out."""
    axes = axes_of(layer)
    return axes.removesuffix("c") if layer.rgb else axes


def layer_stems(layers: Sequence[Any]) -> list[str]:
    """Return a unique file name without ending for every layer, as core calls its file then.

    A single layer is called as the file that it comes from, which may stand for it; several are
    called by their names, where only what no disk takes is replaced.
    """
    if len(layers) == 1 and (source := getattr(layers[0].source, "path", None)):
        return [stem(source)]
    stems: list[str] = []
    for layer in layers:
        name = stem(f"{safe_stem(layer.name)}.tif")
        numbered = (f"{name}-{number}" for number in count(2))
        stems.append(name if name not in stems else next(n for n in numbered if n not in stems))
    return stems


def write_layer(data: Any, meta: dict[str, Any], kind: Kind, path: Path) -> None:
    """Write a layer of pixels as a TIFF."""
    from napari_cellda.core.atomic import make_folder
    from napari_cellda.ui.writers import write_image, write_labels

    make_folder(path.parent)
    (write_labels if kind == "labels" else write_image)(str(path), data, meta)


def points_on(layer: Any, image: Any = None) -> tuple[np.ndarray, str]:
    """Return where points lie in an image, as the user sees it, and along which axes.

    Parameters
    ----------
    layer : napari Points layer
        Points that were found in as many pixels as the image has belong to those, wherever they
        lie; others, such as of a binned image, to what lies below them.
    image : napari Image layer, optional
        None: it is in no layer, and the points are in its pixels as they are.

    Returns
    -------
    points : (n, d) ndarray
        A copy, in pixels.
    axes : str
        As many as coordinates, such as "zyx".
    """
    tag = layer.metadata.get(TAG, {})
    found = tag.get("axes")
    axes = (found or "tzyx") if image is None else spatial_axes(image)
    own = [k for k, axis in enumerate(found or "") if axis in COLUMNS]
    if own and (image is None or tag.get("plane") == plane_shape(image)):
        return layer.data[:, own], axes.replace("c", "")[-len(own) :]
    if image is None:
        return layer.data.copy(), axes[-layer.ndim :]
    # From one layer's pixels to the other's is an affine map: where the corners go tells it.
    corners = np.vstack([np.zeros(layer.ndim), np.eye(layer.ndim)])
    start, *ends = (image.world_to_data(layer.data_to_world(corner)) for corner in corners)
    both = min(layer.ndim, image.ndim)
    places = np.add(start, layer.data @ np.subtract(ends, start))
    if own:  # planes and time points pair by their numbers, as those of channels never do
        places = np.hstack([layer.data[:, own[:-2]], places[:, -2:]])
        return places, axes.replace("c", "")[-len(own) :]
    return places[:, -both:], axes[-both:]


def plane_shape(image: Any) -> tuple[int, ...]:
    """Return how many rows and columns an Image layer has."""
    sizes = dict(zip(spatial_axes(image), data_of(image).shape, strict=False))
    return sizes["y"], sizes["x"]


def _write_tables(
    names: Sequence[str],
    places: Sequence[tuple[np.ndarray, str]],
    folder: Path,
    stop: Stop = never,
) -> None:
    for name, (points, axes) in zip(names, places, strict=True):
        if stop():
            return
        write_points(points, axes, folder / f"{name}.csv")


def write_points(points: Any, axes: str, path: Path) -> None:
    """Write a table; of an axis that the image lacks, such as channels, there is no column.

    Points drawn while pictures of a run are shown have the axis of those in front, too.
    """
    from napari_cellda.core.atomic import write_atomically

    axes = axes[-points.shape[1] :]
    kept = [k - len(axes) for k, axis in enumerate(axes) if axis in COLUMNS]
    rows = [",".join(COLUMNS[axes[k]] for k in kept)]
    rows += [",".join(f"{point[k]:.3f}" for k in kept) for point in points]
    with write_atomically(path) as aside:
        aside.write_text("\n".join(rows) + "\n", encoding="utf-8")
