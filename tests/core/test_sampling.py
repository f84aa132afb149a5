import numpy as np
import pytest

from napari_cellda.core.sampling import balance


@pytest.mark.parametrize("counts", [(5, 5), (1, 9), (100, 3, 17), (1, 1, 1000)])
def test_classes_come_out_equal_and_their_sum_stays(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    chosen = balance(labels, seed=0)
    found = np.bincount(labels[chosen])
    assert len(set(found)) == 1
    assert 0 <= len(chosen) - len(labels) < len(counts)


def test_a_small_class_is_used_evenly_and_a_large_one_without_repetition():
    labels = np.repeat([0, 1], [10, 3])
    uses = np.bincount(balance(labels, seed=1), minlength=13)
    assert set(uses[:10]) == {0, 1}
    assert set(uses[10:]) == {2, 3}


def test_balanced_labels_stay_as_they_are():
    labels = np.array([2, 0, 2, 0])
    np.testing.assert_array_equal(balance(labels, seed=3), np.arange(4))


def test_the_seed_decides():
    labels = np.repeat([0, 1], [500, 40])
    np.testing.assert_array_equal(balance(labels, seed=4), balance(labels, seed=4))
    assert (balance(labels, seed=4) != balance(labels, seed=5)).any()


def test_at_most_so_many_of_each():
    labels = np.repeat([0, 1, 2], [500, 40, 3])
    np.testing.assert_array_equal(np.bincount(labels[balance(labels, seed=0, max_per_class=7)]), 7)


def test_no_labels():
    assert len(balance(np.zeros(0, int), seed=0)) == 0
