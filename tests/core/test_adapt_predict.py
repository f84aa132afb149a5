"""The score that chooses checkpoints, on whole planes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.adaptation.predict import (
    class_maps,
    maps_kind,
    mean_dice,
    predict_plane,
)
from napari_cellda.core.devices import make_fabric
from napari_cellda.core.images.normalisation import Normalisation

PLAIN = Normalisation(kind="none", offset=(0.0,), factor=(1.0,))


def planes(*labels) -> Domain:
    arrays = [np.array(rows, np.int32) for rows in labels]
    return Domain(
        tuple(Plane("plane", np.zeros((1, *a.shape), np.float32), PLAIN, labels=a) for a in arrays)
    )


def as_map(*rows):
    return lambda plane: np.array([rows], np.float32)


def test_all_planes_count_together():
    found = mean_dice(planes([[1, 0]], [[1, UNKNOWN]], [[0, 0]]), as_map([0.9, 0.1]))
    assert found == pytest.approx(2 * 2 / (2 + 3))


def test_where_there_is_nothing_to_find_there_is_no_score():
    assert math.isnan(mean_dice(planes([[0, 0]]), as_map([0.1, 0.2])))
    assert math.isnan(mean_dice(planes([[0, UNKNOWN]]), as_map([0.1, 0.9])))


def test_without_any_annotation_there_is_no_score():
    assert math.isnan(mean_dice(planes([[UNKNOWN, UNKNOWN]]), as_map([0.9, 0.1])))


@pytest.mark.parametrize("shape", [(20, 70), (768, 768), (769, 1700)])
def test_tiles_of_a_plane_give_what_the_whole_gives(shape):
    pixels = np.random.default_rng(0).random((2, *shape), np.float32)
    sizes = []

    def blurred(x):
        sizes.extend(x.shape[2:])
        return torch.nn.functional.avg_pool2d(x, 41, stride=1, padding=20)

    found = predict_plane(blurred, pixels, make_fabric("cpu", "32-true"))
    assert {size % 32 for size in sizes} == {0}
    assert max(sizes) <= 960
    assert (len(sizes) == 2) == (max(shape) <= 768)
    rows, columns = (-side % 32 for side in shape)
    whole = np.pad(pixels, ((0, 0), (0, rows), (0, columns)), "reflect")
    expected = blurred(torch.from_numpy(whole)[None])[0, :, : shape[0], : shape[1]].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_foreground_alone_gets_its_background():
    one = torch.tensor([[[0.2, 0.9]]])
    both = torch.tensor([[[0.8, 0.1]], [[0.2, 0.9]]])
    assert torch.allclose(class_maps(one), both)
    assert torch.allclose(class_maps(one[None]), both[None])
    assert class_maps(both) is both
    assert (maps_kind(one.numpy()), maps_kind(both.numpy())) == ("foreground", "classes")
