"""What is done of an image, and maps under a memory budget, against a literal per-pixel account."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cellda.core.live.coverage import BLOCK, Coverage, TileMaps, split_into_boxes
from napari_cellda.core.tiles import Region, whole

LIMITS = (2, 300, 410)
TILE = (1, 128, 192)


def region(y: tuple[int, int], x: tuple[int, int], z: int = 0, t: int = 0) -> Region:
    return Region(t, slice(z, z + 1), slice(*y), slice(*x))


@pytest.mark.parametrize("seed", range(20))
def test_missing_parts_and_done_parts_cover_what_is_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coverage = Coverage(LIMITS, TILE)
    done = np.zeros(LIMITS, bool)
    for _ in range(8):
        y, x = np.sort(rng.integers(0, 301, 2)), np.sort(rng.integers(0, 411, 2))
        asked = region((y[0], y[1]), (x[0], x[1]), z=int(rng.integers(2)))
        if 0 in asked.shape:
            continue
        parts = coverage.missing(asked)
        counted = np.zeros(LIMITS, int)
        for part in parts:
            assert part.y.start % BLOCK == 0
            assert part.x.start % BLOCK == 0
            counted[part.slices] += 1
            coverage.add(part)
        assert counted.max() <= 1
        done |= counted > 0
        assert done[asked.slices].all()
        assert coverage.missing(asked) == []


def test_blocks_covered_in_part_stay_open() -> None:
    coverage = Coverage(LIMITS, TILE)
    coverage.add(region((0, 100), (10, 192)))
    assert coverage.missing(region((0, 64), (64, 192))) == []
    assert coverage.missing(region((0, 10), (0, 10))) == [region((0, 64), (0, 64))]
    assert coverage.missing(region((64, 128), (64, 192))) == [region((64, 128), (64, 192))]


def test_edge_blocks_are_done_with_the_image_edge() -> None:
    coverage = Coverage(LIMITS, TILE)
    coverage.add(whole(LIMITS))
    assert coverage.missing(whole(LIMITS)) == []


def test_other_time_points_and_planes_are_apart() -> None:
    coverage = Coverage(LIMITS, TILE)
    coverage.add(region((0, 300), (0, 410)))
    assert coverage.missing(region((0, 64), (0, 64), z=1)) == [region((0, 64), (0, 64), z=1)]
    assert coverage.missing(region((0, 64), (0, 64), t=1)) == [region((0, 64), (0, 64), t=1)]


def value_map(part: Region) -> np.ndarray:
    """Return a map whose values tell the place."""
    z, y, x = np.ogrid[part.slices]
    return np.stack([z * 1e6 + y * 1e3 + x, -(z * 1e6 + y * 1e3 + x)]).astype(np.float32)


@pytest.mark.parametrize("budget", [0, 300_000, 1 << 30])
def test_maps_are_right_whatever_the_budget(budget: int) -> None:
    maps = TileMaps(LIMITS, TILE, 2, value_map, budget)
    rng = np.random.default_rng(1)
    for _ in range(15):
        y, x = np.sort(rng.integers(0, 301, 2)), np.sort(rng.integers(0, 411, 2))
        asked = region((y[0], y[1] + 1), (x[0], x[1] + 1), z=int(rng.integers(2)))
        asked = asked.overlap(whole(LIMITS))
        np.testing.assert_array_equal(maps.read(asked), value_map(asked))


def test_nothing_is_computed_twice_within_the_budget() -> None:
    computed = np.zeros(LIMITS, int)

    def predict(part: Region) -> np.ndarray:
        computed[part.slices] += 1
        return value_map(part)

    maps = TileMaps(LIMITS, TILE, 2, predict)
    maps.read(region((10, 90), (20, 300)))
    maps.read(region((0, 300), (0, 410)))
    maps.read(region((40, 290), (0, 333)))
    assert computed[0].max() == 1
    assert computed[0].min() == 1
    assert computed[1].max() == 0


@pytest.mark.parametrize("seed", range(10))
def test_boxes_cover_exactly_what_is_true(seed: int) -> None:
    blocks = np.random.default_rng(seed).random((2, 5, 6)) < 0.7
    counted = np.zeros(blocks.shape, int)
    for box in split_into_boxes(blocks):
        counted[box] += 1
    np.testing.assert_array_equal(counted, blocks)


def test_an_l_shape_is_two_boxes() -> None:
    blocks = np.array([[[True, False], [True, False], [True, True]]])
    boxes = split_into_boxes(blocks)
    assert [box[1:] for box in boxes] == [
        (slice(0, 2), slice(0, 1)),
        (slice(2, 3), slice(0, 2)),
    ]
