import numpy as np
import pytest
from skimage.measure import regionprops

from napari_cellda.core.errors import UserError
from napari_cellda.core.instances.objects import measure_objects

LABELS = np.array(
    [
        [1, 1, 0, 0],
        [1, 1, 0, 7],
        [0, 0, 0, 7],
    ],
    np.uint32,
)


def test_every_column_by_hand():
    score_map = np.arange(12).reshape(3, 4) / 10
    class_mask = np.array([[2, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3]])
    table = measure_objects(LABELS, class_mask, score_map)
    assert list(table) == ["label", "score", "area", "row", "col", "class"]
    assert table["label"].tolist() == [1, 7]
    np.testing.assert_allclose(table["score"], [(0 + 0.1 + 0.4 + 0.5) / 4, (0.7 + 1.1) / 2])
    assert table["area"].tolist() == [4, 2]
    assert table["row"].tolist() == [0.5, 1.5]
    assert table["col"].tolist() == [0.5, 3]
    assert table["class"].tolist() == [2, 3]


def test_physical_columns():
    table = measure_objects(LABELS, pixel_size=(9.0, 0.5, 0.25), unit="micrometer")
    assert list(table)[6:] == ["y", "x", "physical_area", "unit"]
    assert table["y"].tolist() == [0.25, 0.75]
    assert table["x"].tolist() == [0.125, 0.75]
    assert table["physical_area"].tolist() == [0.5, 0.25]
    assert table["area"].tolist() == [4, 2]
    assert table["unit"].tolist() == ["micrometer"] * 2


def test_stacks_have_a_plane_and_a_volume():
    labels = np.zeros((4, 3, 4), np.uint32)
    labels[1:3] = LABELS
    table = measure_objects(labels, pixel_size=(2.0, 0.5, 0.5), unit="micrometer")
    assert table["plane"].tolist() == [1.5, 1.5]
    assert table["area"].tolist() == [8, 4]
    assert table["z"].tolist() == [3, 3]
    assert table["physical_volume"].tolist() == [4, 2]
    assert "physical_area" not in table
    assert "plane" in measure_objects(labels)


def test_one_plane_is_2d():
    flat = measure_objects(LABELS, LABELS, LABELS / 10)
    deep = measure_objects(LABELS[None], LABELS[None], LABELS[None] / 10)
    assert list(deep) == list(flat)
    for name in flat:
        np.testing.assert_array_equal(deep[name], flat[name])


def test_equals_scikit_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, (60, 70)) * 3
    score_map = rng.random((60, 70))
    table = measure_objects(labels, score_map=score_map)
    found = regionprops(labels, score_map)
    assert table["label"].tolist() == [item.label for item in found]
    assert table["area"].tolist() == [item.area for item in found]
    np.testing.assert_allclose(table["score"], [item.intensity_mean for item in found])
    np.testing.assert_allclose(table["row"], [item.centroid[0] for item in found])
    np.testing.assert_allclose(table["col"], [item.centroid[1] for item in found])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4)])
def test_no_objects(shape):
    table = measure_objects(np.zeros(shape, np.uint32), np.zeros(shape, int), np.zeros(shape))
    assert all(len(column) == 0 for column in table.values())
    assert list(table)[:6] == ["label", "score", "area", "row", "col", "class"]


def test_far_apart_numbers():
    labels = np.array([[0, 5], [2**40, 2**40]], np.int64)
    assert measure_objects(labels)["label"].tolist() == [5, 2**40]


def test_class_of_an_object_on_background_and_of_a_tie():
    class_mask = np.array([[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]])
    assert measure_objects(LABELS, class_mask)["class"].tolist() == [1, 1]


def test_nan_scores_are_left_out():
    score_map = np.where(LABELS == 7, np.nan, 0.5)
    score_map[0, 0] = np.nan
    assert measure_objects(LABELS, score_map=score_map)["score"].tolist() == [0.5, 0]


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"class mask has shape \(2, 2\), but the labels"):
        measure_objects(LABELS, np.zeros((2, 2), int))
    with pytest.raises(UserError, match="score map has shape"):
        measure_objects(LABELS, None, np.zeros((3, 5)))
