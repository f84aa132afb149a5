"""Arrays behind strokes and result layers: plain where small, chunked on disk where large."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_MEMORY_BYTES = 128 << 20
"""Larger arrays live in a zarr array in the scratch folder."""
CHUNK = 512
"""Pixels along y and x of a chunk: the size of a feature tile."""


class Scratch:
    """A temporary folder for large arrays; gone with this object. Safe from any thread."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._count = 0
        self._lock = threading.Lock()

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        """Return an array of zeros: numpy, or zarr on disk beyond `IN_MEMORY_BYTES`."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes <= IN_MEMORY_BYTES:
            return np.zeros(tuple(shape), dtype)
        import zarr

        chunks = (1,) * (len(shape) - 2) + tuple(min(CHUNK, size) for size in shape[-2:])
        return zarr.create_array(
            store=self._new_path(), shape=tuple(shape), chunks=chunks, dtype=dtype, fill_value=0
        )

    def _new_path(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="napari-cellda-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._count += 1
            return self._folder / f"{self._count}.zarr"

    def close(self) -> None:
        """Delete the folder now; what a thread still writes is deleted with this object."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class SpreadArray:
    """An array seen with one more axis, along which every index is the same data.

    napari lines layers up by their last axes, so strokes of a (T, C, Y, X) image need a channel
    axis in the viewer although all channels share the same strokes.

    Parameters
    ----------
    base : zarr or numpy array
        Without the axis.
    axis, length : int
        Where the axis is put in, and how long it seems.
    """

    def __init__(self, base: Any, axis: int, length: int) -> None:
        self.base = base
        self._axis = axis
        self.shape = (*base.shape[:axis], length, *base.shape[axis:])
        self.dtype = base.dtype
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """Number of values that it seems to have."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read; an index or slice along the spread axis repeats the same data."""
        key = self._full(key)
        own = key[: self._axis] + key[self._axis + 1 :]
        block = np.asarray(self.base[own])
        along = key[self._axis]
        if not isinstance(along, slice):
            return block
        place = sum(isinstance(part, slice) for part in key[: self._axis])
        length = len(range(*along.indices(self.shape[self._axis])))
        return np.repeat(np.expand_dims(block, place), length, axis=place)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write; of a block along the spread axis, the first index counts."""
        key = self._full(key)
        own = key[: self._axis] + key[self._axis + 1 :]
        value = np.asarray(value)
        if isinstance(key[self._axis], slice) and value.ndim:
            place = sum(isinstance(part, slice) for part in key[: self._axis])
            value = value.take(0, axis=place)
        self.base[own] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[(slice(None),) * self.ndim], dtype=dtype)

    def _full(self, key: Any) -> tuple[Any, ...]:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [part if part is Ellipsis else None for part in key]:
            place = next(i for i, part in enumerate(key) if part is Ellipsis)
            fill = (slice(None),) * (self.ndim - len(key) + 1)
            key = key[:place] + fill + key[place + 1 :]
        return key + (slice(None),) * (self.ndim - len(key))


def spread(base: Any, axis: int | None, length: int) -> Any:
    """Return `base` with an axis put in along which all is the same (`SpreadArray`, or a view)."""
    if axis is None:
        return base
    if isinstance(base, np.ndarray):
        shape = (*base.shape[:axis], length, *base.shape[axis:])
        strides = (*base.strides[:axis], 0, *base.strides[axis:])
        return np.lib.stride_tricks.as_strided(base, shape, strides, writeable=True)
    return SpreadArray(base, axis, length)


def unspread(array: Any, axis: int | None) -> Any:
    """Return what `spread` made an array of, the same memory; None if it was made otherwise."""
    if axis is None:
        return array
    if isinstance(array, SpreadArray):
        return array.base
    if isinstance(array, np.ndarray) and array.ndim > axis and not array.strides[axis]:
        return array[(slice(None),) * axis + (0,)]
    return None


def same_along(array: Any, axis: int, complaint: str) -> Any:
    """Return an array without an axis along which all should be the same, lazily.

    Parameters
    ----------
    array : numpy, dask or zarr array
    axis : int
    complaint : str
        What the `UserError` says that is raised when a part is read that is not the same.

    Returns
    -------
    dask array
    """
    import dask.array as da

    def first(block: np.ndarray) -> np.ndarray:
        one = block.take([0], axis)
        if (block != one).any():
            raise UserError(complaint)
        return one.squeeze(axis)

    if not isinstance(array, da.Array):
        chunks = (1,) * (array.ndim - 2) + (2 * CHUNK, 2 * CHUNK)
        array = da.from_array(array, chunks=chunks, name=False)
    meta = np.empty((0,) * (array.ndim - 1), array.dtype)
    return da.map_blocks(first, array.rechunk({axis: -1}), drop_axis=axis, meta=meta)
