"""Discrepancy, guidance and the ranking of places, against slow literal references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Preview, Step, run_quietly
from napari_cellda.core.images import image_from_array
from napari_cellda.core.inspect.discrepancy import (
    discrepancy_map,
    discrepancy_over_epochs,
    disputed_places,
    lazy_discrepancy,
)
from napari_cellda.core.inspect.guidance import (
    REASONS,
    plane_candidates,
    priority_map,
    search_stack,
    spread_planes,
)
from napari_cellda.core.inspect.places import Place, spread
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams

UNIT = st.floats(0, 1, width=32)
MAPS = arrays(np.float32, (3, 4), elements=UNIT)


def never() -> bool:
    return False


# -- discrepancy -------------------------------------------------------------------------------


@settings(deadline=None)
@given(MAPS, MAPS)
def test_discrepancy_is_the_absolute_difference(a: np.ndarray, b: np.ndarray):
    found = discrepancy_map(a, b)
    for place in np.ndindex(a.shape):
        assert found[place] == pytest.approx(abs(float(a[place]) - float(b[place])), abs=1e-6)


def test_shapes_that_differ_are_both_named():
    with pytest.raises(UserError, match=r"'forest' has shape \(2, 3\) and 'PE' .* \(3, 2\)"):
        discrepancy_map(np.zeros((2, 3)), np.zeros((3, 2)), ("forest", "PE"))


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_maps_outside_0_to_1_are_refused(bad: float):
    wrong = np.zeros((2, 2))
    wrong[0, 1] = bad
    with pytest.raises(UserError, match="'PE' holds values"):
        discrepancy_map(np.zeros((2, 2)), wrong, ("forest", "PE"))


class Watched:
    """An array that notes how much of it was read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim
        self.read = 0

    def __getitem__(self, key) -> np.ndarray:
        block = self.data[key]
        self.read += block.size
        return block


def test_a_lazy_discrepancy_reads_only_what_is_looked_at():
    rng = np.random.default_rng(0)
    a, b = Watched(rng.random((50, 8, 9))), Watched(rng.random((50, 8, 9)))
    lazy = lazy_discrepancy(a, b)
    np.testing.assert_allclose(lazy[7, 2:5], np.abs(a.data - b.data)[7, 2:5], atol=1e-6)
    assert a.read == b.read == 27
    assert (lazy.shape, lazy.dtype, lazy.ndim) == ((50, 8, 9), np.float32, 3)


def test_a_lazy_discrepancy_follows_its_sources():
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    lazy = lazy_discrepancy(a, b)
    a[1, 1] = 0.75
    assert lazy[1, 1] == 0.75


def test_the_most_disputed_region_comes_first_and_regions_do_not_overlap():
    plane = np.zeros((60, 80), np.float32)
    plane[10:20, 10:20] = 0.5
    plane[40:50, 60:70] = 0.9
    places = run_quietly(disputed_places([(0, 0, plane)], 5, size=10, stop=never))
    assert [(p.y // 10, p.x // 10) for p in places[:2]] == [(4, 6), (1, 1)]
    assert places[0].score == pytest.approx(0.9, abs=1e-5)
    boxes = [place.box(10, (1, 60, 80)) for place in places]
    covered = np.zeros(plane.shape, int)
    for box in boxes:
        covered[box.y, box.x] += 1
    assert covered.max() == 1


def test_maps_that_agree_have_no_disputed_region():
    planes = [(0, z, np.zeros((20, 20), np.float32)) for z in range(3)]
    assert run_quietly(disputed_places(planes, 5, size=8, stop=never)) == []


def test_the_search_for_disputed_regions_stops_between_planes():
    def planes():
        for z in range(100):
            yield 0, z, np.ones((8, 8), np.float32)

    asked = iter([False, False, True])
    task = disputed_places(planes(), 3, size=4, stop=lambda: next(asked))
    assert [e.index for e in task if isinstance(e, Step)] == [1, 2]


class _Params(BaseParams):
    pass


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose two networks come to agree."""
    run = Run.create(tmp_path / "run", "culpico", _Params(), {}, seed=0)

    def task():
        for epoch in (0, 5, 10):
            yield Preview("network m", np.full((6, 7), 0.9, np.float32), epoch)
            yield Preview("network n", np.full((6, 7), 0.9 - 0.4 / (epoch + 1), np.float32), epoch)
        yield Preview("network m", np.zeros((6, 7), np.float32), 11)

    run_quietly(run.drive(task()))
    return run


def test_discrepancy_over_epochs_takes_the_steps_that_both_have(run: Run):
    steps, maps, means = discrepancy_over_epochs(run, ["network m", "network n"])
    assert steps == [0, 5, 10]
    assert maps.shape == (3, 6, 7)
    np.testing.assert_allclose(means, [0.4, 0.4 / 6, 0.4 / 11], atol=1e-6)


def test_pictures_that_a_run_does_not_have_are_refused_with_those_it_has(run: Run):
    with pytest.raises(UserError, match=r"'teacher'; it has: network m, network n"):
        discrepancy_over_epochs(run, ["network m", "teacher"])


# -- places ------------------------------------------------------------------------------------


def slow_spread(candidates, count, distance, z_step):
    """Pick one by one, computing every distance anew."""
    left, chosen = list(candidates), []
    while left and len(chosen) < count:

        def worth(place):
            value = place.score
            for other in chosen:
                if other.t == place.t:
                    squared = ((place.z - other.z) * z_step) ** 2
                    squared += (place.y - other.y) ** 2 + (place.x - other.x) ** 2
                    value *= 1 - np.exp(-squared / distance**2)
            return value

        best = max(left, key=worth)
        chosen.append(best)
        left.remove(best)
    return chosen


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_spread_equals_the_literal_rule(seed: int):
    rng = np.random.default_rng(seed)
    candidates = [
        Place(*(int(i) for i in rng.integers(0, [2, 5, 40, 40])), float(rng.random()))
        for _ in range(12)
    ]
    found = spread(candidates, 6, distance=15, z_step=3)
    assert found == slow_spread(candidates, 6, 15, 3)


def test_ten_places_of_a_stack_do_not_lie_in_one_corner():
    rng = np.random.default_rng(0)
    corner = [Place(0, 0, int(y), int(x), 0.9) for y, x in rng.integers(0, 30, (40, 2))]
    rest = [Place(0, int(z), int(y), int(x), 0.5) for z, y, x in rng.integers(0, 200, (40, 3))]
    chosen = spread([*corner, *rest], 10, distance=60)
    assert sum(place in corner for place in chosen) <= 2
    assert chosen[0] in corner


def test_places_seen_before_push_new_ones_away():
    near, far = Place(0, 0, 10, 10, 0.9), Place(0, 0, 90, 90, 0.5)
    assert spread([near, far], 1, distance=30)[0] is near
    assert spread([near, far], 1, distance=30, seen=[Place(0, 0, 12, 12, 1)])[0] is far


def test_a_box_stays_inside_the_image():
    box = Place(1, 2, 3, 98, 1.0).box(20, (5, 100, 100))
    assert (box.t, box.z, box.y, box.x) == (1, slice(2, 3), slice(0, 20), slice(80, 100))
    small = Place(0, 0, 3, 3, 1.0).box(20, (1, 8, 8))
    assert (small.y, small.x) == (slice(0, 8), slice(0, 8))


# -- guidance ----------------------------------------------------------------------------------


def blob(shape: tuple[int, int], y: int, x: int, value: float = 1.0) -> np.ndarray:
    plane = np.zeros(shape, np.float32)
    plane[y - 12 : y + 12, x - 12 : x + 12] = value
    return plane


def test_the_reason_is_the_strongest_signal_at_the_place():
    signals = {
        "uncertainty": blob((200, 200), 40, 40),
        "contradiction": blob((200, 200), 150, 150),
    }
    places = plane_candidates(signals, 0, 3, None, 2)
    told = {(p.y // 100, p.x // 100): p.reason for p in places}
    assert told == {(0, 0): REASONS["uncertainty"], (1, 1): REASONS["contradiction"]}
    assert {p.z for p in places} == {3}


def test_a_place_that_several_signals_point_at_comes_first():
    both, one = blob((200, 200), 40, 40), blob((200, 200), 150, 150)
    signals = {"uncertainty": both + one, "discrepancy": both}
    first = plane_candidates(signals, 0, 0, None, 2)[0]
    assert max(first.y, first.x) < 100
    np.testing.assert_allclose(priority_map(signals), both + one / 2)


def test_a_stack_is_searched_in_spread_planes_and_painted_places_are_left_out():
    image = image_from_array(np.zeros((60, 100, 120), np.float32), "zyx", name="stack")
    planes = spread_planes(image)
    assert len(planes) == 24
    assert (planes[0].z.start, planes[-1].z.start) == (0, 59)

    def painted(region):
        mask = np.zeros(region.shape[1:], bool)
        mask[:, :60] = True
        return mask

    read = lambda region: {"uncertainty": np.ones(region.shape[1:], np.float32)}  # noqa: E731
    places = run_quietly(search_stack(read, planes, painted, count=10, z_step=10))
    assert len(places) == 10
    assert all(place.x >= 60 + 15 for place in places)
    assert len({place.z for place in places}) >= 8


def test_a_painted_stack_has_no_places_and_nothing_is_computed():
    image = image_from_array(np.zeros((3, 20, 20), np.float32), "zyx", name="stack")
    full = lambda region: np.ones(region.shape[1:], bool)  # noqa: E731

    def read(region):
        raise AssertionError("nothing is left to look at")

    assert run_quietly(search_stack(read, spread_planes(image), full)) == []
