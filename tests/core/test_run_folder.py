"""What a run tells when its disk or its inputs go away, and what a killed process leaves."""

import errno
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cellda.core.adaptation.inputs import AdaptInputs
from napari_cellda.core.adaptation.run import begin_adaptation, resume_adaptation, run_adaptation
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step, run_quietly
from napari_cellda.core.images import open_image
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams
from napari_cellda.core.runs.folder import check_new_folder, copy_into, tidy
from napari_cellda.methods import find_method

QUICK = {"steps": 4, "crop": 32, "batch": 1, "width": 4, "depth": 1, "validate_every": 2}
STYLED = {"steps": 6, "crop": 32, "batch": 1, "width": 4, "depth": 1, "style_share": 0.34}
STYLED |= {"source_share": 0.33, "style_crop": 32, "style_width": 4, "style_blocks": 1}
ASIDE = ".{}-0123456789ab{}"


class Params(BaseParams):
    steps: int = 3


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        tifffile.imwrite(folder / f"{name}.tif", rng.integers(0, 255, (40, 48), np.uint8))
    return folder


@pytest.fixture
def masks(tmp_path, images):
    folder = tmp_path / "masks"
    folder.mkdir()
    for path in images.iterdir():
        tifffile.imwrite(folder / path.name, np.tile(np.uint8([0, 1]), (40, 24)))
    return folder


@pytest.fixture
def run(tmp_path, images):
    return Run.create(tmp_path / "run", "test", Params(), {"target_images": images}, seed=0)


def unplug(images, error=None):
    """A task whose input goes away while it works."""
    yield Step(1)
    images.rename(images.with_name("elsewhere"))
    if error is not None:
        raise error
    yield Step(2)


def test_an_input_that_goes_away_is_named_and_not_the_error_that_came_of_it(run, images):
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", str(images / "a.tif"))
    with pytest.raises(UserError) as caught:
        run_quietly(run.drive(unplug(images, error)))
    assert str(caught.value) == (
        f"'{images}' (target images) is not there any more: connect its drive or put it back, "
        "then resume the run."
    )
    assert run.state == "failed"
    assert run.events()[-1]["text"] == str(caught.value)
    images.with_name("elsewhere").rename(images)
    assert run_quietly(Run(run.folder).drive(iter([Stage("Work")]))) is None  # type: ignore[arg-type]
    assert run.state == "done"


def test_what_is_no_longer_needed_may_go_away(run, images):
    run_quietly(run.drive(unplug(images)))
    assert run.state == "done"
    with pytest.raises(UserError, match="is not there any more"):
        run.check_inputs()


def test_an_error_of_ours_stays_one_while_the_inputs_are_there(run):
    def broken():
        yield Step(1)
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        run_quietly(run.drive(broken()))


def test_a_resume_without_the_inputs_says_what_to_do(run, images):
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(UserError, match=r"images' \(target images\) is not there .* --inputs"):
        resume_adaptation(run.folder)
    with pytest.raises(UserError, match="then resume the run"):
        run.check_inputs()


def test_of_images_that_go_away_while_they_are_read_only_what_was_read_before_is_kept(
    tmp_path, images, masks, monkeypatch
):
    """As with zarr, whose missing chunks are zeros: no error tells that they are gone."""
    method = find_method("supervised")
    inputs = AdaptInputs(target_images=images, target_masks=masks)
    run = begin_adaptation(tmp_path / "run", method, inputs, overrides=QUICK)
    task = run_adaptation(run, find_method, device="cpu")
    for event in task:
        if isinstance(event, Step):
            assert (run.folder / "cache").is_dir()
            shutil.move(images, tmp_path / "elsewhere")
            monkeypatch.setattr(
                "napari_cellda.core.images.Image.read",
                lambda self, region: np.zeros((1, 1, *(40, 48)), np.float32),
            )
            break
    with pytest.raises(UserError, match="not there any more"):
        run_quietly(task)
    kept = [path for path in (run.folder / "cache").rglob("*") if path.is_file()]
    assert kept == [run.folder / "cache" / "target 0" / "0_0.npy"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is mapped")
@pytest.mark.parametrize("method", ["supervised", "stylefilter"])
def test_what_was_read_is_removed_when_nobody_maps_it_any_more(
    tmp_path, images, masks, monkeypatch, method
):
    """As Windows insists."""
    inputs = AdaptInputs(target_images=images, source_images=images, source_masks=masks)
    settings = QUICK if method == "supervised" else STYLED
    run = begin_adaptation(tmp_path / "run", find_method(method), inputs, overrides=settings)
    mapped = []
    monkeypatch.setattr(
        "napari_cellda.core.adaptation.run.remove",
        lambda path: mapped.append(str(path) in Path("/proc/self/maps").read_text()),
    )
    run_quietly(run_adaptation(run, find_method, device="cpu"))
    assert mapped == [False]


def test_a_log_without_its_folder_is_told_plainly(run):
    def work():
        shutil.rmtree(run.folder)
        yield Step(1)

    with pytest.raises(UserError, match="cannot be written"):
        run_quietly(run.drive(work()))


def test_a_full_disk_ends_the_reading_of_images_with_a_sentence(tmp_path, images):
    """Not with a bus error, which is what a memory map meets on a full disk."""
    from napari_cellda.core.adaptation.prepare import _planes

    resource = pytest.importorskip("resource")
    image = open_image(images / "a.tif")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"0_0\.npy' cannot be written"):
            _planes(image, Normalisation(offset=(0.0,), factor=(1.0,)), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache").iterdir()) == []


def test_planes_on_disk_are_what_was_read(tmp_path, images):
    from napari_cellda.core.adaptation.prepare import _planes

    image = open_image(images / "a.tif")
    (plane,) = _planes(image, Normalisation(offset=(3.0,), factor=(0.5,)), tmp_path / "cache")
    pixels = tifffile.imread(images / "a.tif").astype(np.float32)
    np.testing.assert_array_equal(plane.pixels, (pixels - 3)[None] / 2)
    assert plane.pixels.dtype == np.float32


def test_a_full_disk_while_inputs_are_bundled_is_told(tmp_path, images, masks, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copy2", full)
    inputs = AdaptInputs(target_images=images, target_masks=masks)
    with pytest.raises(UserError, match="the disk is full"):
        begin_adaptation(
            tmp_path / "run", find_method("supervised"), inputs, overrides=QUICK, bundle=True
        )


def test_a_bundle_that_was_cut_short_is_copied_again(tmp_path, images):
    target = tmp_path / "run" / "inputs" / "target_images"
    target.mkdir(parents=True)
    (target / "a.tif").write_bytes(b"half")
    copy_into([(path.name, path) for path in images.iterdir()], target)
    assert sorted(path.name for path in target.iterdir()) == ["a.tif", "b.tif"]
    assert (target / "a.tif").read_bytes() == (images / "a.tif").read_bytes()
    copy_into([("in/c.tif", images / "a.tif")], tmp_path / "one")
    assert (tmp_path / "one" / "in" / "c.tif").is_file()


def test_a_run_may_begin_where_one_was_killed_before_it_began(tmp_path):
    folder = tmp_path / "run"
    check_new_folder(folder)
    (folder / "inputs").mkdir(parents=True)
    (folder / "output.txt").touch()
    (folder / ASIDE.format("run", ".yaml")).write_text("half")
    check_new_folder(folder)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).touch()
    check_new_folder(folder)
    (folder / "thesis.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        check_new_folder(folder)
    with pytest.raises(UserError, match=r"thesis\.txt' is a file: choose a new folder\.$"):
        check_new_folder(folder / "thesis.txt")


def test_a_wish_to_stop_outlives_the_failed_run_in_whose_place_another_begins(run, masks):
    """It was asked when that run was about to begin: the old one was at work no more."""
    with pytest.raises(UserError, match="broke"):
        run_quietly(run.drive(broken()))
    run.ask_to_stop()
    images = run.input_path("target_images")
    inputs = AdaptInputs(target_images=images, source_images=images, source_masks=masks)
    begun = begin_adaptation(run.folder, find_method("supervised"), inputs, overrides=QUICK)
    assert begun.record.method == "supervised"
    assert (run.folder / "stop").is_file()


def broken():
    yield Stage("Work")
    raise UserError("It broke.")


def test_the_next_process_removes_what_a_killed_one_left_half_written(run):
    checkpoints = run.folder / "checkpoints"
    checkpoints.mkdir()
    kept = [checkpoints / "last.pt", run.folder / "mine-0123456789ab.txt"]
    for path in kept:
        path.write_text("whole")
    (checkpoints / ASIDE.format("last", ".pt")).write_text("half")
    (checkpoints / ASIDE.format("best", ".pt")).write_text("half")
    (run.folder / ASIDE.format("run", ".yaml")).write_text("half")
    (run.folder / ".model-k3_x8b1q" / "package").mkdir(parents=True)
    tidy(run.folder)
    left = {path for path in run.folder.rglob("*") if path.is_file()}
    assert left == {*kept, run.folder / "run.yaml"}
    assert not (run.folder / ".model-k3_x8b1q").exists()
