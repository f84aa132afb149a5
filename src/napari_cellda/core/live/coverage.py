"""Which parts of a large image are done, and their maps as long as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.tiles import Region, Spot, grid

if TYPE_CHECKING:
    from collections.abc import Callable

Place = tuple[int, int, int, int]

BLOCK = 64
"""Pixels along y and x of the smallest area that is done or not."""


def place_of(tile: Region) -> Place:
    """Return (t, z, y, x) of a tile's first pixel, its name in dictionaries."""
    return tile.t, tile.z.start, tile.y.start, tile.x.start


class Coverage:
    """Remembers which areas of an image are done, in blocks of 1 x 64 x 64 pixels.

    Parameters
    ----------
    limits : tuple of int
        Size of the image, (Z, Y, X) pixels.
    tile : tuple of int
        Size of a tile, (z, y, x); what is missing is named tile by tile. Multiples of 64 in y, x.
    """

    def __init__(self, limits: Spot, tile: Spot) -> None:
        self._limits = limits
        self._tile = tile
        self._done: dict[Place, np.ndarray] = {}

    def tiles(self, region: Region) -> list[Region]:
        """Return the tiles that touch `region`."""
        return grid(self._limits, self._tile, region.t, within=region)

    def missing(self, region: Region) -> list[Region]:
        """Return disjoint boxes, each within one tile, of the blocks in `region` not yet done."""
        boxes: list[Region] = []
        for tile in self.tiles(region):
            open_blocks = ~self._blocks(tile)
            wanted = np.zeros_like(open_blocks)
            wanted[_block_slices(tile.overlap(region), tile, whole_blocks=False)] = True
            open_blocks &= wanted
            boxes += [_block_region(found, tile) for found in split_into_boxes(open_blocks)]
        return boxes

    def add(self, region: Region) -> None:
        """Note that `region` is done; blocks that it covers in part stay open."""
        for tile in self.tiles(region):
            part = tile.overlap(region)
            self._blocks(tile)[_block_slices(part, tile, whole_blocks=True)] = True

    def forget(self, place: Place) -> None:
        """Note that nothing of the tile at `place` is done any more."""
        self._done.pop(place, None)

    def _blocks(self, tile: Region) -> np.ndarray:
        nz, ny, nx = tile.shape
        shape = (nz, -(-ny // BLOCK), -(-nx // BLOCK))
        return self._done.setdefault(place_of(tile), np.zeros(shape, bool))


def _block_slices(part: Region, tile: Region, *, whole_blocks: bool) -> tuple[slice, ...]:
    """Return the blocks of `tile` that `part` touches, or those that it covers entirely."""
    slices = list(part.inside(tile)[:1])
    for inside, size in zip(part.inside(tile)[1:], tile.shape[1:], strict=True):
        low, high = inside.start, inside.stop
        if whole_blocks:
            last = -(-size // BLOCK) if high == size else high // BLOCK
            slices.append(slice(-(-low // BLOCK), last))
        else:
            slices.append(slice(low // BLOCK, -(-high // BLOCK)))
    return tuple(slices)


def split_into_boxes(blocks: np.ndarray) -> list[tuple[slice, ...]]:
    """Split the True entries of an array into disjoint boxes, few where the shape is simple.

    Neighbours along the first axis whose rest is alike are joined, and so on axis by axis.
    """
    boxes: list[tuple[slice, ...]] = []
    start = 0
    while start < len(blocks):
        stop = start + 1
        while stop < len(blocks) and np.array_equal(blocks[start], blocks[stop]):
            stop += 1
        if blocks.ndim > 1:
            boxes += [(slice(start, stop), *rest) for rest in split_into_boxes(blocks[start])]
        elif blocks[start]:
            boxes.append((slice(start, stop),))
        start = stop
    return boxes


def _block_region(box: tuple[slice, ...], tile: Region) -> Region:
    parts = [
        slice(frame.start + part.start * size, min(frame.start + part.stop * size, frame.stop))
        for part, frame, size in zip(box, tile.slices, (1, BLOCK, BLOCK), strict=True)
    ]
    return Region(tile.t, *parts)


class TileMaps:
    """Class maps of an image, computed where they are asked for and kept under a memory budget.

    Parameters
    ----------
    limits, tile : tuple of int
        As for `Coverage`; tiles are the unit in which maps are kept and forgotten.
    n_classes : int
    predict : callable
        ``predict(region)`` returns the (K, Z, Y, X) map of a region.
    budget_bytes : int
        The least recently used tiles go when the maps take more.
    """

    def __init__(
        self,
        limits: Spot,
        tile: Spot,
        n_classes: int,
        predict: Callable[[Region], np.ndarray],
        budget_bytes: int = 256 << 20,
    ) -> None:
        self._kept = Coverage(limits, tile)
        self._n_classes = n_classes
        self._predict = predict
        self._budget = budget_bytes
        self._maps: OrderedDict[Place, np.ndarray] = OrderedDict()

    def compute(self, part: Region) -> np.ndarray:
        """Compute the map of a part of one tile and keep it; (K, Z, Y, X) float32."""
        found = self._predict(part)
        (tile,) = self._kept.tiles(part)
        self._map_of(tile)[(slice(None), *part.inside(tile))] = found
        self._kept.add(part)
        return found

    def read(self, region: Region) -> np.ndarray:
        """Return the (K, Z, Y, X) map of any region, computing only what is not kept."""
        result = np.empty((self._n_classes, *region.shape), np.float32)
        for tile in self._kept.tiles(region):
            part = tile.overlap(region)
            for box in self._kept.missing(part):
                self.compute(box)
            values = self._map_of(tile)[(slice(None), *part.inside(tile))]
            result[(slice(None), *part.inside(region))] = values
        return result

    def _map_of(self, tile: Region) -> np.ndarray:
        place = place_of(tile)
        if place not in self._maps:
            self._maps[place] = np.empty((self._n_classes, *tile.shape), np.float32)
            self._forget_old(keep=place)
        self._maps.move_to_end(place)
        return self._maps[place]

    def _forget_old(self, keep: Place) -> None:
        total = sum(kept.nbytes for kept in self._maps.values())
        while total > self._budget and len(self._maps) > 1:
            place, oldest = next(iter(self._maps.items()))
            if place == keep:
                return
            total -= oldest.nbytes
            del self._maps[place]
            self._kept.forget(place)
