"""Catchment basins: their peaks, and which of them are one object."""

from __future__ import annotations

import numpy as np


def local_maxima(height: np.ndarray) -> np.ndarray:
    """Return the mask of pixels that no neighbour (8 in 2D, 26 in 3D) exceeds."""
    from scipy import ndimage

    peaks: np.ndarray = ndimage.maximum_filter(height, 3) == height
    return peaks


def seed_lonely_components(seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make every component of `mask` that holds no seed a seed of its own.

    Parameters
    ----------
    seeds : ndarray of uint32
        0 is no seed.
    mask : ndarray of bool, same shape

    Returns
    -------
    ndarray of uint32
    """
    from bioimage_cpp.segmentation import label

    components = label(mask, connectivity=1).astype(np.uint32)
    has_seed = np.zeros(int(components.max()) + 1, bool)
    has_seed[components[seeds > 0]] = True
    lonely_mask = mask & ~has_seed[components]
    return np.where(lonely_mask, components + seeds.max(), seeds).astype(np.uint32)


def merge_shallow_basins(labels: np.ndarray, height: np.ndarray, depth: float) -> np.ndarray:
    """Join neighbouring basins whose pass is less than `depth` below the lower of their peaks.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) ndarray of uint32
        Watershed basins of `-height`; 0 is background and never joined.
    height : ndarray of float32, same shape
    depth : float
        In units of height.

    Returns
    -------
    ndarray of uint32
        The same shape; joined basins share one number.

    Notes
    -----
    Passes are visited from the highest down, so that each peak meets its highest way out first:
    what is left separate has dynamics of at least `depth` (the h-maxima, without the slow
    reconstruction).
    """
    pairs, passes = basin_passes(labels, height)
    peaks = peak_heights(labels, height)
    parent = np.arange(len(peaks))
    for i in np.argsort(-passes, kind="stable"):
        a, b = find(parent, pairs[i, 0]), find(parent, pairs[i, 1])
        if a == b or min(peaks[a], peaks[b]) - passes[i] >= depth:
            continue
        lower, higher = (a, b) if peaks[a] < peaks[b] else (b, a)
        parent[lower] = higher
    roots = np.array([find(parent, node) for node in range(len(parent))], np.uint32)
    return np.asarray(roots[labels])


def find(parent: np.ndarray, node: int) -> int:
    """Return the root of a node and shorten the way to it."""
    root = node
    while parent[root] != root:
        root = parent[root]
    while parent[node] != root:
        parent[node], node = root, parent[node]
    return int(root)


def peak_heights(labels: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the largest height in every basin, by number."""
    peaks = np.zeros(int(labels.max()) + 1, height.dtype)
    inside = labels > 0
    np.maximum.at(peaks, labels[inside], height[inside])
    return peaks


def basin_passes(labels: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of touching basins and the height of the highest pass between each.

    Returns
    -------
    pairs : (N, 2) ndarray of int
        Smaller number first.
    passes : (N,) ndarray of float
        Along a pass the lower of the two pixels counts.
    """
    firsts, seconds, heights = [], [], []
    for axis in range(labels.ndim):
        low = tuple(slice(0, -1) if i == axis else slice(None) for i in range(labels.ndim))
        high = tuple(slice(1, None) if i == axis else slice(None) for i in range(labels.ndim))
        a, b = labels[low], labels[high]
        touching = (a != b) & (a > 0) & (b > 0)
        firsts.append(np.minimum(a[touching], b[touching]).astype(np.int64))
        seconds.append(np.maximum(a[touching], b[touching]).astype(np.int64))
        heights.append(np.minimum(height[low][touching], height[high][touching]))
    keys = np.concatenate(firsts) * (int(labels.max()) + 1) + np.concatenate(seconds)
    found, place = np.unique(keys, return_inverse=True)
    passes = np.full(len(found), -np.inf)
    np.maximum.at(passes, place, np.concatenate(heights))
    return np.stack(np.divmod(found, int(labels.max()) + 1), axis=1), passes
