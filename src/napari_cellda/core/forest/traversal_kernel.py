"""The compiled part of forest prediction: 64 neighbouring pixels walk the trees together.

The pixels of a tile are the bits of one 64-bit mask. A branching is visited once per tile, not once
per pixel: it splits the mask in two by one comparison over 64 contiguous values. Neighbouring
pixels mostly go the same way, so a tile visits few branchings. The visits of all trees stand in one
queue that is filled without a branch (the write position moves on only when a pixel went there),
which leaves the processor nothing to mispredict and many visits to overlap.

A leaf of one class only marks its pixels in the ballot of its tree and class: a pixel reaches one
leaf per tree. The votes are counted after in vertical counters, where bit j of 64 pixels' counts
is one integer. A leaf of several classes is noted and its probabilities are added in fixed point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cellda.core.forest.simd import above, compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 64
"""Pixels of a tile: the bits of a mask."""

NODE = np.dtype(
    [("feature", np.uint32), ("threshold", np.float32), ("left", np.int32), ("right", np.int32)],
    align=True,
)
"""A branching. `feature` counts in tiles' values; a negative child c has the leaf's code ~c."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)


class Layout(NamedTuple):
    """A forest as the kernel wants it."""

    nodes: NDArray[np.void]
    """(N,) of `NODE`"""
    roots: NDArray[np.int32]
    """(T,) like the child of a node"""
    amounts: NDArray[np.uint32]
    """(L, K) what a leaf of several classes adds; a row adds up to `full`."""
    n_ballots: int
    """Leaf codes below are ballots, tree * K + class; the others less this are rows of amounts."""
    full: int
    """What a vote counts."""


class Room(NamedTuple):
    """Working memory of one thread."""

    values: NDArray[np.float32]
    """(F * 64,) the features of a tile"""
    queue: NDArray[np.int32]
    """Branchings to visit, and below which pixels go there."""
    parts: NDArray[np.uint64]
    ballots: NDArray[np.uint64]
    """(T * K + 1,) who voted for what; the last is never counted."""
    leaves: NDArray[np.int32]
    """Leaves of several classes that were reached, and below by whom."""
    leaf_parts: NDArray[np.uint64]
    sums: NDArray[np.uint32]
    """(K - 1, 64) what each class got; the last gets the rest."""


class Window(NamedTuple):
    """A part of a plane, and how its features lie in memory, in elements."""

    plane: int
    top: int
    bottom: int
    left: int
    right: int
    tile_height: int
    feature_stride: int
    row_stride: int


@compiled
def predict_window(layout, flat, window, room, scratch, out):  # type: ignore[no-untyped-def]
    """Predict one window into `out`, (K, Z, Y, X)."""
    tile_height = window.tile_height
    tile_width = TILE // tile_height
    n_classes = out.shape[0]
    whole = np.uint32(layout.full * layout.roots.size)
    unit = 1.0 / np.float64(whole)
    for top in range(window.top, window.bottom, tile_height):
        height = min(tile_height, window.bottom - top)
        for left in range(window.left, window.right, tile_width):
            width = min(tile_width, window.right - left)
            _load(flat, window, top, left, height, width, room.values)
            n_leaves = _walk(layout, room, scratch)
            _count_votes(layout, room)
            _add_leaves(layout, room, n_leaves)
            for y in range(height):
                for x in range(width):
                    rest = whole
                    for k in range(n_classes - 1):
                        total = room.sums[k, y * tile_width + x]
                        out[k, window.plane, top + y, left + x] = total * unit
                        rest -= total
                    out[n_classes - 1, window.plane, top + y, left + x] = rest * unit


@compiled
def _load(flat, window, top, left, height, width, values):  # type: ignore[no-untyped-def]
    """Copy a tile's features together; what lies beyond the window repeats its last pixels."""
    tile_height = window.tile_height
    tile_width = TILE // tile_height
    for c in range(values.size // TILE):
        for y in range(tile_height):
            start = c * window.feature_stride + (top + min(y, height - 1)) * window.row_stride
            start += left
            target = c * TILE + y * tile_width
            if width == 8 and tile_width == 8:
                for x in range(8):
                    values[target + x] = flat[start + x]
            else:
                for x in range(tile_width):
                    values[target + x] = flat[start + min(x, width - 1)]


@compiled
def _walk(layout, room, scratch):  # type: ignore[no-untyped-def]
    """Send a tile through all trees; return how many leaves of several classes it reached."""
    nodes, n_ballots = layout.nodes, np.uint64(layout.n_ballots)
    queue, parts, ballots = room.queue, room.parts, room.ballots
    mixed = layout.amounts.shape[0] > 0
    at = end = n_leaves = np.uint64(0)
    for t in range(layout.roots.size):
        root = layout.roots[t]
        if root >= 0:
            queue[end] = root
            parts[end] = _ALL
            end += _ONE
        elif ~root < layout.n_ballots:
            ballots[~root] = _ALL
        else:
            room.leaves[n_leaves] = ~root - layout.n_ballots
            room.leaf_parts[n_leaves] = _ALL
            n_leaves += _ONE
    while at < end:
        node = nodes[np.uint64(queue[at])]
        here = parts[at]
        at += _ONE
        right = above(room.values, np.uint64(node.feature), node.threshold, scratch) & here
        for side in range(2):
            child = np.int64(node.right) if side else np.int64(node.left)
            part = right if side else here & ~right
            # Written in any case, kept when the position moves on: no branch to mispredict.
            queue[end] = child
            parts[end] = part
            end += np.uint64((child >= 0) & (part != 0))
            # As an unsigned number, what is not a leaf's code lies beyond all ballots: in the last.
            code = np.uint64(~child)
            ballots[min(code, n_ballots)] |= part
            if mixed:
                room.leaves[n_leaves] = ~child - layout.n_ballots
                room.leaf_parts[n_leaves] = part
                n_leaves += np.uint64((~child >= layout.n_ballots) & (part != 0))
    return n_leaves


@compiled
def _count_votes(layout, room):  # type: ignore[no-untyped-def]
    """Start the sums with the votes, and clear the ballots."""
    n_classes = room.sums.shape[0] + 1
    ballots = room.ballots
    digits = np.zeros(12, np.uint64)
    n_digits = 0
    while layout.roots.size >> n_digits:
        n_digits += 1
    for k in range(n_classes - 1):
        digits[:] = 0
        for t in range(layout.roots.size):
            carry = ballots[t * n_classes + k]
            for j in range(n_digits):
                digits[j], carry = digits[j] ^ carry, digits[j] & carry
        for i in range(TILE):
            count = np.uint32(0)
            for j in range(n_digits):
                count |= np.uint32((digits[j] >> np.uint64(i)) & _ONE) << np.uint32(j)
            room.sums[k, i] = count * np.uint32(layout.full)
    ballots[:] = 0


@compiled
def _add_leaves(layout, room, n_leaves):  # type: ignore[no-untyped-def]
    """Add what the noted leaves hold to the sums of the pixels that reached them."""
    sums = room.sums
    one, none = np.uint32(1), np.uint32(0)
    for j in range(n_leaves):
        part = room.leaf_parts[j]
        for half in range(2):
            bits = np.uint32(part >> np.uint64(32) if half else part & _LOW)
            for k in range(sums.shape[0]):
                amount = layout.amounts[room.leaves[j], k]
                if amount:
                    for i in range(np.uint32(32)):
                        sums[k, 32 * half + i] += amount if (bits >> i) & one else none
