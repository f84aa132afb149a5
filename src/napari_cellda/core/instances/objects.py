"""Measures of objects: where, how large, which class, how sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


def measure_objects(
    labels: np.ndarray,
    class_mask: np.ndarray | None = None,
    score_map: np.ndarray | None = None,
    pixel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
) -> dict[str, np.ndarray]:
    """Measure every object of a label image.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) ndarray of int
        0 is background; numbers may have gaps. Z = 1 is treated as 2D.
    class_mask : ndarray of int of the same shape, optional
        Class index per pixel, 0 = background. None: every object is of class 1.
    score_map : ndarray of float of the same shape, optional
        Probability per pixel; NaN is left out. None: every score is 1.
    pixel_size : sequence of float
        Extent of a pixel along the last of (z, y, x), in `unit`.
    unit : str
        With "pixel" no physical columns are made.

    Returns
    -------
    dict of str to (N,) ndarray
        One row per object, in the order of its number:

        - label: int.
        - score: mean of `score_map` inside, float in [0, 1].
        - area: in pixels, int (the volume of a stack).
        - row, col: centroid in pixels, float; in stacks also plane, last.
        - class: the most frequent foreground class inside, int; the smallest of equals.
        - With a unit also y, x (z first in stacks), physical_area (physical_volume) and unit.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    if labels.ndim == 3 and labels.shape[0] == 1:
        check_shapes(labels, class_mask, score_map)
        class_mask, score_map = (None if m is None else m[0] for m in (class_mask, score_map))
        labels = labels[0]
    numbers = np.unique(labels) if labels.max(initial=0) > labels.size + 2**16 else None
    if numbers is not None:  # numbers that are far apart would need a long table
        numbers = numbers[numbers > 0]
        labels = np.searchsorted(numbers, labels) + (labels > 0)
    tally = ObjectTally(labels.ndim)
    tally.add(labels, class_mask, score_map)
    table = tally.table(pixel_size, unit)
    if numbers is not None:
        table["label"] = numbers[table["label"] - 1]
    return table


def check_shapes(
    labels: np.ndarray, class_mask: np.ndarray | None, score_map: np.ndarray | None
) -> None:
    """Raise a UserError unless all have the shape of the labels."""
    for given, name in ((class_mask, "class mask"), (score_map, "score map")):
        if given is not None and given.shape != labels.shape:
            raise UserError(
                f"The {name} has shape {given.shape}, but the labels have {labels.shape}."
            )


class ObjectTally:
    """Sums over the pixels of every object, added up block by block.

    Parameters
    ----------
    ndim : {2, 3}
        Whether the objects are measured in planes or in a stack.
    """

    def __init__(self, ndim: int) -> None:
        self.ndim = ndim
        self.area = np.zeros(1, np.int64)
        self.position = np.zeros((ndim, 1))
        self.score = np.zeros((2, 1))  # sum and number of finite values
        self.votes = np.zeros((2, 1), np.int64)  # per class

    def add(
        self,
        labels: np.ndarray,
        class_mask: np.ndarray | None = None,
        score_map: np.ndarray | None = None,
        origin: Sequence[int] | None = None,
    ) -> None:
        """Add one block.

        Parameters
        ----------
        labels : ([Z,] Y, X) ndarray of int
            With `ndim` axes. Numbers should have no large gaps.
        class_mask, score_map : ndarrays of the same shape, optional
            See `measure_objects`.
        origin : sequence of int, optional
            Where the block begins, in pixels along its axes. None: at 0.
        """
        check_shapes(labels, class_mask, score_map)
        where = np.nonzero(labels)
        numbers = labels[where].astype(np.int64)
        if not len(numbers):
            return
        lowest = int(numbers.min())
        present = np.bincount(numbers - lowest) > 0
        found = np.flatnonzero(present) + lowest
        place = (np.cumsum(present) - 1)[numbers - lowest]
        classes = np.ones_like(numbers) if class_mask is None else class_mask[where]
        classes = classes.astype(np.int64)
        self._grow(int(found[-1]) + 1, int(classes.max()) + 1)
        area = np.bincount(place, minlength=len(found))
        self.area[found] += area
        for axis, start in enumerate(origin or (0,) * self.ndim):
            total = np.bincount(place, where[axis], len(found))
            self.position[axis, found] += total + start * area
        self._add_scores(found, place, None if score_map is None else score_map[where])
        votes = np.bincount(classes * len(found) + place, minlength=len(self.votes) * len(found))
        self.votes[:, found] += votes.reshape(-1, len(found))[: len(self.votes)]

    def _add_scores(self, found: np.ndarray, place: np.ndarray, scores: np.ndarray | None) -> None:
        values = np.ones(len(place)) if scores is None else scores.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            place, values = place[finite], values[finite]
        self.score[0, found] += np.bincount(place, values, len(found))
        self.score[1, found] += np.bincount(place, minlength=len(found))

    def _grow(self, n_numbers: int, n_classes: int) -> None:
        more = max(n_numbers - len(self.area), 0)
        self.area = np.pad(self.area, (0, more))
        self.position = np.pad(self.position, ((0, 0), (0, more)))
        self.score = np.pad(self.score, ((0, 0), (0, more)))
        self.votes = np.pad(self.votes, ((0, max(n_classes - len(self.votes), 0)), (0, more)))

    def table(
        self, pixel_size: Sequence[float] = (1.0, 1.0, 1.0), unit: str = "pixel"
    ) -> dict[str, np.ndarray]:
        """Return the columns that `measure_objects` describes."""
        numbers = np.flatnonzero(self.area)
        area = self.area[numbers]
        centroid = self.position[:, numbers] / area
        total, count = self.score[:, numbers]
        table = {
            "label": numbers,
            "score": total / np.maximum(count, 1),
            "area": area,
            "row": centroid[-2],
            "col": centroid[-1],
            "class": self.votes[1:, numbers].argmax(axis=0) + 1,
        }
        if self.ndim == 3:
            table["plane"] = centroid[0]
        return table | physical_columns(centroid, area, pixel_size, unit)


def physical_columns(
    centroid: np.ndarray, area: np.ndarray, pixel_size: Sequence[float], unit: str
) -> dict[str, Any]:
    """Return position and extent in the image's unit; nothing when it has none."""
    if unit == "pixel":
        return {}
    sizes = (1.0, 1.0, 1.0, *pixel_size)[-len(centroid) :]
    position = zip("zyx"[-len(centroid) :], centroid, sizes, strict=True)
    columns: dict[str, Any] = {axis: values * size for axis, values, size in position}
    columns["physical_volume" if len(centroid) == 3 else "physical_area"] = area * np.prod(sizes)
    columns["unit"] = np.full(len(area), unit)
    return columns
