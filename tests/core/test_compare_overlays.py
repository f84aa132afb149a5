"""Overlays: small cases by eye, random ones against literal references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from skimage.segmentation import find_boundaries

from napari_cellda.core.compare import (
    OBJECT_NAMES,
    OVERLAY_COLORS,
    OVERLAY_VALUES,
    PIXEL_NAMES,
    ObjectMatches,
    Overlaps,
    boundary_overlay,
    instance_overlay,
    object_contours,
    pixel_overlay,
)
from napari_cellda.core.errors import UserError

NAMES = {value: name for name, value in OVERLAY_VALUES.items()}
LABELS = arrays(np.int32, (2, 5, 6), elements=st.integers(0, 3))
MASKS = arrays(bool, (2, 6, 6), elements=st.booleans())


def named(overlay):
    return [NAMES[value] for value in overlay.ravel()]


def test_every_name_has_a_colour_and_names_shown_together_differ():
    assert set(OVERLAY_COLORS) == set(OVERLAY_VALUES)
    assert OVERLAY_VALUES["true negative"] == 0
    for legend in (PIXEL_NAMES, OBJECT_NAMES):
        assert len({OVERLAY_COLORS[name] for name in legend}) == len(legend)


def test_pixels():
    predicted, truth = np.array([[0, 1, 1, 0, 2, 1]]), np.array([[0, 1, 0, 1, 1, 1]])
    ignore = np.array([[0, 0, 0, 0, 0, 1]], bool)
    assert named(pixel_overlay(predicted, truth, ignore)) == [
        "true negative",
        "true positive",
        "false positive",
        "false negative",
        "wrong class",
        "ignored",
    ]
    # Of masks of one class any number is foreground.
    assert named(pixel_overlay(predicted > 0, truth))[4] == "true positive"
    with pytest.raises(UserError, match=r"\(1, 6\).*\(2,\)"):
        pixel_overlay(predicted, np.zeros(2, int))


@given(LABELS, st.sampled_from([0.2, 0.5, 0.8]))
@settings(max_examples=60, deadline=None)
def test_objects_show_the_state_of_the_prediction_and_else_of_the_truth(labels, iou):
    predicted, truth = labels
    matches = ObjectMatches.compute(predicted, truth)
    found = matches.at(iou)
    overlay = instance_overlay(matches, iou)
    for where in np.ndindex(predicted.shape):
        p, t = predicted[where], truth[where]
        expected = "true negative"
        if p:
            expected = OBJECT_NAMES[
                found.predicted_state[np.flatnonzero(matches.predicted_ids == p)[0]]
            ]
        elif t:
            expected = OBJECT_NAMES[found.truth_state[np.flatnonzero(matches.truth_ids == t)[0]]]
        assert NAMES[overlay[where]] == expected
    np.testing.assert_array_equal(instance_overlay(matches, found), overlay)


def test_one_plane_of_a_stack_shows_the_matches_of_the_stack():
    truth = np.zeros((2, 1, 4), int)
    truth[:, 0, :2] = 1
    predicted = truth.copy()
    predicted[1, 0, 1] = 0
    planes = [Overlaps.of(p, t) for p, t in zip(predicted, truth, strict=True)]
    matches = ObjectMatches.of(Overlaps.total(planes))
    assert matches.truth_iou.tolist() == [3 / 4]
    for plane in planes:
        assert named(instance_overlay(matches, 0.7, plane))[:2] == ["matched", "matched"]
        assert "matched" not in named(instance_overlay(matches, 0.8, plane))


@given(MASKS, st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_boundaries_are_found_within_the_tolerance(masks, tolerance):
    predicted, truth = masks
    overlay = boundary_overlay(predicted, truth, tolerance)
    p, t = np.argwhere(predicted), np.argwhere(truth)
    far = np.full((len(p), len(t)), np.inf) if not len(p) or not len(t) else cdist(p, t)
    for i, where in enumerate(p):
        near = far[i].min(initial=np.inf) <= tolerance
        assert NAMES[overlay[tuple(where)]] == ("true positive" if near else "false positive")
    for j, where in enumerate(t):
        if not predicted[tuple(where)]:
            near = far[:, j].min(initial=np.inf) <= tolerance
            assert NAMES[overlay[tuple(where)]] == ("true negative" if near else "false negative")
    assert not overlay[~predicted & ~truth].any()


@given(arrays(np.int32, (6, 7), elements=st.integers(0, 3)))
@settings(max_examples=40, deadline=None)
def test_object_contours_are_scikit_images_inner_boundaries(labels):
    framed = np.pad(labels, 1)  # beyond the image there is another label for us
    theirs = find_boundaries(framed, connectivity=2, mode="inner")[1:-1, 1:-1]
    np.testing.assert_array_equal(object_contours(labels), theirs & (labels > 0))
