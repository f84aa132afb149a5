"""The pixel classifier: features under strokes, a forest, and a map that has no tile seams."""

import numpy as np
import pytest

from napari_cellda.core import classifier as module
from napari_cellda.core.classifier import Normalised, gather_samples, train_classifier
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.features.cache import FeatureCache
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import image_from_array
from napari_cellda.core.tiles import Region, whole

SPEC = FeatureSpec(name="compact")
FEW_TREES = ForestParams(trees=10)


@pytest.fixture
def disk():
    """A bright disk on noise, with strokes on both."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:150, :170]
    truth = (y - 70) ** 2 + (x - 90) ** 2 < 40**2
    pixels = (truth * 100 + rng.normal(50, 10, truth.shape)).astype(np.float32)
    strokes = np.zeros(truth.shape, np.uint8)
    strokes[10:14, 10:80] = 1
    strokes[68:72, 70:110] = 2
    return image_from_array(pixels, "yx", name="disk"), strokes, truth


def test_forest_finds_the_disk(disk):
    image, strokes, truth = disk
    trained = run_quietly(train_classifier([image], [strokes], spec=SPEC, params=FEW_TREES))
    found = trained.predict(Normalised.measure(image), whole(image.limits))
    assert found.shape == (2, 1, *truth.shape)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    predicted = found[1, 0] > 0.5
    assert (predicted == truth).mean() > 0.97


def test_tiled_equals_untiled_and_cached_equals_uncached(disk, monkeypatch):
    image, strokes, _ = disk
    trained = run_quietly(train_classifier([image], [strokes], spec=SPEC, params=FEW_TREES))
    source, region = Normalised.measure(image), whole(image.limits)
    untiled = trained.predict(source, region)
    monkeypatch.setattr(module, "TILE_2D", (1, 64, 64))
    cache = FeatureCache(2**30)
    tiled = trained.predict(source, region, cache)
    np.testing.assert_array_equal(tiled, trained.predict(source, region, cache))
    assert (np.abs(tiled - untiled) < 1e-6).mean() > 0.999  # a threshold may fall between two ulps


def test_a_region_equals_its_part_of_the_whole(disk):
    image, strokes, _ = disk
    trained = run_quietly(train_classifier([image], [strokes], spec=SPEC, params=FEW_TREES))
    source = Normalised.measure(image)
    part = Region(0, slice(0, 1), slice(20, 90), slice(31, 140))
    expected = trained.predict(source, whole(image.limits))[:, :, 20:90, 31:140]
    np.testing.assert_array_equal(trained.predict(source, part), expected)


def test_samples_are_the_painted_pixels_of_every_plane():
    rng = np.random.default_rng(1)
    image = image_from_array(rng.random((3, 40, 50), np.float32), "zyx", name="stack")
    strokes = np.zeros((3, 40, 50), np.uint8)
    strokes[0, 3, 4:9] = 1
    strokes[2, 30, 10:13] = 3
    features, labels = gather_samples(Normalised.measure(image), strokes, SPEC)
    assert features.shape == (8, 28)
    assert sorted(labels) == [0] * 5 + [2] * 3


def test_pixels_without_a_value_are_background_and_never_samples(disk):
    image, strokes, _ = disk
    pixels = np.array(image.data[0, 0, 0])
    pixels[68:72, 70:90] = np.nan
    holed = image_from_array(pixels, "yx", name="holed")
    source = Normalised.measure(holed)
    _, labels = gather_samples(source, strokes, SPEC)
    assert (labels == 1).sum() == 4 * 20
    trained = run_quietly(train_classifier([holed], [strokes], spec=SPEC, params=FEW_TREES))
    found = trained.predict(source, whole(holed.limits))
    np.testing.assert_array_equal(found[0, 0, 68:72, 70:90], 1)
    np.testing.assert_array_equal(found[1, 0, 68:72, 70:90], 0)


def test_3d_features_see_the_neighbouring_planes():
    rng = np.random.default_rng(2)
    image = image_from_array(rng.random((6, 30, 30), np.float32), "zyx", name="stack")
    strokes = np.zeros((6, 30, 30), np.uint8)
    strokes[3, 5, 3:20] = 1
    strokes[3, 20, 3:20] = 2
    spec = FeatureSpec(name="compact", ndim=3)
    trained = run_quietly(train_classifier([image], [strokes], spec=spec, params=FEW_TREES))
    found = trained.predict(Normalised.measure(image), whole(image.limits))
    assert found.shape == (2, 6, 30, 30)


def test_one_forest_from_several_images(disk):
    image, strokes, _ = disk
    only_background = np.where(strokes == 1, strokes, 0)
    only_disk = np.where(strokes == 2, strokes, 0)
    task = train_classifier(
        [image, image], [only_background, only_disk], spec=SPEC, params=FEW_TREES
    )
    assert run_quietly(task).class_names == ("background", "class 1")


@pytest.mark.parametrize(
    ("strokes", "sentence"),
    [
        (np.zeros((150, 170), np.uint8), "No strokes were found for 'disk'"),
        (np.full((150, 170), 2, np.uint8), "hold only the value 2"),
        (np.zeros((10, 10), np.uint8), r"shape \(10, 10\), but the image needs \(150, 170\)"),
    ],
)
def test_unusable_strokes_are_named(disk, strokes, sentence):
    with pytest.raises(UserError, match=sentence):
        run_quietly(train_classifier([disk[0]], [strokes], spec=SPEC, params=FEW_TREES))


def test_painted_images_with_different_channels_are_named(disk):
    image, strokes, _ = disk
    colours = np.repeat(np.zeros(strokes.shape, np.uint8)[..., None], 3, axis=-1)
    rgb = image_from_array(colours, "yxc", name="stained", rgb=True)
    task = train_classifier([image, rgb], [strokes, strokes], spec=SPEC, channels="all")
    with pytest.raises(UserError, match=rf"'{image.name}' has 1 channel.* and 'stained' 3; choose"):
        run_quietly(task)


def test_other_channels_are_refused(disk):
    image, strokes, _ = disk
    trained = run_quietly(train_classifier([image], [strokes], spec=SPEC, params=FEW_TREES))
    two = image_from_array(np.zeros((2, 20, 20), np.uint8), "cyx", name="two").select("all")
    with pytest.raises(UserError, match=r"'two' has 2 channel\(s\) in use.*trained on 1"):
        trained.check(two)
