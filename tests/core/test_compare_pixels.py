import numpy as np
import pytest
from skimage.metrics import variation_of_information as reference_vi

from napari_cellda.core.compare import best_threshold, pixel_scores, variation_of_information
from napari_cellda.core.errors import UserError


def test_pixel_scores_by_hand():
    predicted = np.array([1, 1, 1, 0, 0], bool)
    truth = np.array([1, 1, 0, 1, 0], bool)  # TP 2, FP 1, FN 1
    scores = pixel_scores(predicted, truth)
    assert scores.iou == pytest.approx(2 / 4)
    assert scores.dice == pytest.approx(4 / 6)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 3)


def test_empty_masks():
    none, some = np.zeros(4, bool), np.array([0, 1, 0, 0], bool)
    assert pixel_scores(none, none).dice == pixel_scores(none, none).precision == 1.0
    assert pixel_scores(none, some).dice == pixel_scores(some, none).iou == 0.0


def test_ignored_pixels_do_not_count():
    predicted, truth = np.array([1, 1, 0], bool), np.array([1, 0, 1], bool)
    assert pixel_scores(predicted, truth, ignore=np.array([0, 1, 1], bool)).iou == 1.0


def test_best_threshold():
    maps = [np.array([0.1, 0.2, 0.35, 0.9])]
    truth = [np.array([0, 0, 1, 1], bool)]
    assert best_threshold(maps, truth) == pytest.approx(0.3)
    perfect = [np.array([0.0, 0.0, 1.0, 1.0])]
    assert best_threshold(perfect, truth) == pytest.approx(0.5)


def test_variation_of_information_matches_scikit_image():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(1, 5, (2, 30, 30))
    merge, split = reference_vi(predicted, truth)
    assert variation_of_information(predicted, truth) == pytest.approx((split, merge))


def test_variation_of_information_split_and_merge():
    truth = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    halves = np.array([1, 1, 2, 2, 3, 3, 4, 4])
    assert variation_of_information(halves, truth) == pytest.approx((1.0, 0.0))
    assert variation_of_information(np.ones(8, int), truth) == pytest.approx((0.0, 1.0))


def test_variation_of_information_ignores_unlabelled_truth():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([5, 6, 7, 7])
    assert variation_of_information(predicted, truth) == pytest.approx((0.0, 0.0))
    assert variation_of_information(predicted, truth, ignore_truth=None)[0] > 0
    assert np.isnan(variation_of_information(predicted, np.zeros(4, int))).all()


def test_shapes_must_match():
    with pytest.raises(UserError, match=r"shape \(3,\).*\(4,\)"):
        pixel_scores(np.zeros(3, bool), np.zeros(4, bool))
