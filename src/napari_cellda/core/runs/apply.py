"""A model on one image: its maps, and the classes or the objects that they show."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.events import Stage, Step, never
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.instances.whole_image import find_instances
from napari_cellda.core.pipeline import pieces_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import DTypeLike

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.pipeline import MapMaker, Maps
    from napari_cellda.core.tiles import Region


@dataclass(frozen=True, eq=False)
class Applied:
    """What a model shows of one image; arrays larger than memory lie in files without a name."""

    maps: Maps
    labels: Any
    """Of the image's `label_shape`, 0 = background: uint32 objects, or uint8 classes."""
    table: dict[str, np.ndarray] | None = None
    """One row per object, see `find_instances`; None for classes."""


def finds_objects(card: ModelCard) -> bool:
    """Whether a network finds objects itself, or separates those that touch by a boundary map."""
    return card.output_kind == "instances" or "boundary" in card.output_names[1:]


def apply_model(
    maker: MapMaker, image: Image, folder: Path, *, objects: bool, stop: Stop = never
) -> Task[Applied | None]:
    """Run a model on all planes and time points of an image, piece by piece.

    Parameters
    ----------
    maker : MapMaker
    image : Image
        With all its channels: those that the model takes are selected here.
    folder : Path
        For arrays larger than memory; may be removed afterwards.
    objects : bool
        Whether the labels are objects; else they are classes.
    stop : callable
        Asked between pieces.

    Yields
    ------
    Stage, Step, Note

    Returns
    -------
    Applied or None
        None when stopped.

    Raises
    ------
    UserError
        If the image does not suit the model, or the disk is full.
    """
    image = image.select(maker.channels)
    with ExitStack() as stack:
        maps = yield from maker.compute(image, stack, folder, stop=stop)
        return (yield from label_maps(image, maps, folder, objects=objects, stop=stop))


def label_maps(
    image: Image, maps: Maps, folder: Path, *, objects: bool, stop: Stop = never
) -> Task[Applied | None]:
    """Make objects or classes of the maps of an image; see `apply_model`."""
    if stop():
        return None
    if not objects:
        labels = yield from by_pieces(image, np.uint8, folder, partial(maps.classes, image), stop)
        return None if labels is None else Applied(maps, labels)
    with scratch_array(image.label_shape, np.uint32, folder) as instances:
        table = yield from find_instances(image, maps, InstanceParams(), instances, stop=stop)
    return None if stop() else Applied(maps, instances, table)


def by_pieces(
    image: Image,
    dtype: DTypeLike,
    folder: Path,
    read: Callable[[Region], np.ndarray],
    stop: Stop = never,
) -> Task[Any]:
    """Fill an array of an image's `label_shape` piece by piece.

    Parameters
    ----------
    image : Image
    dtype : dtype
    folder : Path
        For an array larger than memory.
    read : callable
        Gives the (Z, Y, X) block of a region.
    stop : callable

    Returns
    -------
    ndarray, MappedArray or None
        None when stopped.
    """
    pieces = pieces_of(image)
    yield Stage(f"Reading the maps of {image.name}", len(pieces))
    with scratch_array(image.label_shape, dtype, folder) as room:
        for done, piece in enumerate(pieces, 1):
            if stop():
                return None
            write_region(image, room, piece, read(piece))
            yield Step(done)
    return room
