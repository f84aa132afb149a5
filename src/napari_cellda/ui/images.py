"""Choose an image of the viewer to work on; find its strokes; take masks over as strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.classifier import TILE_2D
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.images.label_arrays import read_region, write_region
from napari_cellda.core.tiles import grid
from napari_cellda.ui.axes import (
    ImageChoice,
    axes_of,
    default_channels,
    keep_axes,
    read_layer,
)
from napari_cellda.ui.classes import MAX_CLASSES, class_list
from napari_cellda.ui.layers import (
    STROKES_OPACITY,
    TAG,
    brush_size,
    labels_on,
    own_labels,
    stroke_colormap,
)
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from napari_cellda.core.events import Stop
    from napari_cellda.core.images import Image
    from napari_cellda.ui.state import Session


def image_layers(viewer: Any) -> list[Any]:
    """Return the viewer's Image layers that are not results of ours, top first."""
    from napari.layers import Image

    return [
        layer
        for layer in reversed(viewer.layers)
        if isinstance(layer, Image) and TAG not in layer.metadata
    ]


def mask_layers(session: Session) -> list[Any]:
    """Return the viewer's Labels layers that could be taken over as strokes, top first."""
    from napari.layers import Labels

    painted = session.current
    return [
        layer
        for layer in reversed(session.viewer.layers)
        if isinstance(layer, Labels)
        and TAG not in layer.metadata
        and (painted is None or layer is not painted.strokes)
    ]


def default_choice(layer: Any) -> ImageChoice:
    """Return the axes of a layer, chosen before or the likeliest, and its likeliest channels."""
    axes = axes_of(layer)
    return ImageChoice(layer, axes, default_channels(layer, axes))


def choose_image(session: Session, choice: ImageChoice | None) -> PaintedImage | None:
    """Make an image the current one, with its strokes layer if one is found in the viewer.

    Parameters
    ----------
    session : Session
    choice : ImageChoice or None
        None: no image. For an image that takes part already, other axes or channels replace the
        old ones; strokes stay as long as their shape does.

    Raises
    ------
    UserError
        If the layer cannot be used with these axes and channels.
    """
    if choice is None:
        session.use_image(None)
        return None
    old = next((p for p in session.images if p.layer is choice.layer), None)
    if old is not None and old.choice == choice and old.data is choice.layer.data:
        session.use_image(old)
        return old
    painted = PaintedImage(choice, read_layer(choice), data=choice.layer.data)
    keep_axes(choice.layer, choice.axes)
    if old is None:
        session.use_image(painted)
    else:
        _move_over(old, painted)
        session.replace_image(old, painted)
        session.use_image(painted)
    if painted.strokes is None:
        adopt_strokes(session, painted)
    if old is None:
        follow_data(session, choice.layer)
    return painted


def leave_unpainted(session: Session, painted: PaintedImage | None) -> None:
    """Forget an image that was chosen, perhaps by mistake, and never painted on."""
    if painted is None or painted is session.current or painted not in session.images:
        return
    if painted.strokes is not None and (painted.index is None or painted.index.snapshot()):
        return
    session.images.remove(painted)
    for layer in (painted.strokes, *painted.results.values()):
        if layer is not None and layer in session.viewer.layers:
            session.viewer.layers.remove(layer)
    session.image_changed.emit()


def follow_data(session: Session, layer: Any) -> None:
    """Read the image again when its layer gets other data."""

    def read_again(event: Any = None) -> None:
        painted = next((p for p in session.images if p.layer is layer), None)
        if painted is None or painted.data is layer.data:
            return
        try:
            choose_image(session, painted.choice)
        except UserError as error:
            session.report(error)

    layer.events.data.connect(read_again)


def _move_over(old: PaintedImage, new: PaintedImage) -> None:
    """Keep the strokes and result layers of an image that is read in another way now."""
    if old.strokes_array is not None and old.image.label_shape == new.image.label_shape:
        new.strokes, new.strokes_array = old.strokes, old.strokes_array
        new.results, new.arrays, new.levels = old.results, old.arrays, old.levels


def adopt_strokes(session: Session, painted: PaintedImage) -> Any:
    """Take a Labels layer of the viewer as the strokes of an image, if it says that it is.

    That is a layer called "Strokes · <image>" of the right shape, e.g. of a sample or a project;
    what is painted there in one channel has to count in all.
    """
    from napari.layers import Labels

    taken = [p.strokes for p in session.images]
    for layer in session.viewer.layers:
        named = layer.name == f"Strokes · {painted.name}"
        if not (named and isinstance(layer, Labels)) or any(layer is other for other in taken):
            continue
        array = own_labels(painted.choice, layer)
        if array is None or tuple(array.shape) != painted.image.label_shape:
            continue
        _take_layer(session, painted, layer, array)
        return layer
    return None


def _take_layer(session: Session, painted: PaintedImage, layer: Any, array: Any) -> None:
    names = layer.metadata.get("classes")
    if names and len(names) <= MAX_CLASSES and not _has_strokes(session):
        session.set_classes(class_list(tuple(names)))
    painted.strokes, painted.strokes_array = layer, array
    layer.metadata = {**layer.metadata, TAG: {"role": "strokes"}}
    layer.colormap = stroke_colormap(session)
    layer.opacity = STROKES_OPACITY
    layer.brush_size = brush_size(painted.image)
    session.image_changed.emit()


def _has_strokes(session: Session) -> bool:
    return any(p.index is not None and p.index.counts(1).sum() for p in session.images)


def take_over(session: Session, mask: Any, *, foreground_only: bool = False) -> None:
    """Take an existing mask or strokes layer over as strokes of the current image.

    Strokes that are there already are kept. Works in the background, since masks may be large.

    Parameters
    ----------
    session : Session
    mask : napari Labels layer
        Of the image's `label_shape`, or as the viewer needs it (`labels_on`). With no more values
        than there are classes, 0 becomes background and value k class k; otherwise (instances)
        everything but 0 is the first foreground class.
    foreground_only : bool
        Leave 0 unpainted.

    Raises
    ------
    UserError
        If the shape does not fit.
    """
    painted = session.require_current()
    data = labels_on(painted.choice, mask)
    if tuple(data.shape) != painted.image.label_shape:
        raise UserError(
            f"The mask '{mask.name}' has shape {tuple(data.shape)}, but '{painted.name}' needs "
            f"{painted.image.label_shape} ({painted.image.label_axes})."
        )
    LivePainter.of(session).start_strokes(painted)
    strokes, n_classes = painted.strokes_array, len(session.classes)
    session.say(f"Taking '{mask.name}' over as strokes...")

    def show(count: int) -> None:
        session.say("")
        if painted.strokes is not None and painted.strokes_array is strokes:
            painted.strokes.data = painted.strokes.data

    run_task(
        lambda stop: copy_mask(
            painted.image, data, strokes, n_classes, stop, foreground_only=foreground_only
        ),
        session=session,
        title="take mask over",
        on_result=show,
    )


def copy_mask(
    image: Image,
    mask: Any,
    strokes: Any,
    n_classes: int,
    stop: Stop = never,
    *,
    foreground_only: bool = False,
) -> int:
    """Write a mask into strokes where nothing is painted yet, as `take_over` says.

    Parameters
    ----------
    image : Image
    mask, strokes : integer arrays of the image's `label_shape`
        Numpy, dask or zarr; read and written tile by tile.
    n_classes : int
    stop : callable
        Asked before every tile.
    foreground_only : bool
        Leave 0 unpainted.

    Returns
    -------
    int
        Number of pixels painted.
    """
    tiles = [tile for t in range(image.n_times) for tile in grid(image.limits, TILE_2D, t)]
    peaks = (int(read_region(image, mask, tile).max()) for tile in tiles if not stop())
    largest = max(peaks, default=0)
    total = 0
    for tile in tiles:
        if stop():
            break
        values = read_region(image, mask, tile).astype(np.int64)
        ids = values + 1 if largest < n_classes else (values > 0) + 1
        if foreground_only:
            ids = np.where(values == 0, 0, ids)
        present = read_region(image, strokes, tile)
        free = (present == 0) & (ids > 0)
        total += int(free.sum())
        if free.any():
            write_region(image, strokes, tile, np.where(free, ids, present).astype(strokes.dtype))
    return total
