import errno
import gc
import warnings
from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

from napari_cellda.core.adaptation.annotations import read_mask
from napari_cellda.core.errors import UserError
from napari_cellda.core.export import write_ome_zarr
from napari_cellda.core.images import image_from_array, open_image
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.images.units import standard_unit
from napari_cellda.core.paths import (
    find_images,
    package_id,
    pair_by_stem,
    pairing_stem,
    safe_stem,
    same_stem,
    stem,
    tell_left_out,
)
from napari_cellda.core.tiles import Region, whole


def content(image, t=0):
    return image.read(whole(image.limits, t))


def ramp(shape, dtype=np.uint8):
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "float64"],
)
@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}]
)
def test_tiff_of_every_type(tmp_path, dtype, options):
    array = (ramp((37, 21)) % 2 if dtype == "bool" else ramp((37, 21))).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    image = open_image(tmp_path / "a.tif")
    assert image.name == "a"
    assert image.axes == "yx"
    assert image.path == tmp_path / "a.tif"
    np.testing.assert_array_equal(content(image)[0, 0], array.astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 100_000), (100_000, 3), (1, 9)])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_thin_and_tiny_tiff(tmp_path, shape, options):
    array = ramp(shape, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    image = open_image(tmp_path / "a.tif")
    assert image.limits == (1, *shape)
    np.testing.assert_array_equal(content(image)[0, 0], array)


def test_plain_tiff_is_memory_mapped(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp((3, 40, 50), np.float32))
    assert isinstance(open_image(tmp_path / "a.tif").data, np.memmap)


def test_grey_of_a_mapped_colour_tiff_is_not_loaded(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp((40, 50, 3)), photometric="rgb")
    assert isinstance(open_image(tmp_path / "a.tif", channels="all").data, np.memmap)
    assert not isinstance(open_image(tmp_path / "a.tif").data, np.ndarray)


def test_tiled_tiff_is_read_tile_by_tile(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", ramp((2048, 2048)), tile=(128, 128), compression="zlib")
    decoded = []
    plain = imagecodecs.zlib_decode
    monkeypatch.setattr(
        imagecodecs, "zlib_decode", lambda *a, **k: decoded.append(1) or plain(*a, **k)
    )
    counted = tifffile.TIFF.DECOMPRESSORS[8]
    monkeypatch.setattr(
        tifffile.TIFF.DECOMPRESSORS,
        "_codecs",
        tifffile.TIFF.DECOMPRESSORS._codecs
        | {8: lambda *a, **k: decoded.append(1) or counted(*a, **k)},
    )
    image = open_image(tmp_path / "a.tif")
    image.read(Region(0, slice(0, 1), slice(100, 200), slice(300, 310)))
    assert 0 < len(decoded) <= 4


def test_stack_without_metadata_is_z(tmp_path):
    array = ramp((4, 5, 7))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata=None)
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(content(image)[0], array)


def test_three_float_planes_are_a_stack(tmp_path):
    """tifffile guesses RGB for (3, Y, X), but colours are no 32 bit floats."""
    array = ramp((3, 5, 7), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate")
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(content(image)[0], array)


def test_planes_written_one_by_one_are_z(tmp_path):
    array = ramp((4, 5, 7))
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in array:
            file.write(plane)
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(content(image)[0], array)


@pytest.mark.parametrize(("n_colours", "planar"), [(3, False), (4, False), (3, True), (4, True)])
def test_colour_tiff(tmp_path, n_colours, planar):
    array = ramp((5, 7, n_colours))
    stored = array.transpose(2, 0, 1) if planar else array
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=config)
    image = open_image(tmp_path / "a.tif", channels="all")
    assert image.n_channels == 3
    assert image.rgb
    np.testing.assert_array_equal(content(image)[:, 0], array[..., :3].transpose(2, 0, 1))
    assert open_image(tmp_path / "a.tif").n_channels == 1


def test_grey_with_alpha_tiff(tmp_path):
    array = ramp((5, 7, 2))
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        photometric="minisblack",
        extrasamples=["unassalpha"],
        planarconfig="contig",
    )
    np.testing.assert_array_equal(content(open_image(tmp_path / "a.tif"))[0, 0], array[..., 0])


def test_imagej_hyperstack(tmp_path):
    array = ramp((2, 3, 4, 5, 7), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        resolution=(2, 4),
        metadata={"axes": "TZCYX", "unit": "um", "spacing": 3.0},
    )
    image = open_image(tmp_path / "a.tif", channels="all")
    assert image.axes == "tzcyx"
    assert image.label_shape == (2, 3, 5, 7)
    assert image.pixel_size == (3.0, 0.25, 0.5)
    assert image.unit == "micrometer"
    np.testing.assert_array_equal(content(image, 1), array[1].transpose(1, 0, 2, 3))


def test_ome_tiff(tmp_path):
    array = ramp((2, 3, 5, 7), np.uint16)
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 500.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=metadata)
    image = open_image(tmp_path / "a.ome.tif", channels=(1,))
    assert image.name == "a"
    assert image.unit == "nanometer"
    np.testing.assert_allclose(image.pixel_size, (2000, 250, 500))
    np.testing.assert_array_equal(content(image)[0], array[1])


def test_pyramid_of_ome_tiff(tmp_path):
    array = ramp((128, 96), np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(array, subifds=2, tile=(32, 32))
        file.write(array[::2, ::2], subfiletype=1, tile=(32, 32))
        file.write(array[::4, ::4], subfiletype=1, tile=(32, 32))
    image = open_image(tmp_path / "a.ome.tif")
    assert [level.shape for level in image.levels] == [(1, 1, 1, 64, 48), (1, 1, 1, 32, 24)]
    assert not image.others
    np.testing.assert_array_equal(np.asarray(image.levels[1])[0, 0, 0], array[::4, ::4])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_each_file_of_an_ome_set_holds_its_own_image(tmp_path, compression):
    names = ("a.ome.tif", "b.ome.tif")
    described = "".join(
        f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="9" SizeY="8" SizeC="1" SizeZ="1" SizeT="1"><TiffData><UUID FileName="{name}">'
        f"urn:uuid:{i}</UUID></TiffData></Pixels></Image>"
        for i, name in enumerate(names)
    )
    for i, name in enumerate(names):
        tifffile.imwrite(
            tmp_path / name,
            ramp((8, 9)) + np.uint8(100 * i),
            description=f'<OME UUID="urn:uuid:{i}">{described}</OME>',
            metadata=None,
            compression=compression,
        )
    for i, name in enumerate(names):
        image = open_image(tmp_path / name)
        np.testing.assert_array_equal(content(image)[0, 0], ramp((8, 9)) + 100 * i)
        assert not image.others


def test_files_are_closed_with_their_last_array(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp((64, 64)), tile=(16, 16), compression="zlib")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        image = open_image(tmp_path / "a.tif")
        gc.collect()
        assert content(image).any()  # still open
        del image
        gc.collect()
    assert not [w for w in seen if issubclass(w.category, ResourceWarning)]


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".PNG"])
def test_bitmaps(tmp_path, ending):
    grey = np.full((16, 24), 77, np.uint8)
    colour = np.stack([grey, grey // 2, grey // 3], -1)
    imageio.imwrite(tmp_path / f"grey{ending}", grey)
    imageio.imwrite(tmp_path / f"colour{ending}", colour)
    assert content(open_image(tmp_path / f"grey{ending}")).mean() == 77
    image = open_image(tmp_path / f"colour{ending}", channels="all")
    assert image.rgb
    np.testing.assert_allclose(content(image)[:, 0, 3, 3], (77, 38, 25), atol=2)


@pytest.mark.parametrize("n_colours", [3, 4])
def test_16_bit_colour_png_keeps_its_bits(tmp_path, n_colours):
    array = (ramp((5, 7, n_colours), np.uint16) + 40_000).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array))
    image = open_image(tmp_path / "a.png", channels="all")
    np.testing.assert_array_equal(content(image)[:, 0], array[..., :3].transpose(2, 0, 1))


def png_mode(path):
    with Pillow.open(path) as picture:
        return picture.mode


@pytest.mark.parametrize(
    ("array", "mode", "expected"),
    [
        (ramp((5, 7, 4)), "RGBA", ramp((5, 7, 4))[..., :3].transpose(2, 0, 1)),
        (ramp((5, 7, 2)), "LA", ramp((5, 7, 2))[None, ..., 0]),
        (ramp((5, 7), np.uint16) + np.uint16(9000), "I;16", ramp((1, 5, 7)).astype(int) + 9000),
        (np.eye(6, dtype=bool), "1", np.eye(6)[None]),
    ],
)
def test_png_modes(tmp_path, array, mode, expected):
    Pillow.fromarray(array).save(tmp_path / "a.png")
    assert png_mode(tmp_path / "a.png") == mode
    np.testing.assert_array_equal(
        content(open_image(tmp_path / "a.png", channels="all"))[:, 0], expected
    )


def zarr_image(path, array, axes, version, scale=(1.0, 0.5, 0.5), unit="micrometer", levels=2):
    described = [
        {"name": a, "type": {"c": "channel", "t": "time"}.get(a, "space")}
        | ({"unit": unit} if a in "zyx" else {})
        for a in axes
    ]
    sizes = dict(zip("zyx", scale, strict=True))
    datasets = []
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    for level in range(levels):
        step = 2**level
        thin = array[..., ::step, ::step]
        group.create_array(
            str(level), shape=thin.shape, chunks=(1,) * (thin.ndim - 2) + (16, 16), dtype=thin.dtype
        )[...] = thin
        steps = [sizes.get(a, 1.0) * (step if a in "yx" else 1) for a in axes]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": steps}]}
        )
    image = {"version": version, "axes": described, "datasets": datasets}
    group.attrs.update(
        {"multiscales": [image]}
        if version == "0.4"
        else {"ome": {"version": "0.5", "multiscales": [image]}}
    )
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    array = ramp((2, 3, 4, 40, 30), np.uint16)
    zarr_image(tmp_path / "a.ome.zarr", array, "tczyx", version, (2.0, 0.5, 0.25))
    image = open_image(tmp_path / "a.ome.zarr", channels="all")
    assert (image.name, image.axes, image.unit) == ("a", "tczyx", "micrometer")
    assert image.pixel_size == (2.0, 0.5, 0.25)
    assert [level.shape for level in image.levels] == [(2, 3, 4, 20, 15)]
    np.testing.assert_array_equal(content(image, 1), array[1])
    np.testing.assert_array_equal(np.asarray(image.levels[0]), array[..., ::2, ::2])


def test_ome_zarr_units_are_brought_to_that_of_x(tmp_path):
    group = zarr_image(tmp_path / "a.zarr", ramp((3, 8, 8)), "zyx", "0.4", (300.0, 0.5, 0.5))
    image = dict(group.attrs["multiscales"][0])
    image["axes"][0]["unit"] = "nanometer"
    image["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    group.attrs.update({"multiscales": [image]})
    np.testing.assert_allclose(open_image(tmp_path / "a.zarr").pixel_size, (0.3, 1.0, 1.0))


def test_bioformats_series(tmp_path):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs.update({"bioformats2raw.layout": 3})
    zarr_image(tmp_path / "a.zarr" / "0", ramp((8, 9)), "yx", "0.4")
    assert open_image(tmp_path / "a.zarr").limits == (1, 8, 9)
    zarr_image(tmp_path / "a.zarr" / "1", ramp((5, 5)), "yx", "0.4")
    zarr.create_group(tmp_path / "a.zarr" / "OME", zarr_format=2)
    assert open_image(tmp_path / "a.zarr").others == 1


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"plate": {}}, "is a plate"),
        ({"ome": {"version": "0.5", "plate": {}}}, "is a plate"),
        ({"well": {}}, "is a well"),
        ({"labels": ["cells"]}, "is a group of labels"),
        ({}, "without an OME-Zarr image"),
        ({"multiscales": [{"datasets": [{"path": "gone"}]}]}, "damaged"),
    ],
)
def test_zarr_groups_that_are_no_image(tmp_path, attributes, message):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=3).attrs.update(attributes)
    with pytest.raises(UserError, match=message):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("shape", "axes"), [((8, 9), "yx"), ((3, 8, 9), "zyx"), ((2, 3, 8, 9), "tzyx")]
)
def test_plain_zarr_array(tmp_path, shape, axes):
    zarr.create_array(tmp_path / "a.zarr", data=ramp(shape))
    image = open_image(tmp_path / "a.zarr")
    assert image.axes == axes
    np.testing.assert_array_equal(
        content(image, image.n_times - 1)[0].ravel()[:9],
        ramp(shape).reshape(-1, *shape[-3:] if len(shape) > 3 else shape)[-1].ravel()[:9]
        if len(shape) > 3
        else ramp(shape).ravel()[:9],
    )


def test_zarr_array_with_named_dimensions(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ramp((2, 8, 9)), dimension_names=["c", "y", "x"])
    assert open_image(tmp_path / "a.zarr", channels=(1,)).axes == "cyx"


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.tif", b"", "is empty"),
        ("a.tif", b"not a tiff at all", "not a TIFF"),
        ("a.tif", b"II*\0", "damaged or not a TIFF"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "damaged or not a PNG"),
        ("a.jpg", b"GIF89a", "damaged or not a PNG or JPEG"),
        ("a.docx", b"PK", "'.docx'"),
    ],
)
def test_foreign_files(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=message) as error:
        open_image(tmp_path / name)
    assert name in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tif' does not exist"):
        open_image(tmp_path / "nowhere.tif")
    with pytest.raises(UserError, match="folder without an image"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"tile": (32, 32)}, {"compression": "zlib"}, {"imagej": True}]
)
def test_truncated_tiff(tmp_path, options):
    array = np.random.default_rng(0).integers(0, 255, (4, 200, 200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **options)
    whole_file = (tmp_path / "a.tif").read_bytes()
    for share in (0.3, 0.7, 0.97):
        (tmp_path / "a.tif").write_bytes(whole_file[: int(len(whole_file) * share)])
        with pytest.raises(UserError, match=r"a\.tif"):
            content(open_image(tmp_path / "a.tif"))


def test_truncation_is_told_before_anything_is_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (400, 400)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(64, 64), compression="zlib")
    raw = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(raw[: len(raw) - 2000])
    with pytest.raises(UserError, match=r"a\.tif' is truncated: it has \d+ bytes, its pixels need"):
        open_image(tmp_path / "a.tif")


def test_truncated_bitmaps(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (100, 100)).astype(np.uint8)
    for name in ("a.png", "a.jpg"):
        imageio.imwrite(tmp_path / name, array)
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: len(raw) // 2])
        with pytest.raises(UserError, match=name):
            open_image(tmp_path / name)


def test_damaged_tile_is_told_when_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (200, 200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[0].dataoffsets[5]
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    raw[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.tif' has a part"):
        content(open_image(tmp_path / "a.tif"))


def test_axes_beyond_five_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp((2, 2, 2, 2, 4, 4)), photometric="minisblack")
    with pytest.raises(UserError, match="axes 'qqqqyx'"):
        open_image(tmp_path / "a.tif")


def test_several_channels_need_a_choice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp((2, 5, 7)), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(UserError, match=r"a\.tif' has 2 channels"):
        open_image(tmp_path / "a.tif")
    assert open_image(tmp_path / "a.tif", channels=(1,)).n_channels == 1


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_labels(tmp_path, name, dtype):
    labels = ramp((5, 7), dtype) * dtype(1 if dtype == np.uint8 else 250)
    (tifffile.imwrite if name == "a.tif" else imageio.imwrite)(tmp_path / name, labels)
    found = read_labels(tmp_path / name)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


def test_labels_of_three_planes_are_a_stack(tmp_path):
    """tifffile guesses RGB for uint8 of shape (3, Y, X), but labels have no colours."""
    labels = ramp((3, 5, 7))
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)


def test_palette_png_gives_indices(tmp_path):
    picture = Pillow.fromarray(ramp((8, 9)) % 5)
    picture.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    picture.save(tmp_path / "a.png")
    assert png_mode(tmp_path / "a.png") == "P"
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), ramp((8, 9)) % 5)
    assert open_image(tmp_path / "a.png", channels="all").n_channels == 3


def test_labels_saved_as_grey_colours(tmp_path):
    labels = ramp((5, 7))
    imageio.imwrite(tmp_path / "a.png", np.stack([labels] * 3, -1))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    imageio.imwrite(tmp_path / "b.png", np.stack([labels, labels, labels // 2], -1))
    with pytest.raises(UserError, match=r"b\.png' has 3 different channels"):
        read_labels(tmp_path / "b.png")


def test_labels_that_claim_more_than_there_is_memory(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint8), tile=(16, 16), compression=8)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[tag].overwrite(16 * 10**6)
    with pytest.raises(UserError, match=r"a\.tif' has 16000000 x 16000000 pixels, .* GB are free"):
        read_labels(tmp_path / "a.tif")


def test_labels_as_booleans_and_whole_floats(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.eye(5, dtype=bool))
    assert read_labels(tmp_path / "a.tif").dtype == np.uint8
    tifffile.imwrite(tmp_path / "b.tif", np.eye(5) * 3)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif"), np.eye(5) * 3)
    for bad in (0.5, np.nan, np.inf):
        tifffile.imwrite(
            tmp_path / "c.tif", np.eye(5) * bad + 1.0 if bad == 0.5 else np.full((5, 5), bad)
        )
        with pytest.raises(UserError, match=r"c\.tif' holds fractions or NaN"):
            read_labels(tmp_path / "c.tif")


def test_labels_have_the_order_t_z_y_x(tmp_path):
    labels = ramp((3, 2, 5, 7), np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", labels, metadata={"axes": "ZTYX"})
    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.tif"), labels.transpose(1, 0, 2, 3))


def test_a_mask_to_train_on_keeps_objects_with_very_large_ids(tmp_path):
    labels = np.repeat(np.array([-3, 0, 5, 2**31 + 5, 2**32 + 5]), 4).reshape(4, 5)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    image = image_from_array(np.zeros((4, 5)), "yx", name="a")
    found = read_mask(tmp_path / "a.tif", image)
    largest = 2**31 - 1
    np.testing.assert_array_equal(np.unique(found), [-1, 0, 5, largest - 1, largest])
    np.testing.assert_array_equal(found > 0, labels > 0)


def test_label_image_inside_an_image(tmp_path):
    labels = ramp((8, 9), np.uint32)
    write_ome_zarr(tmp_path / "a.zarr", ramp((8, 9)) / 9, "yx", labels={"cells": labels})
    np.testing.assert_array_equal(read_labels(tmp_path / "a.zarr"), labels)
    both = {"cells": labels, "nuclei": labels}
    write_ome_zarr(tmp_path / "b.zarr", ramp((8, 9)) / 9, "yx", labels=both)
    with pytest.raises(UserError, match="holds the label images cells, nuclei"):
        read_labels(tmp_path / "b.zarr")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.zarr" / "labels" / "nuclei"), labels)


@pytest.mark.parametrize("compression", ["zstd", "blosc"])
def test_damaged_zarr(tmp_path, compression):
    codec = zarr.codecs.ZstdCodec() if compression == "zstd" else zarr.codecs.BloscCodec()
    noise = np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=noise, chunks=(32, 32), compressors=[codec])
    chunk = tmp_path / "a.zarr" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    image = open_image(tmp_path / "a.zarr")
    with pytest.raises(UserError, match=r"a\.zarr' has a part"):
        content(image)
    (tmp_path / "a.zarr" / "zarr.json").write_text("{half")
    for read in (open_image, read_labels):
        with pytest.raises(UserError, match=r"a\.zarr' is not a readable zarr"):
            read(tmp_path / "a.zarr")


def test_too_large_bitmaps(tmp_path, monkeypatch):
    imageio.imwrite(tmp_path / "a.png", ramp((10, 30)))
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 200)  # more: a warning, twice as many: refused
    assert open_image(tmp_path / "a.png").limits == (1, 10, 30)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.png' is too large to be read whole; save it as TIFF"):
        open_image(tmp_path / "a.png")


def test_names_that_differ_in_endings_and_capitals_alone_are_alike():
    """As on the disks of Windows and macOS."""
    paths = [Path("a/IMG_1.tif"), Path("a/img_2.tif"), Path("b/img_1.png")]
    assert same_stem(paths) == (paths[0], paths[2])
    assert same_stem(paths[:2]) is None


def test_stem():
    assert stem("x/cell.7.ome.tif") == "cell.7"
    assert stem("cell.OME.TIFF") == "cell"
    assert stem("cell.ome.zarr") == "cell"
    assert stem("cell.zarr") == "cell"
    assert stem("cell.v2.png") == "cell.v2"
    assert pairing_stem("cell_mask.tif") == "cell"
    assert pairing_stem("cell_probability.ome.zarr") == "cell"
    assert pairing_stem("_mask.tif") == "_mask"


def test_what_must_not_be_seen_is_passed_over_or_named(tmp_path, monkeypatch):
    closed = tmp_path / "lost+found"
    closed.mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    real = {name: getattr(Path, name) for name in ("stat", "iterdir")}

    def refuse(name):
        def call(path, *args, **kwargs):
            if closed in path.parents or (name == "iterdir" and path == closed):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real[name](path, *args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(Path, name, refuse(name))
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    with pytest.raises(UserError, match=r"lost\+found' cannot be read: Permission denied"):
        find_images(closed)
    with pytest.raises(UserError, match=r"b\.tif' does not exist"):
        open_image(closed / "b.tif")


def test_stems_that_any_disk_takes():
    assert safe_stem("nuclei (2), raw") == "nuclei (2), raw"
    assert safe_stem('a<b>"c"|d?*\\e') == "a_b__c__d___e"
    assert safe_stem("Con.1") == "Con.1_"
    assert safe_stem("contrast") == "contrast"
    assert safe_stem("核" * 80) == "核" * 50
    assert safe_stem("a\ud800 . ") == "a_"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("run (2)", "run-2"), ("Lauf_ä", "lauf"), ("run+1", "run-1"), ("v0.1", "v0.1"), ("細胞", "x")],
)
def test_ids_of_packages_are_those_that_bioimageio_allows(name, expected):
    assert package_id(name, "x") == expected


def test_find_images(tmp_path):
    for name in ("b.tif", "a.png", ".hidden.tif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    zarr.create_group(tmp_path / "c.zarr", zarr_format=3)
    (tmp_path / "sub").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.tif", "c.zarr"]
    assert find_images([tmp_path / "b.tif", str(tmp_path / "c.zarr")]) == [
        tmp_path / "b.tif",
        tmp_path / "c.zarr",
    ]
    with pytest.raises(UserError, match="holds no image"):
        find_images([tmp_path / "sub"])
    (tmp_path / "sub" / "well").mkdir()
    (tmp_path / "sub" / "well" / "d.tif").write_bytes(b"x")
    with pytest.raises(UserError, match="holds no image, but folders inside do: name those"):
        find_images([tmp_path / "sub"])
    with pytest.raises(UserError, match="does not exist"):
        find_images([tmp_path / "gone.tif"])
    with pytest.raises(UserError, match=r"'\.txt'"):
        find_images([tmp_path / "notes.txt"])


def test_a_link_to_nothing_is_an_image_that_is_missing(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"x")
    for name in ("gone.tif", "gone.txt", ".gone.tif"):
        (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    assert [path.name for path in find_images(tmp_path)] == ["a.tif", "gone.tif"]
    with pytest.raises(UserError, match=r"gone\.tif' does not exist"):
        open_image(tmp_path / "gone.tif")


def test_images_of_other_kinds_in_a_folder_are_told(tmp_path):
    for name in ("a.tif", ".b.bmp", "notes.txt", "table.csv", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    assert not tell_left_out([tmp_path, tmp_path / "a.tif"])
    (tmp_path / "c.BMP").write_bytes(b"x")
    assert tell_left_out([tmp_path]).startswith(f"'{tmp_path / 'c.BMP'}' is left out; expected")
    (tmp_path / "d.czi").write_bytes(b"x")
    assert f"2 files such as '{tmp_path / 'c.BMP'}' are left out" in tell_left_out([tmp_path])


@pytest.mark.parametrize(
    ("images", "others", "expected"),
    [
        ("a.tif b.tif", "b.png a.png", "a.tif-a.png b.tif-b.png"),
        ("a.tif b.tif", "b_mask.tif", "b.tif-b_mask.tif"),
        ("a.tif b.tif", "s1.tif s2.tif", "a.tif-s1.tif b.tif-s2.tif"),
        ("a_mask.png a.png", "a_mask.tif a.tif", "a_mask.png-a_mask.tif a.png-a.tif"),
        ("a.ome.zarr", "a_strokes.tif", "a.ome.zarr-a_strokes.tif"),
        ("a.tif", "", ""),
    ],
)
def test_pair_by_stem(images, others, expected):
    pairs = pair_by_stem(images.split(), others.split())
    assert " ".join(f"{a}-{b}" for a, b in pairs) == expected


@pytest.mark.parametrize(
    ("images", "others", "message"),
    [
        ("a.tif b.tif", "c.tif", "'c.tif' has no image .* among 2 .*; expected a name such as 'a'"),
        ("a.tif b.tif", "a.png c.png", "'c.png' has no image"),
        ("a.tif b.tif", "a.png a_mask.png", "both belong to 'a.tif'"),
    ],
)
def test_pairs_that_do_not_fit(images, others, message):
    with pytest.raises(UserError, match=message):
        pair_by_stem(images.split(), others.split())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("µm", "micrometer"), ("μm", "micrometer"), ("um", "micrometer"), ("micron", "micrometer"),
        ("\\u00B5m", "micrometer"), ("nm", "nanometer"), ("Millimetre", "millimeter"),
        ("pixel", "pixel"), ("", "pixel"), (None, "pixel"), ("parsec", "pixel"),
    ],
)  # fmt: skip
def test_units(given, expected):
    assert standard_unit(given) == expected
