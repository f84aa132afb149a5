"""Regions of an image, the tile grid over it, and padding at its border."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Spot = tuple[int, int, int]
"""A place or an extent in (z, y, x) pixels."""


@dataclass(frozen=True)
class Region:
    """A box of one time point of an image, in pixels.

    The slices have integer start and stop, lie inside the image and have no step.
    """

    t: int
    z: slice
    y: slice
    x: slice

    def __hash__(self) -> int:
        """Hash by the bounds: Python 3.11 cannot hash slices."""
        return hash((self.t, *((part.start, part.stop) for part in self.slices)))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The (z, y, x) slices."""
        return self.z, self.y, self.x

    @property
    def shape(self) -> Spot:
        """Extent along (z, y, x) in pixels."""
        nz, ny, nx = (part.stop - part.start for part in self.slices)
        return nz, ny, nx

    def grow(self, halo: Spot, limits: Spot) -> Region:
        """Widen by `halo` (z, y, x) pixels on each side, clipped to an image of size `limits`."""
        grown = (
            slice(max(part.start - margin, 0), min(part.stop + margin, limit))
            for part, margin, limit in zip(self.slices, halo, limits, strict=True)
        )
        return Region(self.t, *grown)

    def overlap(self, other: Region) -> Region:
        """Return the part that lies in `other` too; an axis without common pixels has extent 0."""
        common = []
        for mine, theirs in zip(self.slices, other.slices, strict=True):
            start = max(mine.start, theirs.start)
            common.append(slice(start, max(min(mine.stop, theirs.stop), start)))
        return Region(self.t, *common)

    def inside(self, outer: Region) -> tuple[slice, slice, slice]:
        """Return the (z, y, x) slices that cut this region out of a block that covers `outer`."""
        z, y, x = (
            slice(part.start - frame.start, part.stop - frame.start)
            for part, frame in zip(self.slices, outer.slices, strict=True)
        )
        return z, y, x


def whole(limits: Spot, t: int = 0) -> Region:
    """Return the region that covers one time point of an image of size `limits` (Z, Y, X)."""
    return Region(t, *(slice(0, limit) for limit in limits))


def grid(limits: Spot, tile: Spot, t: int = 0, within: Region | None = None) -> list[Region]:
    """Cut an image into tiles.

    Parameters
    ----------
    limits : tuple of int
        Size of the image, (Z, Y, X) pixels.
    tile : tuple of int
        Size of a tile, (z, y, x) pixels. The last tile of an axis may be smaller.
    t : int
        Time point of the regions returned.
    within : Region, optional
        Only the tiles that touch this region. None: all.

    Returns
    -------
    list of Region
        In scan order. Origins are multiples of `tile`, so that the same pixel lies in the same
        tile whatever was asked for; together they cover the image, or all of `within`.
    """
    asked = within.slices if within is not None else whole(limits).slices
    axes = []
    for limit, size, part in zip(limits, tile, asked, strict=True):
        stop = min(part.stop, limit)
        first = part.start // size * size
        axes.append([slice(low, min(low + size, limit)) for low in range(first, stop, size)])
    return [Region(t, z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]


def nearest_first(regions: Iterable[Region], centre: Sequence[float]) -> list[Region]:
    """Sort regions by the distance of their middle from `centre`, (z, y, x) in pixels."""

    def distance(region: Region) -> float:
        middles = ((part.start + part.stop) / 2 for part in region.slices)
        return math.dist(list(middles), list(centre))

    return sorted(regions, key=distance)


def middle_slice(size: int, wanted: int) -> slice:
    """Return the middle of an axis: `wanted` pixels of it, or all where it is shorter."""
    start = max(0, (size - wanted) // 2)
    return slice(start, min(size, start + wanted))


def reflect_pad(block: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Pad the last axes of a block by reflection about its edge pixels.

    Parameters
    ----------
    block : (..., [Z,] Y, X) ndarray
        Any number of leading axes, which stay as they are.
    before, after : sequence of int
        Pixels to add at the start and the end of the last `len(before)` axes. They may exceed the
        size of the block: the reflection then goes back and forth, and a single pixel is repeated.

    Returns
    -------
    ndarray
        Same dtype. The block itself when there is nothing to add.
    """
    margins = list(zip(before, after, strict=True))
    if not any(low or high for low, high in margins):
        return block
    leading = [(0, 0)] * (block.ndim - len(margins))
    return np.pad(block, leading + margins, mode="reflect")
