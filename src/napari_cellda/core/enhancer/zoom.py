"""Zooming a map that is read piece by piece, so that a piece equals its part of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_cellda.core.tiles import Region, Spot

ReadMap = Callable[[Region], np.ndarray]
"""Gives the (Z, Y, X) map of a region inside the image."""


@dataclass(frozen=True)
class Zoom:
    """A change of pixel size, about the corner of the image.

    Linear interpolation when pixels get smaller; when they get larger, the kernel widens with
    them, so that nothing is skipped.
    """

    factors: tuple[float, float, float]
    """New pixels per old pixel along (z, y, x)."""
    limits: Spot
    """Size of the image before, (Z, Y, X)."""

    @property
    def zoomed_limits(self) -> Spot:
        """Size of the image after."""
        z, y, x = (max(1, round(n * f)) for n, f in zip(self.limits, self.factors, strict=True))
        return z, y, x

    def read(self, read_map: ReadMap, region: Region) -> np.ndarray:
        """Read one region of the zoomed map.

        Parameters
        ----------
        read_map : callable
            Reads the map before.
        region : Region
            In zoomed pixels.

        Returns
        -------
        (Z, Y, X) ndarray of float32
        """
        weights = self._forth(region)
        block = read_map(Region(region.t, *(source for source, _ in weights)))
        return _apply(block, [matrix for _, matrix in weights])

    def source(self, region: Region) -> Region:
        """Return the region of the image before that `read` asks for."""
        return Region(region.t, *(source for source, _ in self._forth(region)))

    def needed(self, region: Region) -> Region:
        """Return the zoomed region that `undo` needs for a region of the image before."""
        parts = (source for source, _ in self._back(region))
        return Region(region.t, *parts)

    def undo(self, zoomed: np.ndarray, region: Region) -> np.ndarray:
        """Bring maps (K, Z, Y, X) of ``needed(region)`` back to the pixels of `region`."""
        return _apply(zoomed, [matrix for _, matrix in self._back(region)])

    def _forth(self, region: Region) -> list[tuple[slice, np.ndarray]]:
        return [
            _weights(part, factor, limit)
            for part, factor, limit in zip(region.slices, self.factors, self.limits, strict=True)
        ]

    def _back(self, region: Region) -> list[tuple[slice, np.ndarray]]:
        return [
            _weights(part, 1 / factor, limit)
            for part, factor, limit in zip(
                region.slices, self.factors, self.zoomed_limits, strict=True
            )
        ]


def _weights(target: slice, factor: float, limit: int) -> tuple[slice, np.ndarray]:
    """Return the source pixels that a row of target pixels needs, and their weights.

    Parameters
    ----------
    target : slice
        Pixels wanted.
    factor : float
        Target pixels per source pixel.
    limit : int
        Source pixels there are.

    Returns
    -------
    source : slice
    matrix : (target, source) ndarray of float32
        Rows sum to 1; a triangular kernel, cut off at the image's ends.
    """
    centres = (np.arange(target.start, target.stop) + 0.5) / factor - 0.5
    radius = max(1.0, 1.0 / factor)
    start = int(np.clip(np.floor(centres[0] - radius), 0, limit - 1))
    stop = int(np.clip(np.ceil(centres[-1] + radius) + 1, start + 1, limit))
    distance = np.abs(centres[:, np.newaxis] - np.arange(start, stop))
    matrix = np.maximum(0.0, 1.0 - distance / radius)
    lost = matrix.sum(axis=1) == 0  # rounding the size may put a centre beyond the last pixel
    matrix[lost, np.argmin(distance[lost], axis=1)] = 1.0
    matrix /= matrix.sum(axis=1, keepdims=True)
    return slice(start, stop), matrix.astype(np.float32)


def _apply(block: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Multiply the last axes of a block by one matrix each.

    Sparse, since most weights are 0, and since a dense product depends, in its last bits, on the
    number of threads.
    """
    from scipy.sparse import csr_array

    for axis, matrix in enumerate(matrices, block.ndim - len(matrices)):
        is_identity = matrix.shape[0] == matrix.shape[1] and not np.any(
            matrix - np.eye(len(matrix), dtype=np.float32)
        )
        if not is_identity:
            lines = np.moveaxis(block, axis, 0)
            flat = csr_array(matrix) @ lines.reshape(len(lines), -1)
            block = np.moveaxis(flat.reshape(-1, *lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(block, np.float32)
