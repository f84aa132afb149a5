"""What a package's RDF asks to be done to an image before its network."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.modelzoo.preprocessing import describe_scaling, rdf_normalisation
from napari_cellda.core.modelzoo.rdf_steps import checked_step, steps_04, steps_05


def card(*steps, axes="bcyx", n_inputs=1):
    read = [checked_step(step, "Net", axes, n_inputs) for step in steps]
    return ModelCard(
        id="net", name="Net", input_axes=axes, n_inputs=n_inputs, preprocessing=tuple(read)
    )


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
    found = rdf_normalisation(card(*steps_05([step])), image)
    values = pixels[None].astype(np.float32)
    np.testing.assert_allclose(found.apply(values), trained.apply(values), rtol=1e-6)


def coloured(dtype=np.float32):
    """Return an image of three channels of different brightness."""
    pixels = np.random.default_rng(0).random((3, 24, 32)) * [[[20]], [[90]], [[200]]]
    return image_from_array(pixels.astype(dtype), "cyx", name="colours").select("all")


def scaled(steps, image):
    found = rdf_normalisation(card(*steps, n_inputs=3), image)
    return found.apply(image.data[0, :, 0].astype(np.float32))


def bioimageio_core(steps, version, pixels):
    """Return what bioimageio.core makes of an image."""
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.core.proc_setup import get_pre_and_postprocessing
    from bioimageio.spec.model import v0_4, v0_5

    if version == "0.4":
        tensor = {"name": "input", "axes": "bcyx", "data_type": "float32", "shape": [1, 3, 24, 32]}
        given = v0_4.InputTensorDescr.model_validate({**tensor, "preprocessing": steps})
    else:
        channels = {"type": "channel", "channel_names": ["red", "green", "blue"]}
        space = [{"type": "space", "id": axis, "size": 32} for axis in "yx"]
        axes = [{"type": "batch"}, channels, *space]
        given = v0_5.InputTensorDescr.model_validate(
            {"id": "input", "axes": axes, "preprocessing": steps}
        )
    tensor = core.Tensor.from_numpy(pixels[np.newaxis], dims=("batch", "channel", "y", "x"))
    sample = core.Sample(members={"input": tensor}, stat={}, id="colours")
    model = SimpleNamespace(inputs=[given], outputs=[])
    get_pre_and_postprocessing(model, dataset_for_initial_statistics=[sample]).pre(sample)
    return sample.members["input"].data.to_numpy()[0]


PERCENTILES = {"min_percentile": 2, "max_percentile": 98}


@pytest.mark.filterwarnings("ignore")  # theirs takes one image for a poor data set
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axes", [["y", "x"], ["channel", "y", "x"], ["batch", "y", "x"], None])
@pytest.mark.parametrize(
    ("name", "kwargs"), [("scale_range", PERCENTILES), ("zero_mean_unit_variance", {})]
)
def test_statistics_are_over_the_axes_of_format_05(name, kwargs, axes, dtype):
    image = coloured(dtype)
    steps = [{"id": name, "kwargs": {**kwargs, "axes": axes} if axes else kwargs}]
    theirs = bioimageio_core(steps, "0.5", image.data[0, :, 0])
    np.testing.assert_allclose(scaled(steps_05(steps), image), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", ["yx", "cyx"])
@pytest.mark.parametrize(
    ("name", "kwargs"), [("scale_range", PERCENTILES), ("zero_mean_unit_variance", {})]
)
def test_statistics_are_over_the_axes_of_format_04(name, kwargs, axes):
    image = coloured()
    steps = [{"name": name, "kwargs": {**kwargs, "axes": axes, "mode": "per_sample"}}]
    theirs = bioimageio_core(steps, "0.4", image.data[0, :, 0])
    np.testing.assert_allclose(scaled(steps_04(steps), image), theirs, rtol=1e-4, atol=1e-5)


def test_a_step_measures_the_image_before_all_steps():
    image = coloured()
    linear = {"id": "scale_linear", "kwargs": {"gain": 0.5, "offset": -3}}
    steps = [linear, {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"]}}]
    theirs = bioimageio_core(steps, "0.5", image.data[0, :, 0])
    np.testing.assert_allclose(scaled(steps_05(steps), image), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("fixed_zero_mean_unit_variance", {"mean": [9, 50, 99], "std": [3, 5, 20]}),
        ("scale_linear", {"gain": [1, 2, -4]}),
    ],
)
def test_numbers_of_each_channel(name, kwargs):
    image = coloured()
    steps = [{"id": name, "kwargs": {**kwargs, "axis": "channel"}}]
    theirs = bioimageio_core(steps, "0.5", image.data[0, :, 0])
    np.testing.assert_allclose(scaled(steps_05(steps), image), theirs, rtol=1e-4, atol=1e-5)


def test_channels_measured_together_keep_their_ratios_past_what_is_no_number():
    pixels = np.zeros((3, 4, 4), np.float32)
    pixels[1], pixels[2], pixels[2, 0, 0] = 1, 4, np.nan
    image = image_from_array(pixels, "cyx", name="colours").select("all")
    found = scaled(steps_04([{"name": "scale_range", "kwargs": {"axes": "cyx"}}]), image)
    np.testing.assert_allclose(found[:, 1, 1], [0, 0.25, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "measured"), [("bczyx", "yx"), ("bcyx", "c"), ("bcyx", "x"), ("bcyx", "")]
)
def test_scaling_planes_or_pixels_by_themselves_is_refused(axes, measured):
    step = {"name": "scale_range", "kwargs": {"axes": measured}}
    with pytest.raises(UserError, match=f"over the axes '{measured}'; '{axes[2:]}' or 'c"):
        rdf_normalisation(card(step, axes=axes), grey()[0])


@pytest.mark.parametrize(
    "steps",
    [
        [{"name": "scale_linear", "kwargs": {"gain": 1e200}}],
        [{"name": "scale_linear", "kwargs": {"gain": 1e-200}}],
        [{"name": "scale_linear", "kwargs": {"offset": 1e200}}],
        [{"name": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 0, "std": 1e-320}}],
        [{"name": "scale_linear", "kwargs": {"gain": 1e30}}] * 2,
    ],
)
def test_numbers_beyond_float32_are_refused_and_not_taken_for_zeros(steps):
    with pytest.raises(UserError, match=r"Net asks to subtract .* float32 can hold"):
        rdf_normalisation(card(*steps), grey()[0])
