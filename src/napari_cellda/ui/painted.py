"""One image of a viewer that is painted: its layers, its strokes, what was made of it. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.live.stroke_index import StrokeIndex, TileStrokes
    from napari_cellda.ui.axes import ImageChoice


@dataclass(eq=False)
class PaintedImage:
    """One image of the viewer that takes part: its layer, its strokes, what was measured.

    Two of them are the same only if they are the same object; `key` names it in caches.
    """

    choice: ImageChoice
    """Which layer, which axes and channels."""
    image: Image
    """The image as core sees it, channels already selected."""
    data: Any = None
    """The layer's data when the image was read; the layer may show other data by now."""
    strokes: Any = None
    """The napari Labels layer that is painted on; None before it is made, or once deleted."""
    strokes_array: Any = None
    """The strokes, of the image's `label_shape`; numpy or zarr, uint8."""
    index: StrokeIndex | None = None
    """Where the painted pixels are; brought up to date by ui.strokes."""
    norm: Normalisation | None = None
    """Measured once per image in the background; None until then."""
    arrays: dict[str, Any] = field(default_factory=dict)
    """Result arrays by role, each of the image's `label_shape`: "forest:0", "forest:1"..., "mask",
    "uncertainty", "enhanced", "boundary", "difference". Parts not computed yet are 0."""
    levels: dict[str, list[Any]] = field(default_factory=dict)
    """Coarser versions of the arrays of large planes, each half the one before, by role."""
    results: dict[str, Any] = field(default_factory=dict)
    """The napari layers that show them, by the same roles."""
    unwanted: set[str] = field(default_factory=set)
    """Roles whose layer the user deleted; they stay away until results are asked for again."""
    key: int = field(default_factory=count().__next__, init=False)
    """A number that no other image has, not even one that was deleted."""

    @property
    def layer(self) -> Any:
        """The napari Image layer (the first one, when several are taken as channels)."""
        return self.choice.layer

    @property
    def name(self) -> str:
        """The name of the image: its file's stem, or what the layer was called at first."""
        return self.image.name

    def tiles(self) -> tuple[TileStrokes, ...]:
        """Return the painted pixels; while there is no index of them, all strokes are read."""
        index = self.index
        if index is None and self.strokes_array is not None:
            from napari_cellda.core.features import FeatureSpec
            from napari_cellda.core.live.stroke_index import StrokeIndex

            index = StrokeIndex(self.image, FeatureSpec())
            index.update(self.strokes_array)
        return () if index is None else index.snapshot()
