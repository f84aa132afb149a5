"""Pixel figures against scikit-learn's, and the variation of information against scikit-image's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import variation_of_information as skimage_vi
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from napari_cellda.core.compare import (
    PixelCounts,
    best_threshold,
    pixel_scores,
    variation_of_information,
)
from napari_cellda.core.errors import UserError

MASKS = arrays(bool, (2, 6, 7), elements=st.booleans())
LABELS = arrays(np.int32, (2, 6, 7), elements=st.integers(0, 4))


def literal_scores(predicted, truth):
    """Count pixel by pixel, as the definitions say."""
    tp = fp = fn = 0
    for p, t in zip(predicted.ravel(), truth.ravel(), strict=True):
        tp, fp, fn = tp + (p and t), fp + (p and not t), fn + (t and not p)
    if tp + fp + fn == 0:
        return 1.0, 1.0, 1.0, 1.0
    return (
        tp / (tp + fp + fn),
        2 * tp / (2 * tp + fp + fn),
        tp / (tp + fp) if tp + fp else 0.0,
        tp / (tp + fn) if tp + fn else 0.0,
    )


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_pixel_scores_are_the_literal_ones_and_those_of_scikit_learn(masks):
    predicted, truth = masks
    scores = pixel_scores(predicted, truth)
    found = (scores.iou, scores.dice, scores.precision, scores.recall)
    assert found == pytest.approx(literal_scores(predicted, truth))
    if predicted.any() or truth.any():  # of two empty masks scikit-learn says 0, we 1
        theirs = [
            score(truth.ravel(), predicted.ravel(), zero_division=0)
            for score in (jaccard_score, f1_score, precision_score, recall_score)
        ]
        assert found == pytest.approx(theirs)


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
    ignore = np.array([0, 1, 1], bool)
    assert pixel_scores(predicted, truth, ignore=ignore).iou == 1.0
    assert PixelCounts.of(predicted, truth, ignore).scored == 1


def test_counts_of_planes_add_up():
    rng = np.random.default_rng(0)
    predicted, truth = rng.random((2, 3, 5, 5)) > 0.5
    planes = [PixelCounts.of(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert sum(planes, PixelCounts()) == PixelCounts.of(predicted, truth)


def test_best_threshold():
    maps = [np.array([0.1, 0.2, 0.35, 0.9])]
    truth = [np.array([0, 0, 1, 1], bool)]
    assert best_threshold(maps, truth) == pytest.approx(0.3)
    perfect = [np.array([0.0, 0.0, 1.0, 1.0])]
    assert best_threshold(perfect, truth) == pytest.approx(0.5)


@given(LABELS)
@settings(max_examples=60, deadline=None)
def test_variation_of_information_matches_scikit_image(labels):
    predicted, truth = labels
    ours = variation_of_information(predicted, truth, ignore_truth=None)
    split, merge = skimage_vi(truth, predicted)  # H(predicted | truth), H(truth | predicted)
    assert ours == pytest.approx((split, merge), abs=1e-9)


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
