"""Random shapes and textures from which the generated samples are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Float = np.float32


def smooth_noise(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make Gaussian noise that varies over about `sigma` pixels; (Y, X), mean 0, std about 1."""
    # Coarse noise enlarged looks like a wide filter on full size, at a fraction of the cost.
    step = max(1.0, sigma / 2)
    coarse = [int(np.ceil(n / step)) + 3 for n in shape]
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), sigma / step, mode="wrap")
    y, x = (np.arange(n) / step + 1 for n in shape)
    grown = ndimage.map_coordinates(noise, np.meshgrid(y, x, indexing="ij"), order=1)
    return np.asarray((grown - grown.mean()) / max(grown.std(), 1e-6), Float)


def scatter_blobs(
    shape: tuple[int, int],
    count: int,
    radius: tuple[float, float],
    elongation: tuple[float, float],
    wobble: float,
    rng: np.random.Generator,
    *,
    gap: int = 0,
) -> NDArray[np.int32]:
    """Scatter blobs that may touch but do not overlap.

    Parameters
    ----------
    shape : (Y, X)
    count : int
        Blobs tried; one that would cover more than a tenth of an earlier one is left out.
    radius, elongation : (low, high)
        Range of the mean radius in pixels, and of long over short axis.
    wobble : float
        How uneven the outline is, as a share of the radius.
    rng : Generator
    gap : int
        Pixels kept free between blobs.

    Returns
    -------
    (Y, X) ndarray of int32
        Labels from 1, 0 elsewhere.
    """
    labels = np.zeros(shape, np.int32)
    taken = np.zeros(shape, bool)
    for _ in range(count):
        centre = rng.uniform((0, 0), shape)
        window, mask = _blob(
            shape, centre, rng.uniform(*radius), rng.uniform(*elongation), wobble, rng
        )
        new = mask & ~taken[window]
        if not new.any() or new.sum() < 0.9 * mask.sum():
            continue
        labels[window][new] = labels.max() + 1
        taken[window] |= ndimage.binary_dilation(new, iterations=gap) if gap else new
    return labels


def _blob(
    shape: tuple[int, int],
    centre: NDArray[np.float64],
    radius: float,
    elongation: float,
    wobble: float,
    rng: np.random.Generator,
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """One star-convex blob: its window in the image and its mask there."""
    reach = int(radius * np.sqrt(elongation) * (1 + 2 * wobble)) + 2
    y0, x0 = (int(c) - reach for c in centre)
    window = (
        slice(max(y0, 0), min(y0 + 2 * reach, shape[0])),
        slice(max(x0, 0), min(x0 + 2 * reach, shape[1])),
    )
    y, x = np.ogrid[window]
    angle = rng.uniform(0, np.pi)
    dy, dx = y - centre[0], x - centre[1]
    along = (dy * np.sin(angle) + dx * np.cos(angle)) / np.sqrt(elongation)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) * np.sqrt(elongation)
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for k in (2, 3, 4, 5):
        outline += wobble * rng.normal() / k * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    return window, np.hypot(along, across) < radius * outline


def cell_walls(
    shape: tuple[int, int], size: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Divide the field into cells with bent walls.

    Parameters
    ----------
    shape : (Y, X)
    size : float
        Typical diameter of a cell in pixels.
    rng : Generator

    Returns
    -------
    cell_labels : (Y, X) ndarray of int32
        From 1, without gaps.
    distance : (Y, X) ndarray of float32
        Pixels to the nearest wall, approximately.
    """
    from scipy.spatial import cKDTree

    n = max(4, int(np.prod(np.add(shape, 2 * size)) / size**2))
    seeds = rng.uniform(-size, np.add(shape, size), (n, 2))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(Float)
    bend = [0.16 * size * smooth_noise(shape, size / 3, rng) for _ in range(2)]
    points = np.stack([y + bend[0], x + bend[1]], axis=-1).reshape(-1, 2)
    near, index = cKDTree(seeds).query(points, k=2)
    # Distance to the bisector of the two nearest seeds: (d2^2 - d1^2) / (2 |s2 - s1|).
    apart = np.linalg.norm(seeds[index[:, 1]] - seeds[index[:, 0]], axis=1)
    distance = ((near[:, 1] ** 2 - near[:, 0] ** 2) / (2 * apart)).reshape(shape)
    cells = np.unique(index[:, 0], return_inverse=True)[1].reshape(shape) + 1
    return cells.astype(np.int32), distance.astype(Float)
