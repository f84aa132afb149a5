"""One plane of two results: overlays, errors from the worst on, what a click tells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hst
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_cellda.core.compare import OVERLAY_VALUES, ObjectMatches, Overlaps, instance_overlay
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Step, run_quietly
from napari_cellda.core.inspect.comparison import Comparing, compare_planes
from napari_cellda.core.inspect.objects import match_stack

NAMES = ("mine", "truth")
OBJECTS = Comparing(kind="objects")


def square(shape, *boxes) -> np.ndarray:
    """Labels 1, 2... in boxes of (y, x, size)."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x, size) in enumerate(boxes, 1):
        labels[y : y + size, x : x + size] = number
    return labels


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (6, 7)), arrays(bool, (6, 7)))
def test_regions_of_pixel_errors_cover_all_that_is_wrong(a: np.ndarray, b: np.ndarray):
    comparison = compare_planes(a, b, Comparing(), NAMES)
    errors = comparison.errors(0.5)
    expected = []
    for name, wrong in (("false positive", a & ~b), ("false negative", b & ~a)):
        regions, n = ndimage.label(wrong, np.ones((3, 3)))
        expected += [(name, int((regions == i).sum())) for i in range(1, n + 1)]
    assert sorted((e.name, e.pixels) for e in errors) == sorted(expected)
    assert [e.weight for e in errors] == sorted((e.weight for e in errors), reverse=True)
    overlay = comparison.overlay(0.5)
    assert all(overlay[e.y, e.x] == OVERLAY_VALUES[e.name] for e in errors)


def test_the_worst_object_comes_first_and_lies_where_it_is_said_to():
    truth = square((40, 60), (2, 2, 6), (2, 30, 12), (25, 40, 5))
    mine = square((40, 60), (2, 2, 6), (30, 5, 4))
    errors = compare_planes(mine, truth, OBJECTS, NAMES).errors(0.5)
    assert [e.name for e in errors] == ["missed", "missed", "spurious"]
    assert [e.pixels for e in errors] == [144, 25, 16]
    assert truth[errors[0].y, errors[0].x] == 2
    assert mine[errors[2].y, errors[2].x] == 2


def test_a_stricter_iou_turns_matches_into_errors():
    truth, mine = square((30, 30), (5, 5, 10)), square((30, 30), (5, 7, 10))
    comparison = compare_planes(mine, truth, OBJECTS, NAMES)
    assert comparison.errors(0.5) == []
    assert {e.name for e in comparison.errors(0.7)} == {"missed", "spurious"}
    assert comparison.at(0.5).f1 == 1
    assert comparison.at(0.7).f1 == 0


def test_a_split_object_is_listed_once():
    truth = square((30, 30), (5, 5, 12))
    mine = truth.copy()
    mine[:, 11:] *= 2
    errors = compare_planes(mine, truth, OBJECTS, NAMES).errors(0.9)
    assert [e.name for e in errors] == ["split"]
    merged = compare_planes(truth, mine, OBJECTS, NAMES).errors(0.9)
    assert [e.name for e in merged] == ["merged"]


def test_a_click_tells_the_match_and_its_iou():
    truth, mine = square((30, 30), (5, 5, 10)), square((30, 30), (5, 7, 10))
    comparison = compare_planes(mine * 3, truth * 9, OBJECTS, NAMES)
    told = comparison.describe(8, 10, 0.5)
    assert told.startswith("Matched.")
    assert "Result object 3 (100 px): best partner: reference object 9, IoU 0.67." in told
    assert "Reference object 9 (100 px): best partner: result object 3, IoU 0.67." in told
    assert comparison.describe(0, 0, 0.5) == "No object here, on either side."
    pixels = compare_planes(mine > 0, truth > 0, Comparing(), NAMES)
    assert pixels.describe(6, 5, 0.5) == "False negative at row 6, column 5."


def test_maps_are_compared_above_the_threshold():
    a = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    found = compare_planes(a, a > 0.3, Comparing(threshold=0.3), NAMES)
    assert found.counts.scores.dice == 1
    stricter = compare_planes(a, a > 0.3, Comparing(threshold=0.6), NAMES)
    assert stricter.counts.scores.precision == 1
    assert stricter.counts.scores.recall < 1


def test_the_wrong_class_is_an_error_only_where_labels_are_classes():
    a, b = np.full((3, 3), 1), np.full((3, 3), 2)
    assert compare_planes(a, b, Comparing(), NAMES).errors(0.5) == []
    (error,) = compare_planes(a, b, Comparing(classes=True), NAMES).errors(0.5)
    assert error.name == "wrong class"


def test_objects_of_a_map_are_its_connected_parts():
    a = np.zeros((20, 20), np.float32)
    a[2:6, 2:6] = a[10:16, 10:16] = 0.9
    comparison = compare_planes(a, a, OBJECTS, NAMES)
    assert len(comparison.objects.matches.truth_ids) == 2


def test_outlines_within_the_tolerance_agree():
    truth, mine = square((40, 40), (10, 10, 15)), square((40, 40), (11, 10, 15))
    near = compare_planes(mine, truth, Comparing(kind="boundaries", tolerance=1), NAMES)
    assert near.errors(0.5) == []
    exact = compare_planes(mine, truth, Comparing(kind="boundaries", tolerance=0), NAMES)
    assert {e.name for e in exact.errors(0.5)} == {"false positive", "false negative"}


def test_membranes_are_boundaries_themselves():
    line = np.zeros((20, 20), bool)
    line[10] = True
    membranes = Comparing(kind="boundaries", membranes=True, tolerance=0)
    assert (compare_planes(line, line, membranes, NAMES).overlay(0.5) > 0).sum() == 20


LABELS = arrays(np.int32, (4, 6, 7), elements=hst.integers(0, 4))


@settings(deadline=None, max_examples=40)
@given(arrays(np.int32, (6, 7), elements=hst.integers(0, 4)))
def test_the_spot_of_an_object_is_its_pixel_nearest_to_its_middle(labels: np.ndarray):
    table = Overlaps.of(labels, labels)
    spots = table.runs.spots(table.truth)
    assert spots.ids.tolist() == np.unique(labels[labels > 0]).tolist()
    for label, y, x, area in zip(spots.ids, spots.y, spots.x, spots.area, strict=True):
        pixels = np.argwhere(labels == label)
        distance = ((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1)
        assert area == len(pixels)
        assert labels[y, x] == label
        assert ((pixels.mean(axis=0) - (y, x)) ** 2).sum() == pytest.approx(distance.min())


@settings(deadline=None, max_examples=30)
@given(LABELS, LABELS)
def test_a_stack_matched_plane_by_plane_is_like_the_whole_volume(mine, truth):
    planes = (Overlaps.of(*pair) for pair in zip(mine, truth, strict=True))
    found = run_quietly(match_stack(planes, len(truth)))
    whole = ObjectMatches.compute(mine, truth)
    for name in ("truth_ids", "truth_area", "truth_iou", "predicted_iou", "truth_partner"):
        np.testing.assert_array_equal(getattr(found.matches, name), getattr(whole, name))
    for z, pair in enumerate(zip(mine, truth, strict=True)):
        plane = compare_planes(*pair, OBJECTS, NAMES, found)
        assert plane.objects is found
        expected = instance_overlay(whole, 0.3)[z]
        np.testing.assert_array_equal(plane.overlay(0.3), expected)
    for error in found.errors(0.3):
        side = truth if error.name in ("missed", "split") else mine
        area = (side == side[error.plane, error.y, error.x]).sum(axis=(1, 2))
        assert area.argmax() == error.plane
        assert area.sum() == error.pixels


def test_matching_a_stack_says_how_far_it_is_and_stops():
    truth = square((30, 30), (5, 5, 10))
    task = match_stack((Overlaps.of(truth, truth) for _ in range(5)), 5)
    assert [e.index for e in task if isinstance(e, Step)] == [1, 2, 3, 4, 5]
    asked = iter([False, False, True])
    assert run_quietly(match_stack([Overlaps.of(truth, truth)] * 5, 5, stop=asked.__next__)) is None


def test_a_plane_that_the_stack_does_not_know_is_compared_alone():
    truth = square((30, 30), (5, 5, 10))
    stack = run_quietly(match_stack([Overlaps.of(truth, truth)], 1))
    newer = square((30, 30), (5, 5, 10), (20, 20, 5))
    plane = compare_planes(newer, truth, OBJECTS, NAMES, stack)
    assert not plane.objects.is_stack
    assert plane.at(0.5).count("spurious") == 1


@pytest.mark.parametrize("kind", ["pixels", "objects", "boundaries"])
def test_ignored_pixels_count_nowhere(kind: str):
    truth = square((30, 30), (5, 5, 10))
    mine = truth.copy()
    truth[20:] = -1
    mine[22:28, 5:11] = 7
    found = compare_planes(mine, truth, Comparing(kind=kind, ignore=-1), NAMES)
    assert found.errors(0.5) == []
    assert (found.overlay(0.5)[20:] == OVERLAY_VALUES["ignored"]).all()
    assert found.counts.scores.iou == 1
    assert found.describe(25, 8, 0.5) == "Ignored: this pixel does not count."


def test_255_beside_classes_wants_a_word():
    truth = np.array([[0, 1, 2, 255]])
    classes = Comparing(classes=True)
    with pytest.raises(UserError, match=r"'truth' holds 255 beside the classes 1, 2; .* Ignore to"):
        compare_planes(truth, truth, classes, NAMES)
    assert (
        compare_planes(truth, truth, Comparing(classes=True, ignore=255), NAMES).errors(0.5) == []
    )
    assert compare_planes(truth, truth, Comparing(), NAMES).errors(0.5) == []


@pytest.mark.parametrize(
    ("mine", "told"),
    [
        (np.zeros((3, 4), int), r"'mine' has shape \(3, 4\) and 'truth' has shape \(4, 4\)"),
        (np.full((4, 4), -2), "'mine' holds the label -2"),
        (np.full((4, 4), 1.5), "'mine' holds values from 1.5 to 1.5"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(mine: np.ndarray, told: str):
    with pytest.raises(UserError, match=told):
        compare_planes(mine, np.zeros((4, 4), int), Comparing(), NAMES)


def test_empty_planes_have_no_errors():
    nothing = np.zeros((5, 5), int)
    for kind in ("pixels", "objects", "boundaries"):
        assert compare_planes(nothing, nothing, Comparing(kind=kind), NAMES).errors(0.5) == []
