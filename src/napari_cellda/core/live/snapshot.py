"""What live painting is asked, and what it answers: frozen values that cross threads safely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.features import FeatureSpec
    from napari_cellda.core.forest import ForestParams
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Kind
    from napari_cellda.core.live.stroke_index import TileStrokes
    from napari_cellda.core.tiles import Region


@dataclass(frozen=True, eq=False)
class PaintedSnapshot:
    """One image and its strokes as they were at one moment."""

    key: Hashable
    """Names the image from one snapshot to the next."""
    image: Image
    strokes: tuple[TileStrokes, ...]


@dataclass(frozen=True)
class Enhancement:
    """Which enhancer, and how it is applied."""

    enhancer: Enhancer
    class_index: int = 1
    scale_range: bool = False
    """Stretch the forest's map of the plane to [0, 1] first."""
    rescale: float = 1.0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that an answer depends on, frozen."""

    images: tuple[PaintedSnapshot, ...]
    target: Hashable
    """Key of the image that is looked at."""
    view: Region
    """What is visible of it: a part of one plane."""
    centre: tuple[float, float, float]
    """(z, y, x) of the place looked at, e.g. the latest stroke: near it comes first."""
    spec: FeatureSpec
    normalisation: Kind
    channels: str | tuple[int, ...]
    class_names: tuple[str, ...]
    params: ForestParams
    enhancement: Enhancement | None = None
    whole_plane: bool = True
    """False: the visible area is enough."""

    @property
    def looked_at(self) -> PaintedSnapshot:
        """The image that is looked at."""
        return next(item for item in self.images if item.key == self.target)


@dataclass(frozen=True)
class Waiting:
    """Too little is painted for a forest."""

    missing: tuple[int, ...]
    """Class indices without strokes; at least two classes are needed."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A forest is ready."""

    classifier: PixelClassifier
    final: bool
    """False for the small forest of the first answer."""
    flat_images: tuple[str, ...] = ()
    """Names of constant images, whose maps are flat."""


@dataclass(frozen=True, eq=False)
class ForestTile:
    """A forest's map of a part of the plane."""

    key: Hashable
    region: Region
    probability_map: np.ndarray
    """(K, Z, Y, X) float32, sum 1."""
    left: int = 0
    """Parts of this kind still to come."""


@dataclass(frozen=True, eq=False)
class EnhancedTile:
    """An enhanced map of a part of the plane."""

    key: Hashable
    region: Region
    output_maps: np.ndarray
    """(n_outputs, Z, Y, X) float32: what the enhancer returned, foreground first."""
    forest_map: np.ndarray
    """(Z, Y, X) float32: what it was given."""
    probability_map: np.ndarray
    """(K, Z, Y, X) float32: the forest's map with the enhanced class put in, sum 1."""
    left: int = 0
    """Parts of this kind still to come."""


@dataclass(frozen=True)
class Done:
    """Everything that was asked for is there."""


Answer = Waiting | Trained | ForestTile | EnhancedTile | Done
