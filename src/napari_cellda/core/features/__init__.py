"""Pixel features: which there are, how they are computed, how they are kept."""

from napari_cellda.core.features.compute import compute_features
from napari_cellda.core.features.sets import FeatureSpec

__all__ = ["FeatureSpec", "compute_features"]
