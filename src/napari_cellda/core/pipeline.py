"""Forest and enhancer as one: the maps of a whole image, computed and written piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import Normalised, PixelClassifier, Stop, never
from napari_cellda.core.enhancer import merge_enhanced
from napari_cellda.core.enhancer.options import FLAT_RANGE, EnhancerOptions
from napari_cellda.core.events import Note, Stage, Step, Task
from napari_cellda.core.images.label_arrays import read_region, write_region
from napari_cellda.core.images.normalisation import Normalisation, measure_normalisation
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.tiles import Region, grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.images import Channels, Image

PIECE_2D = (1, 1024, 1024)
"""What is held in memory at a time while a whole image is written, (z, y, x) pixels."""
PIECE_3D = (32, 256, 256)


@dataclass(frozen=True)
class Maps:
    """The maps of one image, each with the image's own axes after the classes."""

    probability: Any
    """(K, ...) float32, sum 1: enhanced if there is an enhancer, else the forest's."""
    forest: Any | None = None
    """(K, ...) float32: the forest's own, where an enhancer changed it."""
    boundary: Any | None = None
    """(...) float32: the enhancer's second output, if it has one."""
    of_membranes: bool = False
    """Whether the foreground is the membranes between the objects, and not the objects."""


class MapMaker(Protocol):
    """What turns an image into maps: a trained forest, or a network."""

    @property
    def channels(self) -> Channels:
        """What `Image.select` is to be given."""

    def compute(
        self,
        image: Image,
        stack: ExitStack,
        folder: Path,
        *,
        normalisation: Normalisation | None = None,
        stop: Stop = never,
    ) -> Task[Maps]:
        """Compute all maps of an image.

        Parameters
        ----------
        image : Image
            With its channels selected.
        stack : ExitStack
            Closing it frees the maps.
        folder : Path
            Where maps too large for memory are kept meanwhile.
        normalisation : Normalisation, optional
            None: measured on this image.
        stop : callable
            Asked between pieces; what was not reached stays 0.

        Yields
        ------
        Stage, Step, Note
        """


@dataclass(frozen=True)
class Pipeline:
    """A trained forest and an optional enhancer."""

    classifier: PixelClassifier
    enhancer: Enhancer | None = None
    options: EnhancerOptions = field(default_factory=EnhancerOptions)

    @property
    def piece(self) -> tuple[int, int, int]:
        """The (z, y, x) size of the pieces in which an image is computed."""
        in_3d = self.classifier.spec.ndim == 3 or (self.enhancer and self.enhancer.card.ndim == 3)
        return PIECE_3D if in_3d else PIECE_2D

    @property
    def channels(self) -> Channels:
        """What `Image.select` is to be given."""
        return self.classifier.channels

    def compute(
        self,
        image: Image,
        stack: ExitStack,
        folder: Path,
        *,
        normalisation: Normalisation | None = None,
        stop: Stop = never,
    ) -> Task[Maps]:
        """Compute all maps of an image; see `MapMaker`."""
        self.classifier.check(image)
        normalisation = normalisation or measure_normalisation(image, self.classifier.normalisation)
        source = Normalised(image, normalisation)
        if source.normalisation.is_flat:
            yield Note(f"'{image.name}' is constant, so its map is flat.")

        def new_maps(*classes: int) -> Any:
            shape = (*classes, *image.label_shape)
            return stack.enter_context(scratch_array(shape, np.float32, folder))

        n_classes = self.classifier.n_classes
        forest_map = new_maps(n_classes)
        yield from _predict_forest(self, source, forest_map, stop)
        if self.enhancer is None:
            return Maps(forest_map)
        boundary_map = new_maps() if self.enhancer.card.n_outputs > 1 else None
        of_membranes = known_structure(self.enhancer.card.structure) == "boundaries"
        maps = Maps(new_maps(n_classes), forest_map, boundary_map, of_membranes)
        yield from _enhance(self, image, maps, stop)
        return maps


def _pieces(pipeline: Pipeline, image: Image) -> list[Region]:
    return [piece for t in range(image.n_times) for piece in grid(image.limits, pipeline.piece, t)]


def _predict_forest(
    pipeline: Pipeline, source: Normalised, forest_map: Any, stop: Stop
) -> Task[None]:
    pieces = _pieces(pipeline, source.image)
    yield Stage(f"Forest on {source.image.name}", len(pieces))
    may_be_invalid = np.issubdtype(source.image.data.dtype, np.floating)
    not_finite = 0
    for done, piece in enumerate(pieces, 1):
        if stop():
            return
        if may_be_invalid:
            _, valid_mask = source.read(piece)
            not_finite += int(np.count_nonzero(~valid_mask))
        found = pipeline.classifier.predict(source, piece, stop=stop)
        write_region(source.image, forest_map, piece, found)
        yield Step(done)
    if not_finite:
        yield Note(
            f"'{source.image.name}' has {not_finite} pixels that are NaN or infinite; "
            "they are background in the masks."
        )


def _enhance(pipeline: Pipeline, image: Image, maps: Maps, stop: Stop) -> Task[None]:
    assert pipeline.enhancer is not None
    k = pipeline.options.class_index
    pieces = _pieces(pipeline, image)

    def read_forest_map(region: Region) -> np.ndarray:
        return np.asarray(read_region(image, maps.forest, region)[k])

    value_range = None
    if pipeline.options.scale_range:
        value_range = map_range(read_forest_map, pieces)
        if value_range is None:
            yield Note(f"The forest's map of '{image.name}' is nearly flat and was not stretched.")
    yield Stage(f"Enhancer on {image.name}", len(pieces))
    for done, piece in enumerate(pieces, 1):
        enhanced = pipeline.enhancer.enhance_region(
            read_forest_map,
            piece,
            image.limits,
            scale_range=value_range,
            rescale=pipeline.options.rescale,
            stop=stop,
        )
        if enhanced is None:
            return
        merged = merge_enhanced(read_region(image, maps.forest, piece), enhanced[0], k)
        write_region(image, maps.probability, piece, merged)
        if maps.boundary is not None:
            write_region(image, maps.boundary, piece, enhanced[1])
        yield Step(done)


def map_range(
    read_map: Callable[[Region], np.ndarray], pieces: list[Region]
) -> tuple[float, float] | None:
    """Return the least and largest value of a map over `pieces`; None if it is nearly flat."""
    extremes = [(float(block.min()), float(block.max())) for block in map(read_map, pieces)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    return (low, high) if high - low >= FLAT_RANGE else None
