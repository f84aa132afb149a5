import numpy as np
import pytest
from scipy import ndimage

from napari_cellda.core.annotator import error_strokes, random_strokes


def three_classes():
    truth = np.zeros((60, 80), np.int64)
    truth[10:30, 10:70] = 1
    truth[40:43, 5:75] = 2
    return truth


def test_random_strokes_stay_in_their_class():
    truth = three_classes()
    strokes = random_strokes(truth, 4, rng=0)
    assert strokes.dtype == np.uint8
    for index in range(3):
        assert (strokes == index + 1).any()
        assert (truth[strokes == index + 1] == index).all()


def test_a_stroke_has_its_length_and_width():
    strokes = random_strokes(np.zeros((400, 400), int), 1, length=40, width=3, rng=3)
    painted = strokes == 1
    assert 80 <= painted.sum() <= 40 * 3 * 1.5
    assert ndimage.distance_transform_edt(painted).max() <= 2.5
    assert ndimage.label(painted, np.ones((3, 3)))[1] == 1


def test_strokes_are_spread_by_the_seed():
    truth = three_classes()
    assert np.array_equal(random_strokes(truth, 3, rng=5), random_strokes(truth, 3, rng=5))
    assert not np.array_equal(random_strokes(truth, 3, rng=5), random_strokes(truth, 3, rng=6))


def test_a_class_that_is_absent_or_a_single_pixel():
    truth = np.zeros((20, 20), int)
    truth[7, 8] = 2
    strokes = random_strokes(truth, 2, rng=0)
    assert not (strokes == 2).any()
    assert np.array_equal(np.argwhere(strokes == 3), [[7, 8]])


def test_pixels_without_a_class_are_never_painted():
    truth = np.full((30, 30), -1)
    truth[5:25, 5:15] = 0
    truth[5:25, 15:25] = 1
    assert not random_strokes(truth, 5, rng=0)[truth == -1].any()


def test_error_strokes_go_to_the_largest_errors():
    truth = np.zeros((100, 100), int)
    truth[10:50, 10:50] = 1
    truth[60:70, 60:70] = 1
    truth[80:83, 80:83] = 1
    strokes = error_strokes(truth, np.zeros_like(truth), 2, rng=0)
    assert not (strokes == 1).any()
    assert (strokes[10:50, 10:50] == 2).any()
    assert (strokes[60:70, 60:70] == 2).any()
    assert not strokes[80:83, 80:83].any()


def test_error_strokes_correct_both_directions_and_stop_when_all_is_right():
    truth = np.zeros((40, 40), int)
    truth[:, 20:] = 1
    predicted = np.roll(truth, 8, axis=1)
    strokes = error_strokes(truth, predicted, 1, rng=1)
    assert (truth[strokes > 0] + 1 == strokes[strokes > 0]).all()
    assert set(np.unique(strokes)) == {0, 1, 2}
    assert not error_strokes(truth, truth, 3, rng=1).any()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_width_is_respected_at_the_border(width):
    strokes = random_strokes(np.zeros((width, 50), int), 2, width=width, rng=0)
    assert strokes.shape == (width, 50)
    assert strokes.any()
