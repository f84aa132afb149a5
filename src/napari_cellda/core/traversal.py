"""Walk a forest's trees with tiles of 64 neighbouring pixels at once.

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

import logging
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cellda.core.simd import above, compiled, scratch
from napari_cellda.core.threads import run_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_cellda.core.trees import Forest

TILE = 64
"""Pixels of a tile: the bits of a mask."""
PIXELS_PER_JOB = 1 << 16

NODE = np.dtype(
    [("feature", np.uint32), ("threshold", np.float32), ("left", np.int32), ("right", np.int32)],
    align=True,
)
"""A branching. `feature` counts in tiles' values; a negative child c has the leaf's code ~c."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_log = logging.getLogger(__name__)


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


class _Room(NamedTuple):
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


class _Window(NamedTuple):
    """A part of a plane, and how its features lie in memory, in elements."""

    plane: int
    top: int
    bottom: int
    left: int
    right: int
    tile_height: int
    feature_stride: int
    row_stride: int


def lay_out(forest: Forest) -> Layout:
    """Arrange a forest's arrays for the kernel."""
    n_ballots = forest.n_trees * forest.n_classes
    single = forest.leaves.max(1) == 1
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.leaf_starts))
    ballots = tree * forest.n_classes + forest.leaves.argmax(1)
    codes = np.where(single, ballots, n_ballots - 1 + np.cumsum(~single))
    children = forest.children.astype(np.int64)
    children[children < 0] = ~codes[~children[children < 0]]
    nodes = np.empty(len(children), NODE)
    nodes["feature"] = forest.feature * TILE
    nodes["threshold"] = forest.threshold
    nodes["left"], nodes["right"] = children.T
    stumps = np.diff(forest.node_starts) == 0
    roots = np.where(stumps, ~codes[forest.leaf_starts[:-1]], forest.node_starts[:-1])
    full = (2**32 - 1) // forest.n_trees
    amounts = _fixed_point(forest.leaves[~single], full)
    return Layout(nodes, roots.astype(np.int32), amounts, n_ballots, full)


def _fixed_point(leaves: NDArray[np.float32], full: int) -> NDArray[np.uint32]:
    """Scale probabilities to integers that add up to `full` exactly."""
    exact = leaves.astype(np.float64)
    exact *= full / np.maximum(exact.sum(1, keepdims=True), np.finfo(float).tiny)
    amounts = np.floor(exact).astype(np.int64)
    # What rounding down left over goes to the largest, where it matters least.
    amounts[np.arange(len(amounts)), exact.argmax(1)] += full - amounts.sum(1)
    return amounts.astype(np.uint32)


def predict(
    layout: Layout,
    features: NDArray[np.float32],
    *,
    threads: int | None = None,
    vectorised: bool | None = None,
) -> NDArray[np.float32]:
    """Predict class probabilities of (F, N), (F, Y, X) or (F, Z, Y, X) features.

    `vectorised` None takes the vector instructions where they compile; both give the same, bit for
    bit. See `Forest.predict`.
    """
    shape = features.shape[1:]
    features = np.asarray(features, dtype=np.float32)
    stack = features.reshape(len(features), *(1,) * (3 - len(shape)), *shape)
    n_classes = layout.n_ballots // len(layout.roots)
    out = np.empty((n_classes, *stack.shape[1:]), np.float32)
    if vectorised is None:
        vectorised = can_vectorise()
    jobs = [
        (flat, window)
        for plane in range(stack.shape[1])
        for flat, window in _windows(stack[:, plane], plane)
    ]

    def work(job: tuple[NDArray[np.float32], _Window]) -> None:
        room = _room(layout, len(features))
        _predict_window(layout, *job, room, scratch(vectorised), out)

    run_threaded(work, jobs, threads)
    return out.reshape(n_classes, *shape)


def _windows(plane: NDArray[np.float32], index: int) -> list[tuple[NDArray[np.float32], _Window]]:
    """Split a (F, Y, X) array, which may be a view of a larger one, into jobs."""
    height, width = plane.shape[1:]
    if 0 in plane.shape:
        return []
    item = plane.itemsize
    if plane.strides[2] != item or min(plane.strides) < 0 or any(s % item for s in plane.strides):
        plane = np.ascontiguousarray(plane)
    span = 1 + sum((n - 1) * s for n, s in zip(plane.shape, plane.strides, strict=True)) // item
    flat = np.lib.stride_tricks.as_strided(plane, (span,), (item,), writeable=False)
    tile_height = next(n for n in (8, 4, 2, 1) if n <= height)
    rows = min(height, 64)
    columns = PIXELS_PER_JOB // rows
    rest = tile_height, plane.strides[0] // item, plane.strides[1] // item
    corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    return [
        (flat, _Window(index, y, min(y + rows, height), x, min(x + columns, width), *rest))
        for y, x in corners
    ]


def _room(layout: Layout, n_features: int) -> _Room:
    n_classes = layout.n_ballots // len(layout.roots)
    return _Room(
        values=np.empty(n_features * TILE, np.float32),
        # One more than there are branchings, for the write that is not kept. The same for leaves.
        queue=np.empty(len(layout.nodes) + 1, np.int32),
        parts=np.empty(len(layout.nodes) + 1, np.uint64),
        ballots=np.zeros(layout.n_ballots + 1, np.uint64),
        leaves=np.empty(len(layout.amounts) + 1, np.int32),
        leaf_parts=np.empty(len(layout.amounts) + 1, np.uint64),
        sums=np.empty((n_classes - 1, TILE), np.uint32),
    )


@compiled
def _predict_window(layout, flat, window, room, scratch, out):  # type: ignore[no-untyped-def]
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
    nodes, n_ballots = layout.nodes, layout.n_ballots
    queue, parts, ballots = room.queue, room.parts, room.ballots
    mixed = layout.amounts.shape[0] > 0
    at = end = n_leaves = np.uint64(0)
    for t in range(layout.roots.size):
        root = layout.roots[t]
        if root >= 0:
            queue[end] = root
            parts[end] = _ALL
            end += _ONE
        elif ~root < n_ballots:
            ballots[~root] = _ALL
        else:
            room.leaves[n_leaves] = ~root - n_ballots
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
            code = ~child
            vote = (child < 0) & (code < n_ballots)
            ballots[np.uint64(code if vote else n_ballots)] |= part
            if mixed:
                room.leaves[n_leaves] = code - n_ballots
                room.leaf_parts[n_leaves] = part
                n_leaves += np.uint64((code >= n_ballots) & (part != 0))
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


@cache
def can_vectorise() -> bool:
    """Compile the vectorised kernel, and tell whether that worked."""
    features = np.zeros((1, 1, 1), np.float32)
    layout = Layout(np.zeros(0, NODE), np.full(2, -1, np.int32), np.zeros((0, 2), np.uint32), 4, 1)
    try:
        predict(layout, features, threads=1, vectorised=True)
    except Exception as error:
        # Whatever llvmlite or numba changed, the plain kernel gives the same map, more slowly.
        _log.warning("Forest prediction runs without vector instructions: %s", error)
        return False
    return True
