"""Comparing two segmentations: figures, matches and overlays."""

from napari_cellda.core.compare.matching import Matches, ObjectMatches, instance_dice
from napari_cellda.core.compare.overlaps import Overlaps
from napari_cellda.core.compare.overlays import (
    OBJECT_NAMES,
    OVERLAY_COLORS,
    OVERLAY_VALUES,
    PIXEL_NAMES,
    boundary_overlay,
    instance_overlay,
    object_contours,
    pixel_overlay,
)
from napari_cellda.core.compare.partition import variation_of_information
from napari_cellda.core.compare.pixels import (
    PixelCounts,
    PixelScores,
    best_threshold,
    pixel_scores,
)
from napari_cellda.core.compare.surface import asd, contour, hd95, surface_distances

__all__ = [
    "OBJECT_NAMES",
    "OVERLAY_COLORS",
    "OVERLAY_VALUES",
    "PIXEL_NAMES",
    "Matches",
    "ObjectMatches",
    "Overlaps",
    "PixelCounts",
    "PixelScores",
    "asd",
    "best_threshold",
    "boundary_overlay",
    "contour",
    "hd95",
    "instance_dice",
    "instance_overlay",
    "object_contours",
    "pixel_overlay",
    "pixel_scores",
    "surface_distances",
    "variation_of_information",
]
