"""Partition along membranes: watershed, region graph, multicut [1]_.

.. [1] Beier et al., "Multicut brings automated neurite segmentation closer to human performance",
   Nature Methods 14, 2017. https://doi.org/10.1038/nmeth.4151
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.instances.separate import InstanceParams

BLEND = 0.9
"""Share of the boundary map in the relief that is flooded; the rest is the distance from it."""
LEAST_PROBABILITY = 1e-3


def partition(
    boundary_map: np.ndarray,
    mask: np.ndarray | None,
    params: InstanceParams,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Cut an image along its boundaries into as many regions as the boundaries warrant.

    Parameters
    ----------
    boundary_map : (Y, X) or (Z, Y, X) ndarray of float32 in [0, 1]
    mask : ndarray of bool of the same shape, optional
        Where objects may be. None: everywhere, so that every pixel gets a number.
    params : InstanceParams
        `boundary_threshold`, `smoothing`, `beta`, `min_size`.
    spacing : sequence of float, optional
        Relative extent of a pixel along each axis.

    Returns
    -------
    ndarray of uint32
        0 only outside `mask`.
    """
    fragments = oversegment(boundary_map, mask, params, spacing)
    return join_fragments(fragments, boundary_map, params.beta)


def oversegment(
    boundary_map: np.ndarray,
    mask: np.ndarray | None,
    params: InstanceParams,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Flood from the places farthest from any boundary; fragments below `min_size` dissolve."""
    from bioimage_cpp.distance import distance_transform
    from bioimage_cpp.filters import gaussian_smoothing
    from bioimage_cpp.segmentation import label, watershed

    from napari_cellda.core.instances.basins import local_maxima, seed_lonely_components

    allowed_mask = np.ones(boundary_map.shape, bool) if mask is None else mask
    open_mask = (boundary_map <= params.boundary_threshold) & allowed_mask
    if open_mask.all():
        distance = np.ones(boundary_map.shape, np.float32)
    else:
        distance = distance_transform(open_mask, sampling=list(spacing) if spacing else None)
    smooth_distance, smooth_map = distance, boundary_map
    if params.smoothing:
        smooth_distance = gaussian_smoothing(distance, params.smoothing)
        smooth_map = gaussian_smoothing(boundary_map, params.smoothing)
    seeds = label(local_maxima(smooth_distance) & open_mask).astype(np.uint32)
    seeds = seed_lonely_components(seeds, allowed_mask)
    farthest = float(distance.max()) or 1.0
    relief = BLEND * smooth_map + (1 - BLEND) * (1 - distance / farthest)
    relief = np.ascontiguousarray(relief, np.float32)
    fragments = np.asarray(watershed(relief, seeds, mask=mask))
    return dissolve_small(fragments, relief, mask, params.min_size)


def dissolve_small(
    fragments: np.ndarray, relief: np.ndarray, mask: np.ndarray | None, min_size: int
) -> np.ndarray:
    """Let the large fragments flood the places of the small ones."""
    from bioimage_cpp.segmentation import watershed

    sizes = np.bincount(fragments.ravel())
    small = sizes < min_size
    small[0] = False
    if not small.any() or small[1:].all():
        return fragments
    seeds = np.where(small[fragments], 0, fragments).astype(np.uint32)
    return np.asarray(watershed(relief, seeds, mask=mask))


def join_fragments(fragments: np.ndarray, boundary_map: np.ndarray, beta: float) -> np.ndarray:
    """Join fragments by the multicut of their region graph.

    Notes
    -----
    An edge with mean boundary probability p and length l costs
    (log((1 - p) / p) + log((1 - beta) / beta)) * l / longest: positive to be kept, negative to be
    cut. Greedy additive contraction starts, Kernighan-Lin improves. Background never joins.
    """
    from bioimage_cpp.graph import region_adjacency_graph
    from bioimage_cpp.graph.features import edge_map_features
    from bioimage_cpp.graph.multicut import (
        ChainedMulticutSolvers,
        GreedyAdditiveMulticut,
        KernighanLinMulticut,
        MulticutObjective,
    )

    graph = region_adjacency_graph(fragments, number_of_threads=1)
    if not graph.number_of_edges:
        return fragments
    mean, length = edge_map_features(graph, fragments, boundary_map, number_of_threads=1).T
    p = np.clip(mean, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    cost = (np.log((1 - p) / p) + np.log((1 - beta) / beta)) * length / length.max()
    touches_background = (np.asarray(graph.uv_ids()) == 0).any(axis=1)
    cost[touches_background] = -np.abs(cost).sum() - 1
    solver = ChainedMulticutSolvers([GreedyAdditiveMulticut(), KernighanLinMulticut()])
    nodes = np.asarray(solver.optimize(MulticutObjective(graph, cost)))
    numbers = nodes - nodes.min() + 1
    if (fragments == 0).any():
        numbers[0] = 0
    return np.asarray(numbers.astype(np.uint32)[fragments])
