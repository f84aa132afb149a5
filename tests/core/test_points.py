"""One point per cell: found as blobs, taken from labels, compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from napari_cellda.core.errors import UserError
from napari_cellda.core.points import (
    best_least_score,
    centroids,
    find_blobs,
    location_precision,
    separate_objects,
    typical_diameter,
)


def discs(places, radii, shape=(120, 160), value=1.0):
    rows, columns = np.indices(shape)
    image = np.zeros(shape, np.float32)
    for (row, column), radius in zip(places, radii, strict=True):
        image[np.hypot(rows - row, columns - column) <= radius] = value
    return image


@pytest.mark.parametrize("diameter", [16.0, 24.0, None])
def test_every_disc_is_found_once_with_its_size(diameter):
    places, radii = [(20, 30), (60, 100), (90, 40), (30, 130)], [5, 8, 10, 6]
    noise = np.random.default_rng(0).normal(0, 0.03, (120, 160))
    found = find_blobs(discs(places, radii) * 900 + noise * 900 + 100, diameter)
    assert len(found.points) == 4
    nearest = cdist(places, found.points)
    assert (nearest.min(axis=1) < 2).all()
    sizes = found.diameters[nearest.argmin(axis=1)]
    np.testing.assert_allclose(sizes, 2 * np.array(radii), rtol=0.35)
    assert (np.diff(found.strengths) <= 0).all()


def test_touching_discs_are_two():
    found = find_blobs(discs([(50, 50), (50, 66)], [8, 8]), 18.0)
    assert sorted(found.points[:, 1].round()) == pytest.approx([50, 66], abs=2)


def test_nothing_is_found_in_nothing():
    for empty in (np.zeros((40, 40)), np.full((40, 40), 7), np.full((40, 40), np.nan)):
        assert len(find_blobs(empty.astype(np.float32), 10.0).points) == 0


def test_blobs_need_a_plane_and_a_size():
    with pytest.raises(UserError, match="planes"):
        find_blobs(np.zeros((2, 8, 8)), 5.0)
    for size in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="above 0"):
            find_blobs(np.zeros((8, 8)), size)


def test_centroids_are_means_and_skip_what_is_no_object():
    labels = np.zeros((10, 12), np.int32)
    labels[2:5, 3:8], labels[7, 7], labels[9] = 4, 9, -1
    points, ids = centroids(labels)
    assert ids.tolist() == [4, 9]
    np.testing.assert_allclose(points, [[3, 5], [7, 7]])
    assert typical_diameter([labels, None]) == pytest.approx(
        np.median(np.sqrt(4 * np.array([15, 1]) / np.pi)), rel=0.2
    )
    assert np.isnan(typical_diameter([np.zeros((3, 3), int)]))


def test_a_mask_without_instances_is_taken_apart():
    mask = np.zeros((6, 9), np.int32)
    mask[1:3, 1:3], mask[4, 6:], mask[0, 8] = 1, 1, -1
    found = separate_objects(mask)
    assert len(np.unique(found[found > 0])) == 2
    assert found[0, 8] == -1
    two = np.where(mask > 0, 2, mask)
    np.testing.assert_array_equal(separate_objects(two), two)


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [([0, 1, 2**32 + 1], np.uint64), ([0, 2**31 + 5, 2**63 + 1, 2**63 + 2], np.uint64),
     ([-(2**40), -1, 0, 1, 2**40], np.int64), ([0, 7, 2**31 - 1, 2**31], np.int64)],
)  # fmt: skip
def test_very_large_ids_stay_objects_of_their_own(numbers, dtype):
    labels = np.repeat(np.array(numbers, dtype), 2).reshape(2, -1)
    found = separate_objects(labels)
    assert found.dtype == np.int32
    assert len(np.unique(found)) == len(numbers)
    np.testing.assert_array_equal(found > 0, labels > 0)
    kept = np.abs(labels.astype(float)) < 2**31 - 1
    np.testing.assert_array_equal(found[kept], labels[kept])


def literal_precision(found, truth, within):
    ranked = sorted(
        (
            (score, image, tuple(point))
            for image, (points, scores) in enumerate(found)
            for point, score in zip(points, scores, strict=True)
        ),
        key=lambda entry: -entry[0],
    )
    free = [list(map(tuple, points)) for points in truth]
    hits, total = 0, 0.0
    for k, (_, image, point) in enumerate(ranked, 1):
        if free[image]:
            best = min(free[image], key=lambda p: np.hypot(p[0] - point[0], p[1] - point[1]))
            if np.hypot(best[0] - point[0], best[1] - point[1]) <= within:
                free[image].remove(best)
                hits += 1
                total += hits / k
    return total / sum(map(len, truth))


def test_location_precision_is_its_definition():
    rng = np.random.default_rng(1)
    found = [
        (rng.uniform(0, 30, (n, 2)), rng.permutation(n) + image / 10)
        for image, n in enumerate((9, 0, 14))
    ]
    truth = [rng.uniform(0, 30, (n, 2)) for n in (7, 3, 10)]
    expected = literal_precision(found, truth, 5.0)
    assert location_precision(found, truth, 5.0) == pytest.approx(expected)
    perfect = [(points, np.ones(len(points))) for points in truth]
    assert location_precision(perfect, truth, 0.1) == 1
    assert np.isnan(location_precision([(np.zeros((0, 2)), np.zeros(0))], [np.zeros((0, 2))], 1.0))


def literal_f1(found, truth, within, least):
    """2 TP / (found + true) of the places above a score."""
    kept = [(points[scores > least], scores[scores > least]) for points, scores in found]
    hits = 0
    for (points, scores), free in zip(kept, [list(map(tuple, t)) for t in truth], strict=True):
        for k in np.argsort(-scores):
            distance = [np.hypot(*(points[k] - one)) for one in free]
            if distance and min(distance) <= within:
                free.pop(int(np.argmin(distance)))
                hits += 1
    return 2 * hits / (sum(len(scores) for _, scores in kept) + sum(map(len, truth)))


def test_the_least_score_is_the_one_with_the_best_f1():
    rng = np.random.default_rng(3)
    truth = [rng.uniform(0, 100, (n, 2)) for n in (12, 5)]
    found = []
    for points in truth:  # cells are found with high scores, and as much else with lower ones
        places = np.concatenate([points + rng.normal(0, 1, points.shape), 200 + points])
        scores = np.concatenate(
            [rng.uniform(0.5, 1, len(points)), rng.uniform(0, 0.7, len(points))]
        )
        found.append((places, scores))
    least = best_least_score(found, truth, 5.0)
    tried = np.linspace(0, 1, 400)
    assert literal_f1(found, truth, 5.0, least) == max(
        literal_f1(found, truth, 5.0, one) for one in tried
    )
    assert 0.4 < least < 0.8


def test_no_least_score_where_there_is_nothing_to_tell():
    points = np.array([[1.0, 1.0], [9.0, 9.0]])
    right, scores = (points, np.array([0.9, 0.4])), np.array([0.9, 0.4])
    assert best_least_score([right], [points], 1.0) is None
    assert best_least_score([(points + 50, scores)], [points], 1.0) is None
    assert best_least_score([(np.zeros((0, 2)), np.zeros(0))], [points], 1.0) is None
