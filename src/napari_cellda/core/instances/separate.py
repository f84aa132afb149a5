"""From probability maps to objects with numbers of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from collections.abc import Sequence

InstanceMethod = Literal["auto", "watershed", "distance", "multicut"]


class InstanceParams(BaseParams):
    """How objects are separated."""

    method: InstanceMethod = "auto"
    """watershed: grow the insides until they meet on the boundary map; distance: split where the
    foreground has a waist; multicut: partition along membranes. auto: watershed with a boundary
    map and a foreground map, multicut with boundaries alone, distance otherwise."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Foreground begins above this probability."""
    boundary_threshold: float = Field(0.4, gt=0, lt=1)
    """multicut: boundaries begin above this probability."""
    waist: float = Field(0.75, ge=0)
    """distance: how much narrower, in pixels of radius, a waist must be than what it joins, to be
    cut. Larger values split less."""
    smoothing: float = Field(2.0, ge=0)
    """multicut: how much the distances that give the seeds are smoothed, in pixels."""
    beta: float = Field(0.5, gt=0, lt=1)
    """multicut: above 0.5 cuts more, below joins more."""
    min_size: int = Field(25, ge=0)
    """Smaller objects are dropped, in pixels. multicut without foreground joins them to a
    neighbour instead."""
    remove_border: bool = False
    """Drop objects that touch the border of the image along y or x."""
    least_score: float | None = Field(None, gt=0, lt=1)
    """Of networks that find objects themselves: the score from which an object counts. None: what
    was chosen when the network was trained."""


def instances_from_maps(
    foreground_map: np.ndarray | None,
    boundary_map: np.ndarray | None = None,
    params: InstanceParams | None = None,
    *,
    spacing: Sequence[float] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Separate the objects in a foreground map, a boundary map or both.

    Parameters
    ----------
    foreground_map : (Y, X) or (Z, Y, X) ndarray of float in [0, 1], or None
        NaN counts as 0. A single plane with Z = 1 is treated as 2D.
    boundary_map : ndarray of the same shape, in [0, 1], optional
    params : InstanceParams, optional
    spacing : sequence of float, optional
        Relative extent of a pixel along each axis, for distances in anisotropic stacks. None: 1.
    **settings
        Fields of `InstanceParams`, instead of or on top of `params`.

    Returns
    -------
    ndarray of uint32, of the maps' shape
        0 is background, objects count from 1 without gaps.

    Raises
    ------
    UserError
        If no map is given, the shapes differ, or the method lacks its map.

    Notes
    -----
    "watershed" takes the connected parts of foreground minus boundary above the threshold as
    seeds, and a component without any as its own. "distance" cuts the watershed of the distance
    transform only where the ridge sinks by `waist`, the dynamics of [1]_. "multicut" is in
    `multicut.partition`.

    References
    ----------
    .. [1] Grimaud, "A new measure of contrast: the dynamics", Proc. SPIE 1769, 1992.
       https://doi.org/10.1117/12.60650
    """
    params = InstanceParams.model_validate({**(params.model_dump() if params else {}), **settings})
    foreground_map, boundary_map = check_maps(foreground_map, boundary_map)
    shape = next(given.shape for given in (foreground_map, boundary_map) if given is not None)
    if len(shape) == 3 and shape[0] == 1:
        foreground_map, boundary_map = (
            None if m is None else m[0] for m in (foreground_map, boundary_map)
        )
        spacing = spacing[-2:] if spacing else None
    labels = separate(foreground_map, boundary_map, params, spacing)
    return tidy(labels, params).reshape(shape)


def check_maps(*maps: np.ndarray | None) -> list[np.ndarray | None]:
    """Return the maps as float32 without NaN; raise a UserError if they do not fit."""
    shapes = {given.shape for given in maps if given is not None}
    if not shapes:
        raise UserError("Objects need a foreground map, a boundary map or both; none was given.")
    if len(shapes) > 1 or len(next(iter(shapes))) not in (2, 3):
        raise UserError(
            f"The maps for the objects have the shapes {sorted(shapes)}; "
            "expected one shape, (Y, X) or (Z, Y, X)."
        )
    return [None if m is None else np.nan_to_num(m.astype(np.float32)) for m in maps]


def separate(
    foreground_map: np.ndarray | None,
    boundary_map: np.ndarray | None,
    params: InstanceParams,
    spacing: Sequence[float] | None,
) -> np.ndarray:
    """Run the method that was asked for."""
    method = params.method
    if method == "auto" and foreground_map is None:
        method = "multicut"
    elif method == "auto":
        method = "distance" if boundary_map is None else "watershed"
    if boundary_map is None and method in ("multicut", "watershed"):
        raise UserError(f"The method {method} needs a boundary map; choose distance.")
    if method == "multicut":
        from napari_cellda.core.instances.multicut import partition

        assert boundary_map is not None
        mask = None if foreground_map is None else foreground_map > params.threshold
        return partition(boundary_map, mask, params, spacing)
    if foreground_map is None:
        raise UserError(f"The method {method} needs a foreground map; choose multicut.")
    if method == "distance":
        return split_by_distance(foreground_map > params.threshold, params.waist, spacing)
    assert boundary_map is not None
    return grow_insides(foreground_map, boundary_map, params.threshold)


def grow_insides(
    foreground_map: np.ndarray, boundary_map: np.ndarray, threshold: float
) -> np.ndarray:
    """Flood the foreground from the insides of the objects, up the boundary map."""
    from bioimage_cpp.segmentation import label, watershed

    from napari_cellda.core.instances.basins import seed_lonely_components

    foreground_mask = foreground_map > threshold
    inside_mask = foreground_map - boundary_map > threshold
    seeds = label(inside_mask, connectivity=1).astype(np.uint32)
    seeds = seed_lonely_components(seeds, foreground_mask)
    return np.asarray(watershed(boundary_map, seeds, mask=foreground_mask))


def split_by_distance(
    foreground_mask: np.ndarray, waist: float, spacing: Sequence[float] | None = None
) -> np.ndarray:
    """Split the foreground at its waists."""
    from bioimage_cpp.distance import distance_transform
    from bioimage_cpp.segmentation import label, watershed

    from napari_cellda.core.instances.basins import local_maxima, merge_shallow_basins

    if not foreground_mask.any():
        return np.zeros(foreground_mask.shape, np.uint32)
    # Beyond the image there is background: an object at the border is not widest at the border.
    padded = np.pad(foreground_mask, 1)
    distance = distance_transform(padded, sampling=list(spacing) if spacing else None)
    distance = distance[(slice(1, -1),) * foreground_mask.ndim]
    distance = np.ascontiguousarray(distance)
    peaks = local_maxima(distance) & foreground_mask
    seeds = label(peaks).astype(np.uint32)
    basins = watershed(-distance, seeds, mask=foreground_mask)
    return merge_shallow_basins(np.asarray(basins), distance, waist)


def tidy(labels: np.ndarray, params: InstanceParams) -> np.ndarray:
    """Drop small and border objects and number the rest from 1, as uint32."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(params.min_size, 1)
    if params.remove_border:
        for edge in (labels[..., 0, :], labels[..., -1, :], labels[..., 0], labels[..., -1]):
            keep[edge] = False
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    return np.asarray(numbers[labels])
