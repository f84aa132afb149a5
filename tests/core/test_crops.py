"""Squares that are cut out of a domain's planes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cellda.core.adaptation.domain import UNKNOWN, Plane, cut_plane
from napari_cellda.core.images.normalisation import Normalisation

SHAPE = 9, 7
UNIT = Normalisation(offset=(0.0,), factor=(1.0,))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 1), (0, 3), (4, 2), (0, 4)])
@pytest.mark.parametrize("size", [4, 7, 9, 12])
def test_a_cut_is_what_padding_by_reflection_shows(top, left, size):
    rng = np.random.default_rng(0)
    pixels = rng.random((2, *SHAPE), np.float32)
    labels = rng.integers(0, 5, SHAPE, np.int32)
    plane = Plane("a", pixels, UNIT, labels=labels, pseudo_map=pixels)
    around = (0, top + size), (0, left + size)
    place = np.s_[..., top : top + size, left : left + size]
    expected = np.pad(pixels, ((0, 0), *around), mode="reflect")[place]
    found = cut_plane(plane, top, left, size)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], np.pad(labels, around, mode="reflect")[place])
    np.testing.assert_array_equal(found[2], expected)


def test_a_cut_can_be_written_to_without_changing_its_plane():
    pixels = np.zeros((1, *SHAPE), np.float32)
    labels = np.zeros(SHAPE, np.int64)
    plane = Plane("a", pixels, UNIT, labels=labels, pseudo_map=pixels)
    for part in cut_plane(plane, 1, 2, 4):
        part += 1
    assert pixels.sum() == labels.sum() == 0


def test_nothing_is_known_of_a_plane_without_labels():
    plane = Plane("a", np.zeros((1, *SHAPE), np.float32), UNIT)
    _, labels, maps = cut_plane(plane, 0, 0, 4)
    assert (labels == UNKNOWN).all()
    assert maps is None
