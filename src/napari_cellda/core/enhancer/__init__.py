"""The Prediction Enhancer: applied in tiles, at the right zoom, with a word on its trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cellda.core.enhancer.enhance import Enhancer, merge_enhanced

__all__ = ["Enhancer", "merge_enhanced"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to load, and whoever reads the options here does not need it.
    if name in __all__:
        from napari_cellda.core.enhancer import enhance

        return getattr(enhance, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
