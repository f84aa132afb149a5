"""Pixel figures of two masks: IoU, Dice, precision, recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class PixelScores:
    """Pixel figures of one image, each in [0, 1]."""

    iou: float
    dice: float
    """Also the pixel F1."""
    precision: float
    recall: float


@dataclass(frozen=True)
class PixelCounts:
    """How many pixels two masks share and do not share; counts of several planes add up."""

    hits: int = 0
    """True positives."""
    predicted: int = 0
    """True and false positives."""
    truth: int = 0
    """True positives and false negatives."""
    scored: int = 0
    """All pixels that were looked at."""

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            self.hits + other.hits,
            self.predicted + other.predicted,
            self.truth + other.truth,
            self.scored + other.scored,
        )

    @classmethod
    def of(
        cls,
        predicted_mask: NDArray[np.bool_],
        truth_mask: NDArray[np.bool_],
        ignore: NDArray[np.bool_] | None = None,
    ) -> PixelCounts:
        """Count; see `pixel_scores` for the parameters."""
        check_same_shape(predicted_mask, truth_mask)
        predicted_mask, truth_mask = predicted_mask.astype(bool), truth_mask.astype(bool)
        if ignore is not None:
            predicted_mask, truth_mask = predicted_mask & ~ignore, truth_mask & ~ignore
        left_out = 0 if ignore is None else int(np.count_nonzero(ignore))
        return cls(
            hits=int(np.count_nonzero(predicted_mask & truth_mask)),
            predicted=int(np.count_nonzero(predicted_mask)),
            truth=int(np.count_nonzero(truth_mask)),
            scored=truth_mask.size - left_out,
        )

    @property
    def scores(self) -> PixelScores:
        """The figures that follow; see `pixel_scores`."""
        empty = 1.0 if self.predicted == self.truth == 0 else 0.0
        return PixelScores(
            iou=ratio(self.hits, self.predicted + self.truth - self.hits, empty),
            dice=ratio(2 * self.hits, self.predicted + self.truth, empty),
            precision=ratio(self.hits, self.predicted, empty),
            recall=ratio(self.hits, self.truth, empty),
        )


def pixel_scores(
    predicted_mask: NDArray[np.bool_],
    truth_mask: NDArray[np.bool_],
    *,
    ignore: NDArray[np.bool_] | None = None,
) -> PixelScores:
    """Compare two masks pixel by pixel.

    Parameters
    ----------
    predicted_mask, truth_mask : ndarray of bool
        Same shape; any number of axes.
    ignore : ndarray of bool, optional
        Pixels that are not scored.

    Returns
    -------
    PixelScores
        With TP, FP, FN counted over all scored pixels: IoU = TP / (TP + FP + FN),
        Dice = 2 TP / (2 TP + FP + FN), precision = TP / (TP + FP), recall = TP / (TP + FN). One
        whose denominator is 0 is 1 when both masks are empty and 0 otherwise.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    return PixelCounts.of(predicted_mask, truth_mask, ignore).scores


def best_threshold(
    maps: Sequence[NDArray[np.floating]],
    truth_masks: Sequence[NDArray[np.bool_]],
    thresholds: Sequence[float] = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2)),
) -> float:
    """Find the threshold with the highest mean Dice over images.

    Parameters
    ----------
    maps : sequence of ndarray of float in [0, 1]
        Probability maps.
    truth_masks : sequence of ndarray of bool
        Their truth, same shapes.
    thresholds : sequence of float
        Candidates; a pixel is foreground where its value is above (>) the threshold.

    Returns
    -------
    float
        The best candidate; of equally good ones the nearest to 0.5.
    """

    def mean_dice(threshold: float) -> float:
        pairs = zip(maps, truth_masks, strict=True)
        return float(np.mean([pixel_scores(m > threshold, truth).dice for m, truth in pairs]))

    return max(thresholds, key=lambda threshold: (mean_dice(threshold), -abs(threshold - 0.5)))


def ratio(part: float, whole: float, empty: float) -> float:
    """Divide, or give `empty` where the whole is 0."""
    return float(part / whole) if whole else empty


def check_same_shape(predicted: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    """Raise a UserError that names both shapes unless they are equal."""
    if predicted.shape != truth.shape:
        raise UserError(
            f"The prediction has shape {predicted.shape}, its truth {truth.shape}; they must match."
        )
