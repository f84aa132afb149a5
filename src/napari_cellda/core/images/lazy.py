"""Arrays that may be larger than memory: canonical axes, channels and blocks, without reading."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CANONICAL = "tczyx"
LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in the grey value (ITU-R BT.709, as in scikit-image)."""
EAGER_BYTES = 64 * 2**20
"""Plain numpy images up to this size are turned grey at once, larger ones region by region."""


class AxesView:
    """A zarr array or memory map seen with canonical axes, for dask to cut lazily.

    Dask pushes plain slices down into this view, so that a read touches only the chunks it needs.
    """

    def __init__(self, array: Any, axes: str) -> None:
        self.array = array
        self.axes = axes
        sizes = dict(zip(axes, array.shape, strict=True))
        self.shape = tuple(sizes.get(axis, 1) for axis in CANONICAL)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(CANONICAL)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """Read a box given by five slices."""
        asked = dict(zip(CANONICAL, key, strict=True))
        block = np.asarray(self.array[tuple(asked[axis] for axis in self.axes)])
        block = to_canonical(block, self.axes)
        absent = [i for i, axis in enumerate(CANONICAL) if axis not in self.axes]
        cut = tuple(key[i] if i in absent else slice(None) for i in range(self.ndim))
        return np.asarray(block[cut])


def to_canonical(array: Any, axes: str) -> Any:
    """Return a view of a numpy or dask array with the axes (T, C, Z, Y, X), singleton where new."""
    present = [axes.index(axis) for axis in CANONICAL if axis in axes]
    missing = tuple(slice(None) if axis in axes else np.newaxis for axis in CANONICAL)
    return array.transpose(present)[missing]


def lazy_canonical(array: Any, axes: str) -> Any:
    """Give any array-like canonical axes without reading it.

    Parameters
    ----------
    array : numpy, dask, zarr or any array with `shape`, `dtype` and slicing
    axes : str
        Its axes, out of "tczyx" in any order.

    Returns
    -------
    (T, C, Z, Y, X) ndarray or dask array
        Numpy arrays and memory maps stay what they are (a view); the rest becomes dask.
    """
    import dask.array as da

    if isinstance(array, np.ndarray | da.Array):
        return to_canonical(array, axes)
    view = AxesView(array, axes)
    own = dict(zip(axes, getattr(array, "chunks", None) or array.shape, strict=True))
    chunks = da.core.normalize_chunks(
        "auto",
        shape=view.shape,
        dtype=view.dtype,
        limit="4MiB",  # small strips and chunks are read together: fewer dask tasks
        previous_chunks=tuple(own.get(axis, 1) for axis in CANONICAL),
    )
    # A name of our own: dask would otherwise hash the content, and so read all of it.
    return da.from_array(view, chunks=chunks, name=f"image-{next(_serial)}", meta=_empty(view))


_serial = itertools.count()


def _empty(view: AxesView) -> np.ndarray:
    return np.empty((0,) * view.ndim, view.dtype)


def compute(data: Any) -> np.ndarray:
    """Load a lazy array into numpy, with threads of this process only."""
    if hasattr(data, "compute"):
        # Without this a `distributed` client in the same process would ship every tile.
        data = data.compute(scheduler="threads")
    return np.asarray(data)


def as_float(block: np.ndarray) -> np.ndarray:
    """Copy to float32, native byte order; numbers too large for it become infinite."""
    with np.errstate(over="ignore"):
        return block.astype(np.float32)


def is_lazy(data: Any) -> bool:
    """Whether reading all of `data` would bring more into memory than there is now."""
    return not isinstance(data, np.ndarray) or isinstance(data, np.memmap)


def as_dask(data: Any) -> Any:
    """Wrap numpy arrays and memory maps of (T, C, Z, Y, X) in dask, chunk by chunk."""
    import dask.array as da

    if not isinstance(data, np.ndarray):
        return data
    chunks = (1, data.shape[1], 1, 1024, 1024)
    return da.from_array(data, chunks=chunks, name=f"image-{next(_serial)}")


def luminance(data: Any) -> Any:
    """Turn the RGB channels of (T, C, Z, Y, X) into one float32 grey channel in the same range."""
    if not is_lazy(data) and data.nbytes <= EAGER_BYTES:
        return _luminance_block(data)
    data = as_dask(data)
    data = data.rechunk({1: -1})
    chunks = (data.chunks[0], (1,), *data.chunks[2:])
    return data.map_blocks(_luminance_block, dtype=np.float32, chunks=chunks)


def _luminance_block(block: np.ndarray) -> np.ndarray:
    parts = (weight * as_float(block[:, [c]]) for c, weight in enumerate(LUMINANCE))
    return np.asarray(sum(parts), np.float32)


def take_channels(data: Any, indices: Sequence[int]) -> Any:
    """Pick channels of (T, C, Z, Y, X), as a view or lazily."""
    first, last = indices[0], indices[-1]
    if list(indices) == list(range(first, last + 1)):
        return data[:, first : last + 1]
    return as_dask(data)[:, list(indices)] if is_lazy(data) else data[:, list(indices)]


def blocks(data: Any, max_values: int = 2**22) -> Iterator[tuple[slice, ...]]:
    """Cut an array into boxes along its chunks, for one pass with bounded memory.

    Parameters
    ----------
    data : array
        Numpy, dask or zarr, any number of axes.
    max_values : int
        Neighbouring chunks are joined up to this many values. A single larger chunk of a dask or
        zarr array stays whole, because any part of it costs loading all of it.

    Yields
    ------
    tuple of slice
        Every value lies in exactly one box.
    """
    n_axes = len(data.shape)
    # Without chunks, such as a memory map: planes, in pieces where they are large.
    own = getattr(data, "chunks", None) or ((1,) * n_axes + (1024, 1024))[-n_axes:]
    chunks = [
        _even(size, step) if isinstance(step, int) else step
        for size, step in zip(data.shape, own, strict=True)
    ]
    room = max_values // max(1, int(np.prod([max(sizes) for sizes in chunks], dtype=np.int64)))
    axes = []
    for sizes in reversed(chunks):
        joined = max(1, min(room, len(sizes)))
        room //= joined
        edges = [0, *itertools.accumulate(sizes)]
        cuts = [*edges[:-1:joined], edges[-1]]
        axes.append([slice(low, high) for low, high in itertools.pairwise(cuts)])
    yield from itertools.product(*reversed(axes))


def _even(size: int, step: int) -> tuple[int, ...]:
    return tuple(min(step, size - start) for start in range(0, size, step))
