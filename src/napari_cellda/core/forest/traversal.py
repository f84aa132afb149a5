"""Predict with a forest: arrange its trees, split the pixels into jobs, share them out."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.forest.simd import scratch
from napari_cellda.core.forest.traversal_kernel import (
    NODE,
    TILE,
    Layout,
    Room,
    Window,
    predict_window,
)
from napari_cellda.core.threads import run_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_cellda.core.forest.trees import Forest

PIXELS_PER_JOB = 1 << 16
ROWS_PER_JOB = 64
_log = logging.getLogger(__name__)


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

    def work(job: tuple[NDArray[np.float32], Window]) -> None:
        room = _room(layout, len(features))
        predict_window(layout, *job, room, scratch(vectorised), out)

    run_threaded(work, jobs, threads)
    return out.reshape(n_classes, *shape)


def _windows(plane: NDArray[np.float32], index: int) -> list[tuple[NDArray[np.float32], Window]]:
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
    rows = min(height, ROWS_PER_JOB)
    columns = PIXELS_PER_JOB // rows
    rest = tile_height, plane.strides[0] // item, plane.strides[1] // item
    corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    return [
        (flat, Window(index, y, min(y + rows, height), x, min(x + columns, width), *rest))
        for y, x in corners
    ]


def _room(layout: Layout, n_features: int) -> Room:
    n_classes = layout.n_ballots // len(layout.roots)
    return Room(
        values=_aligned(n_features * TILE),
        # One more than there are branchings, for the write that is not kept. The same for leaves.
        queue=np.empty(len(layout.nodes) + 1, np.int32),
        parts=np.empty(len(layout.nodes) + 1, np.uint64),
        ballots=np.zeros(layout.n_ballots + 1, np.uint64),
        leaves=np.empty(len(layout.amounts) + 1, np.int32),
        leaf_parts=np.empty(len(layout.amounts) + 1, np.uint64),
        sums=np.empty((n_classes - 1, TILE), np.uint32),
    )


def _aligned(size: int) -> NDArray[np.float32]:
    """Allocate so that no vector of 16 values lies across two cache lines."""
    room = np.empty(size + 16, np.float32)
    first = -room.ctypes.data % 64 // room.itemsize
    return room[first : first + size]


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
