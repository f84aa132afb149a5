"""How two label images overlap: one table, found in one pass, from which all object figures follow.

Labels change seldom along a row. So both images are first cut into runs, pieces of rows along which
neither changes; only the runs are sorted and counted, and a picture of any property of the objects
is the property repeated along the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.compare.pixels import check_same_shape
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DENSE = 2**22
"""Numbers up to this are counted in a table instead of sorted."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Where in the image each entry of a table lies."""

    entry: NDArray[np.intp]
    """(R,) index of the entry, of every run in C order; the number of entries where ignored."""
    length: NDArray[np.intp]
    """(R,) in pixels."""
    shape: tuple[int, ...]

    def paint(self, values: NDArray[Any], ignored: Any = 0) -> NDArray[Any]:
        """Return an image of one value per entry, and of `ignored` where nothing is scored."""
        table = np.append(values, values.dtype.type(ignored))
        return np.repeat(table[self.entry], self.length).reshape(self.shape)

    def spots(self, labels: NDArray[np.integer]) -> Spots:
        """Find a pixel inside every object of a plane: the nearest to its middle.

        Parameters
        ----------
        labels : (N,) ndarray of int
            Label of each entry of the table; 0 is no object.
        """
        label = np.append(labels, 0)[self.entry]
        inside = label > 0
        start = (np.cumsum(self.length) - self.length)[inside]
        length, (row, left) = self.length[inside], np.divmod(start, self.shape[-1])
        ids, place = np.unique(label[inside], return_inverse=True)
        area = np.bincount(place, length).astype(np.int64)
        middle_y = (np.bincount(place, length * row) / area)[place]
        middle_x = (np.bincount(place, length * (left + (length - 1) / 2)) / area)[place]
        column = np.clip(np.rint(middle_x).astype(np.intp), left, left + length - 1)
        order = np.lexsort(((row - middle_y) ** 2 + (column - middle_x) ** 2, place))
        best = order[np.searchsorted(place[order], np.arange(len(ids)))]
        return Spots(ids, np.zeros(len(ids), np.intp), row[best], column[best], area)


@dataclass(frozen=True, eq=False)
class Spots:
    """Where to look at each object."""

    ids: NDArray[np.integer]
    """(N,) labels, ascending."""
    plane: NDArray[np.intp]
    """(N,) of a stack, the plane in which the object is largest; else 0."""
    y: NDArray[np.intp]
    """(N,) row of a pixel inside it."""
    x: NDArray[np.intp]
    """(N,) column of that pixel."""
    area: NDArray[np.int64]
    """(N,) pixels in that plane."""

    @classmethod
    def of_stack(cls, planes: Sequence[Spots]) -> Spots:
        """Choose for every object the plane in which it is largest."""
        ids, y, x, area = (
            np.concatenate([getattr(spots, name) for spots in planes])
            for name in ("ids", "y", "x", "area")
        )
        plane = np.repeat(np.arange(len(planes)), [len(spots.ids) for spots in planes])
        order = np.lexsort((-area, ids))
        ids, first = np.unique(ids[order], return_index=True)
        best = order[first]
        return cls(ids, plane[best], y[best], x[best], area[best])


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of labels that share pixels, background (0) included."""

    predicted: NDArray[np.integer]
    """(N,) predicted label of each pair."""
    truth: NDArray[np.integer]
    """(N,) true label of each pair; sorted by truth, then prediction."""
    count: NDArray[np.int64]
    """(N,) shared pixels, at least 1."""
    runs: Runs | None = None
    """None for a table that was added up from several planes."""

    @classmethod
    def of(
        cls,
        predicted_labels: NDArray[np.integer],
        truth_labels: NDArray[np.integer],
        ignore: NDArray[np.bool_] | None = None,
    ) -> Overlaps:
        """Find the overlaps of two label images.

        Parameters
        ----------
        predicted_labels, truth_labels : ndarray of int or bool
            Same shape, any number of axes; 0 is background, numbers may have gaps.
        ignore : ndarray of bool, optional
            Pixels that are not counted.

        Raises
        ------
        UserError
            If the shapes differ or a label is negative.
        """
        check_same_shape(predicted_labels, truth_labels)
        check_labels(predicted_labels, "The prediction")
        check_labels(truth_labels, "The truth")
        arrays = [predicted_labels, truth_labels] + ([] if ignore is None else [ignore])
        flat = [np.ravel(array) for array in arrays]
        start = _run_starts(flat, max(predicted_labels.shape[-1], 1))
        length = np.diff(np.append(start, flat[0].size))
        predicted, p = _compact(flat[0][start])
        truth, t = _compact(flat[1][start])
        key, entry = _compact(t * np.int64(len(predicted)) + p)
        count = np.bincount(entry, length, len(key)).astype(np.int64)
        if ignore is not None:
            entry, key, count = _leave_out(entry, flat[2][start], key, length)
        t, p = np.divmod(key, max(len(predicted), 1))
        return cls(predicted[p], truth[t], count, Runs(entry, length, predicted_labels.shape))

    @classmethod
    def total(cls, planes: Sequence[Overlaps]) -> Overlaps:
        """Add up the tables of several planes that share their labels."""
        truth = np.concatenate([plane.truth for plane in planes])
        predicted = np.concatenate([plane.predicted for plane in planes])
        count = np.concatenate([plane.count for plane in planes])
        pairs, place = np.unique(np.stack([truth, predicted]), axis=1, return_inverse=True)
        summed = np.bincount(place.ravel(), count, pairs.shape[1]).astype(np.int64)
        return cls(pairs[1], pairs[0], summed)

    def without_truth(self, label: int) -> Overlaps:
        """Leave out the pixels of one true label."""
        keep = self.truth != label
        return Overlaps(self.predicted[keep], self.truth[keep], self.count[keep])


def check_labels(labels: NDArray[np.generic], name: str) -> None:
    """Raise a UserError unless the labels are whole numbers from 0."""
    if labels.dtype.kind not in "bui":
        raise UserError(f"{name} holds {labels.dtype} values; expected whole label numbers.")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise UserError(f"{name} holds the label {labels.min()}; expected labels from 0.")


def _run_starts(flat: Sequence[NDArray[np.generic]], width: int) -> NDArray[np.intp]:
    """Return where in the flat arrays a row begins, or any of them changes."""
    changes = np.ones(flat[0].size, bool)
    np.not_equal(flat[0][1:], flat[0][:-1], out=changes[1:])
    for other in flat[1:]:
        changes[1:] |= other[1:] != other[:-1]
    changes[::width] = True
    return np.flatnonzero(changes)


def _compact(numbers: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the numbers that occur, sorted, and the place of each among them."""
    if not numbers.size or int(numbers.max()) > DENSE:
        found, place = np.unique(numbers, return_inverse=True)
        return found, place
    numbers = numbers.astype(np.intp)
    present = np.zeros(int(numbers.max()) + 1, bool)
    present[numbers] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[numbers]


def _leave_out(
    entry: NDArray[np.intp],
    ignored: NDArray[np.bool_],
    key: NDArray[np.int64],
    length: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """Take the ignored runs out of the table; they point behind its end."""
    count = np.bincount(entry, np.where(ignored, 0, length), len(key)).astype(np.int64)
    keep = count > 0
    place = np.append(np.cumsum(keep) - 1, keep.sum())
    return place[np.where(ignored, len(key), entry)], key[keep], count[keep]
