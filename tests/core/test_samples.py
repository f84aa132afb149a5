import numpy as np
import pytest

from napari_cellda.core.samples import fields as samples
from napari_cellda.core.samples.shapes import cell_walls, scatter_blobs, smooth_noise

FIELDS = [samples.nuclei_field, samples.organelles_field, samples.phase_field]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("domain", ["a", "b"])
def test_a_field_is_complete_and_its_strokes_are_true(field, domain):
    sample = field((160, 200), seed=4, domain=domain)
    assert sample.image.shape[:2] == sample.labels.shape == sample.strokes.shape == (160, 200)
    assert sample.image.dtype == np.uint8
    assert sample.labels.max() >= 3
    assert (sample.labels[sample.strokes == 2] > 0).all()
    assert (sample.labels[sample.strokes == 1] == 0).all()
    assert set(np.unique(sample.strokes)) == {0, 1, 2}


@pytest.mark.parametrize("field", FIELDS)
def test_the_seed_decides_the_pixels(field):
    one, two, other = (field((96, 96), seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.strokes, two.strokes)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("field", FIELDS)
def test_domains_share_the_truth_and_differ_in_looks(field):
    a, b = field((128, 128), 0, "a"), field((128, 128), 0, "b")
    assert np.array_equal(a.labels, b.labels)
    grey = [s.image.reshape(128, 128, -1).mean(axis=-1) for s in (a, b)]
    assert np.abs(grey[0] - grey[1]).mean() > 5


def test_fluorescent_nuclei_are_brighter_and_stained_ones_darker():
    for domain, sign in (("a", 1), ("b", -1)):
        sample = samples.nuclei_field((128, 128), 0, domain)
        grey = sample.image.reshape(128, 128, -1).mean(axis=-1)
        inside = sample.labels > 0
        assert sign * (grey[inside].mean() - grey[~inside].mean()) > 20


def test_membranes_are_darker_than_the_cells_and_free_of_mitochondria():
    sample = samples.organelles_field((256, 256))
    membrane, mito = sample.boundary_mask, sample.labels > 0
    assert 0.05 < membrane.mean() < 0.4
    assert not (membrane & mito).any()
    assert sample.image[membrane].mean() < sample.image[~membrane & ~mito].mean() - 10


def test_ihc_sample_has_strokes_for_both_classes():
    sample = samples.ihc_sample()
    assert sample.image.shape == (512, 512, 3)
    assert sample.strokes.shape == (512, 512)
    assert set(np.unique(sample.strokes)) == {0, 1, 2}
    assert (sample.strokes > 0).sum() > 1500
    blue = sample.image[..., 2].astype(int) - sample.image[..., 0]
    assert np.median(blue[sample.strokes == 2]) > np.median(blue[sample.strokes == 1]) + 10


def test_blobs_keep_their_gap():
    labels = scatter_blobs((120, 120), 60, (5, 9), (1, 2), 0.1, np.random.default_rng(0), gap=2)
    right, left = labels[:, 1:], labels[:, :-1]
    assert not ((right > 0) & (left > 0) & (right != left)).any()


def test_noise_varies_over_the_length_asked():
    rng = np.random.default_rng(0)
    fine, wide = (smooth_noise((200, 200), sigma, rng) for sigma in (1.0, 12.0))
    assert abs(fine.std() - 1) < 1e-3
    assert np.abs(np.diff(wide)).mean() < 0.2 * np.abs(np.diff(fine)).mean()


def test_walls_are_near_where_cells_meet():
    cells, distance = cell_walls((100, 100), 40, np.random.default_rng(1))
    meeting = cells[:, 1:] != cells[:, :-1]
    assert set(np.unique(cells)) == set(range(1, cells.max() + 1))
    assert np.percentile(distance[:, 1:][meeting], 95) < 3
    assert distance.max() > 8
