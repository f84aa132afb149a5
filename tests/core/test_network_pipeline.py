"""What a package's RDF asks to be done to an image before its network."""

import numpy as np
import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.modelzoo.preprocessing import describe_scaling, rdf_normalisation


def card(*steps):
    return ModelCard(id="net", name="Net", preprocessing=steps)


def grey(seed=0):
    pixels = np.random.default_rng(seed).integers(10, 200, (30, 40)).astype(np.uint8)
    return image_from_array(pixels, "yx", name="cells"), pixels.astype(np.float64)


SCALE_RANGE = {"name": "scale_range", "kwargs": {"min_percentile": 0, "max_percentile": 100}}
ZERO_MEAN = {"name": "zero_mean_unit_variance", "kwargs": {}}
FIXED = {"name": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 100.0, "std": 20.0}}
LINEAR = {"name": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": -0.5}}


@pytest.mark.parametrize(
    ("steps", "literal"),
    [
        ([SCALE_RANGE], lambda x: (x - x.min()) / (x.max() - x.min())),
        ([ZERO_MEAN], lambda x: (x - x.mean()) / x.std()),
        ([FIXED], lambda x: (x - 100) / 20),
        ([LINEAR], lambda x: x / 255 - 0.5),
        ([LINEAR, FIXED], lambda x: (x / 255 - 0.5 - 100) / 20),
    ],
)
def test_linear_steps_equal_their_definitions(steps, literal):
    image, pixels = grey()
    found = rdf_normalisation(card(*steps), image).apply(pixels[None].astype(np.float32))[0]
    np.testing.assert_allclose(found, literal(pixels), atol=1e-4)


def test_what_is_not_linear_is_named():
    with pytest.raises(UserError, match="preprocessing 'binarize'"):
        rdf_normalisation(card({"name": "binarize", "kwargs": {}}), grey()[0])


def test_a_map_passes_unchanged_and_an_image_does_not():
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    a_map = image_from_array(values, "yx", name="map")
    np.testing.assert_array_equal(rdf_normalisation(card(), a_map).apply(values[None])[0], values)
    with pytest.raises(UserError, match=r"'cells' is uint8 from 10 to 199"):
        rdf_normalisation(card(), grey()[0])


def test_several_channels_are_refused():
    two = image_from_array(np.zeros((2, 5, 6), np.float32), "cyx", name="two").select("all")
    with pytest.raises(UserError, match="'two' has 2 channels in use, and Net takes 1"):
        rdf_normalisation(card(), two)


@pytest.mark.parametrize("scaling", ["percentile", "minmax", "zscore"])
@pytest.mark.parametrize("spots", [40, 1, 0])
def test_a_package_scales_an_image_as_its_training_did(scaling, spots):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[5, :spots] = 200
    image = image_from_array(pixels, "yx", name="spots")
    trained = measure_normalisation(image, scaling)
    step = describe_scaling(scaling, trained)
    found = rdf_normalisation(card({"name": step["id"], "kwargs": step["kwargs"]}), image)
    values = pixels[None].astype(np.float32)
    np.testing.assert_allclose(found.apply(values), trained.apply(values), rtol=1e-6)
