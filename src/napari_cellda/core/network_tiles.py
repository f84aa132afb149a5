"""Cutting a region into the blocks that a network can take; integer arithmetic along one axis.

A block is what the network sees; its core is what is kept. Block origins are multiples of the
network's step, so that its poolings fall on the same pixels in every tile, and blocks end where
the frame ends: one frame around the whole image, so that every tile sees the same border.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TileAxis:
    """What a network asks for along one spatial axis, in pixels."""

    step: int
    """Block sizes and origins are multiples of it (0.4 and 0.5 RDFs: ``step``)."""
    least: int
    """Smallest block (RDF: ``min``)."""
    halo: int
    """What a block needs around its core."""
    most: int
    """Largest block wished for; at least one step is always kept of it."""
    fixed: bool = False
    """Whether only blocks of exactly `least` are taken."""
    border: int = 0
    """Reflected pixels around the image; fixed for the image, so that tiles equal the whole."""

    @property
    def reach(self) -> int:
        """The halo in whole steps, less where the block would not leave room for a core."""
        wanted = ceil_to(self.halo, self.step)
        room = (self.largest - self.step) // 2 // self.step * self.step
        return max(0, min(wanted, room))

    @property
    def largest(self) -> int:
        """The largest block, a multiple of the step unless fixed."""
        if self.fixed:
            return self.least
        return max(self.most // self.step * self.step, ceil_to(self.least, self.step))


@dataclass(frozen=True)
class Span:
    """One block along one axis; the core lies inside the block and inside the image."""

    start: int
    stop: int
    core_start: int
    core_stop: int


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
        Blocks may stick out of the image (by reflection). Cores are as even as the step allows.
    """
    border = ceil_to(axis.border, axis.step)
    low = -border
    high = max(ceil_to(limit, axis.step) + border, low + ceil_to(axis.least, axis.step))
    first, last = start // axis.step * axis.step, ceil_to(stop, axis.step)
    core = max(axis.step, axis.largest - 2 * axis.reach)
    if last - first + 2 * border >= high - low and high - low <= axis.largest:
        core = last - first  # the whole frame fits one block: no halo to spare
    n_tiles = -(-(last - first) // core)
    size = ceil_to(-(-(last - first) // n_tiles), axis.step)
    spans = []
    for origin in range(first, last, size):
        end = min(origin + size, last)
        a, b = max(origin - axis.reach, low), min(end + axis.reach, high)
        a, b = _lengthen(a, b, low, high, axis)
        spans.append(Span(a, b, max(origin, start), min(end, stop)))
    return spans


def _lengthen(a: int, b: int, low: int, high: int, axis: TileAxis) -> tuple[int, int]:
    """Lengthen a block to the least size, first towards the frame's end."""
    missing = max(0, axis.least - (b - a))
    missing = ceil_to(missing, axis.step)
    after = min(missing, high - b)
    return max(low, a - (missing - after)), b + after


def ceil_to(value: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-value // step) * step
