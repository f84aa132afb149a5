"""Which predicted object is which true one, at any IoU threshold, and the figures that follow.

The pairs are found once, best IoU first; a threshold then only says how far down the list counts.
Above an IoU of 0.5 a pair is the only possible one for both of its objects, so the order does not
matter there; below, it decides between rivals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cellda.core.compare.overlaps import Overlaps
from napari_cellda.core.compare.pixels import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = Literal["matched", "missed", "spurious", "split", "merged"]
MATCHED, MISSED, SPURIOUS, SPLIT, MERGED = range(5)
STATES: tuple[State, ...] = ("matched", "missed", "spurious", "split", "merged")
"""What a state's number means."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What is matched at one IoU threshold, and what became of the rest."""

    iou: float
    """The threshold: a pair matches above (>) it."""
    truth_state: NDArray[np.uint8]
    """(T,) MATCHED, MISSED, SPLIT or MERGED, in the order of `ObjectMatches.truth_ids`."""
    predicted_state: NDArray[np.uint8]
    """(P,) MATCHED, SPURIOUS, SPLIT or MERGED, in the order of `ObjectMatches.predicted_ids`."""

    @property
    def hits(self) -> int:
        """Number of matched pairs."""
        return int(np.count_nonzero(self.truth_state == MATCHED))

    @property
    def precision(self) -> float:
        """Share of the predicted objects that match; 1 when neither side has objects."""
        return ratio(self.hits, len(self.predicted_state), float(not len(self.truth_state)))

    @property
    def recall(self) -> float:
        """Share of the true objects that match; 1 when neither side has objects."""
        return ratio(self.hits, len(self.truth_state), float(not len(self.predicted_state)))

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN) over objects; 1 when neither side has objects."""
        return ratio(2 * self.hits, len(self.truth_state) + len(self.predicted_state), 1.0)

    def count(self, state: State) -> int:
        """Return the number of objects in a state: true ones, predicted ones if "spurious"."""
        where = self.predicted_state if state == "spurious" else self.truth_state
        return int(np.count_nonzero(where == STATES.index(state)))


@dataclass(frozen=True, eq=False)
class ObjectMatches:
    """The objects of two label images and all their possible matches.

    `ObjectMatches.compute` once, then `at` for every threshold: that takes microseconds.
    """

    overlaps: Overlaps
    truth_ids: NDArray[np.integer]
    """(T,) labels of the true objects, ascending."""
    predicted_ids: NDArray[np.integer]
    """(P,) labels of the predicted objects, ascending."""
    truth_area: NDArray[np.int64]
    """(T,) pixels."""
    predicted_area: NDArray[np.int64]
    """(P,) pixels."""
    pair_truth: NDArray[np.intp]
    """(N,) index of the true object, of every pair that shares pixels."""
    pair_predicted: NDArray[np.intp]
    """(N,) index of the predicted object."""
    pair_overlap: NDArray[np.int64]
    """(N,) shared pixels."""
    truth_iou: NDArray[np.float64]
    """(T,) IoU of each true object with its partner, 0 without."""
    predicted_iou: NDArray[np.float64]
    """(P,) IoU of each predicted object with its partner, 0 without."""
    truth_partner: NDArray[np.intp]
    """(T,) index of the predicted partner, -1 without."""
    predicted_partner: NDArray[np.intp]
    """(P,) index of the true partner, -1 without."""

    @classmethod
    def compute(
        cls,
        predicted_labels: NDArray[np.integer],
        truth_labels: NDArray[np.integer],
        ignore: NDArray[np.bool_] | None = None,
    ) -> ObjectMatches:
        """Match the objects of two label images.

        Parameters
        ----------
        predicted_labels, truth_labels : ndarray of int
            Same shape, any number of axes; 0 is background, numbers may have gaps.
        ignore : ndarray of bool, optional
            Pixels that are not scored; they count in no area.

        Raises
        ------
        UserError
            If the shapes differ or a label is negative.
        """
        return cls.of(Overlaps.of(predicted_labels, truth_labels, ignore))

    @classmethod
    def of(cls, overlaps: Overlaps) -> ObjectMatches:
        """Match from a table of overlaps, such as the sum over the planes of a stack."""
        truth_ids, truth_area = _areas(overlaps.truth, overlaps.count)
        predicted_ids, predicted_area = _areas(overlaps.predicted, overlaps.count)
        both = (overlaps.truth > 0) & (overlaps.predicted > 0)
        t = np.searchsorted(truth_ids, overlaps.truth[both])
        p = np.searchsorted(predicted_ids, overlaps.predicted[both])
        shared = overlaps.count[both]
        iou = shared / (truth_area[t] + predicted_area[p] - shared)
        partners = _pair_up(t, p, iou, len(truth_ids), len(predicted_ids))
        return cls(
            overlaps, truth_ids, predicted_ids, truth_area, predicted_area, t, p, shared, *partners
        )

    def at(self, iou: float) -> Matches:
        """Return what is matched above (>) an IoU in [0, 1).

        Notes
        -----
        An unmatched true object is *split* when at least two predicted objects lie in it, each
        with more than half of its area; those that are unmatched are "split", too. An unmatched
        predicted object is *merged* when at least two true objects lie in it in that sense; those
        that are unmatched are "merged", too, unless they are split. What is left is missed or
        spurious.
        """
        truth_state = np.where(self.truth_iou > iou, MATCHED, MISSED).astype(np.uint8)
        predicted_state = np.where(self.predicted_iou > iou, MATCHED, SPURIOUS).astype(np.uint8)
        t, p = self.pair_truth, self.pair_predicted
        truth_inside = 2 * self.pair_overlap > self.truth_area[t]
        predicted_inside = 2 * self.pair_overlap > self.predicted_area[p]
        merging = np.bincount(p[truth_inside], minlength=len(self.predicted_ids)) > 1
        splitting = np.bincount(t[predicted_inside], minlength=len(self.truth_ids)) > 1
        merging &= predicted_state != MATCHED
        splitting &= truth_state != MATCHED
        _mark(truth_state, t[truth_inside & merging[p]], MERGED)
        _mark(predicted_state, np.flatnonzero(merging), MERGED)
        _mark(predicted_state, p[predicted_inside & splitting[t]], SPLIT)
        _mark(truth_state, np.flatnonzero(splitting), SPLIT)
        return Matches(iou, truth_state, predicted_state)

    def dice_sums(self) -> NDArray[np.float64]:
        """Return area-weighted Dice and area, of the true and of the predicted objects.

        Returns
        -------
        (2, 2) ndarray
            Rows: true, predicted objects; columns: sum of area * Dice with the object of the
            largest intersection (the smaller label of equals; 0 without), sum of areas. Sums of
            several images add up; see `instance_dice`.
        """
        t, p, shared = self.pair_truth, self.pair_predicted, self.pair_overlap
        dice = 2 * shared / (self.truth_area[t] + self.predicted_area[p])
        return np.array(
            [
                [(self.truth_area[t] * dice)[_largest(t, p, shared)].sum(), self.truth_area.sum()],
                [
                    (self.predicted_area[p] * dice)[_largest(p, t, shared)].sum(),
                    self.predicted_area.sum(),
                ],
            ]
        )


def instance_dice(sums: NDArray[np.float64]) -> float:
    """Return the instance Dice [1]_ of one image or of several pooled.

    Parameters
    ----------
    sums : (2, 2) ndarray
        `ObjectMatches.dice_sums`, added up over the images.

    Returns
    -------
    float
        The mean over both directions of the area-weighted Dice of every object with the object
        that it shares most pixels with (Eq. 15); 1 when neither side has objects, 0 when one has.

    References
    ----------
    .. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing".
    """
    if not sums[:, 1].any():
        return 1.0
    return float(np.mean([ratio(part, area, 0.0) for part, area in sums]))


def _areas(
    labels: NDArray[np.integer], count: NDArray[np.int64]
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Return the labels from 1 that occur in a table, ascending, and their pixels."""
    ids, place = np.unique(labels, return_inverse=True)
    area = np.bincount(place, count, len(ids)).astype(np.int64)
    return ids[ids > 0], area[ids > 0]


def _pair_up(
    t: NDArray[np.intp], p: NDArray[np.intp], iou: NDArray[np.float64], n_truth: int, n_pred: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Pair objects one to one, best IoU first (the smaller labels of equals)."""
    truth_iou, predicted_iou = np.zeros(n_truth), np.zeros(n_pred)
    truth_partner, predicted_partner = np.full(n_truth, -1), np.full(n_pred, -1)
    for i in np.lexsort((p, t, -iou)):
        a, b = t[i], p[i]
        if truth_partner[a] < 0 and predicted_partner[b] < 0:
            truth_partner[a], predicted_partner[b] = b, a
            truth_iou[a] = predicted_iou[b] = iou[i]
    return truth_iou, predicted_iou, truth_partner, predicted_partner


def _largest(
    one: NDArray[np.intp], other: NDArray[np.intp], shared: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return, of each `one`, the pair with the largest overlap; the smallest `other` of equals."""
    order = np.lexsort((other, -shared, one))
    return order[np.unique(one[order], return_index=True)[1]]


def _mark(states: NDArray[np.uint8], where: NDArray[np.intp], state: int) -> None:
    """Give unmatched objects a state."""
    states[where[states[where] != MATCHED]] = state
