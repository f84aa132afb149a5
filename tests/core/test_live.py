"""Live painting without a window: order, being superseded, and equality with the headless way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from napari_cellda.core import classifier
from napari_cellda.core.classifier import Normalised, train_classifier
from napari_cellda.core.enhancer import merge_enhanced
from napari_cellda.core.events import Task
from napari_cellda.core.events import run_quietly as run
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.features.cache import FeatureCache
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import Image, image_from_array
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.live import engine as live
from napari_cellda.core.live import sample_store
from napari_cellda.core.live.engine import Engine
from napari_cellda.core.live.snapshot import (
    Done,
    EnhancedTile,
    Enhancement,
    ForestTile,
    PaintedSnapshot,
    Snapshot,
    Trained,
    Waiting,
)
from napari_cellda.core.live.stroke_index import StrokeIndex
from napari_cellda.core.tiles import Region, whole

SPEC = FeatureSpec(name="compact", scales=(1.0,))
PARAMS = ForestParams(trees=25, jobs=1)
TILE = 128


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut images into small tiles, so that small images have several."""
    monkeypatch.setattr(classifier, "TILE_2D", (1, TILE, TILE))
    monkeypatch.setattr(live, "ENHANCED_TILE", (1, 2 * TILE, 2 * TILE))


@pytest.fixture
def engine() -> Engine:
    return Engine(FeatureCache(100 << 20))


def make_image(shape: tuple[int, ...] = (200, 300), axes: str = "yx", seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    array = rng.random(shape).astype(np.float32)
    array[..., shape[-1] // 2 :] += 0.5
    return image_from_array(array, axes, name=f"image {seed}")


def make_strokes(image: Image) -> np.ndarray:
    strokes = np.zeros(image.label_shape, np.uint8)
    strokes[..., 20:24, 10:40] = 1
    strokes[..., 150:154, -40:-10] = 2
    return strokes


def snapshot_of(
    image: Image, strokes: np.ndarray, view: Region | None = None, **changes: Any
) -> Snapshot:
    index = StrokeIndex(image, changes.get("spec", SPEC))
    index.update(strokes)
    painted = PaintedSnapshot("it", image, index.snapshot())
    view = view or whole(image.limits)
    settings: dict[str, Any] = {
        "images": (painted,),
        "target": "it",
        "view": view,
        "centre": (0.0, (view.y.start + view.y.stop) / 2, (view.x.start + view.x.stop) / 2),
        "spec": SPEC,
        "normalisation": "percentile",
        "channels": "grey",
        "class_names": ("background", "cells"),
        "params": PARAMS,
    }
    return Snapshot(**{**settings, **changes})


def paste(tiles: list[Any], shape: tuple[int, ...], n_classes: int = 2) -> np.ndarray:
    """Put tiles together; NaN where there is none, an error where two overlap."""
    result = np.full((n_classes, *shape), np.nan, np.float32)
    for tile in tiles:
        where = (slice(None), *tile.region.slices)
        assert np.isnan(result[where]).all()
        result[where] = tile.probability_map
    return result


VIEW = Region(0, slice(0, 1), slice(40, 140), slice(100, 190))


def test_live_forest_and_map_are_those_of_the_command_line(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    answers = list(engine.answer(snapshot_of(image, strokes, VIEW)))
    trained = [a for a in answers if isinstance(a, Trained)]
    task: Task[Any] = train_classifier([image], [strokes], spec=SPEC, params=PARAMS)
    expected = run(task)
    np.testing.assert_array_equal(
        trained[-1].classifier.forest.threshold, expected.forest.threshold
    )
    np.testing.assert_array_equal(trained[-1].classifier.forest.leaves, expected.forest.leaves)
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    tiles = [a for a in answers[last:] if isinstance(a, ForestTile)]
    whole_map = expected.predict(Normalised.measure(image), whole(image.limits))
    np.testing.assert_array_equal(paste(tiles, image.limits), whole_map)


def test_visible_area_comes_first_from_the_small_forest_then_from_the_whole(engine: Engine) -> None:
    image = make_image()
    answers = list(engine.answer(snapshot_of(image, make_strokes(image), VIEW)))
    kinds = [type(a) for a in answers]
    first, second = (i for i, kind in enumerate(kinds) if kind is Trained)
    assert first == 0
    assert not answers[first].final
    assert answers[first].classifier.forest.n_trees == 20
    assert answers[second].final
    assert answers[second].classifier.forest.n_trees == 25
    small = [a.region for a in answers[first + 1 : second]]
    assert {r.y.start // TILE for r in small} == {0, 1}
    assert all(r.overlap(VIEW).shape != (1, 0, 0) for r in small)
    full = [a.region for a in answers[second + 1 : second + 1 + len(small)]]
    assert full == small
    assert kinds[-1] is Done


def test_parts_are_counted_down(engine: Engine) -> None:
    image = make_image()
    answers = list(engine.answer(snapshot_of(image, make_strokes(image))))
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    left = [a.left for a in answers[last:] if isinstance(a, ForestTile)]
    assert left == list(reversed(range(len(left))))


def test_nearest_tile_of_the_view_comes_first(engine: Engine) -> None:
    image = make_image()
    snapshot = snapshot_of(image, make_strokes(image), centre=(0.0, 190.0, 290.0))
    tiles = [a for a in engine.answer(snapshot) if isinstance(a, ForestTile)]
    assert tiles[0].region.y.stop == 200
    assert tiles[0].region.x.stop == 300


def test_newer_stroke_ends_the_work_after_the_first_answer(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    answers = list(engine.answer(snapshot_of(image, strokes, VIEW), superseded=lambda: True))
    assert [type(a) for a in answers[:2]] == [Trained, ForestTile]
    assert sum(isinstance(a, Trained) for a in answers) == 1
    assert not answers[0].final
    assert not any(isinstance(a, Done) for a in answers)
    again = list(engine.answer(snapshot_of(image, strokes, VIEW)))
    assert isinstance(again[-1], Done)
    assert [a.final for a in again if isinstance(a, Trained)] == [False, True]


def test_superseded_between_tiles_of_the_rest(engine: Engine) -> None:
    image = make_image()
    snapshot = snapshot_of(image, make_strokes(image), VIEW)
    seen: list[Any] = []

    def superseded() -> bool:
        return sum(isinstance(a, Trained) for a in seen) == 2

    for answer in engine.answer(snapshot, superseded):
        seen.append(answer)
    assert isinstance(seen[-1], Trained)


def test_stop_ends_at_once(engine: Engine) -> None:
    image = make_image()
    assert list(engine.answer(snapshot_of(image, make_strokes(image)), stop=lambda: True)) == []


def test_new_stroke_needs_features_of_its_tile_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    strokes = make_strokes(image)
    list(engine.answer(snapshot_of(image, strokes)))
    asked: list[Region] = []
    original = sample_store.tile_features

    def spy(source: Any, tile: Region, *args: Any) -> Any:
        asked.append(tile)
        return original(source, tile, *args)

    monkeypatch.setattr(sample_store, "tile_features", spy)
    strokes[160:164, 10:30] = 1
    list(engine.answer(snapshot_of(image, strokes)))
    assert asked == [Region(0, slice(0, 1), slice(128, 200), slice(0, 128))]


def test_kept_samples_equal_fresh_ones(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    list(engine.answer(snapshot_of(image, strokes)))
    strokes[20:22, 20:60] = 2  # partly over strokes of the other class
    strokes[23, :] = 0
    live_forest = _forest(engine, snapshot_of(image, strokes))
    fresh_forest = _forest(Engine(FeatureCache(0)), snapshot_of(image, strokes))
    np.testing.assert_array_equal(live_forest.threshold, fresh_forest.threshold)


def _forest(engine: Engine, snapshot: Snapshot) -> Any:
    return [a for a in engine.answer(snapshot) if isinstance(a, Trained)][-1].classifier.forest


def test_one_class_only_waits_for_the_others_and_fetches_features(engine: Engine) -> None:
    image = make_image()
    strokes = np.where(make_strokes(image) == 1, np.uint8(1), np.uint8(0))
    names = ("background", "cells", "walls")
    answers = list(engine.answer(snapshot_of(image, strokes, class_names=names)))
    assert answers == [Waiting(missing=(1, 2)), Done()]
    assert engine.cache.nbytes > 0


def test_class_without_strokes_is_never_predicted(engine: Engine) -> None:
    image = make_image()
    names = ("background", "cells", "walls")
    answers = engine.answer(snapshot_of(image, make_strokes(image), class_names=names))
    maps = [a.probability_map for a in answers if isinstance(a, ForestTile)]
    assert all(len(m) == 3 for m in maps)
    assert max(float(m[2].max()) for m in maps) == 0


def test_moved_view_needs_no_training_and_repeats_nothing(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    first = snapshot_of(image, strokes, VIEW, whole_plane=False)
    before = list(engine.answer(first))
    forest = next(a for a in reversed(before) if isinstance(a, Trained)).classifier.forest
    assert [type(a) for a in engine.answer(first)] == [Trained, Done]
    elsewhere = Region(0, slice(0, 1), slice(100, 200), slice(150, 300))
    after = list(engine.answer(replace(first, view=elsewhere)))
    assert after[0].classifier.forest is forest
    second = max(i for i, a in enumerate(before) if isinstance(a, Trained))
    old = [a for a in before[second:] if isinstance(a, ForestTile)]
    covered = paste(old + [a for a in after if isinstance(a, ForestTile)], image.limits)
    assert not np.isnan(covered[(slice(None), *elsewhere.slices)]).any()


def test_renamed_class_keeps_the_forest(engine: Engine) -> None:
    image = make_image()
    snapshot = snapshot_of(image, make_strokes(image))
    forest = _forest(engine, snapshot)
    renamed = list(engine.answer(replace(snapshot, class_names=("background", "nuclei"))))
    assert renamed[0].classifier.forest is forest
    assert renamed[0].classifier.class_names == ("background", "nuclei")
    assert isinstance(renamed[-1], Done)


class HalfEnhancer:
    """Halves the forest's map and looks one pixel around itself."""

    def enhance_region(
        self, read_forest_map: Any, region: Region, limits: Any, **options: Any
    ) -> np.ndarray | None:
        if options["stop"]():
            return None
        outer = region.grow((0, 1, 1), limits)
        values = read_forest_map(outer)[region.inside(outer)]
        low = options["scale_range"][0] if options["scale_range"] else 0
        return np.asarray((values - low) / 2)[np.newaxis]


def test_enhanced_map_follows_what_is_visible_before_the_rest(engine: Engine) -> None:
    image = make_image()
    snapshot = snapshot_of(
        image, make_strokes(image), VIEW, enhancement=Enhancement(HalfEnhancer())
    )
    answers = list(engine.answer(snapshot))
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    kinds = [type(a) for a in answers[last + 1 : -1]]
    changes = [kind for kind, before in pairwise([*kinds, None]) if kind is not before]
    assert changes == [ForestTile, EnhancedTile, ForestTile, EnhancedTile]
    forest_map = paste([a for a in answers[last:] if isinstance(a, ForestTile)], image.limits)
    enhanced = paste([a for a in answers if isinstance(a, EnhancedTile)], image.limits)
    expected = merge_enhanced(forest_map, forest_map[1] / 2, 1)
    np.testing.assert_allclose(enhanced, expected, atol=1e-6)


def test_stretched_map_uses_the_range_of_the_whole_plane(engine: Engine) -> None:
    image = make_image()
    enhancement = Enhancement(HalfEnhancer(), scale_range=True)
    answers = list(engine.answer(snapshot_of(image, make_strokes(image), enhancement=enhancement)))
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    forest_map = paste([a for a in answers[last:] if isinstance(a, ForestTile)], image.limits)
    for tile in (a for a in answers if isinstance(a, EnhancedTile)):
        expected = (tile.forest_map - forest_map[1].min()) / 2
        np.testing.assert_allclose(tile.output_maps[0], expected, atol=1e-6)


def test_other_enhancer_option_repeats_the_enhanced_map_only(engine: Engine) -> None:
    image = make_image()
    enhancement = Enhancement(HalfEnhancer())
    snapshot = snapshot_of(image, make_strokes(image), enhancement=enhancement)
    list(engine.answer(snapshot))
    assert [type(a) for a in engine.answer(snapshot)] == [Trained, Done]
    again = [
        type(a)
        for a in engine.answer(replace(snapshot, enhancement=replace(enhancement, rescale=2.0)))
    ]
    assert again[0] is Trained
    assert set(again[1:-1]) == {EnhancedTile}


def test_adopted_forest_answers_until_something_is_painted(engine: Engine) -> None:
    image = make_image()
    snapshot = snapshot_of(image, make_strokes(image))
    trained = [a for a in engine.answer(snapshot) if isinstance(a, Trained)][-1].classifier
    other = replace(
        trained, forest=_forest(Engine(), replace(snapshot, params=ForestParams(trees=7, seed=5)))
    )
    fresh, measured = Engine(), {"it": Normalisation(offset=(0.1,), factor=(0.4,))}
    fresh.adopt(snapshot, other, measured)
    answers = list(fresh.answer(snapshot))
    assert [a.classifier for a in answers if isinstance(a, Trained)] == [other]
    assert fresh.normalisation_of("it") is measured["it"]
    expected = other.predict(Normalised(image, measured["it"]), whole(image.limits))
    found = [a for a in answers if isinstance(a, ForestTile)]
    np.testing.assert_array_equal(paste(found, image.limits), expected)
    strokes = make_strokes(image)
    strokes[5, 5:9] = 1
    again = [a for a in fresh.answer(snapshot_of(image, strokes)) if isinstance(a, Trained)]
    assert again[-1].classifier.forest is not other.forest


def test_several_images_train_one_forest(engine: Engine) -> None:
    one, two = make_image(seed=1), make_image((150, 160), seed=2)
    painted = [
        PaintedSnapshot(key, image, snapshot_of(image, make_strokes_small(image)).images[0].strokes)
        for key, image in (("one", one), ("two", two))
    ]
    snapshot = snapshot_of(one, make_strokes(one), images=tuple(painted), target="two")
    snapshot = replace(snapshot, view=whole(two.limits))
    answers = list(engine.answer(snapshot))
    task = train_classifier(
        [one, two], [make_strokes_small(one), make_strokes_small(two)], spec=SPEC, params=PARAMS
    )
    expected = run(task)
    forest = [a for a in answers if isinstance(a, Trained)][-1].classifier.forest
    np.testing.assert_array_equal(forest.threshold, expected.forest.threshold)
    assert {a.key for a in answers if isinstance(a, ForestTile)} == {"two"}


def make_strokes_small(image: Image) -> np.ndarray:
    strokes = np.zeros(image.label_shape, np.uint8)
    strokes[10:14, 10:40] = 1
    strokes[100:104, 100:130] = 2
    return strokes


def test_pixels_without_a_number_are_no_samples_and_background(engine: Engine) -> None:
    image = make_image()
    image.data[0, 0, 0, 150:154, 262:270] = np.nan
    strokes = make_strokes(image)
    answers = list(engine.answer(snapshot_of(image, strokes)))
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    tiles = [a for a in answers[last:] if isinstance(a, ForestTile)]
    found = paste(tiles, image.limits)[:, 0, 150:154, 262:270]
    assert (found[0] == 1).all()
    task = train_classifier([image], [strokes], spec=SPEC, params=PARAMS)
    forest = answers[last].classifier.forest
    np.testing.assert_array_equal(forest.threshold, run(task).forest.threshold)


def test_constant_image_is_noted_and_answered(engine: Engine) -> None:
    image = image_from_array(np.full((64, 64), 7, np.uint8), "yx", name="flat")
    strokes = np.zeros((64, 64), np.uint8)
    strokes[:5, :5], strokes[-5:, -5:] = 1, 2
    answers = list(engine.answer(snapshot_of(image, strokes)))
    assert answers[0].flat_images == ("flat",)
    assert isinstance(answers[-1], Done)


def test_edited_image_is_measured_and_trained_anew(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    before = _forest(engine, snapshot_of(image, strokes))
    brighter = replace(image, data=image.data * image.data)
    after = _forest(engine, snapshot_of(brighter, strokes))
    assert after is not before
    assert engine.normalisation_of("it") != Normalised.measure(image).normalisation


def test_stack_with_volume_features_answers_one_plane(engine: Engine) -> None:
    image = make_image((6, 70, 90), "zyx")
    strokes = np.zeros(image.label_shape, np.uint8)
    strokes[2, 5:9, 5:30], strokes[3, 50:54, 60:80] = 1, 2
    spec = FeatureSpec(name="compact", ndim=3, scales=(0.7,))
    view = Region(0, slice(4, 5), slice(0, 70), slice(0, 90))
    answers = list(engine.answer(snapshot_of(image, strokes, view, spec=spec)))
    tiles = [a for a in answers if isinstance(a, ForestTile)]
    assert {(t.region.z.start, t.region.z.stop) for t in tiles} == {(4, 5)}
    expected = run(train_classifier([image], [strokes], spec=spec, params=PARAMS))
    whole_map = expected.predict(Normalised.measure(image), view)
    last = max(i for i, a in enumerate(answers) if isinstance(a, Trained))
    found = np.full((2, 1, 70, 90), np.nan, np.float32)
    for tile in (a for a in answers[last:] if isinstance(a, ForestTile)):
        found[(slice(None), *tile.region.inside(view))] = tile.probability_map
    np.testing.assert_array_equal(found, whole_map)


def test_score_is_measured_for_the_present_forest_only(engine: Engine) -> None:
    image = make_image()
    strokes = make_strokes(image)
    snapshot = snapshot_of(image, strokes)
    assert engine.score(snapshot) is None
    list(engine.answer(snapshot))
    score = engine.score(snapshot)
    assert score is not None
    assert 0.5 < score <= 1
    strokes[0, 0] = 2
    assert engine.score(snapshot_of(image, strokes)) is None
