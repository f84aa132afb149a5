import threading

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.lazy import blocks, compute
from napari_cellda.core.tiles import Region, grid, whole


class Colossus:
    """An array far larger than memory that refuses to give a large block."""

    dtype = np.dtype(np.uint16)

    def __init__(self, shape, largest=2**20):
        self.shape = shape
        self.ndim = len(shape)
        self.largest = largest
        self.values_read = 0
        self.lock = threading.Lock()

    def __getitem__(self, key):
        starts = np.array([part.start or 0 for part in key])
        shape = [part.stop - (part.start or 0) for part in key]
        assert np.prod(shape, dtype=np.int64) <= self.largest, f"a block of {shape} was asked for"
        with self.lock:
            self.values_read += int(np.prod(shape))
        return ((np.indices(shape).T + starts).sum(-1).T % 1000).astype(self.dtype)


@pytest.mark.parametrize(
    ("axes", "shape", "label_axes", "label_shape", "limits"),
    [
        ("yx", (5, 7), "yx", (5, 7), (1, 5, 7)),
        ("zyx", (3, 5, 7), "zyx", (3, 5, 7), (3, 5, 7)),
        ("yxc", (5, 7, 3), "yx", (5, 7), (1, 5, 7)),
        ("cyx", (4, 5, 7), "yx", (5, 7), (1, 5, 7)),
        ("tczyx", (2, 4, 3, 5, 7), "tzyx", (2, 3, 5, 7), (3, 5, 7)),
        ("ztyx", (3, 2, 5, 7), "tzyx", (2, 3, 5, 7), (3, 5, 7)),
        ("xy", (7, 5), "yx", (5, 7), (1, 5, 7)),
        ("yx", (1, 1), "yx", (1, 1), (1, 1, 1)),
        ("yx", (3, 100_000), "yx", (3, 100_000), (1, 3, 100_000)),
    ],
)
def test_axes(axes, shape, label_axes, label_shape, limits):
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    image = image_from_array(array, axes, name="a")
    assert (image.label_axes, image.label_shape, image.limits) == (label_axes, label_shape, limits)
    assert image.axes == axes
    for kind in (da.from_array(array, chunks=2**14), zarr.array(array)):
        other = image_from_array(kind, axes, name="a")
        region = whole(limits, image.n_times - 1)
        np.testing.assert_array_equal(other.read(region), image.read(region))


def test_read_gives_float32_c_z_y_x():
    array = np.random.default_rng(0).integers(0, 2**16, (2, 3, 4, 5, 6)).astype(np.uint16)  # tzcyx
    image = image_from_array(array, "tzcyx", name="a")
    block = image.read(Region(1, slice(1, 3), slice(2, 5), slice(0, 4)))
    assert block.dtype == np.float32
    assert block.shape == (4, 2, 3, 4)
    np.testing.assert_array_equal(block, array[1].transpose(1, 0, 2, 3)[:, 1:3, 2:5, 0:4])


def test_read_gives_a_copy():
    array = np.zeros((4, 4), np.float32)
    image_from_array(array, "yx", name="a").read(whole((1, 4, 4)))[:] = 9
    assert not array.any()


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", ">u2", "int32", ">i4", "float16", "float64", ">f8"]
)
def test_every_type_of_number(dtype):
    array = (np.arange(35).reshape(5, 7) % 2).astype(dtype)
    block = image_from_array(array, "yx", name="a").read(whole((1, 5, 7)))
    np.testing.assert_array_equal(block[0, 0], array.astype(np.float32))
    assert block.dtype.isnative


def test_nan_and_infinity_are_kept():
    array = np.array([[1, np.nan, np.inf], [-np.inf, 0, 1e300]])
    block = image_from_array(array, "yx", name="a").read(whole((1, 2, 3)))[0, 0]
    np.testing.assert_array_equal(block, [[1, np.nan, np.inf], [-np.inf, 0, np.inf]])


def test_an_image_is_itself_only():
    array = np.zeros((4, 5))
    one, other = image_from_array(array, "yx", name="a"), image_from_array(array, "yx", name="a")
    assert one != other
    assert len({one, other, one}) == 2


def test_label_index_gives_a_plane():
    image = image_from_array(np.zeros((2, 3, 4, 5)), "tzyx", name="a")
    labels = np.arange(2 * 3 * 4 * 5).reshape(image.label_shape)
    np.testing.assert_array_equal(labels[image.label_index(1, 2)], labels[1, 2])
    flat = image_from_array(np.zeros((4, 5)), "yx", name="a")
    assert flat.label_index(0, 0) == ()


def test_pixel_sizes_of_flipped_and_broken_layers_are_sizes():
    image = image_from_array(np.zeros((2, 2)), "yx", name="a", pixel_size=(-0.5, 0, float("nan")))
    assert image.pixel_size == (0.5, 1, 1)


def test_pixel_size_is_filled_from_the_front():
    image = image_from_array(
        np.zeros((4, 5)), "yx", name="a", pixel_size=(0.5, 0.25), unit="micrometer"
    )
    assert image.pixel_size == (1.0, 0.5, 0.25)
    assert image.unit == "micrometer"
    assert image_from_array(np.zeros((4, 5)), "yx", name="a").pixel_size == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=3), zarr.array])
def test_grey_of_rgb_is_the_luminance(wrap):
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    grey = image_from_array(wrap(array), "yxc", name="a", rgb=True).select("grey")
    expected = array @ np.array([0.2125, 0.7154, 0.0721])
    assert grey.n_channels == 1
    assert grey.axes == "yx"
    assert not grey.rgb
    np.testing.assert_allclose(grey.read(whole((1, 5, 7)))[0, 0], expected, rtol=1e-5)


def test_alpha_is_dropped():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    image = image_from_array(array, "yxc", name="a", rgb=True)
    assert image.n_channels == 3
    np.testing.assert_array_equal(
        image.read(whole((1, 5, 7)))[:, 0], array[..., :3].transpose(2, 0, 1)
    )


def test_grey_of_large_rgb_stays_lazy():
    source = Colossus((60_000, 50_000, 3), largest=2**22)
    grey = image_from_array(source, "yxc", name="huge", rgb=True).select("grey")
    region = Region(0, slice(0, 1), slice(50_000, 50_100), slice(100, 220))
    expected = source[50_000:50_100, 100:220, 0:3] @ np.array([0.2125, 0.7154, 0.0721])
    np.testing.assert_allclose(grey.read(region)[0, 0], expected, rtol=1e-5)
    assert source.values_read < 2**23


@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=2), zarr.array])
@pytest.mark.parametrize("chosen", [(0,), (1, 2), (3, 0), (2, 1, 0)])
def test_select_channels(wrap, chosen):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    image = image_from_array(wrap(array), "cyx", name="a").select(chosen)
    np.testing.assert_array_equal(image.read(whole((1, 5, 6)))[:, 0], array[list(chosen)])


def test_select_all_and_the_levels_too():
    array = np.arange(3 * 8 * 8).reshape(3, 8, 8)
    image = image_from_array(array, "cyx", name="a", levels=[array[:, ::2, ::2]])
    assert image.select("all") is image
    assert image.select((1,)).levels[0].shape == (1, 1, 1, 4, 4)


@pytest.mark.parametrize("channels", ["grey", (4,), (-1,), (), "purple"])
def test_channels_that_are_not_there(channels):
    image = image_from_array(np.zeros((4, 5, 6)), "cyx", name="stack7")
    with pytest.raises(UserError, match="'stack7' has 4 channel"):
        image.select(channels)


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "message"),
    [
        ((0, 5), "yx", "u1", "'a' is empty"),
        ((5, 5), "yx", "c8", "complex64"),
        ((5, 5), "yx", "S3", "real numbers"),
        ((5, 5), "zyx", "u1", "axes 'zyx'"),
        ((5, 5), "zx", "u1", "axes 'zx'"),
        ((5, 5, 5), "yyx", "u1", "axes 'yyx'"),
    ],
)
def test_refused_arrays(shape, axes, dtype, message):
    with pytest.raises(UserError, match=message):
        image_from_array(np.zeros(shape, dtype), axes, name="a")


def test_only_the_region_of_a_lazy_image_is_read():
    source = Colossus((100_000, 100_000), largest=2**18)
    image = image_from_array(source, "yx", name="huge")
    assert image.limits == (1, 100_000, 100_000)
    region = Region(0, slice(0, 1), slice(70_000, 70_300), slice(99_700, 100_000))
    block = image.read(region)
    np.testing.assert_array_equal(block[0, 0], source[70_000:70_300, 99_700:100_000])
    assert source.values_read == 2 * 300 * 300  # ours and the comparison's


def test_only_the_chunks_of_a_region_are_computed():
    computed = []

    def load(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"], np.float32)

    lazy = da.map_blocks(
        load,
        chunks=((512,) * 200, (512,) * 200),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )
    image = image_from_array(lazy, "yx", name="huge")
    image.read(Region(0, slice(0, 1), slice(600, 700), slice(1000, 1100)))
    assert set(computed) == {(1, 1), (1, 2)}


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((100, 130), (10, 50)),
        ((3, 100_000), (3, 512)),
        ((2, 3, 4, 50, 60), (1, 3, 2, 50, 20)),
        ((1, 1), (1, 1)),
    ],
)
def test_blocks_cover_everything_once(shape, chunks):
    lazy = da.zeros(shape, chunks=chunks, dtype=np.uint8)
    hits = np.zeros(shape, int)
    found = list(blocks(lazy, max_values=2000))
    for box in found:
        hits[box] += 1
        size = np.prod([part.stop - part.start for part in box])
        assert size <= max(2000, np.prod(chunks))
    assert (hits == 1).all()


def test_blocks_join_small_chunks_and_cut_large_arrays():
    small = da.zeros((1000, 1000), chunks=10)
    assert len(list(blocks(small, max_values=10**6))) == 1


@pytest.mark.parametrize(
    "shape", [(1, 9000, 5000), (96, 512, 512), (2, 3, 500, 300, 200), (10**7,), (5, 10**6, 3)]
)
def test_arrays_without_chunks_are_cut_into_boxes_of_bounded_size(shape):
    sizes = [
        np.prod([part.stop - part.start for part in box])
        for box in blocks(np.broadcast_to(np.uint8(0), shape))
    ]
    assert sum(sizes) == np.prod(shape)
    assert max(sizes) <= 2**22
    assert len(sizes) <= max(5 * np.prod(shape) / 2**22, 20)


def test_a_damaged_part_is_told_with_its_file(tmp_path):
    def broken(block):
        raise OSError("disk error")

    lazy = da.zeros((8, 8), chunks=4).map_blocks(broken, dtype=float)
    image = image_from_array(lazy, "yx", name="a", path=tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif.*disk error"):
        image.read(whole((1, 8, 8)))


def test_compute_stays_in_this_process():
    """A `distributed` client must not get the reads of single tiles."""
    import dask

    def refuse(*args, **kwargs):
        raise AssertionError("another scheduler was asked")

    with dask.config.set(scheduler=refuse):
        assert compute(da.ones((3, 3), chunks=2)).sum() == 9


def test_tiles_of_a_thin_image_are_the_image():
    array = np.random.default_rng(0).random((3, 10_000)).astype(np.float32)
    image = image_from_array(da.from_array(array, chunks=(3, 700)), "yx", name="thin")
    together = np.zeros((3, 10_000), np.float32)
    for tile in grid(image.limits, (1, 512, 512)):
        together[tile.y, tile.x] = image.read(tile)[0, 0]
    np.testing.assert_array_equal(together, array)
