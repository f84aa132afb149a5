"""Every sample of the menu opens with image, strokes and, if generated, its truth."""

from __future__ import annotations

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_cellda.ui import sample_data

SAMPLES = PluginManifest.from_distribution("napari-cellda").contributions.sample_data or []
NAMES = [name for name in vars(sample_data) if name.endswith(("_a", "_b"))]


def test_the_menu_offers_every_sample():
    assert len(SAMPLES) == len(NAMES) + 1


@pytest.mark.parametrize("name", NAMES)
def test_generated_sample_has_truth_and_strokes_on_it(name: str):
    image, truth, strokes = getattr(sample_data, name)()
    assert [layer[2] for layer in (image, truth, strokes)] == ["image", "labels", "labels"]
    assert truth[1]["visible"] is False
    labels, painted = truth[0], strokes[0]
    assert labels.shape == painted.shape == image[0].shape[:2]
    assert set(np.unique(painted)) == {0, 1, 2}
    assert (labels[painted == 2] > 0).all()
    assert (labels[painted == 1] == 0).all()


def test_real_sample_is_rgb_with_strokes_of_two_classes():
    image, strokes = sample_data.immunohistochemistry()
    assert image[1]["rgb"]
    assert image[0].shape == (512, 512, 3)
    assert set(np.unique(strokes[0])) == {0, 1, 2}


def test_domains_differ_but_their_truth_is_alike():
    for kind in ("nuclei", "organelles", "phase"):
        a, b = (getattr(sample_data, f"{kind}_{d}")() for d in "ab")
        np.testing.assert_array_equal(a[1][0], b[1][0])
        grey = [layers[0][0].astype(float).reshape(512, 512, -1).mean(-1) for layers in (a, b)]
        assert np.abs(grey[0] - grey[1]).mean() > 5
