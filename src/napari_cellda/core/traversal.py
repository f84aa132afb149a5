"""Walk a forest's trees with tiles of 64 neighbouring pixels at once.

The pixels of a tile are the bits of one 64-bit mask. A node is visited once per tile, not once per
pixel: it splits the mask in two by one comparison over 64 contiguous values. Neighbouring pixels
mostly go the same way, so a tile visits few nodes. The visits of all trees stand in one queue
that is filled without a branch (the write position moves on only when a pixel went there), which
leaves the processor nothing to mispredict.

Where every leaf belongs to one class (trees grown to the end) a leaf only marks its pixels in the
mask of its tree and class, and the votes are counted after in vertical counters: bit j of the
counts of 64 pixels is one integer. Other leaves add their probabilities in fixed point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from napari_cellda.core.threads import run_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_cellda.core.trees import Forest

TILE = 64
BAND = 64
NODE = np.dtype(
    [("feature", np.uint32), ("threshold", np.float32), ("left", np.int32), ("right", np.int32)]
)
"""A branching: values above the threshold go right. A negative child is the leaf ~child."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
_PACK = np.uint64(0x0102040810204080)
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)


class Layout(NamedTuple):
    """A forest as the kernel wants it."""

    nodes: NDArray[np.void]
    roots: NDArray[np.int32]
    votes: bool
    """Whether every leaf is one class: then leaf codes are tree * K + class, else leaf indices."""
    amounts: NDArray[np.uint32]
    """(L, K - 1) what a leaf adds to each class but the last; their sum is at most `full`."""
    full: int
    """What a pixel's classes add up to per tree."""
    n_classes: int


@_compiled
def _mask_above(values, first, threshold, bytes_, words):  # type: ignore[no-untyped-def]
    """Bit i tells whether value i of 64 is above the threshold."""
    for i in range(np.uint64(64)):
        bytes_[i] = values[first + i] > threshold
    mask = np.uint64(0)
    for j in range(np.uint64(8)):
        # Multiplying gathers the lowest bits of eight bytes in the top byte.
        mask |= ((words[j] * _PACK) >> np.uint64(56)) << (np.uint64(8) * j)
    return mask


@_compiled
def _walk(values, nodes, roots, votes, queue_node, queue_mask, ballots, leaves, leaf_masks, bytes_, words):  # type: ignore[no-untyped-def]
    """Send one tile through all trees; return how many leaves were reached (when not voting)."""
    end = np.uint64(0)
    n_leaves = np.uint64(0)
    for t in range(roots.size):
        root = roots[t]
        if root >= 0:
            queue_node[end] = root
            queue_mask[end] = _ALL
            end += _ONE
        elif votes:
            ballots[~root] = _ALL
        else:
            leaves[n_leaves] = ~root
            leaf_masks[n_leaves] = _ALL
            n_leaves += _ONE
    trash = np.int64(ballots.size - 1)
    at = np.uint64(0)
    while at < end:
        node = nodes[np.uint64(queue_node[at])]
        mask = queue_mask[at]
        at += _ONE
        above = _mask_above(values, np.uint64(node.feature), node.threshold, bytes_, words) & mask
        below = mask & ~above
        for side in range(2):
            child = np.int64(node.right) if side else np.int64(node.left)
            part = above if side else below
            inner = child >= 0
            some = part != 0
            queue_node[end] = child
            queue_mask[end] = part
            end += np.uint64(inner & some)
            if votes:
                ballots[np.uint64(trash if inner else ~child)] |= part
            else:
                leaves[n_leaves] = ~child
                leaf_masks[n_leaves] = part
                n_leaves += np.uint64((not inner) & some)
    return n_leaves


@_compiled
def _count_votes(ballots, n_trees, n_classes, n_bits, counts):  # type: ignore[no-untyped-def]
    """Count each pixel's votes for every class but the last; clears the ballots."""
    digits = np.empty(16, np.uint64)
    for k in range(n_classes - 1):
        digits[:n_bits] = 0
        for t in range(n_trees):
            carry = ballots[t * n_classes + k]
            for j in range(n_bits):
                both = digits[j] & carry
                digits[j] ^= carry
                carry = both
        for i in range(64):
            count = np.uint32(0)
            for j in range(n_bits):
                count |= np.uint32((digits[j] >> np.uint64(i)) & _ONE) << np.uint32(j)
            counts[k, i] = count
    ballots[:] = 0


@_compiled
def _add_leaves(leaves, leaf_masks, n_leaves, amounts, sums):  # type: ignore[no-untyped-def]
    """Add what the reached leaves hold to the sums of the pixels that reached them."""
    sums[:] = 0
    for j in range(n_leaves):
        low = np.uint32(leaf_masks[j] & np.uint64(0xFFFFFFFF))
        high = np.uint32(leaf_masks[j] >> np.uint64(32))
        for k in range(sums.shape[0]):
            amount = amounts[leaves[j], k]
            if amount:
                for i in range(np.uint32(32)):
                    sums[k, i] += amount * ((low >> i) & np.uint32(1))
                    sums[k, i + 32] += amount * ((high >> i) & np.uint32(1))


@_compiled
def predict_rows(flat, strides, n_features, rows, tile, width, layout, sizes, out):  # type: ignore[no-untyped-def]
    """Predict the rows ``rows[0]:rows[1]`` of a plane, tile by tile.

    `flat` holds the features, pixel (c, y, x) at ``c * strides[0] + y * strides[1] + x``; `out` is
    (K, Y, X) float32.
    """
    nodes, roots, votes, amounts, full, n_classes = layout
    n_queue, n_reached, n_bits = sizes
    tile_y, tile_x = tile
    values = np.empty(n_features * 64, np.float32)
    queue_node = np.empty(n_queue, np.int32)
    queue_mask = np.empty(n_queue, np.uint64)
    ballots = np.zeros(roots.size * n_classes + 1 if votes else 1, np.uint64)
    leaves = np.empty(n_reached, np.int32)
    leaf_masks = np.empty(n_reached, np.uint64)
    sums = np.zeros((n_classes - 1, 64), np.uint32)
    bytes_ = np.empty(64, np.uint8)
    words = bytes_.view(np.uint64)
    unit = 1.0 / (np.float64(full) * roots.size)
    for y0 in range(rows[0], rows[1], tile_y):
        for x0 in range(0, width, tile_x):
            for c in range(n_features):
                for y in range(tile_y):
                    row = c * strides[0] + min(y0 + y, rows[1] - 1) * strides[1]
                    for x in range(tile_x):
                        values[c * 64 + y * tile_x + x] = flat[row + min(x0 + x, width - 1)]
            n_leaves = _walk(values, nodes, roots, votes, queue_node, queue_mask, ballots, leaves, leaf_masks, bytes_, words)
            if votes:
                _count_votes(ballots, roots.size, n_classes, n_bits, sums)
            else:
                _add_leaves(leaves, leaf_masks, n_leaves, amounts, sums)
            for y in range(min(tile_y, rows[1] - y0)):
                for x in range(min(tile_x, width - x0)):
                    rest = np.uint32(full * roots.size)
                    for k in range(n_classes - 1):
                        total = sums[k, y * tile_x + x]
                        rest -= total
                        out[k, y0 + y, x0 + x] = total * unit
                    out[n_classes - 1, y0 + y, x0 + x] = rest * unit


def lay_out(forest: Forest) -> Layout:
    """Arrange a forest's arrays for the kernel."""
    n_classes, n_trees = forest.n_classes, forest.n_trees
    votes = bool((forest.leaves.max(1) == 1).all())
    codes = np.arange(len(forest.leaves), dtype=np.int32)
    if votes:
        tree = np.repeat(np.arange(n_trees), np.diff(forest.leaf_starts))
        codes = (tree * n_classes + forest.leaves.argmax(1)).astype(np.int32)
    children = forest.children.copy()
    children[children < 0] = ~codes[~children[children < 0]]
    nodes = np.empty(len(children), NODE)
    nodes["feature"] = forest.feature * TILE
    nodes["threshold"] = forest.threshold
    nodes["left"], nodes["right"] = children.T
    stumps = np.diff(forest.node_starts) == 0
    roots = np.where(stumps, ~codes[forest.leaf_starts[:-1]], forest.node_starts[:-1])
    full = 1 if votes else (2**32 - 1) // n_trees
    # Rounded down, so that the classes never add up to more than the whole.
    amounts = np.floor(forest.leaves[:, :-1].astype(np.float64) * full)
    total = np.maximum(forest.leaves.sum(1, dtype=np.float64, keepdims=True), 1.0)
    amounts = np.floor(amounts / total).astype(np.uint32)
    return Layout(nodes, roots.astype(np.int32), votes, amounts, full, n_classes)


def predict(
    layout: Layout, features: NDArray[np.float32], *, threads: int | None = None
) -> NDArray[np.float32]:
    """Predict (F, N), (F, Y, X) or (F, Z, Y, X) features; see `Forest.predict`."""
    shape = features.shape[1:]
    features = np.asarray(features, dtype=np.float32)
    planes = features[:, None, None] if len(shape) == 1 else features
    planes = planes[:, None] if len(shape) == 2 else planes
    out = np.empty((layout.n_classes, *planes.shape[1:]), np.float32)
    sizes = (
        len(layout.nodes) + 1,
        1 if layout.votes else len(layout.amounts) + 1,
        len(layout.roots).bit_length(),
    )
    height, width = planes.shape[2:]
    tile_y = next(n for n in (8, 4, 2, 1) if n <= height)
    jobs = []
    for z in range(planes.shape[1]):
        flat, strides = _flat(planes[:, z])
        for first in range(0, height, BAND):
            rows = (first, min(first + BAND, height))
            jobs.append((flat, strides, rows, out[:, z]))
    def work(job):
        flat, strides, rows, target = job
        predict_rows(flat, strides, len(features), rows, (tile_y, TILE // tile_y), width, layout, sizes, target)
    run_threaded(work, jobs, threads)
    return out.reshape(layout.n_classes, *shape)


def _flat(plane):
    """View a (F, Y, X) array as one dimension, with its strides in elements."""
    item = plane.itemsize
    if plane.strides[2] != item or min(plane.strides) < 0 or any(s % item for s in plane.strides):
        plane = np.ascontiguousarray(plane)
    span = 1 + sum((n - 1) * s for n, s in zip(plane.shape, plane.strides)) // item
    flat = np.lib.stride_tricks.as_strided(plane, (span,), (item,), writeable=False)
    return flat, (plane.strides[0] // item, plane.strides[1] // item)
