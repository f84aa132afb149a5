import errno
import os
import shutil
import subprocess

import dask.array as da
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr

from napari_cellda.core import atomic
from napari_cellda.core.atomic import scratch_array, write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.export import (
    open_writer,
    write_objects,
    write_ome_zarr,
    write_png,
    write_tiff,
)
from napari_cellda.core.export.ome_zarr import halve_block
from napari_cellda.core.images import open_image
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.tiles import whole

MICRONS = {"pixel_size": (2.0, 0.5, 0.25), "unit": "micrometer"}


def numbers(shape, dtype=np.float32):
    return (np.arange(np.prod(shape)) % 250).reshape(shape).astype(dtype)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Atomic files


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with write_atomically(target) as aside:
        aside.write_text("new")
        assert aside.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "new"
    assert leftovers(target.parent) == []


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(target) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "a") as aside:
        aside.mkdir()
        (aside / "part").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_zarr_folder_is_replaced_only_after_success(tmp_path):
    target = tmp_path / "a.zarr"
    write_ome_zarr(target, numbers((8, 8)), "yx")
    with (
        pytest.raises(ZeroDivisionError),
        open_writer(target, (8, 8), "yx", "f4", file_format="ome-zarr"),
    ):
        raise ZeroDivisionError
    np.testing.assert_array_equal(zarr.open(target)["0"][:], numbers((8, 8)))
    write_ome_zarr(target, numbers((4, 4)), "yx")
    assert zarr.open(target)["0"].shape == (4, 4)
    assert leftovers(tmp_path) == []


def test_a_failed_exchange_brings_the_old_folder_back(tmp_path, monkeypatch):
    write_ome_zarr(tmp_path / "a.zarr", numbers((8, 8)), "yx")
    plain, moves = atomic.move, []

    def fail_once(source, target):
        moves.append(source)
        if len(moves) == 2:
            raise OSError(errno.ENOSPC, "")
        plain(source, target)

    monkeypatch.setattr(atomic, "move", fail_once)
    with pytest.raises(UserError, match="the disk is full"):
        write_ome_zarr(tmp_path / "a.zarr", numbers((4, 4)), "yx")
    assert zarr.open(tmp_path / "a.zarr")["0"].shape == (8, 8)
    assert leftovers(tmp_path) == []


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.txt").write_text("years of work")
    with pytest.raises(UserError, match="folder with other files"):
        write_ome_zarr(tmp_path / "thesis", numbers((4, 4)), "yx")
    with pytest.raises(UserError, match="folder with other files"):
        write_tiff(tmp_path / "thesis", numbers((4, 4)), "yx")
    assert (tmp_path / "thesis" / "final.txt").exists()


def test_a_file_is_replaced_by_a_zarr_folder_only_if_it_may(tmp_path):
    (tmp_path / "a.zarr").write_text("a file")
    with pytest.raises(UserError, match="a file is in the way"):
        write_ome_zarr(tmp_path / "a.zarr", numbers((4, 4)), "yx")
    assert (tmp_path / "a.zarr").read_text() == "a file"
    assert leftovers(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"out.*cannot be written: a file is in the way"):
        write_tiff(tmp_path / "out" / "a.tif", numbers((4, 4)), "yx")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_link_is_followed(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    write_objects(tmp_path / "link.csv", {"label": [1]})
    assert (tmp_path / "real.csv").read_text() == "label\n1\n"
    assert (tmp_path / "link.csv").is_symlink()


def write_all(folder):
    yield lambda: write_tiff(folder / "a.tif", numbers((64, 64)), "yx")
    yield lambda: write_png(folder / "a.png", numbers((64, 64), np.uint8))
    yield lambda: write_ome_zarr(folder / "a.zarr", numbers((64, 64)), "yx")
    yield lambda: write_objects(folder / "a.csv", {"label": range(9)})


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, number, code, message
):
    def refuse(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic, "flush", refuse)
    with pytest.raises(UserError, match=rf"a\.\w+' cannot be written: {message}"):
        list(write_all(tmp_path))[number]()
    assert list(tmp_path.iterdir()) == []


def test_space_is_reserved_before_a_map_is_written(tmp_path, monkeypatch):
    def full(handle, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match="the disk is full"):
        write_tiff(tmp_path / "a.tif", numbers((64, 64)), "yx")
    monkeypatch.setattr(atomic, "SCRATCH_IN_MEMORY", 0)
    with pytest.raises(UserError, match="the disk is full"), scratch_array((9,), "f4", tmp_path):
        pytest.fail("an array was lent")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """Give a real disk of 1 MB."""
    if os.name != "posix" or os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk(tiny_disk):
    noise = np.random.default_rng(0).integers(0, 2**16, (1500, 1500)).astype(np.uint16)
    for name, write in [
        ("a.tif", lambda path: write_tiff(path, noise, "yx")),
        ("a.png", lambda path: write_png(path, noise)),
        ("a.zarr", lambda path: write_ome_zarr(path, noise, "yx")),
        ("a.csv", lambda path: write_objects(path, {"label": range(10**6)})),
    ]:
        with pytest.raises(UserError, match=f"{name}' cannot be written: the disk is full"):
            write(tiny_disk / name)
        assert list(tiny_disk.iterdir()) == []
    with (
        pytest.raises(UserError, match="the disk is full"),
        scratch_array((400 * 2**20,), "u1", tiny_disk),
    ):
        pytest.fail("an array was lent")


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_scratch_array_is_zeros_and_leaves_nothing(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(atomic, "SCRATCH_IN_MEMORY", in_memory)
    with scratch_array((3, 40, 50), np.float32, tmp_path / "new") as array:
        assert isinstance(array, np.memmap) == (in_memory == 0)
        assert not array.any()
        array[1, 2:5] = 7
        assert array.sum() == 7 * 3 * 50
        del array
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_space_is_reserved_without_posix_too(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    write_tiff(tmp_path / "a.tif", numbers((64, 64)), "yx")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), numbers((64, 64)))
    with (tmp_path / "b").open("wb+") as file:
        atomic.reserve(file, 2**25 + 3)
    assert (tmp_path / "b").stat().st_size == 2**25 + 3


# TIFF


@pytest.mark.parametrize(
    ("axes", "shape", "dtype", "is_imagej"),
    [
        ("yx", (5, 7), "f4", True),
        ("yx", (5, 7), "u4", False),
        ("yx", (3, 100_000), "u1", True),
        ("yx", (1, 1), "u2", True),
        ("zyx", (3, 5, 7), "u1", True),
        ("cyx", (3, 5, 7), "f4", True),
        ("cyx", (3, 5, 7), "u1", True),
        ("czyx", (3, 4, 5, 7), "f4", False),  # ImageJ would turn it into zcyx
        ("tzcyx", (2, 4, 3, 5, 7), "u2", True),
        ("ctzyx", (3, 2, 4, 5, 7), "f4", False),
        ("tyx", (4, 5, 7), "i4", False),
        ("yx", (5, 7), "f8", False),
        ("yx", (5, 7), "i2", False),
    ],
)
def test_tiff_keeps_values_axes_and_scale(tmp_path, axes, shape, dtype, is_imagej):
    array = numbers(shape, dtype)
    write_tiff(tmp_path / "a.tif", array, axes, **MICRONS)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.is_imagej, file.is_ome) == (is_imagej, not is_imagej)
        assert file.series[0].axes.lower() == axes
        assert file.series[0].dtype == array.dtype
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), array)
    image = open_image(tmp_path / "a.tif", channels="all")
    assert image.unit == "micrometer"
    assert not image.rgb
    expected = (2.0 if "z" in axes else 1.0, 0.5, 0.25)
    np.testing.assert_allclose(image.pixel_size, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "unit", "expected", "kept"),
    [
        ((40, 4, 4.25), "angstrom", (40, 4, 4.25), "angstrom"),
        ((-2, -0.5, 0.25), "micrometer", (2, 0.5, 0.25), "micrometer"),
        ((0, float("nan"), 0.25), "micrometer", (1, 1, 0.25), "micrometer"),
        ((3e-8, 4e-10, 4e-10), "meter", (300, 4, 4), "angstrom"),
        ((1, 2.5e7, 2e7), "angstrom", (1e-4, 2500, 2000), "micrometer"),
        ((1, 1e-30, 1e-30), "meter", (1, 1, 1), "pixel"),
    ],
)
def test_pixel_sizes_that_files_and_layers_really_have(tmp_path, sizes, unit, expected, kept):
    for name in ("a.tif", "a.ome.tif", "a.zarr"):
        write = write_ome_zarr if name.endswith("zarr") else write_tiff
        write(tmp_path / name, numbers((2, 5, 7)), "zyx", pixel_size=sizes, unit=unit)
        found = open_image(tmp_path / name)
        of_imagej = name == "a.tif"
        assert found.unit == (kept if of_imagej else unit)
        wanted = expected if of_imagej else [abs(s) if s and s == s else 1 for s in sizes]
        np.testing.assert_allclose(found.pixel_size, wanted, rtol=1e-9)


def test_ome_by_name_and_by_wish(tmp_path):
    write_tiff(tmp_path / "a.ome.tif", numbers((5, 7)), "yx", pixel_size=(3, 4), unit="nanometer")
    assert open_image(tmp_path / "a.ome.tif").pixel_size == (1.0, 3.0, 4.0)
    assert open_image(tmp_path / "a.ome.tif").unit == "nanometer"
    write_tiff(tmp_path / "b.tif", numbers((5, 7)), "yx", kind="ome")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_ome
        assert "PhysicalSize" not in file.ome_metadata
    with pytest.raises(UserError, match="cannot be written for ImageJ"):
        write_tiff(tmp_path / "c.tif", numbers((5, 7), np.uint32), "yx", kind="imagej")


def test_colours_in_tiff(tmp_path):
    array = numbers((5, 7, 3), np.uint8)
    write_tiff(tmp_path / "a.tif", array, "yxc")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), array)
    assert open_image(tmp_path / "a.tif", channels="all").rgb
    with pytest.raises(UserError, match="5 values per pixel"):
        write_tiff(tmp_path / "b.tif", numbers((5, 7, 5)), "yxc")


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("bool", "uint8"), ("int64", "int32"), ("uint64", "uint32"), ("float16", "float32")],
)
def test_types_that_tiff_lacks(tmp_path, dtype, stored):
    array = (numbers((5, 7)) % 2).astype(dtype)
    write_tiff(tmp_path / "a.tif", array, "yx")
    found = tifffile.imread(tmp_path / "a.tif")
    assert found.dtype == stored
    np.testing.assert_array_equal(found, array)


def test_numbers_are_never_wrapped(tmp_path):
    with pytest.raises(UserError, match=r"a\.tif' cannot hold the value 4294967296 as uint32"):
        write_tiff(tmp_path / "a.tif", np.array([[2**32]], np.uint64), "yx")
    with open_writer(tmp_path / "b.tif", (2, 2), "yx", "u1") as writer:
        writer.write((slice(0, 2), slice(0, 2)), np.array([[1, 2], [3, 255]], np.int64))
        with pytest.raises(UserError, match="cannot hold the value -1"):
            writer.write((0, slice(0, 1)), np.array([-1]))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), [[1, 2], [3, 255]])


def test_beyond_4_gb_is_bigtiff_and_not_imagej():
    from napari_cellda.core.export.tiff import choose_kind

    small, large = (3, 1000, 1000), (3, 40_000, 40_000)
    assert choose_kind("a.tif", small, "cyx", np.dtype("f4"), "auto") == "imagej"
    assert choose_kind("a.tif", large, "cyx", np.dtype("f4"), "auto") == "ome"


@pytest.mark.parametrize("file_format", ["tif", "ome-zarr"])
def test_regions_in_any_order_give_the_array(tmp_path, file_format):
    array = numbers((3, 130, 170))
    name = "a.tif" if file_format == "tif" else "a.zarr"
    with open_writer(
        tmp_path / name, array.shape, "cyx", "f4", file_format=file_format, chunks=(1, 64, 64)
    ) as writer:
        for y in range(0, 130, 50):
            for x in (100, 0, 50, 150):
                box = (slice(None), slice(y, y + 50), slice(x, x + 50))  # across the chunks
                writer.write(box, array[box])
    image = open_image(tmp_path / name, channels="all")
    np.testing.assert_array_equal(image.read(whole(image.limits))[:, 0], array)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_lazy_array_is_written_block_by_block(tmp_path, name):
    sizes = []

    def load(block_info=None):
        place = block_info[None]
        sizes.append(np.prod(place["chunk-shape"]))
        return np.full(place["chunk-shape"], place["chunk-location"][0], np.uint8)

    meta = np.empty((0, 0), np.uint8)
    lazy = da.map_blocks(load, chunks=((256,) * 8, (2048,)), dtype=np.uint8, meta=meta)
    write = write_tiff if name == "a.tif" else write_ome_zarr
    write(tmp_path / name, lazy, "yx")
    assert len(sizes) == 8
    found = open_image(tmp_path / name)
    rows = found.read(whole(found.limits))[0, 0]
    np.testing.assert_array_equal(rows, np.repeat(np.arange(8), 256)[:, None] + np.zeros(2048))


# PNG


@pytest.mark.parametrize(
    ("array", "stored", "dtype"),
    [
        (np.eye(5, dtype=bool), np.eye(5) * 255, "uint8"),
        (numbers((5, 7), np.int64), numbers((5, 7)), "uint8"),
        (numbers((5, 7), np.uint32) * 200, numbers((5, 7)) * 200, "uint16"),
        (numbers((5, 7, 3), np.uint8), numbers((5, 7, 3)), "uint8"),
        (numbers((1, 1), np.uint8), numbers((1, 1)), "uint8"),
    ],
)
def test_png(tmp_path, array, stored, dtype):
    write_png(tmp_path / "a.png", array)
    found = imageio.imread(tmp_path / "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 7), np.float32), "not float32"),
        (np.zeros((2, 5, 7), np.uint8), r"shape \(2, 5, 7\)"),
        (np.full((5, 7), 65_536), "cannot hold the value 65536"),
        (np.full((5, 7), -1), "cannot hold the value -1"),
    ],
)
def test_what_png_cannot_hold(tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        write_png(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


# OME-Zarr


def test_ome_zarr_is_valid_and_multiscale(tmp_path):
    from ome_zarr_models.v05 import Image, ImageLabel, Labels

    map_ = np.random.default_rng(0).random((2, 1100, 1301)).astype(np.float32)
    cells = numbers((1100, 1301), np.uint32)
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, map_, "cyx", **MICRONS, labels={"cells": cells})
    valid = Image.from_zarr(zarr.open_group(path, mode="r")).ome_attributes
    assert valid.version == "0.5"
    assert [axis.name for axis in valid.multiscales[0].axes] == ["c", "y", "x"]
    assert Labels.from_zarr(zarr.open_group(path / "labels", mode="r")).ome_attributes.labels == [
        "cells"
    ]
    label = ImageLabel.from_zarr(zarr.open_group(path / "labels" / "cells", mode="r"))
    assert label.ome_attributes.image_label.source.image == "../../"
    image = open_image(path, channels="all")
    assert image.pixel_size == (1.0, 0.5, 0.25)
    assert image.unit == "micrometer"
    assert [level.shape[-2:] for level in image.levels] == [(550, 651), (275, 326)]
    np.testing.assert_array_equal(image.read(whole(image.limits))[:, 0], map_)
    np.testing.assert_array_equal(read_labels(path / "labels" / "cells"), cells)


def test_ome_zarrs_own_reader_reads_it(tmp_path):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Label, Multiscales, Reader

    map_ = numbers((600, 520))
    write_ome_zarr(
        tmp_path / "a.zarr", map_, "yx", **MICRONS, labels={"cells": numbers((600, 520), "u4")}
    )
    nodes = list(Reader(parse_url(tmp_path / "a.zarr"))())
    image, label = nodes[0], nodes[-1]
    assert image.load(Multiscales)
    assert label.load(Label)
    np.testing.assert_array_equal(image.data[0].compute(), map_)
    assert [level.shape for level in label.data] == [(600, 520), (300, 260)]
    first, second = image.metadata["coordinateTransformations"]
    assert first == [{"type": "scale", "scale": [0.5, 0.25]}]
    assert second == [
        {"type": "scale", "scale": [1.0, 0.5]},
        {"type": "translation", "translation": [0.25, 0.125]},
    ]


def test_label_image_of_its_own(tmp_path):
    from ome_zarr_models.v05 import ImageLabel

    labels = np.repeat(np.repeat(numbers((350, 350), np.uint32), 2, 0), 2, 1)
    with open_writer(
        tmp_path / "a.zarr", labels.shape, "yx", "u4", file_format="ome-zarr", labels=True
    ) as writer:
        writer.write((slice(None), slice(None)), labels)
    assert ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.zarr"), labels)
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr")["1"][:], labels[::2, ::2])


def test_axes_are_put_in_the_order_of_the_specification(tmp_path):
    array = numbers((3, 2, 4, 6, 5))  # c, t, z, y, x
    with open_writer(
        tmp_path / "a.zarr", array.shape, "ctzyx", "f4", **MICRONS, file_format="ome-zarr"
    ) as writer:
        writer.write((slice(None), 0), array[:, 0])
        writer.write((slice(None), 1, slice(0, 4), slice(0, 6), slice(0, 5)), array[:, 1])
    image = open_image(tmp_path / "a.zarr", channels="all")
    assert image.axes == "tczyx"
    assert image.pixel_size == (2.0, 0.5, 0.25)
    np.testing.assert_array_equal(np.asarray(image.data), array.transpose(1, 0, 2, 3, 4))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float64", ">f4", "int64"])
def test_zarr_types(tmp_path, dtype):
    array = (numbers((5, 7)) % 2).astype(dtype)
    write_ome_zarr(tmp_path / "a.zarr", array, "yx")
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr")["0"][:], array)


def test_thin_zarr(tmp_path):
    array = numbers((3, 5000))
    write_ome_zarr(tmp_path / "a.zarr", array, "yx")
    image = open_image(tmp_path / "a.zarr")
    assert [level.shape[-2:] for level in image.levels] == [
        (2, 2500),
        (1, 1250),
        (1, 625),
        (1, 313),
    ]


def test_halve_block():
    block = np.array([[0, 4, 8], [4, 8, 8], [1, 2, 250]], np.uint8)
    np.testing.assert_array_equal(halve_block(block, labels=False), [[4, 8], [2, 250]])
    np.testing.assert_array_equal(halve_block(block, labels=True), [[0, 8], [1, 250]])
    mean = halve_block(np.array([[0, 1.0], [1, 1]], np.float32), labels=False)
    assert mean == 0.75
    assert mean.dtype == np.float32


def test_the_pyramid_in_pieces_equals_the_whole(tmp_path, monkeypatch):
    from napari_cellda.core.export import ome_zarr as export_zarr

    array = np.random.default_rng(0).random((733, 611)).astype(np.float32)
    monkeypatch.setattr(export_zarr, "SMALLEST_LEVEL", 64)
    with open_writer(
        tmp_path / "a.zarr", array.shape, "yx", "f4", file_format="ome-zarr", chunks=(50, 70)
    ) as writer:
        writer.write((slice(None), slice(None)), array)
    group, expected = zarr.open(tmp_path / "a.zarr"), array
    for level in range(1, 5):
        expected = halve_block(expected, labels=False)
        np.testing.assert_array_equal(group[str(level)][:], expected)


# Tables


def test_objects_to_csv(tmp_path):
    table = {"label": np.array([1, 7]), "score": np.array([0.5, 1 / 3]), "unit": ["µm", "µm"]}
    write_objects(tmp_path / "a.csv", table)
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert text == "label,score,unit\n1,0.5,µm\n7,0.3333333333333333,µm\n"


def test_no_objects_give_a_header(tmp_path):
    write_objects(tmp_path / "a.csv", {"label": [], "score": []})
    assert (tmp_path / "a.csv").read_text() == "label,score\n"
