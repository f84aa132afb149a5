"""How an enhancer is applied: the choices that a project keeps."""

from __future__ import annotations

from pydantic import Field

from napari_cellda.core.params import BaseParams

FLAT_RANGE = 0.3
"""A forest's map with a smaller range holds no structure: stretched, noise would become objects."""


class EnhancerOptions(BaseParams):
    """How an enhancer is applied."""

    class_index: int = Field(1, ge=1)
    """Class whose forest map is enhanced: 1 is the first foreground class."""
    scale_range: bool = False
    """Stretch the forest's map to [0, 1] first, once for the whole image."""
    rescale: float = Field(1.0, gt=0)
    """Zoom before the enhancer and back, so that objects get the size it was trained for."""
