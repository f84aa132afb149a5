"""Cutting a region into the blocks that a network can take; integer arithmetic along one axis.

A block is what the network sees; its core is what is kept of the answer. Block origins are
multiples of the network's step, so that its poolings fall on the same pixels in every tile. Blocks
end where the frame ends: the image and a border of reflected pixels, the same for every tile, so
that tiles and the whole image see the same border.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TileAxis:
    """What a network asks for along one spatial axis, in pixels."""

    step: int
    """Block sizes and origins are multiples of it."""
    least: int
    """Smallest block that the network takes."""
    halo: int
    """What a core needs around itself."""
    core: int
    """Largest core wished for."""
    border: int = 0
    """Reflected pixels around the image."""
    fixed: bool = False
    """Whether only blocks of exactly `least` are taken."""
    anchored: bool = False
    """Whether cores lie on multiples of their size and blocks are of one size: for networks whose
    answer depends on the tile, so that the same pixel lies in the same tile whatever is asked."""

    @property
    def reach(self) -> int:
        """The halo in whole steps; less where a fixed block leaves no room for a core."""
        wanted = ceil_to(self.halo, self.step)
        return (
            min(wanted, floor_to((self.least - self.step) // 2, self.step))
            if self.fixed
            else wanted
        )

    @property
    def largest_core(self) -> int:
        """The largest core in whole steps."""
        core = self.least - 2 * self.reach if self.fixed else self.core
        return max(self.step, floor_to(core, self.step))

    @property
    def size(self) -> int:
        """The size that a block is lengthened to, inside its frame."""
        if self.fixed or not self.anchored:
            return ceil_to(self.least, self.step)
        return max(ceil_to(self.least, self.step), self.largest_core + 2 * self.reach)


@dataclass(frozen=True)
class Span:
    """One block along one axis; the core lies inside the block and inside the image."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def core(self) -> slice:
        """Where the core lies in the image."""
        return slice(self.core_start, self.core_stop)

    @property
    def core_inside(self) -> slice:
        """Where the core lies in the block."""
        return slice(self.core_start - self.start, self.core_stop - self.start)


def cut_axis(start: int, stop: int, limit: int, axis: TileAxis) -> list[Span]:
    """Cut ``start:stop`` of an axis of `limit` pixels into blocks whose cores cover it once.

    Parameters
    ----------
    start, stop : int
        What is wanted, inside ``0:limit``.
    limit : int
        Size of the image along this axis.
    axis : TileAxis

    Returns
    -------
    list of Span
        In order. Blocks may stick out of the image, where it is to be reflected.
    """
    low = -ceil_to(axis.border, axis.step)
    high = max(ceil_to(limit, axis.step) - low, low + ceil_to(axis.least, axis.step))
    spans = []
    for first, last in _cores(start, stop, high - low, axis):
        a, b = max(first - axis.reach, low), min(last + axis.reach, high)
        missing = max(0, min(axis.size, high - low) - (b - a))
        b, a = min(b + missing, high), a - max(0, b + missing - high)
        spans.append(Span(a, b, max(first, start), min(last, stop)))
    return spans


def _cores(start: int, stop: int, frame: int, axis: TileAxis) -> list[tuple[int, int]]:
    """Return the cores, in whole steps: even ones, or those of a grid when they are anchored."""
    first, last = floor_to(start, axis.step), ceil_to(stop, axis.step)
    size = axis.largest_core
    if axis.fixed and frame <= axis.least:
        size = frame  # one block holds the image and its border
    if axis.anchored or axis.fixed:
        return [(low, low + size) for low in range(floor_to(first, size), last, size)]
    n_cores = -(-(last - first) // size)
    size = ceil_to(-(-(last - first) // n_cores), axis.step)
    return [(low, min(low + size, last)) for low in range(first, last, size)]


def ceil_to(value: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-value // step) * step


def floor_to(value: int, step: int) -> int:
    """Round down to a multiple of `step`."""
    return value // step * step
