"""Figures that compare a segmentation with its truth.

Conventions are those of methods.md 6: two empty masks agree perfectly (1.0), one empty mask scores
0; figures are taken per image and averaged afterwards.
"""

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
    _same_shape(predicted_mask, truth_mask)
    scored = np.ones(truth_mask.shape, bool) if ignore is None else ~ignore
    predicted, truth = predicted_mask.astype(bool) & scored, truth_mask.astype(bool) & scored
    hits = int(np.count_nonzero(predicted & truth))
    n_predicted, n_truth = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    empty = 1.0 if n_predicted == n_truth == 0 else 0.0
    return PixelScores(
        iou=_ratio(hits, n_predicted + n_truth - hits, empty),
        dice=_ratio(2 * hits, n_predicted + n_truth, empty),
        precision=_ratio(hits, n_predicted, empty),
        recall=_ratio(hits, n_truth, empty),
    )


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


def variation_of_information(
    predicted_labels: NDArray[np.integer],
    truth_labels: NDArray[np.integer],
    *,
    ignore_truth: int | None = 0,
) -> tuple[float, float]:
    """Measure how far two partitions are apart, in bits.

    Parameters
    ----------
    predicted_labels, truth_labels : ndarray of int
        Instance labels, same shape.
    ignore_truth : int, optional
        Truth label whose pixels are left out; None scores every pixel.

    Returns
    -------
    split, merge : float
        H(predicted | truth) (one true object cut into several) and H(truth | predicted) (several
        true objects in one). Their sum is the variation of information [1]_; lower is better. nan
        when no pixel is scored.

    Raises
    ------
    UserError
        If the shapes differ.

    References
    ----------
    .. [1] Meila, "Comparing clusterings by the variation of information", COLT 2003.
    """
    _same_shape(predicted_labels, truth_labels)
    scored = np.ones(truth_labels.shape, bool)
    if ignore_truth is not None:
        scored = truth_labels != ignore_truth
    if not scored.any():
        return float("nan"), float("nan")
    _, predicted = np.unique(predicted_labels[scored], return_inverse=True)
    _, truth = np.unique(truth_labels[scored], return_inverse=True)
    joint = np.unique(predicted.astype(np.int64) * (truth.max() + 1) + truth, return_counts=True)[1]
    h_joint = _entropy(joint)
    return h_joint - _entropy(np.bincount(truth)), h_joint - _entropy(np.bincount(predicted))


def _entropy(counts: NDArray[np.integer]) -> float:
    """Shannon entropy in bits of a histogram."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def _ratio(part: int, whole: int, empty: float) -> float:
    return part / whole if whole else empty


def _same_shape(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise UserError(
            f"The prediction has shape {a.shape}, its truth {b.shape}; they must match."
        )
