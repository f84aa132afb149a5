"""The Prediction Enhancer: applied in tiles, at the right zoom, with a word on its trust."""

from napari_cellda.core.enhancer.enhance import Enhancer, merge_enhanced

__all__ = ["Enhancer", "merge_enhanced"]
