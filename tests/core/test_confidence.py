import numpy as np
import pytest

from napari_cellda.core.confidence import most_uncertain, uncertain_spots, uncertainty_map


def test_uncertainty_of_exact_maps():
    maps = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]]).T
    np.testing.assert_allclose(uncertainty_map(maps), [0, 1, 0.8, 1], atol=1e-6)
    np.testing.assert_allclose(uncertainty_map(np.array([[0.25], [0.75]])), [0.5])


@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_uncertainty_equals_sorting(n_classes):
    maps = np.random.default_rng(0).dirichlet(np.ones(n_classes), (4, 5, 6)).astype(np.float32)
    maps = np.moveaxis(maps, -1, 0)
    ranked = np.sort(maps, axis=0)
    found = uncertainty_map(maps)
    assert found.dtype == np.float32
    assert found.shape == (4, 5, 6)
    np.testing.assert_allclose(found, 1 - (ranked[-1] - ranked[-2]), atol=1e-6)
    assert 0 <= found.min() <= found.max() <= 1


def field() -> np.ndarray:
    uncertainty = np.zeros((100, 140), np.float32)
    uncertainty[10, 10] = 1  # a lone pixel, the most uncertain of all
    uncertainty[60:70, 90:100] = 0.8
    uncertainty[20:28, 50:58] = 0.7
    return uncertainty


def test_the_most_uncertain_neighbourhood_wins_over_a_lone_pixel():
    y, x = most_uncertain(field(), radius=9)
    assert 60 <= y < 70
    assert 90 <= x < 100


def test_painted_places_are_left_out():
    painted = np.zeros((100, 140), bool)
    painted[62, 92] = True
    y, x = most_uncertain(field(), painted, radius=9)
    assert 20 <= y < 28
    assert 50 <= x < 58


def test_spots_are_ranked_and_apart():
    spots = uncertain_spots(field(), None, 3, radius=6, spacing=30)
    (y0, x0), (y1, x1) = spots[:2]
    assert (60 <= y0 < 70, 90 <= x0 < 100) == (True, True)
    assert (20 <= y1 < 28, 50 <= x1 < 58) == (True, True)
    for i, a in enumerate(spots):
        for b in spots[:i]:
            assert np.hypot(a[0] - b[0], a[1] - b[1]) >= 30


def test_fewer_spots_when_no_more_fit():
    assert len(uncertain_spots(np.ones((5, 5), np.float32), None, 10, radius=2, spacing=3)) < 10
    assert len(uncertain_spots(np.ones((5, 5), np.float32), None, 10, radius=1, spacing=0)) == 10


def test_paint_everywhere_near_leaves_the_unpainted_pixels():
    painted = np.ones((8, 8), bool)
    painted[3, 4] = False
    assert most_uncertain(np.zeros((8, 8), np.float32), painted, radius=15) == (3, 4)


def test_nothing_left():
    assert most_uncertain(np.ones((8, 8), np.float32), np.ones((8, 8), bool)) is None
    assert most_uncertain(np.ones((0, 8), np.float32)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 5)])
def test_small_maps(shape):
    y, x = most_uncertain(np.random.default_rng(0).random(shape, dtype=np.float32))
    assert 0 <= y < shape[0]
    assert 0 <= x < shape[1]
