"""Matches and object figures against slow literal references and independent libraries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from skimage.metrics import contingency_table
from skimage.segmentation import relabel_sequential

from napari_cellda.core.compare import ObjectMatches, Overlaps, instance_dice
from napari_cellda.core.compare.detection import AP_THRESHOLDS, Detections
from napari_cellda.core.compare.efficiency import performance_efficiency
from napari_cellda.core.compare.matching import MATCHED, STATES
from napari_cellda.core.errors import UserError

LABELS = arrays(np.int32, (2, 5, 6), elements=st.integers(0, 4))
MANY = settings(max_examples=60, deadline=None)


def objects(labels):
    return [int(label) for label in np.unique(labels) if label]


def literal_iou(predicted, truth, p, t):
    a, b = predicted == p, truth == t
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def literal_pairs(predicted, truth, threshold):
    """The best pair of free objects, again and again."""
    free_p, free_t, pairs = objects(predicted), objects(truth), {}
    while True:
        rivals = [(literal_iou(predicted, truth, p, t), -t, -p) for p in free_p for t in free_t]
        best = max(rivals, default=(0,))
        if best[0] <= threshold:
            return pairs
        t, p = -best[1], -best[2]
        pairs[t] = p
        free_t.remove(t)
        free_p.remove(p)


def cells(shape=(80, 90), n=25, seed=0):
    """Two noisy partitions into touching cells, with large numbers and gaps in them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (n, 2))
    places = np.stack(np.mgrid[: shape[0], : shape[1]], axis=-1)

    def nearest(points):
        distance = np.linalg.norm(places[:, :, None] - points, axis=-1)
        return np.where(distance.min(axis=-1) < 12, distance.argmin(axis=-1) * 7 + 3, 0)

    return nearest(centres + rng.normal(0, 2, (n, 2))), nearest(centres)


@given(LABELS)
@MANY
def test_overlaps_are_scikit_images_contingency_table(labels):
    predicted, truth = labels
    found = Overlaps.of(predicted, truth)
    theirs = contingency_table(truth, predicted).toarray()
    ours = np.zeros_like(theirs)
    ours[found.truth, found.predicted] = found.count
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.runs.paint(found.predicted), predicted)
    np.testing.assert_array_equal(found.runs.paint(found.truth), truth)


@given(LABELS, arrays(bool, (5, 6), elements=st.booleans()))
@MANY
def test_ignored_pixels_are_in_no_overlap(labels, ignore):
    predicted, truth = labels
    found = Overlaps.of(predicted, truth, ignore)
    plain = Overlaps.of(predicted[~ignore], truth[~ignore])
    for name in ("predicted", "truth", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    shown = found.runs.paint(found.truth.astype(np.int64), -1)
    np.testing.assert_array_equal(shown, np.where(ignore, -1, truth))


def test_planes_add_up_to_their_stack():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 9, (2, 4, 6, 7))
    planes = [Overlaps.of(p, t) for p, t in zip(predicted, truth, strict=True)]
    total, whole = Overlaps.total(planes), Overlaps.of(predicted, truth)
    for name in ("predicted", "truth", "count"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


def test_huge_label_numbers_take_no_table():
    truth = np.array([[0, 2**40, 2**40]], np.uint64)
    predicted = np.array([[0, 2**63, 2**63]], np.uint64)
    matches = ObjectMatches.compute(predicted, truth)
    assert matches.truth_iou.tolist() == [1.0]
    assert matches.predicted_ids.tolist() == [2**63]


@given(LABELS, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]))
@MANY
def test_matches_are_the_literal_ones(labels, threshold):
    predicted, truth = labels
    matches = ObjectMatches.compute(predicted, truth)
    found = matches.at(threshold)
    pairs = literal_pairs(predicted, truth, threshold)
    hit = matches.truth_ids[found.truth_state == MATCHED]
    assert hit.tolist() == sorted(pairs)
    for t, p in pairs.items():
        i = int(np.searchsorted(matches.truth_ids, t))
        assert matches.predicted_ids[matches.truth_partner[i]] == p
        assert matches.truth_iou[i] == pytest.approx(literal_iou(predicted, truth, p, t))
    n_truth, n_predicted = len(objects(truth)), len(objects(predicted))
    total = n_truth + n_predicted
    assert found.f1 == pytest.approx(2 * len(pairs) / total if total else 1.0)
    if n_truth and n_predicted:
        assert found.precision == pytest.approx(len(pairs) / n_predicted)
        assert found.recall == pytest.approx(len(pairs) / n_truth)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_above_a_half_the_matches_are_the_best_assignment(threshold):
    predicted, truth = cells()
    matches = ObjectMatches.compute(predicted, truth)
    table = contingency_table(
        relabel_sequential(truth)[0], relabel_sequential(predicted)[0]
    ).toarray()
    inner = table[1:, 1:]
    iou = inner / (table.sum(1)[1:, None] + table.sum(0)[None, 1:] - inner)
    rows, columns = linear_sum_assignment(-(iou > threshold).astype(float))
    assert matches.at(threshold).hits == (iou > threshold)[rows, columns].sum() > 3


def test_empty_sides():
    none, some = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert ObjectMatches.compute(none, none).at(0.5).f1 == 1.0
    assert ObjectMatches.compute(none, none).at(0.5).recall == 1.0
    for predicted, truth in ((none, some), (some, none)):
        found = ObjectMatches.compute(predicted, truth).at(0.5)
        assert found.f1 == found.precision == found.recall == 0.0
    assert instance_dice(ObjectMatches.compute(none, none).dice_sums()) == 1.0
    assert instance_dice(ObjectMatches.compute(some, none).dice_sums()) == 0.0


def test_an_iou_of_exactly_a_half_is_no_match():
    matches = ObjectMatches.compute(np.array([1, 1, 0]), np.array([1, 0, 0]))
    assert matches.truth_iou.tolist() == [0.5]
    assert matches.at(0.5).hits == 0
    assert matches.at(0.49).hits == 1


def state_of(ids, states):
    return {int(label): STATES[state] for label, state in zip(ids, states, strict=True)}


def test_split_merged_missed_spurious():
    truth = np.array([1, 1, 1, 1, 0, 2, 2, 3, 3, 0, 4, 4, 0, 0, 5, 5])
    predicted = np.array([1, 1, 2, 2, 0, 3, 3, 3, 3, 0, 0, 0, 0, 4, 5, 5])
    matches = ObjectMatches.compute(predicted, truth)
    found = matches.at(0.6)
    assert state_of(matches.truth_ids, found.truth_state) == {
        1: "split",
        2: "merged",
        3: "merged",
        4: "missed",
        5: "matched",
    }
    assert state_of(matches.predicted_ids, found.predicted_state) == {
        1: "split",
        2: "split",
        3: "merged",
        4: "spurious",
        5: "matched",
    }
    assert found.count("missed") == found.count("spurious") == found.count("split") == 1
    assert found.count("merged") == 2
    # A lower threshold finds a partner for one half: the other half is then too much.
    assert state_of(matches.predicted_ids, matches.at(0.4).predicted_state)[2] == "spurious"


def literal_instance_dice(pairs_of_images):
    """Eq. 15 over a data set: area-weighted Dice with the object of the largest intersection."""
    halves = []
    for mine, theirs in ((0, 1), (1, 0)):
        weighted = area = 0.0
        for images in pairs_of_images:
            own, other = images[mine], images[theirs]
            for label in objects(own):
                mask = own == label
                shared = {o: np.count_nonzero(mask & (other == o)) for o in objects(other)}
                best = max(shared, key=lambda o: (shared[o], -o), default=None)
                area += mask.sum()
                if best is not None and shared[best]:
                    size = np.count_nonzero(other == best)
                    weighted += mask.sum() * 2 * shared[best] / (mask.sum() + size)
        halves.append(weighted / area if area else 0.0)
    return 0.5 * sum(halves)


@given(st.lists(LABELS, min_size=1, max_size=3))
@MANY
def test_instance_dice_is_pooled_over_images(images):
    sums = sum(ObjectMatches.compute(p, t).dice_sums() for p, t in images)
    if any(labels.any() for labels in images):
        assert instance_dice(sums) == pytest.approx(literal_instance_dice(images))
    else:
        assert instance_dice(sums) == 1.0


def literal_average_precision(images, scores, threshold):
    """Eq. 9, with the greedy taking of the reference implementation, over a data set."""
    listed, n_truth = [], 0
    for (predicted, truth), score in zip(images, scores, strict=True):
        free = objects(truth)
        n_truth += len(free)
        for p in sorted(objects(predicted), key=lambda label: -score[label]):
            ious = {t: literal_iou(predicted, truth, p, t) for t in free}
            best = max(ious, key=ious.get, default=None)
            hit = best is not None and ious[best] > threshold
            if hit:
                free.remove(best)
            listed.append((score[p], hit))
    hits, total = 0, 0.0
    for k, (_, hit) in enumerate(sorted(listed, key=lambda item: -item[0]), 1):
        hits += hit
        total += hits / k if hit else 0.0
    return total / n_truth if n_truth else float("nan")


@given(st.lists(LABELS, min_size=1, max_size=3), st.randoms(use_true_random=False))
@MANY
def test_average_precision_is_the_literal_one(images, random):
    # Scores that differ: the order of equal ones is nowhere defined.
    order = iter(random.sample(range(100), 4 * len(images)))
    scores = [{label: next(order) / 100 for label in range(1, 5)} for _ in images]
    pooled = Detections.pool(
        [
            Detections.of(ObjectMatches.compute(p, t), score)
            for (p, t), score in zip(images, scores, strict=True)
        ]
    )
    expected = {t: literal_average_precision(images, scores, t) for t in AP_THRESHOLDS}
    for threshold, value in expected.items():
        assert pooled.average_precision(threshold) == pytest.approx(value, nan_ok=True)
    figures = pooled.figures
    assert figures["ap50"] == pytest.approx(expected[0.5], nan_ok=True)
    assert figures["ap75"] == pytest.approx(expected[0.75], nan_ok=True)
    assert figures["map"] == pytest.approx(np.mean(list(expected.values())), nan_ok=True)


def test_average_precision_on_touching_cells():
    predicted, truth = cells(seed=3)
    scores = dict(
        zip(objects(predicted), np.linspace(1, 0.1, len(objects(predicted))), strict=True)
    )
    found = Detections.of(ObjectMatches.compute(predicted, truth), scores)
    for threshold in (0.5, 0.75):
        literal = literal_average_precision([(predicted, truth)], [scores], threshold)
        assert found.average_precision(threshold) == pytest.approx(literal)
        assert 0 < literal < 1


def test_a_perfect_result_has_average_precision_1():
    labels = np.arange(6).reshape(2, 3)
    scores = dict.fromkeys(range(1, 6), 0.5)
    assert Detections.of(ObjectMatches.compute(labels, labels), scores).figures["map"] == 1.0
    with pytest.raises(ValueError, match=r"0\.5"):
        Detections.of(ObjectMatches.compute(labels, labels), scores).average_precision(0.3)


def test_bad_labels_are_refused():
    with pytest.raises(UserError, match="prediction holds the label -2"):
        ObjectMatches.compute(np.array([0, -2]), np.array([0, 1]))
    with pytest.raises(UserError, match=r"truth holds float64"):
        ObjectMatches.compute(np.array([0, 2]), np.array([0, 1.5]))
    with pytest.raises(UserError, match=r"shape \(2,\).*\(3,\)"):
        ObjectMatches.compute(np.zeros(2, int), np.zeros(3, int))


def literal_efficiency(scores, sizes, upper):
    """6.3 as it reads."""
    names = list(scores)
    distances = []
    for name in names:
        total = 0.0
        for column in (scores, sizes):
            values = [column[n] for n in names]
            mean = sum(values) / len(values)
            std = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            total += ((column[name] - column[upper]) / std) ** 2 if std else 0.0
        distances.append(total**0.5)
    low, high = min(distances), max(distances)
    return {n: 1 - (d - low) / (high - low) for n, d in zip(names, distances, strict=True)}


def test_performance_efficiency():
    scores = {"upper": 0.85, "ours": 0.79, "dual": 0.8, "source": 0.7}
    sizes = {"upper": 17, "ours": 34, "dual": 51, "source": 17}
    found = performance_efficiency(scores, sizes, "upper")
    assert found == pytest.approx(literal_efficiency(scores, sizes, "upper"))
    assert found["upper"] == 1.0
    assert min(found.values()) == 0.0
    assert set(performance_efficiency(scores | {"dual": float("nan")}, sizes, "upper")) == {
        "upper",
        "ours",
        "source",
    }
    assert performance_efficiency(scores, {"ours": 34}, "upper") == {}
    assert performance_efficiency({"a": 0.5, "b": 0.5}, {"a": 1, "b": 1}, "a") == {"a": 1, "b": 1}
