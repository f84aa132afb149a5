"""Features of painted pixels, kept so that a new stroke only needs those of its own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.classifier import Normalised, tile_features
from napari_cellda.core.live.coverage import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari_cellda.core.features import FeatureSpec
    from napari_cellda.core.features.cache import FeatureCache
    from napari_cellda.core.live.stroke_index import TileStrokes


@dataclass(frozen=True, eq=False)
class _Kept:
    source: Normalised
    spec: FeatureSpec
    strokes: TileStrokes
    features: np.ndarray
    """(N, F) float32, one row per painted pixel."""
    valid_mask: np.ndarray
    """(N,) bool, False where the image holds no finite number."""

    def fits(self, source: Normalised, spec: FeatureSpec) -> bool:
        """Whether these are features of the very same image, computed the same way."""
        same_image = self.source.image is source.image
        return (
            same_image and self.source.normalisation == source.normalisation and self.spec == spec
        )


class SampleStore:
    """Gathers training samples, computing features only for pixels that are newly painted.

    Parameters
    ----------
    cache : FeatureCache
        Where tiles of features come from.
    """

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache
        self._kept: dict[tuple[Hashable, Place], _Kept] = {}

    def keep_only(self, alive: set[tuple[Hashable, Place]]) -> None:
        """Forget every tile but these, named by (image key, place)."""
        for name in self._kept.keys() - alive:
            del self._kept[name]

    def gather(
        self, key: Hashable, source: Normalised, strokes: TileStrokes, spec: FeatureSpec
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples of one tile, as `gather_samples` would.

        Parameters
        ----------
        key : hashable
            Names the image.
        source : Normalised
        strokes : TileStrokes
        spec : FeatureSpec

        Returns
        -------
        features : (N, F) ndarray of float32
        labels : (N,) ndarray of int64
            Class index, 0 = background. Pixels without a finite value are left out.
        """
        name = key, place_of(strokes.tile)
        old = self._kept.get(name)
        if old is not None and not old.fits(source, spec):
            old = None
        if old is None or old.strokes.digest != strokes.digest:
            features, valid_mask = self._features(old, source, strokes, spec)
            old = self._kept[name] = _Kept(source, spec, strokes, features, valid_mask)
        return old.features[old.valid_mask], strokes.ids[old.valid_mask].astype(np.int64) - 1

    def _features(
        self, old: _Kept | None, source: Normalised, strokes: TileStrokes, spec: FeatureSpec
    ) -> tuple[np.ndarray, np.ndarray]:
        features = np.empty((len(strokes.flat), len(spec.names(source.image.n_channels))), "f4")
        valid_mask = np.empty(len(strokes.flat), bool)
        fresh = np.ones(len(strokes.flat), bool)
        if old is not None:
            _, here, there = np.intersect1d(
                strokes.flat, old.strokes.flat, assume_unique=True, return_indices=True
            )
            features[here] = old.features[there]
            valid_mask[here] = old.valid_mask[there]
            fresh[here] = False
        if fresh.any():
            values, valid = tile_features(source, strokes.tile, spec, self._cache)
            where = strokes.flat[fresh]
            features[fresh] = values.reshape(len(values), -1)[:, where].T
            valid_mask[fresh] = valid.ravel()[where]
        return features, valid_mask
