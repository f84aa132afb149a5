import dask.array as da
import numpy as np
import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import Image, image_from_array
from napari_cellda.core.images.normalisation import Normalisation, measure_normalisation
from napari_cellda.core.images.statistics import (
    Source,
    float_key,
    from_key,
    moments,
    order_statistics,
)
from napari_cellda.core.tiles import whole

KINDS = ("percentile", "minmax", "zscore", "none")


def image_of(array, axes="yx", **kwargs):
    return image_from_array(array, axes, name="cells", **kwargs)


def literal(array, kind):
    """Normalise the finite values of one whole channel in float64."""
    values = array.astype(np.float32).astype(np.float64)
    finite = values[np.isfinite(values)]
    if kind == "percentile":
        low, high = np.percentile(finite, [1, 99.8])
        return (values - low) / (high - low)
    if kind == "minmax":
        return (values - finite.min()) / (finite.max() - finite.min())
    if kind == "zscore":
        return (values - finite.mean()) / finite.std()
    return values


def arrays():
    rng = np.random.default_rng(0)
    yield rng.integers(3, 200, (60, 70)).astype(np.uint8)
    yield rng.integers(-100, 100, (60, 70)).astype(np.int8)
    yield rng.gamma(2, 3000, (60, 70)).astype(np.uint16)
    yield rng.normal(0, 9000, (60, 70)).astype(np.int16)
    yield rng.integers(0, 2**31, (60, 70)).astype(np.uint32)
    yield rng.normal(0, 1, (60, 70)).astype(np.float16)
    yield rng.normal(-5, 3, (60, 70)).astype(np.float32)
    yield (1000 + rng.random((60, 70)) * 1e-3).astype(np.float64)  # a narrow range far from 0
    yield rng.lognormal(0, 20, (60, 70))  # 60 orders of magnitude, some beyond float32
    yield rng.random((60, 70)).astype(">f4")
    yield rng.random((60, 70)) > 0.7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("array", arrays(), ids=lambda a: a.dtype.str)
def test_equals_the_formula_on_the_whole_image(array, kind):
    image = image_of(da.from_array(array, chunks=(17, 23)))
    norm = measure_normalisation(image, kind)
    with np.errstate(over="ignore"):
        expected = literal(array, kind)
    expected[~np.isfinite(expected)] = 0
    found = norm.apply(image.read(whole(image.limits)))[0, 0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, expected, rtol=2e-5, atol=2e-5 * max(1, np.abs(expected).max())
    )


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_measured_apart(kind):
    rng = np.random.default_rng(0)
    array = (rng.random((3, 20, 30)) * [[[1]], [[100]], [[5]]]).astype(np.float32)
    norm = measure_normalisation(image_of(da.from_array(array, chunks=(2, 11, 13)), "cyx"), kind)
    for channel in range(3):
        one = measure_normalisation(image_of(array[channel]), kind)
        assert norm.offset[channel] == pytest.approx(one.offset[0], abs=1e-6)
        assert norm.factor[channel] == pytest.approx(one.factor[0])


def test_all_times_and_planes_count():
    array = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    norm = measure_normalisation(image_of(array, "tzyx"), "minmax")
    assert norm.offset == (0,)
    assert norm.factor == (pytest.approx(1 / 119),)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_are_left_out_and_become_0(kind):
    rng = np.random.default_rng(0)
    array = rng.random((40, 50)).astype(np.float32)
    holes = array.copy()
    holes[3, 4:9], holes[7, 7], holes[8, 8] = np.nan, np.inf, -np.inf
    norm = measure_normalisation(image_of(holes), kind)
    finite = holes[np.isfinite(holes)]
    assert norm == measure_normalisation(image_of(finite[np.newaxis]), kind)
    applied = norm.apply(holes[np.newaxis])[0]
    assert np.isfinite(applied).all()
    assert not applied[~np.isfinite(holes)].any()


@pytest.mark.parametrize("kind", ["percentile", "minmax", "zscore"])
@pytest.mark.parametrize("value", [0, 7, -3.5, 1e30])
def test_constant_image_is_flat_and_becomes_0(kind, value):
    norm = measure_normalisation(image_of(np.full((9, 9), value)), kind)
    assert norm.is_flat
    assert norm.factor == (0,)
    assert not norm.apply(np.full((1, 9, 9), value, np.float32)).any()


def test_one_flat_channel_does_not_make_the_image_flat():
    array = np.stack([np.zeros((9, 9)), np.arange(81.0).reshape(9, 9)])
    norm = measure_normalisation(image_of(array, "cyx"))
    assert not norm.is_flat
    assert norm.factor[0] == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_few_bright_spots_on_an_even_ground_are_not_flat(dtype):
    array = np.zeros((100, 100), dtype)
    array[5, 5] = 200
    norm = measure_normalisation(image_of(array))
    assert not norm.is_flat
    assert norm.apply(array[np.newaxis])[0, 5, 5] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 100_000)])
def test_tiny_and_thin(shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    norm = measure_normalisation(image_of(array))
    assert norm.is_flat == (shape == (1, 1))


@pytest.mark.parametrize("kind", ["percentile", "minmax", "zscore"])
def test_no_finite_value_is_refused(kind):
    with pytest.raises(UserError, match="'cells' holds no finite number: all is NaN"):
        measure_normalisation(image_of(np.full((5, 5), np.nan)), kind)
    half = np.stack([np.ones((5, 5)), np.full((5, 5), np.inf)])
    with pytest.raises(UserError, match="no finite number in channel 1"):
        measure_normalisation(image_of(half, "cyx"), kind)


def test_values_are_not_clipped():
    norm = Normalisation(offset=(10.0,), factor=(0.1,))
    np.testing.assert_allclose(norm.apply(np.array([[0.0, 10, 40]])), [[-1, 0, 3]])


def test_apply_leaves_its_input_alone():
    block = np.array([[1.0, np.nan]], np.float32)
    Normalisation(offset=(1.0,), factor=(5.0,)).apply(block)
    np.testing.assert_array_equal(block, [[1, np.nan]])


def test_apply_refuses_another_number_of_channels():
    with pytest.raises(UserError, match=r"2 channel\(s\), the normalisation 1"):
        Normalisation(offset=(0.0,), factor=(1.0,)).apply(np.zeros((2, 3, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_json_round_trip_is_exact(kind):
    array = np.random.default_rng(0).normal(0, 1e-7, (3, 9, 9))
    norm = measure_normalisation(image_of(array, "cyx"), kind)
    assert Normalisation.model_validate_json(norm.model_dump_json()) == norm


def test_coarsest_large_level_is_measured():
    def never(block):
        raise AssertionError("the full image was read")

    full = da.zeros((4096, 4096), chunks=512, dtype=np.uint8).map_blocks(never, dtype=np.uint8)
    coarse = np.tile(np.arange(101, dtype=np.uint8), (1024, 10))[:, :1000]
    tiny = np.zeros((4, 4), np.uint8)  # too few pixels to stand for the image
    norm = measure_normalisation(image_of(full, levels=[coarse, tiny]), "minmax")
    assert norm.factor == (0.01,)


def test_memory_stays_bounded_and_no_chunk_is_read_more_than_twice(monkeypatch):
    loaded, sizes = [], []
    plain = Image.load

    def load(block_info=None):
        loaded.append(block_info[None]["chunk-location"])
        place = block_info[None]["array-location"][0][0]
        return np.full(block_info[None]["chunk-shape"], place, np.float32)

    def counted(image, box, level=None):
        block = plain(image, box, level)
        sizes.append(block.size)
        return block

    monkeypatch.setattr(Image, "load", counted)
    meta = np.empty((0, 0), np.float32)
    lazy = da.map_blocks(load, chunks=((512,) * 24, (2048,)), dtype=np.float32, meta=meta)
    norm = measure_normalisation(image_of(lazy))
    assert max(sizes) <= 2**22
    assert lazy.size == sum(sizes) / 2
    assert len(loaded) == 2 * 24
    assert norm.offset == (0,)
    assert norm.factor == (1 / (23 * 512),)


def test_integers_take_one_pass():
    loaded = []
    lazy = da.zeros((64, 64), chunks=16, dtype=np.uint16).map_blocks(
        lambda block: loaded.append(1) or block + np.uint16(3),
        dtype=np.uint16,
        meta=np.empty((0, 0), np.uint16),
    )
    measure_normalisation(image_of(lazy))
    assert len(loaded) == 16


def test_float_keys_sort_as_the_numbers():
    values = np.array([-np.finfo("f4").max, -3.5, -1e-40, 0.0, 1e-45, 2.0, 3e38], np.float32)
    keys = float_key(values)
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    assert [from_key(int(key)) for key in keys] == values.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_quantiles_equal_numpy(dtype):
    array = (np.random.default_rng(0).normal(500, 90, (2, 31, 41))).astype(dtype)
    image = image_of(da.from_array(array, chunks=(1, 10, 41)), "cyx")
    quantiles = np.array([0, 0.01, 0.3333, 0.5, 0.998, 1])
    found = order_statistics(Source.best(image), quantiles)
    expected = [np.quantile(channel.astype(np.float64), quantiles) for channel in array]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_moments_do_not_lose_digits():
    array = 1e6 + np.random.default_rng(0).random((64, 64)).astype(np.float32)
    mean, std = moments(Source.best(image_of(da.from_array(array, chunks=8))))
    exact = array.astype(np.float32).astype(np.float64)
    assert mean[0] == pytest.approx(exact.mean(), rel=1e-12)
    assert std[0] == pytest.approx(exact.std(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_measured_together_are_as_one(dtype):
    levels = np.array([90, 130, 189])[:, None, None]
    pixels = np.random.default_rng(0).normal(levels, 9, (3, 20, 30))
    channels = image_of(pixels.astype(dtype), "cyx").select("all")
    one = image_of(pixels.astype(dtype).reshape(60, 30))
    quantiles = np.array([0, 0.02, 0.5, 1])
    together = Source.best(channels, pooled=True)
    expected = order_statistics(Source.best(one), quantiles)
    np.testing.assert_array_equal(order_statistics(together, quantiles), expected)
    np.testing.assert_allclose(moments(together), moments(Source.best(one)), rtol=1e-9)


def test_channels_measured_together_may_hold_one_without_a_number():
    pixels = np.stack([np.full((4, 4), np.nan), np.arange(16).reshape(4, 4)]).astype(np.float32)
    together = Source.best(image_of(pixels, "cyx").select("all"), pooled=True)
    np.testing.assert_array_equal(order_statistics(together, np.array([0, 1])), [[0, 15]])
