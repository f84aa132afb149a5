"""Corrections flow back: what an overlay shows as wrong becomes strokes or points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.ui.axes import data_of
from napari_cellda.ui.inputs import write_points
from napari_cellda.ui.inspect_layers import painted_of, placement, plane_of
from napari_cellda.ui.layers import keep_selection

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.inspect.comparison import PlaneComparison
    from napari_cellda.core.inspect.objects import PlaneError
    from napari_cellda.ui.overlays import OverlayView
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

POINTS_NAME = "Points"


def error_mask(comparison: PlaneComparison, error: PlaneError, iou: float) -> np.ndarray:
    """Return the pixels of an error, (Y, X) bool: its region, or the object that is wrong."""
    y, x = error.y, error.x
    if comparison.objects is None:
        from skimage.measure import label

        overlay = comparison.overlay(iou)
        regions = label(overlay == overlay[y, x], connectivity=2)
        return np.asarray(regions == regions[y, x])
    of_reference = error.name in ("missed", "split")
    side = comparison.reference if of_reference else comparison.result
    return np.asarray(side == side[y, x])


def suggested_class(comparison: PlaneComparison, error: PlaneError) -> int:
    """Return the class that the reference has at an error; 0 is background."""
    return int(_reference_classes(comparison)[error.y, error.x])


def error_to_strokes(session: Session, view: OverlayView, class_index: int) -> int:
    """Turn the error in view into strokes of a class; Ctrl-Z on the strokes takes them back.

    Parameters
    ----------
    session : Session
    view : OverlayView
        With an error that was gone to.
    class_index : int
        0 is background.

    Returns
    -------
    int
        How many pixels were painted: of the error, those where the reference has this class (all,
        if it has another one at the error). The rim is left out where the error is thick enough,
        since outlines are seldom right to a pixel; what was painted before stays as it is.

    Raises
    ------
    UserError
        If there is no error in view, or no image with strokes of this size.
    """
    mask, painted = _error_in_view(session, view)
    strokes = painted.strokes
    if strokes is None:
        raise UserError(f"'{painted.name}' has no strokes yet; press Start painting in Paint.")
    plane = plane_of(session, strokes)
    comparison, error = view.comparison, view.error
    assert comparison is not None
    assert error is not None
    if class_index == suggested_class(comparison, error):
        mask = mask & (_reference_classes(comparison) == class_index)
    rows, columns = np.nonzero(_without_rim(mask))
    free = np.asarray(data_of(strokes)[plane])[rows, columns] == 0
    rows, columns = rows[free], columns[free]
    lead = tuple(np.full(len(rows), index) for index in plane)
    strokes.data_setitem((*lead, rows, columns), class_index + 1)
    session.viewer.layers.selection = {strokes}  # Ctrl-Z is for the layer that is selected
    return len(rows)


def error_to_point(session: Session, view: OverlayView) -> Any:
    """Put a point on the error in view, into the layer of points; returns that layer.

    Raises
    ------
    UserError
        If there is no error in view.
    """
    from napari.layers import Points

    error = _error(view)
    layer = next(
        (
            one
            for one in session.viewer.layers
            if isinstance(one, Points) and one.name == POINTS_NAME and one.ndim == view.layer.ndim
        ),
        None,
    )
    if layer is None:
        layer = Points(
            np.empty((0, view.layer.ndim)),
            name=POINTS_NAME,
            size=8,
            face_color="#f0e442",
            **placement(view.layer),
        )
        with keep_selection(session.viewer):
            session.viewer.add_layer(layer)
    layer.add([(*view.plane, error.y, error.x)])
    return layer


def save_points(session: Session, view: OverlayView, layer: Any, path: Path) -> None:
    """Write a layer of points as a table, in pixels: row and col, with t and z where there are."""
    painted = painted_of(session, view.result)
    axes = "tzyx" if painted is None else painted.image.label_axes
    write_points(np.asarray(layer.data), axes[-layer.ndim :], path)


def _reference_classes(comparison: PlaneComparison) -> np.ndarray:
    """Return the reference's classes; of objects and masks 1 is foreground."""
    reference = comparison.reference
    plain = reference.dtype.kind == "b" or not comparison.settings.classes
    return np.asarray(reference > 0, int) if plain else reference


def _error(view: OverlayView) -> PlaneError:
    if view.error is None:
        raise UserError("No error is in view; step to one first (key N).")
    return view.error


def _error_in_view(session: Session, view: OverlayView) -> tuple[np.ndarray, PaintedImage]:
    error = _error(view)
    painted = painted_of(session, view.result) or painted_of(session, view.reference)
    if painted is None:
        shape = tuple(data_of(view.result).shape)
        raise UserError(f"No image of the shape {shape} is chosen in Paint to take the strokes.")
    assert view.comparison is not None, "an error belongs to a comparison"
    return error_mask(view.comparison, error, view.settings.iou), painted


def _without_rim(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    inner = np.asarray(binary_erosion(mask))
    return inner if inner.any() else mask
