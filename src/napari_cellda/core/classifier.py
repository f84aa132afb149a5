"""From an image and brushstrokes to class probabilities: features, forest, map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step, Stop, Task, never
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import Forest, ForestParams, fit_forest
from napari_cellda.core.images import check_same_channels
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.images.normalisation import Kind, Normalisation, measure_normalisation
from napari_cellda.core.tiles import Region, grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_cellda.core.features.cache import FeatureCache
    from napari_cellda.core.images import Image

TILE_2D = (1, 512, 512)
"""Features are computed and kept tile by tile (z, y, x pixels): 51 MB for 49 channels."""
TILE_3D = (32, 128, 128)


def tile_shape(spec: FeatureSpec) -> tuple[int, int, int]:
    """Return the (z, y, x) size of the tiles in which the features of `spec` are computed."""
    return TILE_3D if spec.ndim == 3 else TILE_2D


@dataclass(frozen=True)
class Normalised:
    """An image as the forest sees it: the channels in use and their scaling."""

    image: Image
    normalisation: Normalisation

    @classmethod
    def measure(cls, image: Image, kind: Kind = "percentile") -> Normalised:
        """Measure the normalisation over the whole image, once."""
        return cls(image, measure_normalisation(image, kind))

    def read(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Read one region.

        Returns
        -------
        block : (C, Z, Y, X) ndarray of float32
            Normalised values; 0 where the image holds no finite number.
        valid_mask : (Z, Y, X) ndarray of bool
            False where any channel is NaN or infinite.
        """
        block = self.image.read(region)
        return self.normalisation.apply(block), np.isfinite(block).all(axis=0)

    def count_invalid(self, region: Region) -> int:
        """Return how many pixels of a region hold no finite number."""
        if not np.issubdtype(self.image.data.dtype, np.floating):
            return 0
        return int(np.count_nonzero(~self.read(region)[1]))


def tile_features(
    source: Normalised, tile: Region, spec: FeatureSpec, cache: FeatureCache | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of one tile, with the halo that makes tiles equal the whole image.

    Parameters
    ----------
    source : Normalised
    tile : Region
        With a 2D `spec` the region holds a single plane.
    spec : FeatureSpec
    cache : FeatureCache, optional
        Keyed by the pixels that are read, so that an edited image never gives stale features.

    Returns
    -------
    features : (F, Z, Y, X) ndarray of float32
    valid_mask : (Z, Y, X) ndarray of bool
    """
    halo = (spec.halo if spec.ndim == 3 else 0, spec.halo, spec.halo)
    outer = tile.grow(halo, source.image.limits)
    block, valid_mask = source.read(outer)
    inside = tile.inside(outer)

    def compute() -> np.ndarray:
        if spec.ndim == 3:
            features = compute_features(block, spec)
        else:
            features = compute_features(block[:, 0], spec)[:, np.newaxis]
        return np.ascontiguousarray(features[(slice(None), *inside)])

    if cache is None:
        return compute(), valid_mask[inside]
    where = ",".join(f"{part.start}:{part.stop}" for part in inside)
    return cache.get(block, spec, compute, where), valid_mask[inside]


def check_strokes_shape(image: Image, strokes: np.ndarray) -> None:
    """Raise a UserError if strokes have another shape than their image."""
    if tuple(strokes.shape) != tuple(image.label_shape):
        raise UserError(
            f"The strokes for '{image.name}' have shape {tuple(strokes.shape)}, "
            f"but the image needs {tuple(image.label_shape)} ({image.label_axes})."
        )


def painted_tiles(
    image: Image, strokes: np.ndarray, spec: FeatureSpec, stop: Stop = never
) -> Iterator[tuple[Region, np.ndarray]]:
    """Find the feature tiles that hold strokes.

    Parameters
    ----------
    image : Image
    strokes : array of int, of `image.label_shape`
        0 = not annotated. Read tile by tile, so a zarr array is never loaded whole.
    spec : FeatureSpec
    stop : callable
        Asked before every tile.

    Yields
    ------
    tile : Region
    painted : (Z, Y, X) ndarray of int
        The strokes in this tile; at least one pixel is not 0.

    Raises
    ------
    UserError
        If the strokes have another shape than the image.
    """
    check_strokes_shape(image, strokes)
    for t in range(image.n_times):
        for tile in grid(image.limits, tile_shape(spec), t):
            if stop():
                return
            painted = read_region(image, strokes, tile)
            if painted.any():
                yield tile, painted


def gather_samples(
    source: Normalised,
    strokes: np.ndarray,
    spec: FeatureSpec,
    cache: FeatureCache | None = None,
    stop: Stop = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Collect the features under the strokes of one image.

    Returns
    -------
    features : (N, F) ndarray of float32
    labels : (N,) ndarray of int
        Class index, 0 = background (stroke id minus 1). Pixels without a finite value are left out.
    """
    features, labels = [], []
    for tile, painted in painted_tiles(source.image, strokes, spec, stop):
        values, valid_mask = tile_features(source, tile, spec, cache)
        chosen = (painted > 0) & valid_mask
        features.append(values[:, chosen].T)
        labels.append(painted[chosen].astype(np.int64) - 1)
    if not features:
        n_features = len(spec.names(source.image.n_channels))
        return np.empty((0, n_features), np.float32), np.empty(0, np.int64)
    return np.concatenate(features), np.concatenate(labels)


@dataclass(frozen=True)
class PixelClassifier:
    """A trained forest with all it needs to run on another image."""

    spec: FeatureSpec
    normalisation: Kind
    channels: str | tuple[int, ...]
    """What `Image.select` was given: "grey", "all" or channel indices."""
    class_names: tuple[str, ...]
    """By class index; background first."""
    forest: Forest

    @property
    def n_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    def check(self, image: Image) -> None:
        """Raise a UserError if `image` has not the channels that the forest was trained on."""
        wanted = len(self.forest.feature_names)
        found = len(self.spec.names(image.n_channels))
        if found != wanted:
            per_channel = len(self.spec.names(1))
            raise UserError(
                f"'{image.name}' has {image.n_channels} channel(s) in use, but this forest was "
                f"trained on {wanted // per_channel}; choose the same channels."
            )

    def predict(
        self,
        source: Normalised,
        region: Region,
        cache: FeatureCache | None = None,
        stop: Stop = never,
    ) -> np.ndarray:
        """Predict class probabilities in one region.

        Parameters
        ----------
        source : Normalised
        region : Region
        cache : FeatureCache, optional
        stop : callable
            Asked before every tile; tiles not reached stay "background".

        Returns
        -------
        (K, Z, Y, X) ndarray of float32
            Sum 1. Pixels without a finite value are background with probability 1.
        """
        probability_map = np.zeros((self.n_classes, *region.shape), np.float32)
        probability_map[0] = 1
        for tile in grid(source.image.limits, tile_shape(self.spec), region.t, within=region):
            if stop():
                break
            part = tile.overlap(region)
            values, valid_mask = tile_features(source, tile, self.spec, cache)
            inside = part.inside(tile)
            found = self.forest.predict(values[(slice(None), *inside)])
            found[:, ~valid_mask[inside]] = 0
            found[0, ~valid_mask[inside]] = 1
            probability_map[(slice(None), *part.inside(region))] = found
        return probability_map


def default_class_names(n_classes: int) -> tuple[str, ...]:
    """Name classes that nobody named: background, then "class 1" and so on."""
    return ("background", *(f"class {k}" for k in range(1, n_classes)))


def train_classifier(
    images: Sequence[Image],
    strokes: Sequence[np.ndarray],
    *,
    spec: FeatureSpec | None = None,
    normalisation: Kind = "percentile",
    channels: str | tuple[int, ...] = "grey",
    class_names: tuple[str, ...] | None = None,
    params: ForestParams | None = None,
    cache: FeatureCache | None = None,
    stop: Stop = never,
) -> Task[PixelClassifier]:
    """Train one forest on the strokes of one or several images.

    Parameters
    ----------
    images : sequence of Image
        With their channels already selected.
    strokes : sequence of int arrays, of each image's `label_shape`
        0 = not annotated, 1 = background, 2... = foreground classes.
    spec, normalisation, channels, class_names, params, cache, stop
        See `PixelClassifier`, `FeatureSpec` and `ForestParams`; None means the default.

    Yields
    ------
    Stage, Step

    Raises
    ------
    UserError
        If nothing is painted, only one class is, or the images differ in their channels.
    """
    spec = spec or FeatureSpec()
    check_same_channels(images)
    yield Stage("Collect features under the strokes", len(images))
    features, labels = [], []
    for done, (image, painted) in enumerate(zip(images, strokes, strict=True), 1):
        source = Normalised.measure(image, normalisation)
        found, classes = gather_samples(source, painted, spec, cache, stop)
        features.append(found)
        labels.append(classes)
        yield Step(done)
    painted_classes = np.concatenate(labels)
    check_painted(painted_classes, [image.name for image in images])
    names = class_names or default_class_names(int(painted_classes.max()) + 1)
    yield Stage("Train the forest")
    forest = fit_forest(
        np.concatenate(features),
        painted_classes,
        len(names),
        params or ForestParams(),
        feature_names=spec.names(images[0].n_channels),
    )
    return PixelClassifier(spec, normalisation, channels, names, forest)


def check_painted(labels: np.ndarray, names: Sequence[str]) -> None:
    """Raise a UserError unless at least two classes are painted."""
    where = ", ".join(f"'{name}'" for name in names)
    present = np.unique(labels)
    if not len(present):
        raise UserError(f"No strokes were found for {where}; paint background and one class more.")
    if len(present) == 1:
        raise UserError(
            f"The strokes for {where} hold only the value {present[0] + 1}; "
            "paint at least two classes (1 is background)."
        )
