"""How far two partitions of an image are apart, and partitions from boundary maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare.overlaps import Overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    return vi_of(Overlaps.of(predicted_labels, truth_labels), ignore_truth=ignore_truth)


def vi_of(overlaps: Overlaps, *, ignore_truth: int | None = 0) -> tuple[float, float]:
    """Return the split and merge parts of `variation_of_information` from a table of overlaps."""
    if ignore_truth is not None:
        overlaps = overlaps.without_truth(ignore_truth)
    if not overlaps.count.sum():
        return float("nan"), float("nan")
    joint = _entropy(overlaps.count)
    truth, predicted = (
        _entropy(np.bincount(np.unique(labels, return_inverse=True)[1], overlaps.count))
        for labels in (overlaps.truth, overlaps.predicted)
    )
    # Rounding must not make them negative.
    return max(joint - truth, 0.0), max(joint - predicted, 0.0)


def _entropy(counts: NDArray[np.number]) -> float:
    """Shannon entropy in bits of a histogram without zeros."""
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())
