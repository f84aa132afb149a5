"""The figures of one image, plane by plane."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare.detection import Detections
from napari_cellda.core.compare.matching import ObjectMatches, instance_dice
from napari_cellda.core.compare.overlaps import Overlaps
from napari_cellda.core.compare.partition import vi_of
from napari_cellda.core.compare.pixels import PixelCounts, ratio
from napari_cellda.core.compare.reading import n_planes, read_pair
from napari_cellda.core.compare.surface import asd, hd95, surface_distances
from napari_cellda.core.events import Step, never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.compare.reading import PlanePair, Scheme
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image

PIXEL_KEYS = ("iou", "dice", "precision", "recall")
SURFACE_KEYS = ("hd95", "asd")
AP_KEYS = ("ap50", "ap75", "map")
KEYS = (*PIXEL_KEYS, *SURFACE_KEYS, *AP_KEYS, "instance_dice", "f1_50", "vi_split", "vi_merge")
"""All figures; those that a kind does not give, or that are undefined, are nan."""
LOWER_IS_BETTER = ("hd95", "asd", "vi_split", "vi_merge")
MATCH_IOU = 0.5
"""Objects match above this IoU in F1 and in overlays."""

Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class of one image."""

    figures: Figures
    counts: PixelCounts
    predicted_sizes: NDArray[np.float64]
    """(P,) areas or volumes of the objects, in the image's `size_unit`."""
    truth_sizes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The figures of one image."""

    name: str
    unit: str
    """Of HD95 and ASD; "pixel" when unknown."""
    size_unit: str
    """Of the sizes of objects: the unit with ² or, for objects of stacks, ³."""
    figures: Figures
    """By `KEYS`; means over the classes."""
    classes: dict[int, ClassResult]
    slices: tuple[Figures, ...]
    """Of each plane, in stacks and time series."""
    detections: Detections | None
    """None without scores."""
    dice_sums: NDArray[np.float64]
    """To be added up over images; see `ObjectMatches.dice_sums`."""


@dataclass(eq=False)
class _ClassTally:
    """What the planes of one class add up to."""

    counts: PixelCounts = field(default_factory=PixelCounts)
    distances: list[NDArray[np.float32]] = field(default_factory=list)
    predicted_sizes: list[NDArray[np.int64]] = field(default_factory=list)
    truth_sizes: list[NDArray[np.int64]] = field(default_factory=list)

    def figures(self) -> Figures:
        pooled = np.concatenate([np.zeros(0, np.float32), *self.distances])
        return asdict(self.counts.scores) | {"hd95": hd95(pooled), "asd": asd(pooled)}

    def add(self, other: _ClassTally) -> None:
        self.counts += other.counts
        self.distances += other.distances
        self.predicted_sizes += other.predicted_sizes
        self.truth_sizes += other.truth_sizes


def score_image(
    name: str,
    predicted: Image,
    truth: Image,
    scheme: Scheme,
    *,
    scores: Mapping[int, float] | None = None,
    pixel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
    see: Callable[[int, PlanePair, Overlaps | None], None] | None = None,
    first_step: int = 1,
    stop: Stop = never,
) -> Task[ImageResult | None]:
    """Score one image plane by plane.

    Parameters
    ----------
    name : str
    predicted, truth : Image
        As `open_planes` or `image_from_array` give them; only one plane at a time is in memory.
    scheme : Scheme
    scores : mapping of object label to float, optional
        Of the predicted objects, for average precision.
    pixel_size : sequence of float
        Extent of a pixel along (z, y, x), in `unit`.
    unit : str
    see : callable, optional
        Told of every plane: its index, the pair, and the overlaps of its objects.
    first_step : int
        Number of the step that the first plane is.
    stop : callable
        Asked before every plane.

    Yields
    ------
    Step
        After every plane.

    Returns
    -------
    ImageResult or None
        None when stopped.

    Raises
    ------
    UserError
        If the files hold something other than the scheme says.

    Notes
    -----
    In a stack, pixels are counted over all planes, distances are measured in the plane and pooled,
    and objects are matched in three dimensions. The frames of a time series have their own
    objects each, as have the planes of a stack that is compared by its boundaries.
    """
    n_slices = min(predicted.limits[0], truth.limits[0])  # 1 when either says that it is time
    several = n_planes(truth) > 1
    tally = _ImageTally(scheme, pixel_size, scores)
    for index in range(n_planes(truth)):
        if stop():
            return None
        pair = read_pair(predicted, truth, index, scheme)
        overlaps = _overlaps(pair, scheme)
        apart = index % n_slices == 0 or scheme.kind == "boundary"
        tally.add(pair, overlaps, apart=apart, as_slice=several)
        if see is not None:
            see(index, pair, overlaps)
        yield Step(first_step + index)
    return tally.result(name, unit)


class _ImageTally:
    """What the planes of one image add up to."""

    def __init__(
        self, scheme: Scheme, pixel_size: Sequence[float], scores: Mapping[int, float] | None
    ) -> None:
        self._scheme, self._pixel_size, self._scores = scheme, pixel_size, scores
        self._classes = {index: _ClassTally() for index in scheme.classes}
        self._tables: list[list[Overlaps]] = []
        """Of the planes that share their objects."""
        self._slices: list[Figures] = []

    def add(
        self, pair: PlanePair, overlaps: Overlaps | None, *, apart: bool, as_slice: bool
    ) -> None:
        """Count a plane.

        Parameters
        ----------
        pair : PlanePair
        overlaps : Overlaps, optional
            Of its objects.
        apart : bool
            Whether its objects are others than those of the plane before.
        as_slice : bool
            Whether to keep its own figures.
        """
        spacing = self._pixel_size[-2:]
        plane = {c: _score_class(pair, c, self._scheme, spacing) for c in self._classes}
        for c, tally in plane.items():
            self._classes[c].add(tally)
        if overlaps is not None:
            if apart:
                self._tables.append([])
            self._tables[-1].append(replace(overlaps, runs=None))  # which are many in long stacks
        if as_slice:
            objects = [] if overlaps is None else [ObjectMatches.of(overlaps)]
            self._slices.append(_image_figures(plane, objects, self._scores))

    def result(self, name: str, unit: str) -> ImageResult:
        """Return the figures of all planes."""
        objects = [ObjectMatches.of(Overlaps.total(table)) for table in self._tables]
        solid = bool(self._tables) and len(self._tables[0]) > 1
        size = self._pixel_size if solid else self._pixel_size[-2:]
        return ImageResult(
            name,
            unit,
            f"{unit}{'³' if solid else '²'}",
            _image_figures(self._classes, objects, self._scores),
            _class_results(self._classes, objects, self._scores, size),
            tuple(self._slices),
            _detections(objects, self._scores),
            _dice_sums(objects),
        )


def _overlaps(pair: PlanePair, scheme: Scheme) -> Overlaps | None:
    if pair.predicted_labels is None or pair.truth_labels is None:
        return None
    ignore = pair.ignore
    if scheme.kind == "boundary":  # what is boundary in the truth belongs to nobody
        membrane = pair.truth_labels == 0
        ignore = membrane if ignore is None else membrane | ignore
    return Overlaps.of(pair.predicted_labels, pair.truth_labels, ignore)


def _score_class(
    pair: PlanePair, index: int, scheme: Scheme, spacing: Sequence[float]
) -> _ClassTally:
    predicted, truth = pair.predicted_mask == index, pair.truth_mask == index
    tally = _ClassTally(PixelCounts.of(predicted, truth, pair.ignore))
    tally.distances.append(surface_distances(predicted, truth, spacing=spacing, ignore=pair.ignore))
    if scheme.kind == "semantic":
        tally.predicted_sizes.append(_part_sizes(predicted, pair.ignore))
        tally.truth_sizes.append(_part_sizes(truth, pair.ignore))
    return tally


def _part_sizes(mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the pixels of every 4-connected part of a mask."""
    from bioimage_cpp.segmentation import label

    parts = label(mask if ignore is None else mask & ~ignore, connectivity=1)
    return np.bincount(np.ravel(parts))[1:]


def _image_figures(
    classes: Mapping[int, _ClassTally],
    objects: Sequence[ObjectMatches],
    scores: Mapping[int, float] | None,
) -> Figures:
    """Average over the classes where a figure is defined, and add those of the objects."""
    per_class = [tally.figures() for tally in classes.values()]
    found = dict.fromkeys(KEYS, float("nan"))
    for key in (*PIXEL_KEYS, *SURFACE_KEYS):
        values = [figures[key] for figures in per_class if np.isfinite(figures[key])]
        found[key] = float(np.mean(values)) if values else float("nan")
    return found | object_figures(objects, scores)


def object_figures(
    objects: Sequence[ObjectMatches], scores: Mapping[int, float] | None = None
) -> Figures:
    """Return the figures of objects: Dice, F1, variation of information and, with scores, AP.

    Parameters
    ----------
    objects : sequence of ObjectMatches
        Of an image, or of its parts that have objects of their own: they are pooled.
    scores : mapping of object label to float, optional
    """
    if not objects:
        return {}
    found = [matches.at(MATCH_IOU) for matches in objects]
    n_objects = sum(len(f.truth_state) + len(f.predicted_state) for f in found)
    figures = {
        "instance_dice": instance_dice(_dice_sums(objects)),
        "f1_50": ratio(2 * sum(f.hits for f in found), n_objects, 1.0),
        **_pooled_vi(objects),
    }
    detections = _detections(objects, scores)
    return figures | (detections.figures if detections is not None else {})


def _pooled_vi(objects: Sequence[ObjectMatches]) -> Figures:
    """Weigh the entropies of the parts by their pixels: that of all, as they share no object."""
    tables = [matches.overlaps.without_truth(0) for matches in objects]
    weights = [int(table.count.sum()) for table in tables]
    parts = [vi_of(table) for table, weight in zip(tables, weights, strict=True) if weight]
    if not parts:
        return {"vi_split": float("nan"), "vi_merge": float("nan")}
    split, merge = np.average(parts, axis=0, weights=[w for w in weights if w])
    return {"vi_split": float(split), "vi_merge": float(merge)}


def _detections(
    objects: Sequence[ObjectMatches], scores: Mapping[int, float] | None
) -> Detections | None:
    if scores is None or not objects:
        return None
    return Detections.pool([Detections.of(matches, scores) for matches in objects])


def _dice_sums(objects: Sequence[ObjectMatches]) -> NDArray[np.float64]:
    return sum((matches.dice_sums() for matches in objects), start=np.zeros((2, 2)))


def _class_results(
    classes: Mapping[int, _ClassTally],
    objects: Sequence[ObjectMatches],
    scores: Mapping[int, float] | None,
    pixel_size: Sequence[float],
) -> dict[int, ClassResult]:
    pixel = float(np.prod(pixel_size))
    results = {}
    for index, tally in classes.items():
        predicted, truth = tally.predicted_sizes, tally.truth_sizes
        if objects:
            predicted = [matches.predicted_area for matches in objects]
            truth = [matches.truth_area for matches in objects]
        results[index] = ClassResult(
            dict.fromkeys(KEYS, float("nan")) | tally.figures() | object_figures(objects, scores),
            tally.counts,
            np.concatenate([np.zeros(0), *predicted]) * pixel,
            np.concatenate([np.zeros(0), *truth]) * pixel,
        )
    return results
