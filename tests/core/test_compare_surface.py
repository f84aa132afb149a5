"""Surface distances against brute force, scipy and scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from napari_cellda.core.compare import asd, contour, hd95, surface_distances

MASKS = arrays(
    bool,
    array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8).map(lambda shape: (2, *shape)),
    elements=st.booleans(),
)


def literal_contour(mask):
    """A pixel of the mask with a neighbour, or the world beyond the image, outside of it."""
    found = np.zeros_like(mask)
    for place in np.argwhere(mask):
        around = np.indices((3,) * mask.ndim).reshape(mask.ndim, -1).T - 1 + place
        inside = ((around >= 0) & (around < mask.shape)).all(axis=1)
        found[tuple(place)] = not inside.all() or not mask[tuple(around.T)].all()
    return found


def literal_distances(predicted, truth, spacing):
    a, b = (np.argwhere(literal_contour(mask)) * spacing for mask in (predicted, truth))
    if not len(a) or not len(b):
        return np.zeros(0)
    table = cdist(a, b)
    return np.concatenate([table.min(axis=1), table.min(axis=0)])


@given(MASKS)
@settings(max_examples=50, deadline=None)
def test_contour_is_the_literal_one_and_that_of_scipy(masks):
    mask = masks[0]
    np.testing.assert_array_equal(contour(mask), literal_contour(mask))
    inner = ndimage.binary_erosion(mask, np.ones((3,) * mask.ndim))
    np.testing.assert_array_equal(contour(mask), mask & ~inner)


@given(MASKS, st.floats(0.2, 3))
@settings(max_examples=60, deadline=None)
def test_distances_are_the_literal_ones(masks, step):
    spacing = (step, 1.0, 0.5)[: masks.ndim - 1]
    found = surface_distances(*masks, spacing=spacing)
    expected = literal_distances(*masks, spacing)
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-5)
    if len(expected):
        assert hd95(found) == pytest.approx(np.percentile(expected, 95), rel=1e-5)
        assert asd(found) == pytest.approx(expected.mean(), rel=1e-5)
    else:
        assert np.isnan([hd95(found), asd(found)]).all()


@given(arrays(bool, (2, 9, 9), elements=st.booleans()))
@settings(max_examples=40, deadline=None)
def test_the_largest_distance_is_scikit_images_hausdorff_distance(masks):
    found = surface_distances(*masks)
    if len(found):
        theirs = hausdorff_distance(*(contour(mask) for mask in masks))
        assert found.max() == pytest.approx(theirs, rel=1e-6)


def test_both_directions_are_one_list():
    # One object is shared, the truth has another one far away: only one direction is long.
    truth, predicted = np.zeros((2, 40, 40), bool)
    truth[2:6, 2:6] = predicted[2:6, 2:6] = True
    truth[30, 30:32] = True
    found = surface_distances(predicted, truth)
    assert len(found) == 12 + 14
    assert np.count_nonzero(found) == 2
    directed = [np.percentile(found[:12], 95), np.percentile(found[12:], 95)]
    assert hd95(found) < max(directed)  # the larger direction, which others report


def test_equal_masks_have_no_distance():
    mask = np.zeros((20, 20), bool)
    mask[3:9, 4:15] = True
    assert hd95(surface_distances(mask, mask)) == asd(surface_distances(mask, mask)) == 0
    whole = np.ones((5, 5), bool)
    assert asd(surface_distances(whole, whole)) == 0


def test_a_mask_cut_by_what_is_ignored_has_no_outline_there():
    predicted, truth = np.zeros((2, 20, 20), bool)
    truth[5:15, 2:18] = True
    predicted[5:15, 2:10] = True
    ignore = np.zeros((20, 20), bool)
    ignore[:, 10:] = True
    assert surface_distances(predicted, truth, ignore=ignore).max() == 0
    assert surface_distances(predicted, truth).max() > 0
