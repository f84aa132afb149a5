"""Runs seen from outside: processes that start, wait, stop, die and are found again."""

import errno
import json
import math
import os
import shlex
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from napari_cellda.cli.support import parse_settings
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Stage, Step, never, run_quietly
from napari_cellda.core.jobs import Run
from napari_cellda.core.locks import Lock, is_held
from napari_cellda.core.params import BaseParams
from napari_cellda.core.run_log import LogWriter, cut_log
from napari_cellda.core.runs.commands import changed_settings, command_words, typed_again
from napari_cellda.core.runs.follow import _Reader, follow_run
from napari_cellda.core.runs.history import MOST_POINTS, History
from napari_cellda.core.runs.launch import cancel_run, last_words, start_run
from napari_cellda.core.runs.presence import STARTED_VARIABLE, Presence, device_use, process_of
from napari_cellda.core.runs.table import (
    bound_of,
    delete_run,
    export_model,
    list_runs,
    new_run_folder,
    run_line,
)
from napari_cellda.core.runs.turn import QUEUE_VARIABLE, WAITING, Turn

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Stage, Step, run_quietly
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams
from napari_cellda.core.runs import turn

turn.device_names = lambda: ["processor"]  # torch would tell, but takes seconds to load

class Params(BaseParams):
    steps: int = 0

def work(stop, steps):
    yield Stage("Train", steps)
    for index in range(1, steps + 1):
        if stop():
            yield Note("Stopped early.")
            return
        yield Step(index, {"loss": 1 / index})
        if index % 10 == 0:
            yield Preview("map", np.full((4, 5), index / 100, np.float32), index)
        time.sleep(0.02)
    yield Score("dice", 0.5, steps)

steps, folder = int(sys.argv[1]), Path(sys.argv[3])
if steps < 0:
    print("Error: There is no image.")
    sys.exit(2)
run = Run(folder) if (folder / "run.yaml").exists() else Run.create(
    folder, "test", Params(steps=steps), {}, seed=0)
run_quietly(run.drive(work(run.stopper(), steps)))
"""


class Params(BaseParams):
    steps: int = 3
    name: str = "x"


@pytest.fixture
def start(tmp_path):
    """Start the program above with a number of steps; what still runs at the end is killed."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    started = []

    def start_it(steps, name="run"):
        program = (sys.executable, str(script))
        folder = tmp_path / name
        started.append(start_run([str(steps)], folder, queue=tmp_path / "queue", program=program))
        return started[-1]

    yield start_it
    for launched in started:
        if launched.alive:
            launched.kill()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def at_work(launched, step=1):
    def look():
        log = launched.folder / "events.jsonl"
        return log.exists() and f'"Step", "index": {step},'.encode() in log.read_bytes()

    wait_until(look)
    return Run(launched.folder)


def test_a_lock_is_held_once_and_freed(tmp_path):
    path = tmp_path / "lock"
    assert is_held(path) is False
    lock = Lock.take(path)
    assert lock is not None
    assert Lock.take(path) is None
    assert is_held(path)
    lock.release()
    looking = Lock.take(path, shared=True)
    assert is_held(path) is False  # two may look at once
    looking.release()
    assert is_held(path) is False


@pytest.mark.skipif(sys.platform == "win32", reason="there is no NFS of this kind")
def test_a_lock_is_shared_on_nfs_too(tmp_path, monkeypatch):
    """Its clients ask for a file that is open for reading, as for a lock of its bytes."""
    import fcntl

    def flock(handle, how):
        if how & fcntl.LOCK_SH and not handle.readable():
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "lock").touch()
    assert is_held(tmp_path / "lock") is False


def test_a_run_in_a_process_of_its_own_is_followed_to_its_end(start):
    launched = start(30)
    told = list(follow_run(launched.folder, lambda: False, launched))
    frames = [item for item in told if isinstance(item, Preview)]
    views = [item for item in told if not isinstance(item, Preview)]
    assert [frame.index for frame in frames] == [10, 20, 30]
    assert np.array_equal(frames[1].array, np.full((4, 5), 0.2, np.float32))
    assert views[0].state is None
    assert {view.state for view in views} <= {None, "running", "done"}
    last = views[-1]
    assert last.state == "done"
    assert last.step == last.total == 30
    np.testing.assert_allclose(last.losses["loss"].values, 1 / np.arange(1, 31))
    assert last.scores["dice"].values.tolist() == [0.5]
    assert process_of(launched.folder) is None


def test_it_has_low_priority_and_tells_who_it_is(start):
    run = at_work(start(500))
    process = run.process
    assert process.is_here
    assert process.device == "cpu"
    assert process.memory > 10 * 2**20
    if hasattr(os, "getpriority"):
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 10
    assert run.state == "running"


def test_a_run_cannot_be_driven_twice(start):
    run = at_work(start(500))
    with pytest.raises(UserError, match="at work already"):
        run_quietly(run.drive(iter(())))
    assert run.state == "running"
    with pytest.raises(UserError, match="at work"):
        delete_run(run.folder)


def test_a_stop_file_ends_it_with_what_it_has(start):
    launched = start(5000)
    run = at_work(launched, 5)
    run.ask_to_stop()
    wait_until(lambda: not launched.alive)
    assert run.state == "stopped"
    assert run.events()[-2]["text"] == "Stopped early."
    assert not (run.folder / "stop").exists()


def kill(launched):
    launched.kill()
    wait_until(lambda: process_of(launched.folder) is None)


def test_a_stop_right_after_a_resume_is_heard(start):
    launched = start(5000)
    run = at_work(launched)
    kill(launched)
    resumed = start(5000)
    run.ask_to_stop()  # its process has not come to the run yet
    wait_until(lambda: not resumed.alive)
    assert run.state == "stopped"


def test_a_stop_that_nobody_lived_to_see_is_forgotten(start, tmp_path, monkeypatch):
    launched = start(5000)
    run = at_work(launched)
    kill(launched)
    stop = run.folder / "stop"
    stop.touch()
    resumed = start(5000)
    at_work(resumed, 2)
    assert not stop.exists()
    kill(resumed)
    stop.touch()
    os.utime(stop, (0, 0))
    monkeypatch.delenv(STARTED_VARIABLE, raising=False)  # as when resumed from a shell
    run_quietly(Run(run.folder).drive(iter([Step(1)])))
    assert run.state == "done"


def test_cancel_ends_it_at_once(start):
    launched = start(5000)
    run = at_work(launched, 3)
    cancel_run(run.folder, launched)
    assert not launched.alive
    assert run.state == "cancelled"


def test_cancel_finds_a_run_that_somebody_else_started(start):
    run = at_work(start(5000), 3)
    cancel_run(run.folder)
    assert run.process is None
    assert run.state == "cancelled"
    cancel_run(run.folder)  # a second one finds nothing to do


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_killed_run_is_told_from_a_running_one(start):
    launched = start(5000)
    run = at_work(launched, 3)
    os.kill(run.process.pid, signal.SIGKILL)
    wait_until(lambda: not launched.alive)
    assert run.state == "killed"
    *_, view = follow_run(run.folder, lambda: False)
    assert view.state == "killed"
    assert not view.alive
    assert "ended from outside during 'Train'" in view.text


def test_a_mistake_before_the_run_begins_is_told(start):
    launched = start(-1)
    *_, view = follow_run(launched.folder, lambda: False, launched)
    assert view.state == "failed"
    assert view.text == "There is no image."
    assert last_words(launched.folder) == "There is no image."


def test_a_complaint_on_resuming_is_not_hidden_by_an_earlier_end(start):
    launched = start(2)
    wait_until(lambda: not launched.alive)
    assert Run(launched.folder).state == "done"
    launched = start(-1)
    *_, view = follow_run(launched.folder, lambda: False, launched)
    assert (view.state, view.text) == ("failed", "There is no image.")


def test_runs_wait_for_each_other_in_the_order_they_came(start):
    first = start(5000, "first")
    one = at_work(first)
    second = start(3, "second")
    wait_until(lambda: (second.folder / "run.yaml").exists() and Run(second.folder).events())
    two = Run(second.folder)
    assert two.state == "waiting"
    third = start(3, "third")
    wait_until(lambda: (third.folder / "run.yaml").exists() and Run(third.folder).events())
    cancel_run(one.folder, first)
    wait_until(lambda: not third.alive)
    three = Run(third.folder)
    assert two.state == three.state == "done"
    order = [run.events_path.stat().st_mtime for run in (two, three)]
    assert order == sorted(order)
    assert [line["title"] for line in two.events() if line["type"] == "Stage"] == [WAITING, "Train"]


def test_a_waiting_run_can_be_stopped(start, tmp_path):
    at_work(start(5000, "first"))
    second = start(3, "second")
    wait_until(lambda: (second.folder / "run.yaml").exists() and Run(second.folder).events())
    Run(second.folder).ask_to_stop()
    wait_until(lambda: not second.alive)
    run = Run(second.folder)
    assert run.state == "stopped"
    assert not any(line["type"] == "Step" for line in run.events())


def test_a_ticket_that_somebody_looks_at_is_left_to_the_next(tmp_path, monkeypatch):
    """On Windows it cannot be removed meanwhile."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "The file is in use", str(path))

    (tmp_path / "0-dead.ticket").touch()
    monkeypatch.setenv(QUEUE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    turn = Turn()
    run_quietly(turn.wait(never))
    assert turn._device is not None
    turn.release()


def test_without_a_queue_nothing_waits(tmp_path, monkeypatch):
    monkeypatch.delenv(QUEUE_VARIABLE, raising=False)
    run = Run.create(tmp_path / "run", "test", Params(), {}, seed=0)
    run_quietly(run.drive(iter([Step(1)])))  # type: ignore[arg-type]
    assert [line["type"] for line in run.events()] == ["Step", "End"]


def test_a_run_computes_on_the_device_that_the_queue_gave_it(tmp_path, monkeypatch):
    import lightning_fabric
    import torch

    from napari_cellda.core.devices import make_fabric

    current = [0]
    monkeypatch.setenv(QUEUE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: current.append(index))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(lightning_fabric, "Fabric", lambda **words: words["devices"])
    first, second, third = Turn(), Turn(), Turn()
    run_quietly(first.wait(never))
    assert make_fabric() == [0]
    run_quietly(second.wait(never))
    assert make_fabric("cuda") == [1]
    assert make_fabric("cpu") == 1
    # Too late: CUDA read it when it was asked whether it is there.
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    first.release()
    run_quietly(third.wait(never))
    assert make_fabric() == [0]
    second.release()
    third.release()


def test_the_sign_of_life_tells_the_device_that_is_in_use(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # of this thread, not the run's
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index=0: (0, 5)[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: f"card {index}")
    total = SimpleNamespace(total_memory=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: total)
    assert device_use() == ("card 1", 5, 9)


def test_bundled_inputs_may_lie_in_a_new_run(tmp_path):
    (tmp_path / "run" / "inputs").mkdir(parents=True)
    (tmp_path / "run" / "inputs" / "a.png").write_bytes(b"x")
    run = Run.create(tmp_path / "run", "t", Params(), {"images": tmp_path / "run/inputs"}, seed=0)
    assert run.record.inputs[0].path == "inputs"


def lines(*events, every=0.5):
    return [
        {"type": type(e).__name__, **e.__dict__, "seconds": every * i}
        for i, e in enumerate(events, 1)
    ]


def test_history_knows_rate_and_time_left():
    history = History()
    history.add(lines(Stage("A", 2), Step(1), Step(2), Stage("B", 10), Step(1), Step(2), Step(3)))
    view = history.view("running")
    assert (view.stage, view.step, view.total) == ("B", 3, 10)
    assert view.rate == pytest.approx(2)
    assert view.seconds_left == pytest.approx(3.5)
    assert view.seconds == pytest.approx(3.5)
    assert history.view("done").seconds_left is None


def test_history_adds_the_times_of_several_processes():
    history = History()
    history.add(lines(Stage("A", 9), Step(1), Step(2)))
    history.add(lines(Note("Going on."), Step(3)))
    assert history.view().seconds == pytest.approx(2.5)
    assert history.rate is None


def test_long_curves_are_averaged_but_reach_the_last_step():
    history = History()
    n = 2 * MOST_POINTS + 1
    history.add(lines(*[Step(i, {"loss": float(i)}) for i in range(1, n + 1)]))
    curve = history.view().losses["loss"]
    assert len(curve.steps) == len(curve.values) <= MOST_POINTS
    assert curve.steps[-1] == n
    assert curve.values[0] == pytest.approx(np.mean([1, 2, 3]))
    whole = (len(curve.values) - 1) * 3
    assert curve.values[-1] == pytest.approx(np.mean(np.arange(whole + 1, n + 1)))


def finished(folder, *events):
    run = Run.create(folder, "test", Params(), {}, seed=0)
    run_quietly(run.drive(iter(events)))  # type: ignore[arg-type]
    return run


def test_the_table_lists_runs_with_state_and_the_score_that_chose(tmp_path):
    chosen = [Score("dice", value, i, selects=True) for i, value in ((1, 0.5), (2, 0.7), (3, 0.6))]
    errors = [Score("error", value, i) for i, value in ((1, 0.3), (2, 0.2), (3, 0.9))]
    early = Score("early", math.inf, 1, selects=True)
    mixed = [event for pair in zip(errors, chosen, strict=True) for event in pair]
    finished(tmp_path / "a", early, *mixed, Score("late", 0.1, 3))
    finished(tmp_path / "b", Preview("map", np.zeros((2, 2)), 1))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.yaml").write_text("a: [")
    os.utime(tmp_path / "a" / "run.yaml", (1, 1))
    table = list_runs(tmp_path)
    assert [line.name for line in table] == ["b", "a"]
    assert (table[1].chosen_by, table[1].step) == ("dice", 2)
    assert table[1].scores == {"dice": 0.7, "error": 0.2, "early": math.inf, "late": 0.1}
    assert (table[0].chosen_by, table[0].step, table[0].scores) == ("", None, {})
    assert (table[1].method, table[1].state) == ("test", "done")
    assert not table[1].has_model
    assert list_runs(tmp_path / "nothing") == []


def test_a_run_is_read_again_only_when_it_is_another(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "napari_cellda.core.runs.table.Run", lambda folder: read.append(folder) or Run(folder)
    )
    run = finished(tmp_path / "a", Score("dice", 0.7, 1))
    (line,) = list_runs(tmp_path)
    assert list_runs(tmp_path) == [line]
    assert len(read) == 1
    with Presence(run.folder):
        (line,) = list_runs(tmp_path)
        assert (line.state, len(read)) == ("running", 2)
    (line,) = list_runs(tmp_path)
    assert line.state == "done"
    run_quietly(run.drive(iter([Score("dice", 0.6, 2)])))
    (line,) = list_runs(tmp_path)
    assert line.scores == {"dice": 0.6}


def test_without_a_choice_the_latest_scores_count(tmp_path):
    finished(tmp_path / "a", Score("dice", 0.7, 1), Score("dice", 0.6, 2))
    (line,) = list_runs(tmp_path)
    assert (line.chosen_by, line.scores) == ("", {"dice": 0.6})


@pytest.mark.parametrize(
    ("roles", "bound"),
    [
        ({"target_images", "source_images", "source_masks"}, "source-only"),
        ({"target_images", "target_masks"}, "target-only"),
        ({"target_images", "target_strokes", "validation_masks"}, "target-only"),
        ({"target_images", "source_images", "source_masks", "target_masks"}, "fine-tuned"),
        ({"target_images", "target_masks", "pretrained"}, "fine-tuned"),
    ],
)
def test_a_supervised_run_is_named_by_what_it_was_trained_on(roles, bound):
    assert bound_of("supervised", roles) == bound
    assert bound_of("culpico", roles) == ""


@pytest.mark.parametrize(
    "text", ["method: 2001-99-99", "method: !!int abc", "method: !!bool maybe", "a: " + "[" * 5000]
)
def test_a_record_that_cannot_be_read_hides_no_other_run(tmp_path, text):
    finished(tmp_path / "good", Score("dice", 0.5, 1))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="damaged or of another version"):
        Run(tmp_path / "bad")
    assert [line.name for line in list_runs(tmp_path)] == ["good"]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "Score", "value": 0.9, "index": 1},
        {"type": "Score", "name": "dice", "value": "much", "index": 1},
        {"type": "Score", "name": "dice", "value": 10**400, "index": 1},
        {"type": "Score", "name": "dice", "value": 0.9},
        {"type": "Step", "losses": {}},
        {"type": "Step", "index": 1, "losses": {"loss": None}},
        {"type": "Step", "index": "1", "losses": {}},
        {"type": "Stage", "title": "Train", "total": "many"},
        {"type": "Preview", "name": "map"},
        {"type": "Note"},
        {"type": "Note", "text": "On.", "seconds": "late"},
        {"type": "End"},
        {"type": "End", "state": "wonderful", "text": ""},
        {"type": ["End"]},
    ],
)
def test_a_line_that_lacks_its_fields_is_left_out(tmp_path, line):
    run = finished(tmp_path / "run", Step(1, {"loss": 0.5}), Score("dice", 0.5, 1))
    with run.events_path.open("a") as log:
        log.write(json.dumps(line) + "\n")
    (row,) = list_runs(tmp_path)
    assert row.scores == {"dice": 0.5}
    assert row.state == "done"
    assert [one["type"] for one in run.events()] == ["Step", "Score", "End"]
    view = list(follow_run(run.folder, lambda: False))[-1]
    assert view.state == "done"


def test_of_a_long_log_the_table_parses_only_what_it_shows(tmp_path, monkeypatch):
    steps = [Step(i, {"loss": 1.0}) for i in range(1, 200)]
    finished(tmp_path / "run", Note("A Score is a figure."), *steps, Score("dice", 0.5, 199))
    parsed = []
    loads = json.loads
    monkeypatch.setattr(
        "napari_cellda.core.run_log.json.loads", lambda text: parsed.append(text) or loads(text)
    )
    (row,) = list_runs(tmp_path)
    assert row.scores == {"dice": 0.5}
    assert sum(b'"Step"' in line for line in parsed) < 100  # the end of the log tells the state


def test_a_model_is_copied_or_zipped_and_a_run_deleted(tmp_path):
    import zipfile

    run = finished(tmp_path / "a")
    with pytest.raises(UserError, match="no model: it is done, but its package"):
        export_model(run.folder, tmp_path / "out")
    run.model_folder.mkdir()
    (run.model_folder / "rdf.yaml").write_text("name: x")
    assert run_line(run.folder).has_model
    export_model(run.folder, tmp_path / "out")
    assert (tmp_path / "out" / "rdf.yaml").read_text() == "name: x"
    export_model(run.folder, tmp_path / "out.zip")
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["rdf.yaml"]
    delete_run(run.folder)
    assert not run.folder.exists()
    with pytest.raises(UserError, match="no run"):
        delete_run(tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_new_runs_get_names_that_are_free(tmp_path):
    first = new_run_folder(tmp_path, "enhancer train")
    assert first.name.startswith("enhancer-train-20")
    assert first.name.endswith("-1")
    first.mkdir()
    assert new_run_folder(tmp_path, "enhancer train").name.endswith("-2")


def test_words_of_a_command():
    options = {"target_images": "a b", "masks": None, "bundle": True, "resume": False,
               "classes": ("x", "y"), "channels": "grey", "none": ()}  # fmt: skip
    assert command_words(("adapt", "culpico"), options, {"steps": 3, "name": "a"}) == [
        "adapt", "culpico", "--target-images", "a b", "--bundle", "--classes", "x,y",
        "--channels", "grey", "--set", "steps=3", "--set", 'name="a"',
    ]  # fmt: skip
    assert changed_settings(Params(steps=9), Params()) == {"steps": 9}


def test_a_recorded_command_can_be_typed_again():
    settings = {"steps": 3, "name": "1e3", "auto": None, "on": True, "sizes": [1, 2]}
    line = typed_again(("adapt", "culpico"), {"target_images": "a b"}, settings)
    words = shlex.split(line)
    assert words[:5] == ["napari-cellda", "adapt", "culpico", "--target-images", "a b"]
    assert words[-2:] == ["-o", "RUN"]
    assert parse_settings(words[6:-2:2]) == settings


def test_a_log_line_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", "test", Params(), {}, seed=0)

    def work():
        yield Step(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (run.events_path.stat().st_size + 10, hard))
        yield Step(2)

    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            run_quietly(run.drive(work()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    content = run.events_path.read_bytes()
    assert content.endswith(b"\n")
    assert [json.loads(line)["type"] for line in content.splitlines()] == ["Step"]
    assert run.state == "killed"


def test_a_process_elsewhere_is_known_by_its_sign_of_life(tmp_path):
    run = finished(tmp_path / "a")
    sign = {"pid": 4, "host": "another", "leads_group": True, "device": "x", "memory": 1,
            "memory_total": 2}  # fmt: skip
    path = run.folder / "process.json"
    path.write_text(json.dumps(sign))
    assert run.process.host == "another"
    assert run.state == "running"
    with pytest.raises(UserError, match="at work on 'another'"):
        cancel_run(run.folder)
    os.utime(path, (1, 1))
    assert run.process is None
    path.write_text("{")
    assert run.process is None


def test_a_log_that_was_cut_back_and_grew_again_is_read_anew(tmp_path):
    run = Run.create(tmp_path / "run", "test", Params(), {}, seed=0)
    with LogWriter(run.events_path) as log:
        for index in range(1, 6):
            log.write({"type": "Step", "index": index, "losses": {"loss": 1.0}})
    reader = _Reader(run.folder, None)
    assert len(reader.read()) == 5
    assert reader.read() == []
    kept = run.events_path.read_bytes().splitlines(keepends=True)[:2]
    cut_log(run.events_path, sum(map(len, kept)))
    with LogWriter(run.events_path) as log:
        log.write({"type": "Note", "text": "Going on."})
        for index in range(3, 9):
            log.write({"type": "Step", "index": index, "losses": {"loss": 2.0}})
    assert len(reader.read()) == 9
    view = reader.look(None, starts=False)
    assert view.notes == ("Going on.",)
    assert view.losses["loss"].values.tolist() == [1, 1, 2, 2, 2, 2, 2, 2]


def test_the_sign_of_life_bears_a_half_imported_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    device, memory, total = device_use()
    assert device == "cpu"
    assert 0 < memory < total
