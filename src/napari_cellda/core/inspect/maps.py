"""Probability maps of any origin, checked before they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


def as_map(values: Any, name: str) -> np.ndarray:
    """Read values as a probability map.

    Parameters
    ----------
    values : array
        Real numbers in [0, 1], or booleans.
    name : str
        What a message calls it.

    Returns
    -------
    ndarray of float32

    Raises
    ------
    UserError
        If a value is not finite or lies outside [0, 1].
    """
    found = np.asarray(values)
    if found.dtype.kind not in "fbui":
        raise UserError(f"'{name}' holds {found.dtype} values; probabilities are expected.")
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise UserError(
            f"'{name}' holds values from {low:g} to {high:g}; a map of probabilities in [0, 1] "
            "is expected."
        )
    return found.astype(np.float32)


def check_shapes(a: Any, b: Any, names: tuple[str, str]) -> None:
    """Raise a UserError that names both shapes unless they are the same."""
    if tuple(a.shape) != tuple(b.shape):
        raise UserError(
            f"'{names[0]}' has shape {tuple(a.shape)} and '{names[1]}' has shape "
            f"{tuple(b.shape)}; they must be the same to be compared."
        )


class LazyMap:
    """An array made of others, computed where it is looked at and nowhere else.

    Parameters
    ----------
    compute : callable of (ndarray, ...) -> ndarray
        Works pixel by pixel: the same part of every source gives that part of the result.
    *sources : arrays
        numpy, zarr, dask or anything that is indexed like them; all of one shape. They are read
        anew at every look, so a source that changes is followed.
    dtype : dtype
        Of the result.
    """

    def __init__(self, compute: Callable[..., np.ndarray], *sources: Any, dtype: Any) -> None:
        self._compute, self.sources = compute, sources
        self.shape = tuple(int(size) for size in sources[0].shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """Number of values that it seems to have."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Compute one part."""
        blocks = [np.asarray(source[key]) for source in self.sources]
        return np.asarray(self._compute(*blocks), self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Compute all of it."""
        return np.asarray(self[(slice(None),) * self.ndim], dtype=dtype)
