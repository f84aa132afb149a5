"""Where a probability map is unsure, and where the next stroke would help most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RADIUS = 15
"""Pixels: about the size of what a person looks at before painting."""


def uncertainty_map(probability_map: NDArray[np.floating]) -> NDArray[np.float32]:
    """Measure how unsure a probability map is.

    Parameters
    ----------
    probability_map : (K, ...) ndarray of float
        Class probabilities, sum 1.

    Returns
    -------
    (...) ndarray of float32 in [0, 1]
        One less the margin between the two likeliest classes: 0 sure, 1 a tie. The margin, not the
        entropy, for it asks what matters to a mask: how close it is to another class.
    """
    best = np.array(probability_map[0], np.float32)
    second = np.zeros_like(best)
    for other in probability_map[1:]:
        np.maximum(second, np.minimum(best, other), out=second)
        np.maximum(best, other, out=best)
    # 1 - best + second, in place; float rounding may leave [0, 1] by a hair.
    second -= best
    second += 1
    return np.clip(second, 0, 1, out=second)


def most_uncertain(
    uncertainty: NDArray[np.floating],
    painted_mask: NDArray[np.bool_] | None = None,
    *,
    radius: float = RADIUS,
) -> tuple[int, int] | None:
    """Find the unpainted place whose neighbourhood is the most uncertain.

    Parameters
    ----------
    uncertainty : (Y, X) ndarray of float
        See `uncertainty_map`.
    painted_mask : (Y, X) ndarray of bool, optional
        What is painted already.
    radius : float
        Pixels. The size of a neighbourhood, and how far it keeps from painted pixels.

    Returns
    -------
    (y, x) or None
        None when every pixel is painted.
    """
    spots = uncertain_spots(uncertainty, painted_mask, 1, radius=radius)
    return spots[0] if spots else None


def uncertain_spots(
    uncertainty: NDArray[np.floating],
    painted_mask: NDArray[np.bool_] | None = None,
    count: int = 5,
    *,
    radius: float = RADIUS,
    spacing: float | None = None,
) -> list[tuple[int, int]]:
    """Rank places to paint next, the most uncertain neighbourhood first, spread apart.

    Parameters
    ----------
    uncertainty, painted_mask, radius
        As for `most_uncertain`.
    count : int
        How many places at most.
    spacing : float, optional
        Smallest distance between two places in pixels; None for four times the radius.

    Returns
    -------
    list of (y, x)
        Fewer than `count` when no more fit. They keep `radius` from painted pixels, unless
        painted pixels are everywhere near.

    Notes
    -----
    A single pixel is most uncertain on every border between two objects, where a stroke teaches
    little. So the map is smoothed by a Gaussian of a third of the radius before it is ranked.
    """
    if uncertainty.size == 0 or count < 1:
        return []
    from bioimage_cpp.filters import gaussian_smoothing

    score = gaussian_smoothing(np.asarray(uncertainty, np.float32), max(radius / 3, 0.1))
    if painted_mask is not None and painted_mask.any():
        near = _within(painted_mask, radius)
        score[painted_mask if near.all() else near] = -np.inf
    spacing = 4 * radius if spacing is None else spacing
    spots: list[tuple[int, int]] = []
    while len(spots) < count:
        y, x = (int(i) for i in np.unravel_index(score.argmax(), score.shape))
        if score[y, x] == -np.inf:
            break
        spots.append((y, x))
        _erase(score, y, x, spacing)
    return spots


def _within(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Grow a mask by a square of `radius`, which is quick whatever the radius."""
    from scipy.ndimage import maximum_filter1d

    size = 2 * int(radius) + 1
    grown = mask.view(np.uint8)
    for axis in range(mask.ndim):
        grown = maximum_filter1d(grown, size, axis=axis, mode="constant")
    return grown.astype(bool)


def _erase(score: NDArray[np.float32], y: int, x: int, distance: float) -> None:
    """Rule out everything closer to a spot than `distance`."""
    reach = int(np.ceil(distance))
    top, left = max(0, y - reach), max(0, x - reach)
    part = score[top : y + reach + 1, left : x + reach + 1]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    part[(rows + top - y) ** 2 + (columns + left - x) ** 2 < max(distance, 1) ** 2] = -np.inf
