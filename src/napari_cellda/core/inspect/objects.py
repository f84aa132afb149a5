"""The objects of a plane or of a whole stack: which match, which are wrong, where to look."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare import Matches, ObjectMatches, Overlaps
from napari_cellda.core.compare.matching import MATCHED, MERGED, SPLIT, STATES
from napari_cellda.core.compare.overlaps import Spots
from napari_cellda.core.events import Stage, Step, never

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_cellda.core.events import Stop, Task

MOST_ERRORS = 1000
"""So many are listed, the worst."""


@dataclass(frozen=True)
class PlaneError:
    """A region or an object that is wrong."""

    name: str
    """As the overlay calls it: "false negative", "missed", "split"..."""
    y: int
    x: int
    """A pixel inside it."""
    pixels: int
    """Of an object of a stack its voxels."""
    weight: float
    """How bad it is, in pixels: its area, or of an object what no partner covers."""
    iou: float = 0.0
    """With its best partner; 0 without one, and of regions."""
    plane: int | None = None
    """Where an object of a stack is largest; None: in the plane that was compared."""
    area: int = 0
    """Pixels in that plane."""


@dataclass(frozen=True, eq=False)
class Side:
    """The objects of the result or of the reference; all arrays are in one order."""

    name: str
    ids: NDArray[np.integer]
    area: NDArray[np.int64]
    partner: NDArray[np.intp]
    """Index of the partner on the other side, -1 without."""
    iou: NDArray[np.float64]
    """With the partner."""
    spots: Spots


@dataclass(frozen=True, eq=False)
class ObjectComparison:
    """The objects of two label planes, or of two stacks of them, and their partners."""

    matches: ObjectMatches
    truth_spots: Spots
    predicted_spots: Spots
    is_stack: bool = False
    """Whether the objects go through the planes of a stack."""
    _known: dict[float, Matches] = field(default_factory=dict, repr=False)
    """What matches at the IoU that was asked for last."""

    @classmethod
    def of_plane(cls, overlaps: Overlaps) -> ObjectComparison:
        """Match the objects of one plane."""
        return cls(ObjectMatches.of(overlaps), *_spots(overlaps))

    @property
    def reference(self) -> Side:
        """The true objects, or whatever the result is held against."""
        m = self.matches
        parts = m.truth_ids, m.truth_area, m.truth_partner, m.truth_iou
        return Side("reference", *parts, self.truth_spots)

    @property
    def result(self) -> Side:
        """The objects that are judged."""
        m = self.matches
        parts = m.predicted_ids, m.predicted_area, m.predicted_partner, m.predicted_iou
        return Side("result", *parts, self.predicted_spots)

    def at(self, iou: float) -> Matches:
        """Return what matches above an IoU."""
        found = self._known.get(iou)
        if found is None:  # and another thread may ask for another IoU meanwhile
            found = self.matches.at(iou)
            self._known.clear()
            self._known[iou] = found
        return found

    def knows(self, plane: Overlaps) -> bool:
        """Whether all objects of a plane are among these."""
        sides = ((plane.truth, self.reference), (plane.predicted, self.result))
        return all(np.isin(labels, np.append(side.ids, 0)).all() for labels, side in sides)

    def errors(self, iou: float) -> list[PlaneError]:
        """List the objects of both sides that do not match, the worst first."""
        found = self.at(iou)
        # A split object is listed on the reference's side, a merged one on the result's.
        errors = self._errors_of(self.reference, found.truth_state, elsewhere=MERGED)
        errors += self._errors_of(self.result, found.predicted_state, elsewhere=SPLIT)
        return sorted(errors, key=lambda error: -error.weight)[:MOST_ERRORS]

    def _errors_of(self, side: Side, states: NDArray[np.uint8], elsewhere: int) -> list[PlaneError]:
        weight, spots = side.area * (1 - side.iou), side.spots
        wrong = np.flatnonzero((states != MATCHED) & (states != elsewhere))
        worst = wrong[np.argsort(-weight[wrong], kind="stable")][:MOST_ERRORS]
        return [
            PlaneError(
                STATES[states[i]],
                int(spots.y[i]),
                int(spots.x[i]),
                int(side.area[i]),
                float(weight[i]),
                float(side.iou[i]),
                int(spots.plane[i]) if self.is_stack else None,
                int(spots.area[i]),
            )
            for i in worst
        ]

    def describe(self, result: int, reference: int) -> str:
        """Say of two objects, by their labels, which partners they have; 0 is none."""
        sides = self.result, self.reference
        told = [
            self._describe(label, *pair)
            for label, pair in zip((result, reference), (sides, sides[::-1]), strict=True)
            if label
        ]
        return " ".join(told)

    def _describe(self, label: int, side: Side, other: Side) -> str:
        i = int(np.searchsorted(side.ids, label))
        best = "no partner"
        if side.partner[i] >= 0:
            partner = other.ids[side.partner[i]]
            best = f"best partner: {other.name} object {partner}, IoU {side.iou[i]:.2f}"
        unit = "voxels" if self.is_stack else "px"
        return f"{side.name.capitalize()} object {label} ({side.area[i]} {unit}): {best}."


def match_stack(
    planes: Iterable[Overlaps], count: int, *, stop: Stop = never
) -> Task[ObjectComparison | None]:
    """Match objects that go through the planes of a stack, of which one is in memory at a time.

    Parameters
    ----------
    planes : iterable of Overlaps
        Of the (Y, X) labels of every plane, from the first to the last, with their runs.
    count : int
        How many there are.
    stop : callable
        Asked before every plane.

    Yields
    ------
    Stage, Step

    Returns
    -------
    ObjectComparison or None
        None when stopped.
    """
    yield Stage("Match objects through the planes", count)
    tables, truth_spots, predicted_spots = [], [], []
    for done, overlaps in enumerate(planes, 1):
        if stop():
            return None
        tables.append(replace(overlaps, runs=None))
        of_truth, of_predicted = _spots(overlaps)
        truth_spots.append(of_truth)
        predicted_spots.append(of_predicted)
        yield Step(done)
    spots = Spots.of_stack(truth_spots), Spots.of_stack(predicted_spots)
    return ObjectComparison(ObjectMatches.of(Overlaps.total(tables)), *spots, is_stack=True)


def _spots(overlaps: Overlaps) -> tuple[Spots, Spots]:
    assert overlaps.runs is not None, "a plane's table knows where its pairs lie"
    return overlaps.runs.spots(overlaps.truth), overlaps.runs.spots(overlaps.predicted)
