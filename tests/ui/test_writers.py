"""napari's own Save through the plugin's writers: every format, pixel size, no half file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels
from npe2 import PluginManager

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import open_image
from napari_cellda.ui.writers import layer_axes, write_image, write_labels

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:9, 3:12] = 1
LABELS[11:18, 14:28] = 300


def meta(layer: Labels | Image) -> dict:
    return layer.as_layer_data_tuple()[1]


@pytest.mark.parametrize("name", ["cells.tif", "cells.ome.tif", "cells.png", "cells.zarr"])
def test_labels_come_back_from_every_format(name: str, tmp_path: Path):
    layer = Labels(LABELS, scale=(0.5, 0.25), units=("um", "um"))
    path = tmp_path / name
    assert write_labels(str(path), layer.data, meta(layer)) == [str(path)]
    image = open_image(path)
    np.testing.assert_array_equal(np.asarray(image.data).squeeze(), LABELS)
    if path.suffix != ".png":
        assert image.pixel_size[1:] == pytest.approx((0.5, 0.25))
        assert image.unit == "micrometer"


def test_map_keeps_its_values(tmp_path: Path):
    probability_map = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    path = tmp_path / "map.tif"
    layer = Image(probability_map)
    write_image(str(path), layer.data, meta(layer))
    np.testing.assert_array_equal(tifffile.imread(path), probability_map)


def test_lazy_and_multiscale_layers_write_their_finest_level(tmp_path: Path):
    fine = np.arange(64, dtype=np.uint8).reshape(8, 8)
    levels = [da.from_array(fine), da.from_array(fine[::2, ::2])]
    layer = Labels(levels, multiscale=True)
    write_labels(str(tmp_path / "m.tif"), layer.data, meta(layer))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), fine)


def test_zarr_labels_are_marked_as_labels(tmp_path: Path):
    layer = Labels(LABELS)
    write_labels(str(tmp_path / "a.ome.zarr"), layer.data, meta(layer))
    described = zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]
    assert "image-label" in described


def test_rgb_image_becomes_a_colour_tiff(tmp_path: Path):
    colours = np.zeros((5, 7, 3), np.uint8)
    colours[..., 1] = 200
    layer = Image(colours, rgb=True)
    write_image(str(tmp_path / "c.tif"), layer.data, meta(layer))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), colours)


def test_png_refuses_a_stack_in_one_sentence_and_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "stack.png"
    iio.imwrite(path, np.full((4, 4), 7, np.uint8))
    layer = Labels(np.zeros((3, 4, 4), np.int32))
    with pytest.raises(UserError, match="PNG takes one plane"):
        write_labels(str(path), layer.data, meta(layer))
    assert iio.imread(path).max() == 7
    assert [p.name for p in tmp_path.iterdir()] == ["stack.png"]


@pytest.mark.parametrize(
    ("shape", "attributes", "axes"),
    [
        ((4, 5), {}, "yx"),
        ((3, 4, 5), {}, "zyx"),
        ((3, 4, 5), {"axis_labels": ("t", "y", "x")}, "tyx"),
        ((3, 4, 5), {"axis_labels": ("time", "y", "x")}, "tyx"),
        ((3, 4, 5), {"axis_labels": ("axis -3", "axis -2", "axis -1")}, "zyx"),
        ((4, 5, 3), {"rgb": True}, "yxc"),
        ((2, 3, 4, 5), {}, "tzyx"),
    ],
)
def test_axes(shape: tuple[int, ...], attributes: dict, axes: str):
    assert layer_axes(np.zeros(shape), attributes) == axes


def test_napari_finds_the_writers_for_a_saved_layer(tmp_path: Path):
    manager = PluginManager()
    manager.discover()
    writer, path = manager.get_writer(str(tmp_path / "cells.zarr"), ["labels"], "napari-cellda")
    assert writer is not None
    assert writer.command == "napari-cellda.write_labels"
    assert path.endswith("cells.zarr")
