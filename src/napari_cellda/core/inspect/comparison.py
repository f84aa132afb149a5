"""One plane of two results side by side: its overlay, its errors from the worst on, its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.compare import (
    OVERLAY_VALUES,
    Matches,
    ObjectMatches,
    PixelCounts,
    boundary_overlay,
    instance_overlay,
    object_contours,
    pixel_overlay,
)
from napari_cellda.core.compare.matching import STATES
from napari_cellda.core.errors import UserError
from napari_cellda.core.inspect.maps import as_map, check_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["pixels", "objects", "boundaries"]
NAMES = {value: name for name, value in OVERLAY_VALUES.items()}
"""What an overlay's value is called."""
RIGHT = ("true negative", "true positive", "matched", "ignored")
"""What is no error."""
MOST_ERRORS = 1000
"""So many are listed, the worst."""


@dataclass(frozen=True)
class Comparing:
    """How two planes are compared."""

    kind: Kind = "pixels"
    threshold: float = 0.5
    """A map is foreground above it."""
    iou: float = 0.5
    """Objects match above it."""
    tolerance: float = 2.0
    """Pixels that two boundaries may be apart and still be one."""
    classes: bool = False
    """Whether labels are classes, so that the wrong class is an error; else they are objects."""
    membranes: bool = False
    """Whether the foreground itself is the boundary; else boundaries are the objects' outlines."""


@dataclass(frozen=True)
class PlaneError:
    """A region or an object that is wrong."""

    name: str
    """As the overlay calls it: "false negative", "missed", "split"..."""
    y: int
    x: int
    """A pixel inside it."""
    pixels: int
    weight: float
    """How bad it is, in pixels: its area, or of an object what no partner covers."""
    iou: float = 0.0
    """With its best partner; 0 without one, and of regions."""


def to_mask(values: NDArray[Any], name: str, threshold: float = 0.5) -> NDArray[Any]:
    """Read a plane as a mask: a map above the threshold, labels as they are.

    Raises
    ------
    UserError
        If a map has values outside [0, 1], or a label is negative.
    """
    if values.dtype.kind == "f":
        return np.asarray(as_map(values, name) > threshold)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise UserError(f"'{name}' holds the label {values.min()}; expected labels from 0.")
    return values


def to_labels(values: NDArray[Any], name: str, settings: Comparing) -> NDArray[Any]:
    """Read a plane as objects: labels as they are, of a mask or of classes their connected parts.

    Raises
    ------
    UserError
        See `to_mask`.
    """
    mask = to_mask(values, name, settings.threshold)
    if mask.dtype.kind != "b" and not settings.classes:
        return mask
    from skimage.measure import label

    return np.asarray(label(mask, connectivity=1))


@dataclass(frozen=True, eq=False)
class PlaneComparison:
    """Two (Y, X) planes, read as `settings` say; `compare_planes` makes it.

    What is slow is done once, when it is first asked for; another IoU then takes about a
    millisecond.
    """

    result: NDArray[Any] = field(repr=False)
    """(Y, X) mask, classes or objects."""
    reference: NDArray[Any] = field(repr=False)
    """The truth, or whatever the result is held against."""
    settings: Comparing
    _known: dict[float, Matches] = field(default_factory=dict, repr=False)
    """What matches at the IoU that was asked for last."""

    @cached_property
    def matches(self) -> ObjectMatches | None:
        """The objects and their partners; None unless objects are compared."""
        if self.settings.kind != "objects":
            return None
        return ObjectMatches.compute(self.result, self.reference)

    @cached_property
    def counts(self) -> PixelCounts:
        """Pixels of the foreground, whatever is compared."""
        return PixelCounts.of(self.result > 0, self.reference > 0)

    def at(self, iou: float) -> Matches | None:
        """Return what matches above an IoU; None unless objects are compared."""
        if self.matches is None:
            return None
        if iou not in self._known:
            self._known.clear()
            self._known[iou] = self.matches.at(iou)
        return self._known[iou]

    def overlay(self, iou: float) -> NDArray[np.uint8]:
        """Return the (Y, X) picture of right and wrong, in the values of `OVERLAY_VALUES`."""
        found = self.at(iou)
        if self.matches is not None and found is not None:
            return instance_overlay(self.matches, found)
        return self._fixed_overlay

    @cached_property
    def _fixed_overlay(self) -> NDArray[np.uint8]:
        if self.settings.kind == "boundaries":
            sides = (self.result, self.reference)
            found = [s > 0 if self.settings.membranes else object_contours(s) for s in sides]
            return boundary_overlay(found[0], found[1], self.settings.tolerance)
        if self.settings.classes and "b" not in self.result.dtype.kind + self.reference.dtype.kind:
            return pixel_overlay(self.result, self.reference)
        return pixel_overlay(self.result > 0, self.reference > 0)

    def errors(self, iou: float) -> list[PlaneError]:
        """List what is wrong, the worst first."""
        found = self._object_errors(iou) if self.matches is not None else self._region_errors
        return sorted(found, key=lambda error: -error.weight)[:MOST_ERRORS]

    @cached_property
    def _region_errors(self) -> list[PlaneError]:
        """Connected regions of one kind of error."""
        from skimage.measure import label

        overlay = self._fixed_overlay
        values = [v for name, v in OVERLAY_VALUES.items() if name not in RIGHT]
        wrong = np.where(np.isin(overlay, values), overlay, 0)
        regions = np.asarray(label(wrong, connectivity=2))
        found = []
        for y, x, pixels in _regions(regions):
            found.append(PlaneError(NAMES[int(overlay[y, x])], y, x, pixels, pixels))
        return found

    def _object_errors(self, iou: float) -> list[PlaneError]:
        """Return the unmatched objects of both sides; merged and split ones once."""
        matches, found = self.matches, self.at(iou)
        assert matches is not None
        assert found is not None
        spots = self._object_spots
        errors = []
        for side, states, ids, ious in (
            ("reference", found.truth_state, matches.truth_ids, matches.truth_iou),
            ("result", found.predicted_state, matches.predicted_ids, matches.predicted_iou),
        ):
            # A split object is listed on the reference's side, a merged one on the result's.
            elsewhere = "merged" if side == "reference" else "split"
            for state, label, best in zip(states, ids, ious, strict=True):
                name = STATES[state]
                if name not in ("matched", elsewhere):
                    y, x, pixels = spots[side][int(label)]
                    errors.append(PlaneError(name, y, x, pixels, pixels * (1 - best), float(best)))
        return errors

    @cached_property
    def _object_spots(self) -> dict[str, dict[int, tuple[int, int, int]]]:
        """A pixel inside each object and its area, by label, of both sides."""
        sides = {"reference": self.reference, "result": self.result}
        return {
            side: {int(labels[y, x]): (y, x, n) for y, x, n in _regions(labels)}
            for side, labels in sides.items()
        }

    def describe(self, y: int, x: int, iou: float) -> str:
        """Say in one line what is at a pixel: an object with its match, or a region."""
        name = NAMES[int(self.overlay(iou)[y, x])]
        if self.matches is None:
            return f"{name[0].upper()}{name[1:]} at row {y}, column {x}."
        if name == "true negative":
            return "No object here, on either side."
        told = [
            self._describe_object("Result", "reference", int(self.result[y, x])),
            self._describe_object("Reference", "result", int(self.reference[y, x])),
        ]
        return " ".join([f"{name[0].upper()}{name[1:]}.", *filter(None, told)])

    def _describe_object(self, side: str, other: str, label: int) -> str:
        matches = self.matches
        if not label or matches is None:
            return ""
        truth = matches.truth_ids, matches.truth_area, matches.truth_partner, matches.truth_iou
        mine = (
            matches.predicted_ids,
            matches.predicted_area,
            matches.predicted_partner,
            matches.predicted_iou,
        )
        own, partners = (mine, truth) if side == "Result" else (truth, mine)
        ids, area, partner, iou = own
        others = partners[0]
        i = int(np.searchsorted(ids, label))
        best = "no partner"
        if partner[i] >= 0:
            best = f"best partner: {other} object {others[partner[i]]}, IoU {iou[i]:.2f}"
        return f"{side} object {label} ({area[i]} px): {best}."


def compare_planes(
    result: NDArray[Any], reference: NDArray[Any], settings: Comparing, names: tuple[str, str]
) -> PlaneComparison:
    """Put two planes side by side.

    Parameters
    ----------
    result, reference : (Y, X) ndarray
        Maps of float in [0, 1], masks of bool, or labels from 0.
    settings : Comparing
    names : (str, str)
        What messages call them.

    Raises
    ------
    UserError
        If the shapes differ, a map leaves [0, 1], or a label is negative.
    """
    check_shapes(result, reference, names)
    as_objects = settings.kind == "objects" or (
        settings.kind == "boundaries" and not settings.membranes
    )
    sides = [
        to_labels(side, name, settings) if as_objects else to_mask(side, name, settings.threshold)
        for side, name in zip((result, reference), names, strict=True)
    ]
    return PlaneComparison(sides[0], sides[1], settings)


def _regions(labels: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Return a pixel inside each label, the nearest to its middle, and its area: (y, x, pixels)."""
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return []
    _, place = np.unique(labels[rows, columns], return_inverse=True)
    pixels = np.bincount(place)
    middle = [np.bincount(place, axis) / pixels for axis in (rows, columns)]
    distance = (rows - middle[0][place]) ** 2 + (columns - middle[1][place]) ** 2
    order = np.lexsort((distance, place))
    nearest = order[np.searchsorted(place[order], np.arange(len(pixels)))]
    return [(int(rows[i]), int(columns[i]), int(n)) for i, n in zip(nearest, pixels, strict=True)]
