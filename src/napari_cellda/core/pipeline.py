"""Forest and enhancer as one: the maps of a whole image, computed and written piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import Normalised, PixelClassifier
from napari_cellda.core.enhancer import merge_enhanced
from napari_cellda.core.enhancer.options import FLAT_RANGE, EnhancerOptions
from napari_cellda.core.events import Note, Stage, Step, Stop, Task, never
from napari_cellda.core.images.label_arrays import read_region, write_region
from napari_cellda.core.images.normalisation import Normalisation, measure_normalisation
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.tiles import Region, Spot, grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.instances.drawn import DrawnObjects

PIECE_2D = (1, 1024, 1024)
"""What is held in memory at a time while a whole image is written, (z, y, x) pixels."""
PIECE_3D = (32, 256, 256)


def pieces_of(image: Image, shape: Spot = PIECE_2D) -> list[Region]:
    """Return the pieces in which an image is computed or written, all times, in scan order."""
    return [piece for t in range(image.n_times) for piece in grid(image.limits, shape, t)]


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
    drawn: DrawnObjects | None = None
    """The objects that the network finds itself; None: they are to be made of the maps."""

    def classes(self, image: Image, region: Region) -> np.ndarray:
        """Return the likeliest class of each pixel, (Z, Y, X) uint8; the first one of a tie."""
        found = read_region(image, self.probability, region).argmax(axis=0)
        return np.asarray(found, np.uint8)


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
        source = self.prepare(image, normalisation)
        if source.normalisation.is_flat:
            yield Note(f"'{image.name}' is constant, so its map is flat.")
        maps = self.new_maps(image, stack, folder)
        yield from _predict_forest(self, source, maps, stop)
        if self.enhancer is not None:
            yield from _enhance(self, image, maps, stop)
        return maps

    def prepare(self, image: Image, normalisation: Normalisation | None = None) -> Normalised:
        """Check that an image fits the forest, and measure it unless that was done before."""
        self.classifier.check(image)
        kind = self.classifier.normalisation
        return Normalised(image, normalisation or measure_normalisation(image, kind))

    def new_maps(self, image: Image, stack: ExitStack, folder: Path) -> Maps:
        """Make room for all maps of an image; closing `stack` frees it."""

        def room(*classes: int) -> Any:
            shape = (*classes, *image.label_shape)
            return stack.enter_context(scratch_array(shape, np.float32, folder))

        n_classes = self.classifier.n_classes
        if self.enhancer is None:
            return Maps(room(n_classes))
        boundary_map = room() if self.enhancer.card.n_outputs > 1 else None
        of_membranes = known_structure(self.enhancer.card.structure) == "boundaries"
        return Maps(room(n_classes), room(n_classes), boundary_map, of_membranes)

    def pieces(self, image: Image) -> list[Region]:
        """Return the pieces in which an image is computed, in scan order."""
        return pieces_of(image, self.piece)

    def forest_piece(
        self, source: Normalised, piece: Region, stop: Stop = never
    ) -> tuple[np.ndarray, int]:
        """Return the forest's map of one piece, (K, Z, Y, X), and its count of invalid pixels."""
        return self.classifier.predict(source, piece, stop=stop), source.count_invalid(piece)

    def enhanced_piece(
        self,
        read_forest: Callable[[Region], np.ndarray],
        piece: Region,
        limits: Spot,
        *,
        value_range: tuple[float, float] | None = None,
        stop: Stop = never,
    ) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Enhance one piece of a forest's map.

        Parameters
        ----------
        read_forest : callable
            Gives the (K, Z, Y, X) map of a region.
        piece : Region
        limits : tuple of int
            Size of the image, (Z, Y, X).
        value_range : (float, float), optional
            What is stretched to [0, 1].
        stop : callable

        Returns
        -------
        probability : (K, Z, Y, X) ndarray of float32
        boundary : (Z, Y, X) ndarray of float32, or None
            Both None, as one, when stopped.
        """
        assert self.enhancer is not None
        k = self.options.class_index
        found = self.enhancer.enhance_region(
            lambda region: read_forest(region)[k],
            piece,
            limits,
            scale_range=value_range,
            rescale=self.options.rescale,
            stop=stop,
        )
        if found is None:
            return None
        boundary_map = found[1] if self.enhancer.card.n_outputs > 1 else None
        return merge_enhanced(read_forest(piece), found[0], k), boundary_map


def _predict_forest(pipeline: Pipeline, source: Normalised, maps: Maps, stop: Stop) -> Task[None]:
    image, pieces = source.image, pipeline.pieces(source.image)
    forest_map = maps.probability if maps.forest is None else maps.forest
    yield Stage(f"Forest on {image.name}", len(pieces))
    not_finite = 0
    for done, piece in enumerate(pieces, 1):
        if stop():
            return
        found, invalid = pipeline.forest_piece(source, piece, stop)
        write_region(image, forest_map, piece, found)
        not_finite += invalid
        yield Step(done)
    yield from note_invalid(image, not_finite)


def note_invalid(image: Image, not_finite: int) -> Iterator[Note]:
    """Say how many pixels hold no number, if there are any."""
    if not_finite:
        yield Note(
            f"'{image.name}' has {not_finite} pixels that are NaN or infinite; "
            "they are background in the masks."
        )


def _enhance(pipeline: Pipeline, image: Image, maps: Maps, stop: Stop) -> Task[None]:
    pieces = pipeline.pieces(image)

    def read_forest(region: Region) -> np.ndarray:
        return read_region(image, maps.forest, region)

    value_range = None
    if pipeline.options.scale_range:
        k = pipeline.options.class_index
        value_range = map_range(lambda region: read_forest(region)[k], pieces)
        yield from note_flat(image, value_range)
    yield Stage(f"Enhancer on {image.name}", len(pieces))
    for done, piece in enumerate(pieces, 1):
        found = pipeline.enhanced_piece(
            read_forest, piece, image.limits, value_range=value_range, stop=stop
        )
        if found is None:
            return
        write_enhanced(image, maps, piece, found)
        yield Step(done)


def write_enhanced(
    image: Image, maps: Maps, piece: Region, found: tuple[np.ndarray, np.ndarray | None]
) -> None:
    """Put what `Pipeline.enhanced_piece` found where it belongs."""
    write_region(image, maps.probability, piece, found[0])
    if found[1] is not None:
        write_region(image, maps.boundary, piece, found[1])


def map_range(
    read_map: Callable[[Region], np.ndarray], pieces: Iterable[Region]
) -> tuple[float, float] | None:
    """Return the least and largest value of a map over `pieces`; None if it is nearly flat."""
    return common_range(block_range(read_map(piece)) for piece in pieces)


def block_range(block: np.ndarray) -> tuple[float, float]:
    """Return the least and largest value of a part of a map."""
    return float(block.min()), float(block.max())


def common_range(ranges: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    """Join the ranges of the parts of a map; None if it is nearly flat."""
    lows, highs = zip(*ranges, strict=True)
    low, high = min(lows), max(highs)
    return (low, high) if high - low >= FLAT_RANGE else None


def note_flat(image: Image, value_range: tuple[float, float] | None) -> Iterator[Note]:
    """Say that a map was not stretched, if it was not."""
    if value_range is None:
        yield Note(f"The forest's map of '{image.name}' is nearly flat and was not stretched.")
