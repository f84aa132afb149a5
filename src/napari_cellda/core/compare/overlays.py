"""Pictures of right and wrong: label arrays whose values mean the same in every kind of overlay.

`OVERLAY_VALUES` names the values, `OVERLAY_COLORS` their colours (those of Okabe and Ito, which
colour-blind people tell apart). All overlays are uint8 arrays of the shape of their input, 0 where
both sides agree that there is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare.matching import STATES, Matches, ObjectMatches
from napari_cellda.core.compare.pixels import check_same_shape
from napari_cellda.core.compare.surface import along

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.compare.overlaps import Overlaps

OVERLAY_COLORS = {
    "true negative": "#00000000",
    "true positive": "#56b4e9",
    "false positive": "#e69f00",
    "false negative": "#cc79a7",
    "wrong class": "#d55e00",
    "ignored": "#999999",
    "matched": "#56b4e9",
    "missed": "#cc79a7",
    "spurious": "#e69f00",
    "split": "#f0e442",
    "merged": "#009e73",
}
"""Colour of every name, as #rrggbb or, where transparent, #rrggbbaa."""
OVERLAY_VALUES = {name: value for value, name in enumerate(OVERLAY_COLORS)}
"""Value of every name in an overlay."""
PIXEL_NAMES = ("true positive", "false positive", "false negative", "wrong class", "ignored")
"""What `pixel_overlay` and `boundary_overlay` show, for a legend."""
OBJECT_NAMES = (*STATES, "ignored")
"""What `instance_overlay` shows, for a legend."""
_OF_STATE = np.array([OVERLAY_VALUES[name] for name in STATES], np.uint8)


def pixel_overlay(
    predicted_mask: NDArray[np.integer | np.bool_],
    truth_mask: NDArray[np.integer | np.bool_],
    ignore: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Show where two masks agree and differ.

    Parameters
    ----------
    predicted_mask, truth_mask : ndarray of bool or int
        Same shape; 0 is background. With several classes, foreground of the wrong class is
        "wrong class".
    ignore : ndarray of bool, optional
        Pixels to show as "ignored".

    Raises
    ------
    UserError
        If the shapes differ.
    """
    check_same_shape(predicted_mask, truth_mask)
    predicted, truth = predicted_mask.astype(bool), truth_mask.astype(bool)
    table = np.array(
        [
            OVERLAY_VALUES[name]
            for name in ("true negative", "false positive", "false negative", "true positive")
        ],
        np.uint8,
    )
    overlay = table[predicted.view(np.uint8) + 2 * truth.view(np.uint8)]
    if predicted_mask.dtype.kind != "b" and truth_mask.dtype.kind != "b":
        overlay[predicted & truth & (predicted_mask != truth_mask)] = OVERLAY_VALUES["wrong class"]
    return _ignoring(overlay, ignore)


def instance_overlay(
    matches: ObjectMatches, iou: float | Matches, plane: Overlaps | None = None
) -> NDArray[np.uint8]:
    """Show which objects match above an IoU, and what became of the others.

    Parameters
    ----------
    matches : ObjectMatches
    iou : float in [0, 1), or Matches
        The threshold, or `matches.at(threshold)` where it is at hand.
    plane : Overlaps, optional
        The overlaps of the plane to draw, when the matches are those of a whole stack. None: the
        image that the matches were computed from.

    Returns
    -------
    ndarray of uint8
        Each pixel shows the state of the predicted object there, or else of the true one. Takes
        about a millisecond for 2048 x 2048 pixels.
    """
    found = iou if isinstance(iou, Matches) else matches.at(iou)
    plane = plane or matches.overlaps
    assert plane.runs is not None, "a table that was added up has no picture; name a plane"
    return plane.runs.paint(pair_values(matches, found, plane), OVERLAY_VALUES["ignored"])


def pair_values(matches: ObjectMatches, found: Matches, plane: Overlaps) -> NDArray[np.uint8]:
    """Return what `instance_overlay` shows where each pair of `plane` lies, as (N,)."""
    of_truth = _values(plane.truth, matches.truth_ids, found.truth_state)
    of_predicted = _values(plane.predicted, matches.predicted_ids, found.predicted_state)
    return np.where(of_predicted > 0, of_predicted, of_truth)


def boundary_overlay(
    predicted_boundary_mask: NDArray[np.bool_],
    truth_boundary_mask: NDArray[np.bool_],
    tolerance: float = 2,
    *,
    spacing: Sequence[float] | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Show which boundaries were found, give or take a distance.

    Parameters
    ----------
    predicted_boundary_mask, truth_boundary_mask : (Y, X) or (Z, Y, X) ndarray of bool
        Membranes, or outlines as `object_contours` gives them; same shape.
    tolerance : float
        How far apart two boundaries may be to be one, in the unit of `spacing`.
    spacing : sequence of float, optional
        Extent of a pixel along each axis. None: 1.
    ignore : ndarray of bool, optional
        Pixels to show as "ignored".

    Returns
    -------
    ndarray of uint8
        Predicted boundary is a true positive within the tolerance of a true one, else a false
        positive; true boundary that is not within the tolerance of a predicted one is a false
        negative. True boundary that was found shows only where the prediction is.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    check_same_shape(predicted_boundary_mask, truth_boundary_mask)
    predicted, truth = predicted_boundary_mask.astype(bool), truth_boundary_mask.astype(bool)
    overlay = np.zeros(predicted.shape, np.uint8)
    overlay[truth & ~_near(predicted, tolerance, spacing)] = OVERLAY_VALUES["false negative"]
    near_truth = _near(truth, tolerance, spacing)
    overlay[predicted & ~near_truth] = OVERLAY_VALUES["false positive"]
    overlay[predicted & near_truth] = OVERLAY_VALUES["true positive"]
    return _ignoring(overlay, ignore)


def object_contours(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the outermost pixels of every object: those with another label among their neighbours.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) ndarray of int
        0 is background, which has no contour. Neighbours are 8 in 2D and 26 in 3D; what lies
        beyond the image is another label.
    """
    middle = np.pad(labels, 1)
    inner = np.ones(middle.shape, bool)
    for axis in range(labels.ndim):  # alike along an axis, and so are both neighbours along it
        before, middle, after = (along(middle, axis, shift) for shift in range(3))
        inner = np.logical_and.reduce([along(inner, axis, shift) for shift in range(3)])
        inner &= (before == middle) & (after == middle)
    return np.asarray((labels > 0) & ~inner)


def _near(
    mask: NDArray[np.bool_], tolerance: float, spacing: Sequence[float] | None
) -> NDArray[np.bool_]:
    """Return what lies within a distance of a mask."""
    from bioimage_cpp.distance import distance_transform

    if not mask.any():
        return np.zeros(mask.shape, bool)
    if mask.all():
        return mask
    sampling = [float(step) for step in spacing] if spacing is not None else None
    return np.asarray(distance_transform(~mask, sampling=sampling) <= tolerance)


def _values(
    labels: NDArray[np.integer], ids: NDArray[np.integer], states: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the overlay value of each label; 0 for background."""
    values = np.zeros(len(labels), np.uint8)
    objects = labels > 0
    values[objects] = _OF_STATE[states[np.searchsorted(ids, labels[objects])]]
    return values


def _ignoring(overlay: NDArray[np.uint8], ignore: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    if ignore is not None:
        overlay[ignore] = OVERLAY_VALUES["ignored"]
    return overlay
