"""How far two outlines are apart: HD95 and ASD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.compare.pixels import check_same_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PERCENTILE = 95


def contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a neighbour outside (8 in 2D, 26 in 3D).

    What lies beyond the image counts as outside, so the rim of an object that the image cuts off
    is part of its contour.
    """
    inner = np.pad(mask, 1)
    for axis in range(mask.ndim):
        inner = np.logical_and.reduce([along(inner, axis, shift) for shift in range(3)])
    return np.asarray(mask & ~inner)


def surface_distances(
    predicted_mask: NDArray[np.bool_],
    truth_mask: NDArray[np.bool_],
    *,
    spacing: Sequence[float] | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Measure from every contour pixel of each mask to the nearest one of the other.

    Parameters
    ----------
    predicted_mask, truth_mask : (Y, X) or (Z, Y, X) ndarray of bool
        Same shape.
    spacing : sequence of float, optional
        Extent of a pixel along each axis. None: 1, so that distances are in pixels.
    ignore : ndarray of bool, optional
        Pixels that are not scored; contours that they cut are none.

    Returns
    -------
    (N,) ndarray of float32
        Both directions pooled, in the unit of `spacing`; of several planes they may be
        concatenated. Empty when a mask is empty: then there is nothing to measure.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    check_same_shape(predicted_mask, truth_mask)
    outlines = [contour(_scored(m, ignore)) for m in (predicted_mask, truth_mask)]
    if ignore is not None:
        at_edge = ~ignore & ~contour(~ignore)
        outlines = [outline & at_edge for outline in outlines]
    if not all(outline.any() for outline in outlines):
        return np.zeros(0, np.float32)
    box = _bounding_box(outlines[0] | outlines[1])
    first, second = (np.ascontiguousarray(outline[box]) for outline in outlines)
    step = [float(s) for s in spacing] if spacing is not None else None
    return np.concatenate([_distances(first, second, step), _distances(second, first, step)])


def hd95(distances: NDArray[np.floating]) -> float:
    """Return the 95th percentile of pooled surface distances; nan when there are none.

    Notes
    -----
    Both directions are one list, as in the evaluation of CULPICO [1]_. Many libraries take the
    larger of the two directions' percentiles instead, which is stricter when one mask has parts
    far from the other.

    References
    ----------
    .. [1] Miyaki et al., "Cell segmentation without annotation by unsupervised domain adaptation
       based on cooperative self-learning".
    """
    return float(np.percentile(distances, PERCENTILE)) if distances.size else float("nan")


def asd(distances: NDArray[np.floating]) -> float:
    """Return the mean of pooled surface distances; nan when there are none.

    Notes
    -----
    Every contour pixel counts once, so the longer contour weighs more; others average the means
    of the two directions.
    """
    return float(distances.mean(dtype=np.float64)) if distances.size else float("nan")


def along(padded: NDArray[Any], axis: int, shift: int) -> NDArray[Any]:
    """Return a padded array moved by 0, 1 or 2 along one axis, without that axis' padding."""
    size = padded.shape[axis] - 2
    index = tuple(
        slice(shift, shift + size) if i == axis else slice(None) for i in range(padded.ndim)
    )
    return padded[index]


def _scored(mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    mask = mask.astype(bool, copy=False)
    return mask if ignore is None else mask & ~ignore


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _distances(
    start: NDArray[np.bool_], goal: NDArray[np.bool_], spacing: list[float] | None
) -> NDArray[np.float32]:
    """Return the distance from every pixel of `start` to the nearest of `goal`."""
    from bioimage_cpp.distance import distance_transform

    if goal.all():
        return np.zeros(int(np.count_nonzero(start)), np.float32)
    return np.asarray(distance_transform(~goal, sampling=spacing)[start], np.float32)
