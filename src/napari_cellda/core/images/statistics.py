"""Exact statistics of images larger than memory, one stream of blocks at a time.

A table of 65,536 counts per channel is all that is kept. The values of 8 and 16 bit images index
it directly. Others are read as float32, whose bits, with the sign folded in, sort as the numbers
do: a first pass counts their upper halves, a second one the lower halves where a wanted rank lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.lazy import as_float, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cellda.core.images.image import Image

ENOUGH_PIXELS = 2**18
"""A pyramid level with at least so many pixels per plane or stack stands for the whole image."""
TABLE = 2**16
SIGN = np.uint32(0x80000000)


@dataclass(frozen=True)
class Source:
    """The pixels that are measured: an image, or one level of its pyramid."""

    image: Image
    level: int | None
    pooled: bool = False
    """Whether all channels are measured together, as if they were one."""

    @classmethod
    def best(cls, image: Image, pooled: bool = False) -> Source:
        """Take the coarsest level that is large enough, or else the image itself."""
        for level in reversed(range(len(image.levels))):
            if math.prod(image.levels[level].shape[2:]) >= ENOUGH_PIXELS:
                return cls(image, level, pooled)
        return cls(image, None, pooled)

    @property
    def n_channels(self) -> int:
        """How many channels are told apart, C below."""
        return 1 if self.pooled else self.image.n_channels

    @property
    def data(self) -> np.ndarray:
        """(T, C, Z, Y, X) array, possibly lazy."""
        data: np.ndarray = self.image.data if self.level is None else self.image.levels[self.level]
        return data

    @property
    def smallest(self) -> int | None:
        """Least value of an 8 or 16 bit type; None for wider types."""
        dtype = np.dtype(self.data.dtype)
        if dtype.kind == "b":
            return 0
        narrow = dtype.kind in "ui" and dtype.itemsize <= 2
        return int(np.iinfo(dtype).min) if narrow else None

    def values(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (channel, finite values as a 1D array) for every block; each is loaded once."""
        for box in blocks(self.data):
            block = self.image.load(box, self.level)
            first = box[1].start
            for i in range(block.shape[1]):
                yield 0 if self.pooled else first + i, self._finite(block[:, i])

    def _finite(self, block: np.ndarray) -> np.ndarray:
        if self.smallest is not None:
            return block.ravel()
        values = as_float(block).ravel()
        finite_mask = np.isfinite(values)
        return values if finite_mask.all() else values[finite_mask]

    def check(self, counts: np.ndarray) -> None:
        """Raise a UserError if a channel has no finite value at all."""
        empty = np.flatnonzero(np.asarray(counts) == 0)
        if len(empty):
            which = "" if len(counts) == 1 else f" in channel {empty[0]}"
            raise UserError(
                f"'{self.image.name}' holds no finite number{which}: all is NaN or inf."
            )


def order_statistics(source: Source, quantiles: np.ndarray) -> np.ndarray:
    """Return quantiles of every channel, as `numpy.quantile` does (linear interpolation).

    Parameters
    ----------
    source : Source
    quantiles : (Q,) ndarray of float, in [0, 1]

    Returns
    -------
    (C, Q) ndarray of float64

    Raises
    ------
    UserError
        If a channel holds no finite number.
    """
    counts = np.zeros((source.n_channels, TABLE), np.int64)
    for channel, values in source.values():
        counts[channel] += np.bincount(upper_key(values, source.smallest), minlength=TABLE)
    totals = counts.sum(axis=1)
    source.check(totals)
    places = np.multiply.outer(totals - 1, quantiles)
    ranks = np.concatenate([np.floor(places), np.ceil(places)], axis=1).astype(np.int64)
    low, high = np.split(values_at(source, counts, ranks), 2, axis=1)
    return np.asarray(low + (high - low) * (places - np.floor(places)))


def values_at(source: Source, counts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the values that have these ranks in sorted order.

    Parameters
    ----------
    source : Source
    counts : (C, 65536) ndarray of int
        How often each upper key occurs.
    ranks : (C, R) ndarray of int

    Returns
    -------
    (C, R) ndarray of float64
    """
    below = np.cumsum(counts, axis=1)
    keys = np.array([below[c].searchsorted(ranks[c], side="right") for c in range(len(ranks))])
    if source.smallest is not None:
        return (keys + source.smallest).astype(np.float64)
    lower_counts = count_lower_keys(source, keys)
    found = np.empty(ranks.shape)
    for (channel, i), key in np.ndenumerate(keys):
        inside = ranks[channel, i] - (below[channel, key] - counts[channel, key])
        lower = lower_counts[channel, key].cumsum().searchsorted(inside, side="right")
        found[channel, i] = from_key((int(key) << 16) + int(lower))
    return found


def count_lower_keys(source: Source, keys: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Count the lower halves of all values whose upper half is wanted.

    Parameters
    ----------
    source : Source
    keys : (C, R) ndarray of int
        Wanted upper keys per channel.

    Returns
    -------
    dict of (channel, upper key) to (65536,) ndarray of int
    """
    slots = [np.full(TABLE, -1, np.int64) for _ in keys]
    for slot, wanted in zip(slots, keys, strict=True):
        slot[np.unique(wanted)] = np.arange(len(np.unique(wanted)))
    counts = [np.zeros((slot.max() + 1) * TABLE, np.int64) for slot in slots]
    for channel, values in source.values():
        key = float_key(values)
        place = slots[channel][key >> 16]
        chosen = place >= 0
        index = place[chosen] * TABLE + (key[chosen] & 0xFFFF)
        counts[channel] += np.bincount(index, minlength=len(counts[channel]))
    return {
        (channel, int(key)): counts[channel].reshape(-1, TABLE)[slots[channel][key]]
        for channel, wanted in enumerate(keys)
        for key in wanted
    }


def upper_key(values: np.ndarray, smallest: int | None) -> np.ndarray:
    """Return the place of each value in the table of counts."""
    if smallest is None:
        return float_key(values) >> 16
    return values.astype(np.int64) - smallest


def float_key(values: np.ndarray) -> np.ndarray:
    """Map float32 to uint32 so that the order is kept."""
    bits = values.view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def from_key(key: int) -> float:
    """Undo `float_key` for one value."""
    bits = np.uint32(key)
    return float((bits ^ SIGN if bits & SIGN else ~bits).view(np.float32))


def moments(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of every channel.

    Blocks are merged pairwise [1]_, which does not lose digits as sums of squares do.

    Parameters
    ----------
    source : Source

    Returns
    -------
    mean, std : (C,) ndarrays of float64
        The standard deviation of the population, as `numpy.std`.

    Raises
    ------
    UserError
        If a channel holds no finite number.

    References
    ----------
    .. [1] Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American
       Statistician 37, 1983. https://doi.org/10.1080/00031305.1983.10483115
    """
    count, mean, squares = np.zeros((3, source.n_channels))
    for channel, values in source.values():
        if not len(values):
            continue
        n = len(values)
        centre, total = values.mean(dtype=np.float64), count[channel] + n
        shift = centre - mean[channel]
        squares[channel] += n * values.var(dtype=np.float64) + shift**2 * count[channel] * n / total
        mean[channel] += shift * n / total
        count[channel] = total
    source.check(count)
    return mean, np.sqrt(squares / count)
