import json
import os

import numpy as np
import pytest
import torch

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Stage, Step, run_quietly
from napari_cellda.core.jobs import Run, event_from_line
from napari_cellda.core.params import BaseParams
from napari_cellda.core.run_record import hash_input


class Params(BaseParams):
    steps: int = 3


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"one")
    (folder / "b.png").write_bytes(b"two")
    return folder


@pytest.fixture
def run(tmp_path, images):
    options = {"channels": "grey"}
    return Run.create(
        tmp_path / "run", "test", Params(), {"images": images}, seed=4, options=options
    )


def test_a_run_is_read_back_as_it_was_written(run, images):
    again = Run(run.folder)
    assert again.record == run.record
    assert again.record.params == {"steps": 3}
    assert again.record.seed == 4
    assert again.input_path("images") == images.resolve()
    assert "torch" in again.record.versions
    with pytest.raises(UserError, match="no input 'masks'"):
        again.input_path("masks")


def test_inputs_inside_the_run_are_kept_relative(tmp_path):
    folder = tmp_path / "bundled"
    outside = tmp_path / "images"
    outside.mkdir()
    (outside / "a.png").write_bytes(b"one")
    run = Run.create(folder, "test", Params(), {"images": outside}, seed=0)
    inside = folder / "inputs"
    outside.rename(inside)
    text = (folder / "run.yaml").read_text().replace(str(outside), "inputs")
    (folder / "run.yaml").write_text(text)
    moved = folder.rename(tmp_path / "elsewhere")
    Run(moved).check_inputs()
    assert Run(moved).input_path("images") == (moved / "inputs").resolve()
    assert run.record.seed == 0


def test_changed_inputs_are_refused(run, images):
    run.check_inputs()
    (images / "b.png").write_bytes(b"other")
    os.utime(images / "a.png", (0, 0))
    words = r"images' \(images\) has changed since the run began \(its newest file is 'b.png'\), so"
    with pytest.raises(UserError, match=words):
        run.check_inputs()


def test_what_systems_leave_in_folders_is_no_change(run, images):
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (images / name).write_bytes(b"somebody looked")
    run.check_inputs()


def test_the_hash_sees_content_and_names(images):
    before = hash_input(images)
    (images / "b.png").rename(images / "c.png")
    assert hash_input(images) != before
    (images / "c.png").rename(images / "b.png")
    assert hash_input(images) == before
    with pytest.raises(UserError, match="no file or folder"):
        hash_input(images / "missing")


def test_a_folder_in_use_is_refused(run, images):
    with pytest.raises(UserError, match="not empty"):
        Run.create(run.folder, "test", Params(), {"images": images}, seed=0)


@pytest.mark.parametrize("text", ["", "a: [", "method: x\n", "\x00"])
def test_a_damaged_record_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="damaged or of another version"):
        Run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run\.yaml"):
        Run(tmp_path)


def everything(picture):
    yield Stage("Work", 2)
    yield Step(1, {"loss": 0.5})
    yield Score("dice", 0.25, 1)
    yield Preview("map", picture, 1)
    yield Note("Über 50 µm")
    return "done"


def test_the_log_holds_every_event_and_the_end(run):
    picture = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert run_quietly(run.drive(everything(picture))) == "done"
    lines = run.events()
    assert [line["type"] for line in lines] == ["Stage", "Step", "Score", "Preview", "Note", "End"]
    assert event_from_line(lines[0]) == Stage("Work", 2)
    assert event_from_line(lines[1]) == Step(1, {"loss": 0.5})
    assert event_from_line(lines[4]) == Note("Über 50 µm")
    assert event_from_line(lines[5]) is None
    assert run.state == "done"
    assert run.previews() == {"map": [1]}
    assert np.array_equal(run.preview("map", 1).array, picture)


@pytest.mark.parametrize("count", [0, 2])
def test_points_are_kept_as_points(run, count):
    points = np.arange(3.0 * count).reshape(count, 3)

    def watched():
        yield Preview("detected", points, 1, "points")
        yield Preview("map", np.zeros((4, 3)), 1)

    run_quietly(run.drive(watched()))
    assert run.preview("detected", 1).kind == "points"
    assert np.array_equal(run.preview("detected", 1).array, points)
    assert run.preview("map", 1).kind == "picture"


def test_failure_and_stop_are_written_down(run):
    def broken():
        yield Step(1)
        raise UserError("It broke.")

    with pytest.raises(UserError, match="broke"):
        run_quietly(run.drive(broken()))
    assert run.state == "failed"
    assert run.events()[-1]["text"] == "It broke."
    task = run.drive(everything(np.zeros((2, 2))))
    next(task)
    task.close()
    assert run.state == "stopped"


def test_a_run_that_is_ended_from_the_keyboard_is_cancelled(run):
    def interrupted():
        yield Step(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quietly(run.drive(interrupted()))
    assert run.state == "cancelled"
    assert run.events()[-1]["text"] == ""


def test_a_run_without_a_model_says_how_it_stands(run):
    with pytest.raises(UserError, match="run' has no model: it was ended from outside; resume it"):
        run.finished_model()
    run_quietly(run.drive(everything(np.zeros((2, 2)))))
    with pytest.raises(UserError, match="it is done, but its package was taken away"):
        run.finished_model()
    run.model_folder.mkdir()
    (run.model_folder / "rdf.yaml").touch()
    assert run.finished_model() == run.model_folder


def test_a_line_cut_off_by_a_crash_is_left_out(run):
    run_quietly(run.drive(everything(np.zeros((2, 2)))))
    whole = len(run.events())
    with run.events_path.open("a") as log:
        log.write('{"type": "St')
    assert len(run.events()) == whole


def checkpointed(run, last):
    for index in range(1, last + 1):
        yield Step(index, {"loss": 1.0 / index})
        if index == 3:
            run.save("last", {"step": 3, "parts": {"w": {"x": torch.ones(2)}}})


def test_a_resume_cuts_the_log_back_to_the_checkpoint(run):
    task = run.drive(checkpointed(run, 9))
    for _ in range(6):
        next(task)
    task.close()

    def rest():
        assert run.load("last")["step"] == 3
        yield Step(4, {"loss": 0.25})

    run_quietly(run.drive(rest()))
    indices = [line["index"] for line in run.events() if line["type"] == "Step"]
    assert indices == [1, 2, 3, 4]


def test_a_checkpoint_comes_back_and_a_damaged_one_is_refused(run):
    assert run.load("last") is None
    run.save("last", {"step": 2, "parts": {"w": {"x": torch.ones(2)}}})
    assert torch.equal(run.load("last")["parts"]["w"]["x"], torch.ones(2))
    path = run.folder / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"last\.pt' cannot be read"):
        run.load("last")
    torch.save({"other": 1}, path)
    with pytest.raises(UserError, match="lacks"):
        run.load("last")


def test_a_checkpoint_with_a_program_in_it_is_refused(run):
    path = run.folder / "checkpoints" / "last.pt"
    path.parent.mkdir()
    torch.save({"step": 1, "parts": {}, "log_bytes": 0, "bad": Run}, path)
    with pytest.raises(UserError, match=r"last.pt' is refused: .* would run code when loaded.$"):
        run.load("last")


def test_a_failed_checkpoint_leaves_the_old_one(run, monkeypatch):
    run.save("last", {"step": 1, "parts": {}})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        run.save("last", {"step": 2, "parts": {}})
    assert run.load("last")["step"] == 1
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["last.pt"]


def test_events_are_plain_json(run):
    run_quietly(run.drive(everything(np.zeros((2, 2)))))
    for line in run.events_path.read_text("utf-8").splitlines():
        assert json.loads(line)["seconds"] >= 0
