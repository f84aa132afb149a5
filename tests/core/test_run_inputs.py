"""What a run reads of its inputs, and nothing else, is hashed and bundled."""

import hashlib

import numpy as np
import pytest
import tifffile
import yaml

from napari_cellda.core.adaptation.inputs import AdaptInputs
from napari_cellda.core.adaptation.run import begin_adaptation, resume_adaptation
from napari_cellda.core.batch_record import bytes_of, keep_record
from napari_cellda.core.errors import UserError
from napari_cellda.core.export import write_ome_zarr
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import files_below
from napari_cellda.core.runs.inputs import files_read, hash_read
from napari_cellda.methods import find_method

PIXELS = np.arange(480, dtype=np.uint16).reshape(20, 24)


class Params(BaseParams):
    steps: int = 3


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("B", "a"):
        tifffile.imwrite(folder / f"{name}.tif", np.full((20, 24), len(name), np.uint8))
    return folder


def begin(folder, role, path):
    return Run.create(folder, "test", Params(), {role: path}, seed=0)


def names(role, path, **more):
    return [name for name, _ in files_read(role, path, **more)]


def all_below(folder):
    """What was hashed at first, as it was written then."""
    digest = hashlib.blake2b(digest_size=16)
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in sorted(files):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def put_results_beside(images):
    """Write what `predict -o images` does, and what people put there."""
    for name in ("a_mask.tif", "B_forest.tif"):
        tifffile.imwrite(images / name, np.zeros((20, 24), np.uint8))
    (images / "a_objects.csv").write_text("label")
    keep_record(images, images / "a.tif", "x", "y", [images / "a_mask.tif"])
    (images / "notes.txt").write_text("of today")
    (images / "out").mkdir()
    tifffile.imwrite(images / "out" / "a.tif", np.zeros((20, 24), np.uint8))


def test_a_plain_folder_is_hashed_as_it_ever_was(images, tmp_path):
    assert names("target_images", images) == ["B.tif", "a.tif"]
    assert hash_read("target_images", images) == all_below(images)
    write_ome_zarr(images / "b.zarr", PIXELS, "yx")
    assert hash_read("source_masks", images) == all_below(images)
    assert hash_read("target_images", images / "b.zarr") == all_below(images / "b.zarr")


def test_results_beside_the_images_are_no_change_of_them(images, tmp_path):
    run = begin(tmp_path / "run", "target_images", images)
    put_results_beside(images)
    run.check_inputs()
    tifffile.imwrite(images / "c.tif", np.zeros((20, 24), np.uint8))
    with pytest.raises(UserError, match=r"has changed since .* newest file is 'c.tif'"):
        run.check_inputs()


def test_a_folder_that_was_emptied_has_changed(images, tmp_path):
    run = begin(tmp_path / "run", "target_images", images)
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has changed since the run began, so"):
        run.check_inputs()


def test_a_run_of_before_goes_on_where_all_was_hashed(images, tmp_path):
    put_results_beside(images)
    run = begin(tmp_path / "run", "target_images", images)
    record = yaml.safe_load((run.folder / "run.yaml").read_text())
    assert record["inputs"][0]["hash"] != all_below(images)
    record["inputs"][0]["hash"] = all_below(images)
    (run.folder / "run.yaml").write_text(yaml.safe_dump(record))
    Run(run.folder).check_inputs()
    (images / "notes.txt").write_text("of tomorrow")
    with pytest.raises(UserError, match="has changed"):
        Run(run.folder).check_inputs()


def test_of_a_run_to_begin_from_only_the_model_is_read(images, tmp_path):
    earlier = begin(tmp_path / "earlier", "target_images", images)
    (earlier.folder / "checkpoints").mkdir()
    for name in ("checkpoints/last.pt", "events.jsonl"):
        (earlier.folder / name).write_text("{}")
    earlier.model_folder.mkdir()
    for name in ("rdf.yaml", "weights.pt"):
        (earlier.model_folder / name).write_text(name)
    run = begin(tmp_path / "run", "pretrained", earlier.folder)
    assert names("pretrained", earlier.folder) == ["rdf.yaml", "weights.pt"]
    assert hash_read("pretrained", earlier.model_folder) == run.record.inputs[0].hash
    (earlier.folder / "events.jsonl").write_text("opened again")
    run.check_inputs()
    (earlier.model_folder / "weights.pt").write_text("others")
    with pytest.raises(UserError, match="has changed"):
        run.check_inputs()


def test_maps_and_tables_are_read_without_what_lies_beside_them(tmp_path):
    for name in ("a_probability.tif", "a_mask.tif", "a.csv", "._a.csv", "a.txt"):
        (tmp_path / name).write_text("x")
    assert names("pseudo_labels", tmp_path) == ["a_probability.tif"]
    assert names("points", tmp_path) == ["a.csv"]
    assert names("target_masks", tmp_path / "a_mask.tif") == ["a_mask.tif"]


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    store, images = tmp_path / "store", tmp_path / "images"
    (store / "0").mkdir(parents=True)
    for name in (".zgroup", "0/.zarray", "0/0.0", "0/Thumbs.db"):
        (store / name).write_text(name)
    (store / "0" / "round").symlink_to(store)
    images.mkdir()
    (images / "a.zarr").symlink_to(store)
    assert names("target_images", images) == ["a.zarr/0/0.0"]
    before = hash_read("target_images", images)
    (store / "0" / "0.0").write_text("others")
    assert hash_read("target_images", images) != before
    whole = ["a.zarr/.zgroup", "a.zarr/0/.zarray", "a.zarr/0/0.0"]
    assert names("target_images", images, hidden=True) == whole
    assert [path.name for path in files_below(store / ".zgroup")] == [".zgroup"]
    assert bytes_of(images) == len(".zgroup" + "0/.zarray" + "others")
    assert bytes_of(images / "none") == -1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_input_that_is_a_link_keeps_its_name(kind, images, tmp_path):
    """As of git-annex, whose files are links to what is called by a hash."""
    target = images / "a.tif" if kind == "file" else images
    link = tmp_path / "nuclei.tif"
    link.symlink_to(target)
    run = begin(tmp_path / "run", "target_images", link)
    Run(run.folder).check_inputs()
    assert Run(run.folder).input_path("target_images") == link
    other = tmp_path / "other" / "B.tif"
    other.parent.mkdir()
    tifffile.imwrite(other, np.zeros((20, 24), np.uint8))
    link.unlink()
    link.symlink_to(other if kind == "file" else other.parent)
    with pytest.raises(UserError, match=r"nuclei.tif' .* has changed"):
        Run(run.folder).check_inputs()


@pytest.mark.parametrize(
    "path", ["C:\\Daten\\images", "\\\\server\\share\\images", "/gone/images", "inputs/images"]
)
def test_inputs_of_a_run_from_another_system_are_found_by_name(path, images, tmp_path):
    run = begin(tmp_path / "run", "target_images", images)
    images.rename(tmp_path / "elsewhere")
    record = yaml.safe_load((run.folder / "run.yaml").read_text())
    record["inputs"][0]["path"] = path
    (run.folder / "run.yaml").write_text(yaml.safe_dump(record))
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "elsewhere").rename(data / "images")
    resumed = resume_adaptation(run.folder, data)
    assert resumed.input_path("target_images") == data / "images"


def test_a_bundle_holds_what_is_read_and_no_more(images, tmp_path):
    store = tmp_path / "store.zarr"
    write_ome_zarr(store, PIXELS, "yx")
    (images / "c.zarr").symlink_to(store)
    put_results_beside(images)
    given = AdaptInputs(
        target_images=images, source_images=images / "c.zarr", source_masks=images / "a.tif"
    )
    run = begin_adaptation(tmp_path / "run", find_method("supervised"), given, bundle=True)
    copied = run.input_path("target_images")
    assert sorted(path.name for path in copied.iterdir()) == ["B.tif", "a.tif", "c.zarr"]
    assert bytes_of(copied / "c.zarr") == bytes_of(store)
    assert run.input_path("source_images").name == "c.zarr"
    run.check_inputs()
