"""Live painting: from strokes to maps, what is visible first, and never work for old strokes.

The order for every new stroke: a small forest on the visible area, the whole forest on the visible
area, the enhanced map there, then the rest of the plane tile by tile. Between tiles the work asks
whether it is out of date. No window is needed here: whoever drives an `Engine` (a thread, a test)
passes it frozen snapshots and takes the answers it yields.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.classifier import Normalised, PixelClassifier, tile_features, tile_shape
from napari_cellda.core.enhancer import merge_enhanced
from napari_cellda.core.events import Stop, never
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.features.cache import FeatureCache
from napari_cellda.core.forest import ForestParams, fit_forest, grow_forest
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.live.coverage import Coverage, Place, TileMaps, place_of
from napari_cellda.core.live.sample_store import SampleStore
from napari_cellda.core.live.snapshot import (
    Answer,
    Done,
    EnhancedTile,
    ForestTile,
    Trained,
    Waiting,
)
from napari_cellda.core.pipeline import map_range
from napari_cellda.core.tiles import Region, Spot, nearest_first

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from napari_cellda.core.forest import Forest
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Kind, Normalisation
    from napari_cellda.core.live.snapshot import Enhancement, PaintedSnapshot, Snapshot
    from napari_cellda.core.live.trainer import Trainer

ENHANCED_TILE = (1, 1024, 1024)
"""A network's halo is wide, so its tiles are larger than those of the features."""


class Engine:
    """Answers snapshots, one at a time, remembering what the next one can use again.

    Not thread-safe: use it from one thread.

    Parameters
    ----------
    cache : FeatureCache, optional
        None makes one with the default budget.
    trainer : Trainer, optional
        A helper process to train in; None trains in this one.
    """

    def __init__(self, cache: FeatureCache | None = None, trainer: Trainer | None = None) -> None:
        self.cache = cache or FeatureCache()
        self._trainer = trainer
        self._samples = SampleStore(self.cache)
        self._measured: dict[Hashable, tuple[Image, Kind, Normalisation]] = {}
        self._key: Hashable = None
        self._classifier: PixelClassifier | None = None
        self._plane = _Plane.empty()

    def answer(
        self, snapshot: Snapshot, superseded: Stop = never, stop: Stop = never
    ) -> Iterator[Answer]:
        """Answer one snapshot.

        Parameters
        ----------
        snapshot : Snapshot
        superseded : callable
            True once a newer snapshot waits. Work for the old one then ends, but not before it
            has given a first answer: else nothing would be seen during a long stroke.
        stop : callable
            True once nobody wants an answer any more; ends at the next tile.

        Yields
        ------
        Waiting, Trained, ForestTile, EnhancedTile, Done
            `Done` is left out when the work was superseded or stopped.

        Raises
        ------
        UserError
            If an image cannot be used, e.g. it is empty or its strokes do not fit.
        """
        sources = self._sources(snapshot)
        source = sources[snapshot.target]
        outdated = lambda: superseded() or stop()  # noqa: E731
        painted = _painted_ids(snapshot)
        if len(painted) < 2 and training_key(snapshot) != self._key:
            names = range(1, len(snapshot.class_names) + 1)
            yield Waiting(tuple(k - 1 for k in names if k not in painted))
            if self._prefetch(source, snapshot, outdated):
                yield Done()
            return
        answered = False
        flat = tuple(s.image.name for s in sources.values() if s.normalisation.is_flat)
        for classifier, final in self._classifiers(snapshot, sources, stop):
            yield Trained(classifier, final, flat)
            self._begin_plane(snapshot, source, classifier)
            enough = outdated if answered else stop
            for tile in self._forest_tiles(snapshot, source, snapshot.view, enough):
                yield tile
                answered = True
            if stop() or (answered and superseded()):
                return
        yield from self._finish(snapshot, source, outdated)

    def _finish(self, snapshot: Snapshot, source: Normalised, outdated: Stop) -> Iterator[Answer]:
        """Enhance what is visible, then do the rest of the plane."""
        plane = replace(
            snapshot.view, y=slice(0, source.image.limits[1]), x=slice(0, source.image.limits[2])
        )
        yield from self._enhanced_tiles(snapshot, source, snapshot.view, outdated)
        if snapshot.whole_plane:
            yield from self._forest_tiles(snapshot, source, plane, outdated)
            yield from self._enhanced_tiles(snapshot, source, plane, outdated)
        if not outdated():
            yield Done()

    # -- training -------------------------------------------------------------------------------

    def _sources(self, snapshot: Snapshot) -> dict[Hashable, Normalised]:
        sources = {item.key: self._source(item, snapshot.normalisation) for item in snapshot.images}
        for gone in self._measured.keys() - sources.keys():
            del self._measured[gone]
        return sources

    def _source(self, item: PaintedSnapshot, kind: Kind) -> Normalised:
        known = self._measured.get(item.key)
        if known is None or known[0] is not item.image or known[1] != kind:
            known = item.image, kind, measure_normalisation(item.image, kind)
            self._measured[item.key] = known
            if item.strokes:
                self._key = None
        return Normalised(item.image, known[2])

    def normalisation_of(self, key: Hashable) -> Normalisation | None:
        """Return what was measured for an image; None if it never was in a snapshot."""
        return self._measured[key][2] if key in self._measured else None

    def adopt(
        self,
        snapshot: Snapshot,
        classifier: PixelClassifier,
        measured: Mapping[Hashable, Normalisation],
    ) -> None:
        """Take over a forest that was trained on a snapshot before, e.g. that of a project.

        Until strokes or settings change it answers as it is: no new one is trained.

        Parameters
        ----------
        snapshot : Snapshot
        classifier : PixelClassifier
        measured : mapping of image key to Normalisation
            As they were for that forest; images left out are measured anew.
        """
        for item in snapshot.images:
            if item.key in measured:
                known = item.image, snapshot.normalisation, measured[item.key]
                self._measured[item.key] = known
        self._key, self._classifier = training_key(snapshot), classifier

    def _classifiers(
        self, snapshot: Snapshot, sources: dict[Hashable, Normalised], stop: Stop
    ) -> Iterator[tuple[PixelClassifier, bool]]:
        """Yield the small forest and the whole one; only the whole one if nothing changed."""
        key = training_key(snapshot)
        if key == self._key and self._classifier is not None:
            if self._classifier.class_names != snapshot.class_names:
                self._classifier = replace(self._classifier, class_names=snapshot.class_names)
            yield self._classifier, True
            return
        samples = self._gather(snapshot, sources, stop)
        if samples is None:
            return
        spec, params = snapshot.spec, snapshot.params
        names = spec.names(sources[snapshot.target].image.n_channels)
        grow = grow_forest if self._trainer is None else self._trainer.grow
        for forest in grow(*samples, len(snapshot.class_names), params, feature_names=names):
            final = forest.n_trees == params.trees
            classifier = PixelClassifier(
                spec, snapshot.normalisation, snapshot.channels, snapshot.class_names, forest
            )
            if final:
                self._key, self._classifier = key, classifier
            yield classifier, final

    def _gather(
        self, snapshot: Snapshot, sources: dict[Hashable, Normalised], stop: Stop
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return features and labels of all painted pixels; None if stopped."""
        found = []
        alive: set[tuple[Hashable, Place]] = set()
        for item in snapshot.images:
            for strokes in item.strokes:
                if stop():
                    return None
                alive.add((item.key, place_of(strokes.tile)))
                found.append(
                    self._samples.gather(item.key, sources[item.key], strokes, snapshot.spec)
                )
        self._samples.keep_only(alive)
        features, labels = zip(*found, strict=True)
        return np.concatenate(features), np.concatenate(labels)

    def score(self, snapshot: Snapshot, stop: Stop = never) -> float | None:
        """Measure the forest's out-of-bag accuracy; trains it once more, so only when idle.

        Returns
        -------
        float or None
            Share of painted pixels told right by the trees that did not see them. None when the
            snapshot's forest was not trained yet, or `stop` said so.
        """
        if training_key(snapshot) != self._key or len(_painted_ids(snapshot)) < 2:
            return None
        samples = self._gather(snapshot, self._sources(snapshot), stop)
        if samples is None:
            return None
        params = snapshot.params.model_copy(update={"out_of_bag": True})
        fit = fit_forest if self._trainer is None else self._trainer.fit
        forest = fit(*samples, len(snapshot.class_names), params)
        return None if forest is None else forest.oob_score

    def _prefetch(self, source: Normalised, snapshot: Snapshot, outdated: Stop) -> bool:
        """Compute the visible features already, so that the first stroke is answered at once."""
        coverage = Coverage(source.image.limits, tile_shape(snapshot.spec))
        for tile in nearest_first(coverage.tiles(snapshot.view), snapshot.centre):
            if outdated():
                return False
            tile_features(source, tile, snapshot.spec, self.cache)
        return not outdated()

    # -- maps -----------------------------------------------------------------------------------

    def _begin_plane(
        self, snapshot: Snapshot, source: Normalised, classifier: PixelClassifier
    ) -> None:
        """Start anew what is done, if the forest or the image is another one."""
        owner = (classifier.forest, source.image, source.normalisation)
        if not self._plane.same_owner(owner):
            self._plane = _Plane.begin(owner, source, classifier, self.cache)
        self._plane.follow(snapshot.enhancement, source)

    def _forest_tiles(
        self, snapshot: Snapshot, source: Normalised, region: Region, outdated: Stop
    ) -> Iterator[ForestTile]:
        plane = self._plane
        parts = nearest_first(plane.forest_done.missing(region), snapshot.centre)
        for left, part in _countdown(parts):
            if outdated():
                return
            probability_map = plane.maps.read(part)
            plane.forest_done.add(part)
            yield ForestTile(snapshot.target, part, probability_map, left)

    def _enhanced_tiles(
        self, snapshot: Snapshot, source: Normalised, region: Region, outdated: Stop
    ) -> Iterator[EnhancedTile]:
        chosen, plane = snapshot.enhancement, self._plane
        if chosen is None:
            return
        k = chosen.class_index
        stretch = self._stretch(snapshot, chosen) if chosen.scale_range else None
        parts = nearest_first(plane.enhanced_done.missing(region), snapshot.centre)
        for left, part in _countdown(parts):
            output_maps = chosen.enhancer.enhance_region(
                lambda wanted: plane.maps.read(wanted)[k],
                part,
                source.image.limits,
                scale_range=stretch,
                rescale=chosen.rescale,
                stop=outdated,
            )
            if output_maps is None or outdated():
                return
            forest_map = plane.maps.read(part)
            merged = merge_enhanced(forest_map, output_maps[0], k)
            plane.enhanced_done.add(part)
            yield EnhancedTile(snapshot.target, part, output_maps, forest_map[k], merged, left)

    def _stretch(self, snapshot: Snapshot, chosen: Enhancement) -> tuple[float, float] | None:
        """Return the range of the forest's map over the plane, measured once per forest.

        An export measures it over the whole image; the two agree where the image is one plane.
        """
        maps, place = self._plane.maps, (snapshot.view.t, snapshot.view.z.start, chosen.class_index)
        if place not in self._plane.ranges:
            limits = snapshot.looked_at.image.limits
            plane = replace(snapshot.view, y=slice(0, limits[1]), x=slice(0, limits[2]))
            pieces = Coverage(limits, tile_shape(snapshot.spec)).tiles(plane)
            planes = [replace(piece, z=plane.z) for piece in pieces]
            found = map_range(lambda r: maps.read(r)[chosen.class_index], planes)
            self._plane.ranges[place] = found
        return self._plane.ranges[place]


class _Plane:
    """What is done for one forest on one image, and for one enhancement of it."""

    def __init__(self, owner: tuple[object, ...], maps: TileMaps, limits: Spot, tile: Spot) -> None:
        self._owner = owner
        self._tile = tile
        self._enhancement: Enhancement | None = None
        self.maps = maps
        self.forest_done = self.enhanced_done = Coverage(limits, tile)
        self.ranges: dict[tuple[int, int, int], tuple[float, float] | None] = {}

    @classmethod
    def empty(cls) -> _Plane:
        nothing = (1, 1, 1)
        maps = TileMaps(nothing, nothing, 1, lambda region: np.zeros((1, *region.shape), "f4"))
        return cls((), maps, nothing, nothing)

    @classmethod
    def begin(
        cls,
        owner: tuple[Forest, Image, Normalisation],
        source: Normalised,
        classifier: PixelClassifier,
        cache: FeatureCache,
    ) -> _Plane:
        limits, tile = source.image.limits, tile_shape(classifier.spec)
        maps = TileMaps(
            limits, tile, classifier.n_classes, lambda r: classifier.predict(source, r, cache)
        )
        return cls(owner, maps, limits, tile)

    def same_owner(self, owner: tuple[object, ...]) -> bool:
        return len(owner) == len(self._owner) and all(
            mine is theirs for mine, theirs in zip(self._owner, owner, strict=True)
        )

    def follow(self, enhancement: Enhancement | None, source: Normalised) -> None:
        """Start the enhanced maps anew if the enhancer or one of its options is another.

        Without one, the forest's maps are given again: they are the last word on the mask now.
        """
        if enhancement == self._enhancement and self.enhanced_done is not self.forest_done:
            return
        if enhancement is None and self._enhancement is not None:
            self.forest_done = Coverage(source.image.limits, self._tile)
        self._enhancement = enhancement
        self.enhanced_done = Coverage(source.image.limits, ENHANCED_TILE)


def _countdown(parts: list[Region]) -> list[tuple[int, Region]]:
    """Pair each part with the number of those after it."""
    return list(zip(reversed(range(len(parts))), parts, strict=True))


def ready_engine(trainer: Trainer) -> Engine:
    """Compile what painting needs, wait until the trainer is ready, and return an engine."""
    noise = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    features = compute_features(noise, FeatureSpec())
    samples = features[:, :, 0].T.copy()
    forest = trainer.fit(samples, np.arange(32) % 2, 2, ForestParams(trees=2))
    if forest is not None:
        forest.predict(features)
    return Engine(trainer=trainer)


def _painted_ids(snapshot: Snapshot) -> set[int]:
    return {int(k) for item in snapshot.images for s in item.strokes for k in np.unique(s.ids)}


def training_key(snapshot: Snapshot) -> Hashable:
    """Return a value that is equal only if the forest would be the same (on the same images)."""
    strokes = tuple(
        (item.key, tuple((place_of(s.tile), s.digest) for s in item.strokes))
        for item in snapshot.images
        if item.strokes
    )
    settings = snapshot.spec, snapshot.normalisation, snapshot.channels, snapshot.params
    return (*settings, len(snapshot.class_names), strokes)
