"""One plane of two results side by side: its overlay, its errors from the worst on, its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.compare import (
    OVERLAY_VALUES,
    Overlaps,
    PixelCounts,
    boundary_overlay,
    instance_overlay,
    object_contours,
    pixel_overlay,
)
from napari_cellda.core.compare.reading import numbers_in
from napari_cellda.core.compare.scheme import marks_ignored
from napari_cellda.core.errors import UserError
from napari_cellda.core.inspect.maps import as_map, check_shapes
from napari_cellda.core.inspect.objects import MOST_ERRORS, ObjectComparison, PlaneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_cellda.core.compare import Matches

Kind = Literal["pixels", "objects", "boundaries"]
NAMES = {value: name for name, value in OVERLAY_VALUES.items()}
"""What an overlay's value is called."""
RIGHT = ("true negative", "true positive", "matched", "ignored")
"""What is no error."""


@dataclass(frozen=True)
class Comparing:
    """How two planes are compared."""

    kind: Kind = "pixels"
    threshold: float = 0.5
    """A map is foreground above it."""
    iou: float = 0.5
    """Objects match above it."""
    tolerance: float = 2.0
    """Pixels that two boundaries may be apart and still be one."""
    classes: bool = False
    """Whether labels are classes, so that the wrong class is an error; else they are objects."""
    membranes: bool = False
    """Whether the foreground itself is the boundary; else boundaries are the objects' outlines."""
    ignore: int | None = None
    """Number in the reference that marks pixels that do not count."""


def to_mask(values: NDArray[Any], name: str, threshold: float = 0.5) -> NDArray[Any]:
    """Read a plane as a mask: a map above the threshold, labels as they are.

    Raises
    ------
    UserError
        If a map has values outside [0, 1], or a label is negative.
    """
    if values.dtype.kind == "f":
        return np.asarray(as_map(values, name) > threshold)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise UserError(f"'{name}' holds the label {values.min()}; expected labels from 0.")
    return values


def to_labels(values: NDArray[Any], name: str, settings: Comparing) -> NDArray[Any]:
    """Read a plane as objects: labels as they are, of a mask or of classes their connected parts.

    Raises
    ------
    UserError
        See `to_mask`.
    """
    mask = to_mask(values, name, settings.threshold)
    if mask.dtype.kind != "b" and not settings.classes:
        return mask
    from skimage.measure import label

    return np.asarray(label(mask, connectivity=1))


@dataclass(frozen=True, eq=False)
class PlaneComparison:
    """Two (Y, X) planes, read as `settings` say; `compare_planes` makes it.

    What is slow is done once, when it is first asked for; another IoU then takes a few
    milliseconds.
    """

    result: NDArray[Any] = field(repr=False)
    """(Y, X) mask, classes or objects."""
    reference: NDArray[Any] = field(repr=False)
    """The truth, or whatever the result is held against."""
    settings: Comparing
    ignore: NDArray[np.bool_] | None = field(default=None, repr=False)
    """Pixels that do not count."""
    stack: ObjectComparison | None = field(default=None, repr=False)
    """The objects of the whole stack, where they go through its planes."""

    @cached_property
    def objects(self) -> ObjectComparison | None:
        """The objects and their partners, of the stack if it knows them; else None."""
        if self.settings.kind != "objects":
            return None
        if self.stack is not None and self.stack.knows(self.overlaps):
            return self.stack
        return ObjectComparison.of_plane(self.overlaps)

    @cached_property
    def overlaps(self) -> Overlaps:
        """Which labels share pixels, where objects are compared."""
        return Overlaps.of(self.result, self.reference, self.ignore)

    @cached_property
    def counts(self) -> PixelCounts:
        """Pixels of the foreground, whatever is compared."""
        return PixelCounts.of(self.result > 0, self.reference > 0, self.ignore)

    def at(self, iou: float) -> Matches | None:
        """Return what matches above an IoU; None unless objects are compared."""
        return None if self.objects is None else self.objects.at(iou)

    def overlay(self, iou: float) -> NDArray[np.uint8]:
        """Return the (Y, X) picture of right and wrong, in the values of `OVERLAY_VALUES`."""
        if self.objects is None:
            return self._fixed_overlay
        return instance_overlay(self.objects.matches, self.objects.at(iou), self.overlaps)

    @cached_property
    def _fixed_overlay(self) -> NDArray[np.uint8]:
        if self.settings.kind == "boundaries":
            sides = (self.result, self.reference)
            found = [s > 0 if self.settings.membranes else object_contours(s) for s in sides]
            return boundary_overlay(found[0], found[1], self.settings.tolerance, ignore=self.ignore)
        if self.settings.classes and "b" not in self.result.dtype.kind + self.reference.dtype.kind:
            return pixel_overlay(self.result, self.reference, self.ignore)
        return pixel_overlay(self.result > 0, self.reference > 0, self.ignore)

    def errors(self, iou: float) -> list[PlaneError]:
        """List what is wrong, the worst first; of a stack's objects in all its planes."""
        return self._region_errors if self.objects is None else self.objects.errors(iou)

    @cached_property
    def _region_errors(self) -> list[PlaneError]:
        """Connected regions of one kind of error."""
        from skimage.measure import label

        overlay = self._fixed_overlay
        values = [v for name, v in OVERLAY_VALUES.items() if name not in RIGHT]
        wrong = np.where(np.isin(overlay, values), overlay, 0)
        regions = np.asarray(label(wrong, connectivity=2))
        table = Overlaps.of(regions, regions)
        assert table.runs is not None
        spots = table.runs.spots(table.truth)
        worst = np.argsort(-spots.area, kind="stable")[:MOST_ERRORS]
        found = np.stack([spots.y, spots.x, spots.area], axis=1)[worst].tolist()
        return [PlaneError(NAMES[int(overlay[y, x])], y, x, n, n, area=n) for y, x, n in found]

    def describe(self, y: int, x: int, iou: float) -> str:
        """Say in one line what is at a pixel: an object with its match, or a region."""
        name = NAMES[int(self.overlay(iou)[y, x])]
        if name == "ignored":
            return "Ignored: this pixel does not count."
        if self.objects is None:
            return f"{name.capitalize()} at row {y}, column {x}."
        if name == "true negative":
            return "No object here, on either side."
        told = self.objects.describe(int(self.result[y, x]), int(self.reference[y, x]))
        return f"{name.capitalize()}. {told}"


def compare_planes(
    result: NDArray[Any],
    reference: NDArray[Any],
    settings: Comparing,
    names: tuple[str, str],
    stack: ObjectComparison | None = None,
) -> PlaneComparison:
    """Put two planes side by side.

    Parameters
    ----------
    result, reference : (Y, X) ndarray
        Maps of float in [0, 1], masks of bool, or labels from 0.
    settings : Comparing
    names : (str, str)
        What messages call them.
    stack : ObjectComparison, optional
        The objects of all planes; see `match_stack`. None: those of this plane alone.

    Raises
    ------
    UserError
        If the shapes differ, a map leaves [0, 1], a label is negative, or 255 stands beside
        classes and is not ignored.
    """
    check_shapes(result, reference, names)
    reference, ignore = without_ignored(reference, settings.ignore)
    if settings.classes and settings.ignore is None:
        refuse_ignored(reference, names[1])
    as_objects = settings.kind == "objects" or (
        settings.kind == "boundaries" and not settings.membranes
    )
    sides = [
        to_labels(side, name, settings) if as_objects else to_mask(side, name, settings.threshold)
        for side, name in zip((result, reference), names, strict=True)
    ]
    return PlaneComparison(sides[0], sides[1], settings, ignore, stack)


def without_ignored(
    reference: NDArray[Any], ignore: int | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the reference with 0 where it holds the ignored number, and where that is."""
    if ignore is None or reference.dtype.kind not in "ui":
        return reference, None
    mask = np.asarray(reference == ignore)
    return np.where(mask, 0, reference), mask


def refuse_ignored(reference: NDArray[Any], name: str) -> None:
    """Raise a UserError if classes have 255 beside them, which many programs ignore."""
    if reference.dtype.kind in "ui" and (reference == 255).any():
        others = marks_ignored(numbers_in(reference))
        if others:
            raise UserError(
                f"'{name}' holds 255 beside the classes {', '.join(map(str, others))}; if it marks "
                "pixels that do not count, set Ignore to 255."
            )
