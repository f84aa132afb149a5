"""What a run took at several steps, in the shapes that napari's layers take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.events import Preview

MOST_BYTES = 256 << 20
"""Beyond that earlier pictures of a name are dropped, see `least_missed`."""
MOST_POINTS = 200_000
"""The same for points of a layer, counted in every plane that they are seen in."""


def least_missed(steps: Sequence[int]) -> int:
    """Return which of three or more pictures to drop so that the others lie evenly over the steps.

    That is the one whose neighbours are nearest to each other; the first and the latest stay.
    """
    return 1 + int(np.argmin(np.subtract(steps[2:], steps[:-2])))


def keep(frames: list[Preview], frame: Preview) -> None:
    """Add the latest of a name to those that are kept in memory.

    Those of later steps go: a resume goes back, and takes them again.
    """
    frames[:] = [one for one in frames if one.index < frame.index]
    frames.append(frame)
    while len(frames) > 2 and sum(one.array.nbytes for one in frames) > MOST_BYTES:
        del frames[least_missed([one.index for one in frames])]


class _Taken:
    """What a run took under one name, at several steps.

    Parameters
    ----------
    between : tuple of int
        Lengths of the axes between time and Y, along which all is the same, so that it lines up
        with stacks in the viewer.
    start : int
        Where it begins on a time axis that it shares with others.
    """

    def __init__(self, between: tuple[int, ...], start: int) -> None:
        self._arrays: list[np.ndarray] = []
        self.indices: list[int] = []
        """The step of each."""
        self.start = start
        self._between = between
        self.ndim = 3 + len(between)

    def append(self, index: int, array: np.ndarray) -> None:
        """Add the latest; one of the same step is replaced."""
        if index in self.indices:
            self._arrays[self.indices.index(index)] = array
            return
        self._arrays.append(array)
        self.indices.append(index)
        while len(self.indices) > 2 and self._too_many():
            dropped = least_missed(self.indices)
            del self._arrays[dropped], self.indices[dropped]

    def _too_many(self) -> bool:
        """Whether one of the earlier ones goes."""
        raise NotImplementedError


class FrameStack(_Taken):
    """Pictures of one shape, seen as an array with a time axis; grows without copying.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of a picture.
    dtype : dtype
    between, start
        See `_Taken`.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, between: tuple[int, ...] = (), start: int = 0
    ) -> None:
        super().__init__(between, start)
        self._plane = shape
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, ..., Y, X)."""
        return (len(self._arrays), *self._between, *self._plane)

    @property
    def size(self) -> int:
        """Number of values that it seems to have."""
        return int(np.prod(self.shape, dtype=np.int64))

    def fits(self, picture: np.ndarray) -> bool:
        """Whether a picture is as large as the others."""
        return self._plane == picture.shape

    def _too_many(self) -> bool:
        return sum(picture.nbytes for picture in self._arrays) > MOST_BYTES

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read like an array."""
        key = key if isinstance(key, tuple) else (key,)
        first, *rest = key
        if first is Ellipsis:
            return np.asarray(self)[key]
        picked = self._arrays[first]
        if isinstance(first, slice):
            planes = np.stack(picked) if picked else np.zeros((0, *self._plane), self.dtype)
            return self._spread(planes)[(slice(None), *rest)]
        return self._spread(picked[None])[(0, *rest)]

    def _spread(self, planes: np.ndarray) -> np.ndarray:
        middle = (1,) * len(self._between)
        spread = planes.reshape(len(planes), *middle, *self._plane)
        return np.broadcast_to(spread, (len(planes), *self._between, *self._plane))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[:], dtype=dtype)


class PointStack(_Taken):
    """Points with a score at several steps, as the places of one layer with a time axis.

    Each is an (n, 3) table of rows, columns and scores.

    Parameters
    ----------
    between, start
        See `_Taken`.
    """

    def __init__(self, between: tuple[int, ...] = (), start: int = 0) -> None:
        super().__init__(between, start)
        planes = np.indices(between).reshape(len(between), -1).T if between else np.zeros((1, 0))
        self._planes = planes.astype(float)

    def fits(self, table: np.ndarray) -> bool:
        """Whether a table has places in planes and scores."""
        return table.ndim == 2 and table.shape[1] == 3

    def _too_many(self) -> bool:
        return sum(map(len, self._arrays)) * len(self._planes) > MOST_POINTS

    @property
    def places(self) -> np.ndarray:
        """(n, ndim): picture, the axes between, row, column."""
        parts = [
            np.column_stack(
                [
                    np.full(len(table) * len(self._planes), time, float),
                    np.repeat(self._planes, len(table), axis=0),
                    np.tile(table[:, :2], (len(self._planes), 1)),
                ]
            )
            for time, table in enumerate(self._arrays)
        ]
        return np.concatenate([np.zeros((0, self.ndim)), *parts])

    @property
    def scores(self) -> np.ndarray:
        """(n,), in the order of `places`."""
        parts = [np.tile(table[:, 2], len(self._planes)) for table in self._arrays]
        return np.concatenate([np.zeros(0), *parts])
