"""Export of whole images: every format, every plane, all files or none."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.core.export.image import ExportChoice, export_image
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import image_from_array, open_image
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

SPEC = FeatureSpec(name="compact", scales=(0.7,))


def squares(shape: tuple[int, ...] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with two bright squares per plane, and strokes on its first plane."""
    pixels = np.full(shape, 10, np.uint8)
    pixels[..., 4:16, 4:16] = pixels[..., 22:36, 28:44] = 200
    strokes = np.zeros(shape, np.uint8)
    first = strokes[(0,) * (len(shape) - 2)]
    first[0, :], first[8:12, 6:14] = 1, 2
    return pixels, strokes


def pipeline_for(pixels: np.ndarray, strokes: np.ndarray, axes: str = "yx"):
    image = image_from_array(
        pixels, axes, name="cells", pixel_size=(1, 0.5, 0.5), unit="micrometer"
    )
    params = ForestParams(trees=5)
    task = train_classifier([image], [strokes], spec=SPEC, params=params)
    return Pipeline(run_quietly(task)), image


@pytest.fixture(scope="module")
def trained():
    return pipeline_for(*squares())


def never() -> bool:
    return False


def choose(folder: Path, **changes) -> ExportChoice:
    wanted = {"instance_params": InstanceParams(method="distance"), "probabilities": True}
    return ExportChoice(folder, **{**wanted, **changes})


@pytest.mark.parametrize(
    ("file_format", "ending"), [("imagej", ".tif"), ("ome-tiff", ".ome.tif"), ("ome-zarr", ".zarr")]
)
def test_files_hold_what_was_computed(trained, tmp_path: Path, file_format: str, ending: str):
    pipeline, image = trained
    done = run_quietly(
        export_image(pipeline, image, choose(tmp_path, file_format=file_format), stop=never)
    )
    names = ("mask", "instances", "probability")
    assert [p.name for p in done.paths] == [f"cells_{n}{ending}" for n in names] + [
        "cells_objects.csv"
    ]
    mask, instances, probability = (open_image(p, channels="all") for p in done.paths[:3])
    truth = np.asarray(image.data).squeeze() > 100
    assert (np.asarray(mask.data).squeeze() == truth).mean() > 0.97
    assert mask.unit == "micrometer"
    assert mask.pixel_size[1:] == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(np.asarray(instances.data).squeeze(), done.instances)
    assert done.instances.max() == 2
    np.testing.assert_allclose(np.asarray(probability.data).sum(axis=1), 1, atol=1e-5)


def test_table_is_in_pixels_and_physical_units(trained, tmp_path: Path):
    done = run_quietly(export_image(*trained, choose(tmp_path), stop=never))
    with (tmp_path / "cells_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == [1, 2]
    assert float(rows[0]["area"]) == pytest.approx(144, rel=0.15)
    assert list(rows[0]) == list(done.table)
    assert float(rows[0]["physical_area"]) == pytest.approx(float(rows[0]["area"]) / 4)
    assert rows[0]["unit"] == "micrometer"


def test_png_holds_mask_and_objects(trained, tmp_path: Path):
    choice = choose(tmp_path, file_format="png", probabilities=False, table=False)
    done = run_quietly(export_image(*trained, choice, stop=never))
    assert {p.name for p in done.paths} == {"cells_mask.png", "cells_instances.png"}
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in done.paths}


def test_one_zarr_with_the_image_and_its_labels(trained, tmp_path: Path):
    pipeline, image = trained
    choice = choose(tmp_path, file_format="ome-zarr-image")
    done = run_quietly(export_image(pipeline, image, choice, stop=never))
    group = zarr.open_group(tmp_path / "cells.zarr", mode="r")
    assert group["labels"].attrs["ome"]["labels"] == ["mask", "instances"]
    np.testing.assert_array_equal(np.asarray(group["0"]), np.asarray(image.data).squeeze())
    np.testing.assert_array_equal(np.asarray(group["labels/instances/0"]), done.instances)
    assert (tmp_path / "cells_probability.zarr").is_dir()


@pytest.mark.parametrize(("axes", "shape"), [("zyx", (3, 40, 48)), ("tyx", (2, 40, 48))])
def test_every_plane_is_exported(tmp_path: Path, axes: str, shape: tuple[int, ...]):
    pixels, strokes = squares(shape)
    pipeline, image = pipeline_for(pixels, strokes, axes)
    choice = choose(tmp_path, probabilities=False)
    done = run_quietly(export_image(pipeline, image, choice, stop=never))
    mask = tifffile.imread(tmp_path / "cells_mask.tif")
    assert mask.shape == shape
    assert all((plane > 0).sum() > 250 for plane in mask)
    if axes == "tyx":
        assert sorted(np.unique(done.instances)) == [0, 1, 2, 3, 4]
        assert list(done.table["t"]) == [0, 0, 1, 1]


def test_stopping_at_any_moment_leaves_all_files_or_none(trained, tmp_path: Path):
    complete = 0
    for asked in range(40):
        left = [asked]

        def stop(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        folder = tmp_path / str(asked)
        done = run_quietly(export_image(*trained, choose(folder), stop=stop))
        found = {p.name for p in folder.iterdir()}
        assert found == ({p.name for p in done.paths} if done else set())
        complete += done is not None
    assert 0 < complete < 40


def test_a_failing_write_leaves_no_file_and_keeps_the_older_one(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cells_mask.tif").write_bytes(b"older")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_cellda.core.export.tiff.RegionWriter.write", full)
    with pytest.raises(UserError, match="disk is full"):
        run_quietly(export_image(*trained, choose(tmp_path), stop=never))
    assert [p.name for p in tmp_path.iterdir()] == ["cells_mask.tif"]
    assert (tmp_path / "cells_mask.tif").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mask": False, "instances": False, "table": False, "probabilities": False}, "Nothing is"),
        ({"file_format": "png"}, "PNG cannot hold probabilities"),
    ],
)
def test_choices_that_cannot_be_written_are_refused_first(
    trained, tmp_path: Path, changes: dict, sentence: str
):
    with pytest.raises(UserError, match=sentence):
        run_quietly(export_image(*trained, choose(tmp_path / "new", **changes), stop=never))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "stem"),
    [("DAPI/405", "DAPI_405"), ("../../escaped", "_.._escaped"), ("nul\0", "nul_"),
     ("n" * 300, "n" * 150), ("ch: 405 [1]", "ch_ 405 [1]"), ("...", "image")],
)  # fmt: skip
@pytest.mark.parametrize("file_format", ["imagej", "ome-zarr-image"])
def test_a_layers_name_is_a_file_in_the_folder(trained, tmp_path, name, stem, file_format):
    pipeline, image = trained
    folder = tmp_path / "a" / "b" / "out"
    task = export_image(
        pipeline, replace(image, name=name), choose(folder, file_format=file_format), stop=never
    )
    paths = run_quietly(task).paths
    written = [path for path in folder.iterdir() if path.suffix in (".tif", ".zarr", ".csv")]
    assert set(paths) == set(written)
    assert all(path.name.startswith((f"{stem}_", f"{stem}.")) for path in paths)


def test_results_of_a_file_are_called_like_it(trained, tmp_path):
    image = replace(trained[1], name="a: b", path=tmp_path / "a: b.tif")
    paths = run_quietly(export_image(trained[0], image, choose(tmp_path), stop=never)).paths
    assert paths[0].name == "a: b_mask.tif"


def test_png_refuses_stacks(tmp_path: Path):
    image = image_from_array(np.zeros((3, 8, 8)), "zyx", name="stack")
    choice = choose(tmp_path, file_format="png", probabilities=False)
    with pytest.raises(UserError, match="'stack' has 3 planes"):
        choice.check(image)
