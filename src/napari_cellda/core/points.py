"""One point per cell: found in a picture of the nuclei, taken from labels, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.readers import as_int32
from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.images import Image

SCALES = 7
"""Sizes of nuclei that are looked for."""
SIZE_RANGE = (0.3, 1.3)
"""The smallest and the largest of them, over the diameter that is given."""
UNKNOWN_RANGE = (6.0, 80.0)
"""In pixels, when no diameter is given."""


class Blobs(NamedTuple):
    """Bright round things."""

    points: NDArray[np.float64]
    """(n, 2): row and column of each middle, in pixels."""
    diameters: NDArray[np.float64]
    """(n,), in pixels."""
    strengths: NDArray[np.float64]
    """(n,), falling: contrast over the image's range, about 0.74 for a sharp disc that spans it."""


def find_blobs(
    image: NDArray[np.floating], diameter: float | None = None, *, contrast: float = 0.08
) -> Blobs:
    """Find nuclei: the strongest answers of Laplacian-of-Gaussian filters over several sizes [1]_.

    Parameters
    ----------
    image : (Y, X) ndarray of float
        Nuclei bright on dark; any unit. Values that are no numbers count as the darkest.
    diameter : float, optional
        Of a typical cell, in pixels; nuclei from 0.3 to 1.3 of it are looked for. None: from 6 to
        80 pixels.
    contrast : float
        Weaker blobs are left out, as a share of the image's range (1 % to 99.8 %).

    Returns
    -------
    Blobs
        None closer to a stronger one than half the larger diameter of the two.

    Raises
    ------
    UserError
        If the image is no plane, or the diameter is not above 0.

    References
    ----------
    .. [1] Lindeberg, "Feature detection with automatic scale selection", IJCV 30, 1998.
    """
    from scipy.ndimage import gaussian_laplace, maximum_filter

    if image.ndim != 2:
        raise UserError(f"Blobs are found in planes (Y, X); the array has shape {image.shape}.")
    if diameter is not None and not (np.isfinite(diameter) and diameter > 0):
        raise UserError(f"The diameter is {diameter:g}; expected pixels above 0.")
    scaled = _stretched(image)
    low, high = UNKNOWN_RANGE if diameter is None else np.multiply(SIZE_RANGE, diameter)
    best = np.zeros(image.shape, np.float32)
    width = np.zeros(image.shape, np.float32)
    for size in np.geomspace(max(low, 2.0), max(high, 3.0), SCALES):
        sigma = size / np.sqrt(8)  # where a disc of this diameter answers most
        answer = -(sigma**2) * gaussian_laplace(scaled, sigma, mode="nearest")
        stronger = answer > best
        best[stronger], width[stronger] = answer[stronger], size
    near = 2 * max(int(low / 4), 1) + 1
    peaks = (best == maximum_filter(best, near)) & (best > contrast)
    order = np.argsort(-best[peaks], kind="stable")
    points = np.argwhere(peaks)[order].astype(np.float64)
    sizes = width[peaks][order].astype(np.float64)
    kept = _prune(points, sizes)
    return Blobs(points[kept], sizes[kept], best[peaks][order][kept].astype(np.float64))


def find_nuclei(image: Image, t: int, z: int, diameter: float | None = None) -> NDArray[np.float64]:
    """Find the nuclei of one plane of an image.

    Parameters
    ----------
    image : Image
        Of which the first channel counts.
    t, z : int
        Which plane.
    diameter : float, optional
        Of a typical cell, in pixels.

    Returns
    -------
    (n, 2) ndarray
        Row and column.
    """
    _, height, width = image.limits
    plane = Region(t, slice(z, z + 1), slice(0, height), slice(0, width))
    return find_blobs(image.read(plane)[0, 0], diameter).points


def centroids(labels: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the middle of every object.

    Parameters
    ----------
    labels : (Y, X) ndarray of int
        Values up to 0 are no object.

    Returns
    -------
    points : (n, 2) ndarray of float
        Row and column; of a bent object it may lie beside it.
    ids : (n,) ndarray of int
        Ascending.
    """
    rows, columns = np.nonzero(labels > 0)
    ids, which = np.unique(labels[rows, columns], return_inverse=True)
    area = np.bincount(which, minlength=len(ids))
    sums = [np.bincount(which, values, len(ids)) for values in (rows, columns)]
    return np.stack(sums, axis=1) / area[:, None], ids.astype(np.int64)


def separate_objects(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return instance ids: those of the labels, or of its connected parts if it has one id only.

    Parameters
    ----------
    labels : (Y, X) ndarray of int
        Values below 0 stay what they are; ids beyond int32 become others, one per object.
    """
    from scipy.ndimage import label

    ids = as_int32(np.asarray(labels))
    if ids.max(initial=0) != 1:
        return ids
    parts: NDArray[np.int32] = label(ids > 0)[0].astype(np.int32)
    return np.where(ids < 0, ids, parts)


def typical_diameter(labels: Sequence[NDArray[np.integer] | None]) -> float:
    """Return the median diameter of the objects, each taken as a disc; NaN without any."""
    areas = [np.unique(a[a > 0], return_counts=True)[1] for a in labels if a is not None]
    found = np.concatenate([np.zeros(0), *areas])
    return float(np.sqrt(4 / np.pi * np.median(found))) if len(found) else float("nan")


def location_precision(
    found: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    truth: Sequence[NDArray[np.float64]],
    within: float,
) -> float:
    """Return the average precision of places, over all images together.

    Parameters
    ----------
    found : sequence of (points (n, 2), scores (n,))
        Per image.
    truth : sequence of (m, 2) ndarray
        One point per cell.
    within : float
        A found point is right when the nearest true point that is still free is not farther, in
        pixels.

    Returns
    -------
    float
        ``sum_k T_k P_k / C`` in falling order of scores; NaN without true points.
    """
    _, right, count = _ranked(found, truth, within)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / count) if count else float("nan")


def best_least_score(
    found: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    truth: Sequence[NDArray[np.float64]],
    within: float,
) -> float | None:
    """Return the score above which places are best kept, by their F1 over all images together.

    Parameters
    ----------
    found, truth, within
        See `location_precision`.

    Returns
    -------
    float or None
        Halfway between the last score that is kept and the first that is not; None when nothing is
        to be dropped, or nothing was found where it should be.
    """
    scores, right, count = _ranked(found, truth, within)
    if not right.any():
        return None
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + count)
    last = int(f1.argmax())
    return None if last + 1 == len(scores) else float(scores[last : last + 2].mean())


def _ranked(
    found: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    truth: Sequence[NDArray[np.float64]],
    within: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Return the scores of all images in falling order, which are right, and how many are true."""
    hits = [_hits(*one, points, within) for one, points in zip(found, truth, strict=True)]
    scores = np.concatenate([np.zeros(0), *(one[1] for one in found)])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([np.zeros(0, bool), *hits])[order]
    return scores[order], right, sum(len(points) for points in truth)


def _hits(
    points: NDArray[np.float64],
    scores: NDArray[np.float64],
    truth: NDArray[np.float64],
    within: float,
) -> NDArray[np.bool_]:
    right = np.zeros(len(points), bool)
    if not len(truth):
        return right
    free = np.ones(len(truth), bool)
    for k in np.argsort(-scores, kind="stable"):
        distance = np.where(free, np.linalg.norm(truth - points[k], axis=1), np.inf)
        nearest = int(distance.argmin())
        if distance[nearest] <= within:
            right[k], free[nearest] = True, False
    return right


def _stretched(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bring 1 % to 0 and 99.8 % to 1, and cut off what is beyond; zeros for a flat image."""
    finite = np.isfinite(image)
    if not finite.any():
        return np.zeros(image.shape, np.float32)
    low, high = np.percentile(image[finite], [1, 99.8])
    if not high > low:
        low, high = image[finite].min(), image[finite].max()
    width = max(float(high - low), np.finfo(np.float32).tiny)
    filled = np.where(finite, image, low).astype(np.float64)
    stretched: NDArray[np.float32] = np.clip((filled - low) / width, 0, 1).astype(np.float32)
    return stretched


def _prune(points: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points to keep: from the first on, those not too near to one kept before."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(points), bool)
    if len(points) < 2:
        return kept
    pairs = cKDTree(points).query_pairs(float(sizes.max()) / 2, output_type="ndarray")
    pairs = np.sort(pairs, axis=1)
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    close = pairs[distance < np.maximum(sizes[pairs[:, 0]], sizes[pairs[:, 1]]) / 2]
    for stronger, weaker in close[np.lexsort((close[:, 1], close[:, 0]))]:
        if kept[stronger]:
            kept[weaker] = False
    return kept
