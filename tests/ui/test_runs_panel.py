"""Runs in the window: started, followed, stopped, cancelled, killed, resumed, found again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Preview, Stop
from napari_cellda.core.jobs import Run, State
from napari_cellda.core.params import BaseParams
from napari_cellda.core.runs import launch, table
from napari_cellda.core.runs.history import RunView
from napari_cellda.core.runs.table import RUNS_VARIABLE, RunLine
from napari_cellda.core.runs.turn import QUEUE_VARIABLE
from napari_cellda.ui import closing
from napari_cellda.ui.frames import FrameStack
from napari_cellda.ui.images import image_layers
from napari_cellda.ui.panels import train, verdict
from napari_cellda.ui.panels.adapt import AdaptPanel
from napari_cellda.ui.panels.run_monitor import RunMonitor, duration, gigabytes
from napari_cellda.ui.panels.runs import RunsPanel, _cells, _place_of, _tip
from napari_cellda.ui.panels.train import TrainPanel
from napari_cellda.ui.run_layers import Place, RunLayers, side_by_side
from napari_cellda.ui.runs import RunWatch, SessionRuns
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task
from painting import WAIT_MS

STAND_IN = Path(__file__).parent / "stand_in.py"


class Nothing(BaseParams):
    """No settings."""


@pytest.fixture(autouse=True)
def runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep runs of a test to itself, and let a short program do the training."""
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    monkeypatch.delenv(QUEUE_VARIABLE, raising=False)
    monkeypatch.setattr(launch, "PROGRAM", (sys.executable, str(STAND_IN)))
    monkeypatch.setattr(launch, "default_queue", lambda: tmp_path / "queue")
    return tmp_path / "runs"


@pytest.fixture
def viewer() -> Iterator[ViewerModel]:
    viewer = ViewerModel()
    rng = np.random.default_rng(0)
    for index in range(2):
        viewer.add_image(rng.random((40, 50)), name=f"field {index}")
        viewer.add_labels(np.eye(40, 50, dtype=np.int32), name=f"cells {index}")
    yield viewer
    session = Session.of(viewer)
    for watch in SessionRuns.of(session).alive:
        watch._cancel()
    session.close()


@pytest.fixture
def panel(qtbot: QtBot, viewer: ViewerModel) -> TrainPanel:
    panel = TrainPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    qtbot.waitUntil(panel.isEnabled, timeout=WAIT_MS)
    panel.images.choose_layers([viewer.layers["field 0"], viewer.layers["field 1"]])
    panel.masks.choose_layers([viewer.layers["cells 0"], viewer.layers["cells 1"]])
    panel.shows.setText("Round cells")
    return panel


Begin = Callable[[int], RunWatch]


@pytest.fixture
def begin(panel: TrainPanel) -> Begin:
    def begin_it(steps: int) -> RunWatch:
        panel.settings.choose("cpu", {"steps": steps})
        panel.starter.start.click()
        assert panel.starter.message.text == ""
        run = panel.starter.monitor.run
        assert run is not None
        return run

    return begin_it


def finish(run: RunWatch, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not run.alive, timeout=WAIT_MS)


def reach(run: RunWatch, qtbot: QtBot, step: int) -> None:
    qtbot.waitUntil(lambda: run.view.step >= step, timeout=WAIT_MS)


def test_what_no_package_can_say_is_refused_before_layers_are_written(
    panel: TrainPanel, tmp_path: Path
):
    panel.shows.setText("nuclei: DAPI")
    with pytest.raises(UserError, match="'nuclei: DAPI'; expected up to 100 of the letters"):
        panel.plan(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_layers_are_written_and_the_run_is_followed_to_its_end(
    panel: TrainPanel, begin: Begin, qtbot: QtBot, viewer: ViewerModel, runs_here: Path
):
    camera = (viewer.camera.center, viewer.camera.zoom)
    selected = set(viewer.layers.selection)
    run = begin(60)
    finish(run, qtbot)
    monitor = panel.starter.monitor
    assert run.view.state == "done", run.view.text
    assert "done" in monitor.title.text()
    inputs = run.folder / "inputs"
    for kind in ("images", "masks"):
        names = sorted(path.name for path in (inputs / kind).iterdir())
        assert names == ["field 0.tif", "field 1.tif"]
    mask = tifffile.imread(inputs / "masks" / "field 0.tif")
    np.testing.assert_array_equal(mask, viewer.layers["cells 0"].data)
    assert {item.path for item in Run(run.folder).record.inputs} == {
        "inputs/images",
        "inputs/masks",
    }
    assert set(monitor.curves.losses.curves) == {"loss", "dice"}
    assert set(monitor.curves.scores.curves) == {"score"}
    x, y = monitor.curves.losses.curves["loss"].getData()
    np.testing.assert_allclose(y, 1 / x)
    layer = viewer.layers[f"map · {run.name}"]
    assert layer.data.shape == (3, 12, 24)
    np.testing.assert_allclose(np.asarray(layer.data)[:, 0, 0], [1 / 3, 2 / 3, 1], rtol=1e-6)
    assert viewer.dims.current_step[0] == 2
    assert (viewer.camera.center, viewer.camera.zoom) == camera
    assert set(viewer.layers.selection) == selected
    assert panel.use.isVisible()
    assert panel.starter.name.text() != run.name


def test_two_clicks_start_one_run(panel: TrainPanel, begin: Begin, qtbot: QtBot, runs_here: Path):
    run, start = begin(400), panel.starter.start
    start.click()
    assert panel.starter.monitor.run is run
    qtbot.waitUntil(start.isEnabled, timeout=WAIT_MS)
    assert [folder.name for folder in runs_here.iterdir()] == [run.name]
    start.click()  # another one, behind the first
    assert panel.starter.monitor.run is not run


def test_stop_keeps_the_model_and_resume_goes_on(panel: TrainPanel, begin: Begin, qtbot: QtBot):
    run, monitor = begin(300), panel.starter.monitor
    assert monitor.stop.isEnabled()
    reach(run, qtbot, 30)
    monitor.stop.click()
    assert "stopping" in monitor.title.text()
    assert not monitor.stop.isEnabled()
    finish(run, qtbot)
    assert run.view.state == "stopped"
    assert (run.folder / "model" / "rdf.yaml").is_file()
    assert not monitor.stop.isEnabled()
    assert monitor.resume.isEnabled()
    monitor.resume.click()
    assert not monitor.resume.isEnabled()
    finish(run, qtbot)
    assert run.view.state == "done"
    steps = [line["index"] for line in Run(run.folder).events() if line["type"] == "Step"]
    assert steps == list(range(1, 301))


def test_cancel_ends_at_once(panel: TrainPanel, begin: Begin, qtbot: QtBot):
    run = begin(5000)
    reach(run, qtbot, 3)
    panel.starter.monitor.cancel.click()
    finish(run, qtbot)
    assert run.view.state == "cancelled"
    assert Run(run.folder).process is None


def test_a_run_is_cancelled_before_it_has_begun(panel: TrainPanel, begin: Begin, qtbot: QtBot):
    run = begin(5000)
    panel.starter.monitor.cancel.click()
    finish(run, qtbot)
    assert run.view.state == "cancelled"
    assert not (run.folder / "run.yaml").exists() or Run(run.folder).process is None


def test_a_run_is_cancelled_while_its_inputs_are_written(
    qtbot: QtBot, viewer: ViewerModel, runs_here: Path
):
    ended = threading.Event()

    def prepare(stop: Stop) -> None:
        (runs_here / "one" / "inputs").mkdir(parents=True)
        while not (stop() or ended.wait(0.01)):
            pass

    run = SessionRuns.of(Session.of(viewer)).start(["adapt", "x"], runs_here / "one", prepare)
    try:
        text, more = closing.question([run])
        assert text == "Still being prepared: one."
        assert "lost when napari ends" in more
        assert "Kept running" not in more
        run.cancel()
        finish(run, qtbot)
    finally:
        ended.set()
    assert run.view.state == "cancelled"
    assert not run.folder.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_killed_run_says_so_and_is_resumed(panel: TrainPanel, begin: Begin, qtbot: QtBot):
    run, monitor = begin(200), panel.starter.monitor
    reach(run, qtbot, 50)
    process = Run(run.folder).process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    finish(run, qtbot)
    assert run.view.state == "killed"
    assert "ended from outside during 'Train'" in monitor.message.text
    monitor.resume.click()
    finish(run, qtbot)
    assert run.view.state == "done"
    assert run.view.notes[-1].startswith("Going on from step")
    assert monitor.message.text == ""
    steps = [line["index"] for line in Run(run.folder).events() if line["type"] == "Step"]
    assert steps == list(range(1, 201))


def test_deleted_layers_stay_away_and_the_run_goes_on(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel
):
    run = begin(120)
    qtbot.waitUntil(lambda: f"map · {run.name}" in viewer.layers, timeout=WAIT_MS)
    viewer.layers.remove(f"map · {run.name}")
    viewer.layers.remove("field 0")
    finish(run, qtbot)
    assert run.view.state == "done"
    assert len(run.frames["map"]) == 6
    assert f"map · {run.name}" not in viewer.layers


def test_masks_go_to_the_images_whose_names_they_have(
    panel: TrainPanel, viewer: ViewerModel, runs_here: Path, tmp_path: Path
):
    for index in range(2):
        viewer.layers[f"cells {index}"].name = f"field {index} masks"
    viewer.layers["field 1 masks"].data = np.full((40, 50), 7)
    panel.masks.choose_layers([viewer.layers["field 1 masks"], viewer.layers["field 0 masks"]])
    panel.plan(tmp_path / "run").write_inputs()
    masks = tmp_path / "run" / "inputs" / "masks"
    assert [tifffile.imread(masks / f"field {k}.tif").max() for k in range(2)] == [1, 7]
    viewer.layers["field 1 masks"].data = np.full((30, 50), 7)
    panel.starter.start.click()
    assert panel.starter.message.text == (
        "The layer 'field 1 masks' has 30 x 50 pixels, its image 'field 1' 40 x 50."
    )
    assert not runs_here.exists()


def test_a_panel_that_is_opened_while_its_run_goes_on_shows_it(
    qtbot: QtBot, viewer: ViewerModel, runs_here: Path
):
    runs = SessionRuns.of(Session.of(viewer))
    run = runs.start(["enhancer", "train", "--set", "steps=200"], runs_here / "one")
    qtbot.waitUntil(lambda: "map · one" in viewer.layers, timeout=WAIT_MS)
    seen = viewer.layers["map · one"].data.shape[0]
    # Nobody shows the run, and its pictures go on.
    qtbot.waitUntil(lambda: viewer.layers["map · one"].data.shape[0] > seen, timeout=WAIT_MS)
    again = TrainPanel(viewer)
    qtbot.addWidget(again)
    assert again.starter.monitor.run is run
    other = AdaptPanel(viewer)
    qtbot.addWidget(other)
    assert other.starter.monitor.run is None
    finish(run, qtbot)
    assert not again.use.isHidden()
    qtbot.waitUntil(lambda: again.isEnabled() and other.isEnabled(), timeout=WAIT_MS)


def test_pictures_of_a_run_go_on_when_another_is_started(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel
):
    run = begin(120)
    reach(run, qtbot, 20)
    begin(20)
    finish(run, qtbot)
    assert viewer.layers[f"map · {run.name}"].data.indices == [20, 40, 60, 80, 100, 120]


def list_one(viewer: ViewerModel, qtbot: QtBot) -> RunsPanel:
    """Open the panel Runs and wait until it lists the one run that there is."""
    panel = RunsPanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: len(panel.lines) == 1, timeout=WAIT_MS)
    return panel


def test_an_opened_run_has_its_pictures_once_where_they_belong_and_deleted_ones_again(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel, runs_here: Path, tmp_path: Path
):
    def shown() -> list[str]:
        return [layer.name for layer in viewer.layers if run.name in layer.name]

    run = begin(40)
    finish(run, qtbot)
    panel = list_one(viewer, qtbot)
    panel.table.selectRow(0)
    for delete in (False, True):
        if delete:
            viewer.layers.remove(f"map · {run.name}")
        panel.open.click()
        qtbot.waitUntil(lambda: len(run.frames.get("map", ())) == 2, timeout=WAIT_MS)
        assert shown() == [f"map · {run.name}"]
        assert viewer.layers[f"map · {run.name}"].data.indices == [20, 40]
    viewer.layers.remove(f"map · {run.name}")
    panel.monitor.previews.setChecked(False)
    assert shown() == []
    panel.monitor.previews.setChecked(True)
    assert shown() == [f"map · {run.name}"]


def test_pictures_of_an_earlier_run_lie_on_its_first_image(viewer: ViewerModel, tmp_path: Path):
    images, points = tmp_path / "run" / "inputs" / "images", tmp_path / "run" / "inputs" / "points"
    for folder in (images, points):
        folder.mkdir(parents=True)
    for index in range(2):
        tifffile.imwrite(images / f"field {index}.tif", viewer.layers[f"field {index}"].data)
    viewer.layers["field 0"].translate = (3, 4)
    viewer.layers["field 1"].translate = (60, 0)
    Run.create(tmp_path / "run", "supervised", Nothing(), {"target_images": images}, seed=0)
    layers = image_layers(viewer)
    assert _place_of(tmp_path / "run", layers) == Place((1, 1), (3, 4), (), "field 0")
    assert _place_of(tmp_path / "run", [viewer.layers["field 1"]]) is None
    (points / "field 1.csv").touch()
    roles = {"target_images": images, "points": points}
    Run.create(tmp_path / "cks", "cks", Nothing(), roles, seed=0)
    assert _place_of(tmp_path / "cks", layers) == Place((1, 1), (60, 0), (), "field 1")
    assert _place_of(tmp_path / "elsewhere", layers) is None


def test_a_run_whose_folder_is_gone_says_so(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel, runs_here: Path
):
    run = begin(20)
    finish(run, qtbot)
    panel = list_one(viewer, qtbot)
    panel.table.selectRow(0)
    shutil.rmtree(run.folder)
    panel.open.click()
    gone = f"The run's folder '{run.folder}' is gone."
    qtbot.waitUntil(lambda: panel.monitor.message.text == gone, timeout=WAIT_MS)


def test_a_run_whose_folder_is_taken_away_says_so(begin: Begin, qtbot: QtBot):
    run = begin(3000)
    reach(run, qtbot, 3)
    shutil.rmtree(run.folder, ignore_errors=True)
    finish(run, qtbot)
    assert run.view.text == f"The run's folder '{run.folder}' is gone."


def test_a_damaged_run_with_a_model_is_not_judged(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel, runs_here: Path
):
    run = begin(20)
    finish(run, qtbot)
    (run.folder / "run.yaml").write_text("garbage: [")
    judge = verdict.Verdict(run.session)
    qtbot.addWidget(judge)
    judge.show_run(run)
    assert judge.isHidden()


def test_missing_inputs_are_told(panel: TrainPanel, viewer: ViewerModel, runs_here: Path):
    panel.masks.choose_layers([viewer.layers["cells 0"]])
    panel.starter.start.click()
    assert "1 layers of masks are chosen for 2 images" in panel.starter.message.text
    panel.images.choose_path(None)
    panel.starter.start.click()
    assert panel.starter.message.text.startswith("No images are chosen")
    panel.starter.name.setText("../elsewhere")
    panel.starter.start.click()
    assert "expected the name of a new folder" in panel.starter.message.text
    assert not runs_here.exists()


@pytest.mark.parametrize("open_panel", [AdaptPanel, TrainPanel, RunsPanel])
def test_errors_of_the_session_are_told(
    qtbot: QtBot,
    viewer: ViewerModel,
    monkeypatch: pytest.MonkeyPatch,
    open_panel: Callable[..., Any],
):
    panel = open_panel(viewer)
    qtbot.addWidget(panel)
    starter = panel if isinstance(panel, RunsPanel) else panel.starter
    panel.session.report(RuntimeError("CUDA out of memory"))
    told = "Something went wrong: RuntimeError: CUDA out of memory"
    assert starter.message.text == told
    if hasattr(panel, "verdict"):  # who compares looks there
        monkeypatch.setattr(panel.verdict, "isHidden", lambda: False)
        panel.session.report(RuntimeError("CUDA out of memory"))
        assert panel.verdict.message.text == told
    qtbot.waitUntil(panel.isEnabled, timeout=WAIT_MS)


def test_settings_that_cannot_be_loaded_are_told(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
):
    def refuse(stop: Any) -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(train, "_load_params", refuse)
    panel = TrainPanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: "libcudart" in panel.starter.message.text, timeout=WAIT_MS)


@pytest.mark.parametrize("folder", ["~nobody-is-called-so/runs", "/tmp/\0x", ""])
def test_a_folder_that_cannot_be_is_told(
    panel: TrainPanel, qtbot: QtBot, viewer: ViewerModel, folder: str
):
    runs = RunsPanel(viewer)
    qtbot.addWidget(runs)
    told = "No folder is given" if not folder else "is no folder"
    qtbot.waitUntil(lambda: not runs._reading, timeout=WAIT_MS)
    for one in (runs, panel.starter):
        one.folder.setText(folder)
        one.folder.editingFinished.emit()
    panel.starter.start.click()
    for message in (runs.message, panel.starter.message):
        assert told in message.text


def test_a_folder_without_permission_is_told(
    panel: TrainPanel, qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    panel.starter.name.setText("one")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        panel.starter.propose()
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            panel.starter._new_folder()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(UserError, match="one' cannot be read: Permission denied"):
            panel.starter._new_folder()


def test_an_estimate_leaves_nothing_behind(panel: TrainPanel, qtbot: QtBot, runs_here: Path):
    panel.settings.choose("cpu", {"steps": 4000})
    panel.starter.estimate.click()
    assert panel.starter.estimate.text() == "Cancel"
    qtbot.waitUntil(lambda: panel.starter.estimating is None, timeout=WAIT_MS)
    assert panel.starter.message.text == ""
    assert panel.starter.cost.text().startswith("About ")
    assert not runs_here.exists()


def test_napari_comes_back_and_attaches_to_a_run(begin: Begin, qtbot: QtBot, viewer: ViewerModel):
    run = begin(400)
    reach(run, qtbot, 25)
    Session.of(viewer).close()
    other = ViewerModel()
    panel = RunsPanel(other)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: len(panel.lines) == 1, timeout=WAIT_MS)
    assert panel.lines[0].state == "running"
    panel.table.selectRow(0)
    panel.open.click()
    found = panel.monitor.run
    assert found is not None
    reach(found, qtbot, 40)
    assert len(found.view.losses["loss"].steps) >= 40
    panel.monitor.stop.click()
    finish(found, qtbot)
    assert found.view.state == "stopped"
    assert f"map · {run.name}" in other.layers
    panel.session.close()


def test_runs_are_listed_exported_and_deleted(
    begin: Begin, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    run = begin(20)
    finish(run, qtbot)
    panel = list_one(viewer, qtbot)
    cells = [panel.table.item(0, column).text() for column in (0, 1, 2, 4)]
    assert cells == [run.name, "done", "1.000\nscore", "enhancer train"]
    tip = panel.table.item(0, 2).toolTip()
    assert tip.splitlines()[1:] == ["Step 20 was chosen, the highest: score 1.000"]
    assert not panel.export.isEnabled()
    panel.table.selectRow(0)
    assert panel.export.isEnabled()
    panel.export_to(panel.lines[0], tmp_path / "model.zip")
    qtbot.waitUntil(lambda: panel.message.text.startswith("Wrote"), timeout=WAIT_MS)
    assert (tmp_path / "model.zip").is_file()
    panel.delete_runs([run.folder])
    qtbot.waitUntil(lambda: not panel.lines, timeout=WAIT_MS)
    assert not run.folder.exists()


def test_nothing_of_a_deleted_run_stays_on_show(
    panel: TrainPanel, begin: Begin, qtbot: QtBot, viewer: ViewerModel
):
    run = begin(20)
    finish(run, qtbot)
    runs = RunsPanel(viewer)
    qtbot.addWidget(runs)
    runs.watch(run)
    assert not runs.shown.isHidden()
    assert f"map · {run.name}" in viewer.layers
    assert panel.use.isVisible()
    runs.delete_runs([run.folder])
    qtbot.waitUntil(lambda: runs.monitor.run is None, timeout=WAIT_MS)
    assert runs.shown.isHidden()
    assert panel.starter.monitor.isHidden()
    assert panel.use.isHidden()
    assert f"map · {run.name}" not in viewer.layers


def test_a_run_at_work_is_not_deleted(begin: Begin, qtbot: QtBot, viewer: ViewerModel):
    run = begin(2000)
    reach(run, qtbot, 3)
    runs = RunsPanel(viewer)
    qtbot.addWidget(runs)
    runs.watch(run)
    runs.delete_runs([run.folder])
    qtbot.waitUntil(lambda: "is at work" in runs.message.text, timeout=WAIT_MS)
    qtbot.wait(50)
    assert runs.monitor.run is run
    assert SessionRuns.of(runs.session).alive == [run]


def test_the_score_that_chose_is_named_and_the_others_lie_in_the_tip():
    begun = datetime(2026, 1, 1)
    scores = {"disagreement": 0.25, "agreement": -0.5}
    line = RunLine(Path("a"), "cks", "done", scores, begun, chosen_by="agreement", step=8)
    assert _cells(line)[2] == "-0.500\nagreement"
    assert _tip(line).splitlines()[1:] == [
        "Step 8 was chosen, the highest: agreement -0.500",
        "Measured there, too:",
        "disagreement: 0.250",
    ]
    unchosen = RunLine(Path("a"), "cellseguda", "done", scores, begun)
    assert _cells(unchosen)[2] == ""
    assert _tip(unchosen).splitlines()[1] == "No score chose among the steps. The latest:"


def test_name_state_and_score_are_seen_in_a_narrow_dock(qtbot: QtBot, viewer: ViewerModel):
    panel = RunsPanel(viewer)
    qtbot.addWidget(panel)
    panel.resize(315, 600)
    panel.show()
    begun, scores = datetime(2026, 1, 1), {"disagreement": 0.25}
    folder = Path("runs") / "cellsegssda-2026-01-01-12"
    line = RunLine(folder, "cellsegssda", "waiting", scores, begun, chosen_by="disagreement")
    panel._show_lines([line])
    seen = [panel.table.horizontalHeaderItem(column).text() for column in range(3)]
    assert seen == ["Run", "State", "Score"]

    def fit() -> bool:
        widths = [panel.table.columnWidth(column) for column in range(3)]
        return sum(widths) <= panel.table.viewport().width()

    assert fit()
    narrow = panel.table.columnWidth(0)
    panel.resize(900, 600)
    qtbot.waitUntil(lambda: panel.table.columnWidth(0) > narrow)
    assert fit()


def test_panel_closed_while_it_reads_is_called_no_more(
    qtbot: QtBot, viewer: ViewerModel, runs_here: Path, monkeypatch: pytest.MonkeyPatch
):
    go_on, threads = threading.Event(), []

    def slow(root: Path) -> list[RunLine]:
        threads.append(threading.current_thread())
        go_on.wait(60)
        return []

    monkeypatch.setattr(table, "list_runs", slow)
    panel = RunsPanel(viewer)
    run = RunWatch(panel.session, runs_here / "a")
    panel.watch(run)
    with qtbot.waitSignal(panel.destroyed):
        panel.deleteLater()
    go_on.set()
    qtbot.waitUntil(lambda: bool(threads) and not threads[0].is_alive(), timeout=WAIT_MS)
    ended: list[bool] = []
    run_task(lambda stop: None, on_finished=lambda: ended.append(True))
    qtbot.waitUntil(lambda: bool(ended))
    run.changed.emit()
    run.failed.emit(ValueError("nobody is there to show it"))


def test_other_runs_are_read_beside_the_window(
    qtbot: QtBot, viewer: ViewerModel, runs_here: Path, monkeypatch: pytest.MonkeyPatch
):
    threads = []

    def listed(root: Path) -> list[RunLine]:
        threads.append(threading.current_thread())
        began = datetime(2026, 1, 1)
        return [
            RunLine(root / name, "cks", "done", {}, began) for name in ("this", "other", "empty")
        ]

    monkeypatch.setattr(table, "list_runs", listed)
    monkeypatch.setattr(verdict, "_has_model", lambda folder: True)
    for name in ("this", "other"):
        (runs_here / name / "model").mkdir(parents=True)
        (runs_here / name / "model" / "rdf.yaml").touch()
    run = RunWatch(Session.of(viewer), runs_here / "this")
    run.view = RunView("done")
    judge = verdict.Verdict(run.session)
    qtbot.addWidget(judge)
    judge.show_run(run)
    qtbot.waitUntil(lambda: judge.other.count() == 2, timeout=WAIT_MS)
    assert judge.other.itemText(1) == "other"
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("choice", ["keep", "stop", "stay"])
def test_closing_the_window_asks_about_runs(
    choice: str,
    qtbot: QtBot,
    make_napari_viewer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    viewer = make_napari_viewer()
    runs = SessionRuns.of(Session.of(viewer))
    asked: list[list[str]] = []

    def ask(window: Any, alive: list[RunWatch]) -> str:
        asked.append([watch.name for watch in alive])
        return choice

    monkeypatch.setattr(closing, "ask", ask)
    run = runs.start(["adapt", "x", "--set", "steps=600"], tmp_path / "runs" / "one")
    reach(run, qtbot, 3)
    if choice == "stay":
        viewer.window._qt_window.close(quit_app=False, confirm_need=False)
        assert asked == [["one"]]
        assert not runs.session.is_closed
        run.cancel()
        finish(run, qtbot)
        return
    viewer.close()
    assert asked == [["one"]]
    qtbot.waitUntil(lambda: runs.session.is_closed, timeout=WAIT_MS)
    there = Run(run.folder)
    if choice == "keep":
        assert there.state == "running"
        launch.cancel_run(run.folder)
    else:
        qtbot.waitUntil(lambda: there.state == "stopped", timeout=WAIT_MS)


# -- pictures -----------------------------------------------------------------------------------


def test_a_frame_stack_reads_like_an_array():
    rng = np.random.default_rng(0)
    frames = [rng.random((4, 5)) for _ in range(3)]
    stack = FrameStack((4, 5), np.float64, between=(2,))
    for index, frame in enumerate(frames):
        stack.append(10 * index, frame)
    expected = np.repeat(np.stack(frames)[:, None], 2, axis=1)
    assert stack.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(stack), expected)
    for key in (1, (2, 1), (slice(None), 0), (0, slice(None), 2), (..., 3), (slice(1, 3), 1, 0)):
        np.testing.assert_array_equal(stack[key], expected[key])
    stack.append(10, frames[0])  # the same step again, after a resume
    assert stack.shape[0] == 3
    np.testing.assert_array_equal(stack[1, 0], frames[0])


def test_a_long_stack_drops_earlier_pictures_but_not_the_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("napari_cellda.ui.frames.MOST_BYTES", 10 * 8 * 4)
    stack = FrameStack((2, 2), np.float64)
    for index in range(100):
        stack.append(index, np.full((2, 2), index, float))
    assert stack.shape[0] == 10
    assert stack.indices[0] == 0
    assert stack.indices[-1] == 99
    assert max(np.diff(stack.indices)) <= 2 * 99 / 9  # evenly, not the latest only
    assert [int(stack[i][0, 0]) for i in range(stack.shape[0])] == stack.indices


def test_pictures_of_a_long_run_take_a_limited_room(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
):
    """A panel that is opened later still shows how it began and where it is."""
    picture = np.full((8, 8), 0.5, np.float32)
    monkeypatch.setattr("napari_cellda.ui.frames.MOST_BYTES", 10 * picture.nbytes)
    watch = RunWatch(Session.of(viewer), Path("run"))
    for index in range(100):
        watch._on_news(Preview("map", picture, index))
    steps = [frame.index for frame in watch.frames["map"]]
    assert len(steps) == 10
    assert (steps[0], steps[-1]) == (0, 99)
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    monitor.watch(watch)
    assert viewer.layers["map · run"].data.indices == steps


def test_a_resume_that_goes_back_takes_its_pictures_anew(viewer: ViewerModel):
    watch = RunWatch(Session.of(viewer), Path("run"))
    for index in (10, 20, 30, 20):
        watch._on_news(Preview("map", np.zeros((8, 8)), index))
    assert [frame.index for frame in watch.frames["map"]] == [10, 20]


def test_channels_stand_side_by_side():
    array = np.stack([np.zeros((2, 3)), np.ones((2, 3))])
    assert side_by_side(array).shape == (2, 10)
    assert side_by_side(array)[0].tolist() == [0] * 7 + [1] * 3
    assert side_by_side(array[0]) is not None


def test_pictures_of_one_plane_of_a_stack_are_seen_in_that_plane_only():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 5, 20, 20)), scale=(1, 3, 2, 2), translate=(0, 6, 0, 0))
    place = Place((3, 2, 2), (6, 4, 6), (1,), "stack, plane 0")
    layers = RunLayers(RunWatch(Session.of(viewer), Path("run")), place)
    layers.show(
        Preview("map", np.full((8, 8), 0.5, np.float32), 1),
        Preview("cells", np.array([[1.0, 2, 0.5]]), 1, "points"),
    )
    maps, cells = (viewer.layers[f"{name} on stack, plane 0 · run"] for name in ("map", "cells"))
    assert maps.data.shape == (1, 4, 1, 8, 8)
    assert maps.scale.tolist() == [1, 1, 3, 2, 2]
    assert maps.translate.tolist() == [0, 0, 6, 4, 6]
    assert cells.data.tolist() == [[0, time, 0, 1, 2] for time in range(4)]
    for plane in range(3):
        viewer.dims.set_point(2, 6 + 3 * plane)
        value = maps.get_value((0, 0, 6 + 3 * plane, 4, 6), world=True)
        assert value == (0.5 if plane == 0 else 0)


def test_pictures_over_a_stack_are_seen_in_every_plane_and_where_they_belong():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((5, 20, 20)), scale=(3, 2, 2))
    viewer.dims.set_current_step(0, 3)
    watch = RunWatch(Session.of(viewer), Path("run"))
    layers = RunLayers(watch, Place((2, 2), (4, 6)))
    for index in (1, 2):
        layers.show(Preview("map", np.full((8, 8), index / 2, np.float32), index))
    layer = viewer.layers["map · run"]
    assert layer.data.shape == (2, 5, 8, 8)
    assert layer.scale.tolist() == [1, 3, 2, 2]
    assert layer.translate.tolist() == [0, 0, 4, 6]
    viewer.dims.set_current_step(0, 0)  # the user looks at the first: it stays so
    layers.show(Preview("map", np.ones((8, 8), np.float32), 3))
    assert layer.data.shape[0] == 3
    assert viewer.dims.current_step[0] == 0


@pytest.mark.parametrize(
    ("given", "shown"), [("tcyx", "tcyx"), (None, ("axis 1", "axis 2", "y", "x"))]
)
def test_pictures_leave_the_axes_of_the_image_their_names(given: str | None, shown: Sequence[str]):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 2, 20, 20)), axis_labels=given)
    layers = RunLayers(RunWatch(Session.of(viewer), Path("run")))
    layers.show(Preview("map", np.zeros((20, 20)), 10))
    assert viewer.dims.axis_labels == ("picture", *shown)


@pytest.mark.parametrize("planes", [None, 3])
def test_points_are_seen_at_their_time_in_every_plane_with_their_scores(planes):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((planes, 20, 20) if planes else (20, 20)))
    layers = RunLayers(RunWatch(Session.of(viewer), Path("run")))
    early, late = np.array([[1.0, 2, 0.5]]), np.array([[3.0, 4, 0.9], [5, 6, 0.7]])
    layers.show(Preview("detected", early, 10, "points"), Preview("map", np.zeros((20, 20)), 10))
    layers.show(Preview("detected", late, 20, "points"))
    layer = viewer.layers["detected · run"]
    first, second = layer.data[:, 0] == 0, layer.data[:, 0] == 1
    assert first.sum() == (planes or 1)
    assert second.sum() == 2 * (planes or 1)
    if planes:
        assert sorted(layer.data[second, 1]) == [0, 0, 1, 1, 2, 2]
    assert layer.data[second][:2, -2:].tolist() == [[3, 4], [5, 6]]
    assert layer.features["score"][second][:2].tolist() == [0.9, 0.7]
    layers.show(Preview("detected", np.zeros((0, 3)), 30, "points"))
    assert len(layer.data) == 3 * (planes or 1)


def test_it_is_told_that_the_model_is_written_and_what_it_does_otherwise(
    qtbot: QtBot, viewer: ViewerModel
):
    watch = RunWatch(Session.of(viewer), Path("run"))
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    monitor.watch(watch)

    def told(wish: str, state: State | None, stage: str, *notes: str) -> tuple[str, ...]:
        watch.view, watch.wish = RunView(state, stage, notes=notes), wish
        watch.changed.emit()
        title = monitor.title.text().removeprefix("run: ")
        return title, monitor.pace.text(), monitor.message.text

    going_on = "Going on from the checkpoint at step 36 of 60."
    writes = "writing the model, which may take a minute"
    assert told("", "running", "Train", going_on) == ("running", "Train", going_on)
    assert told("stop", "running", "Train") == ("stopping after this step", "Train", "")
    assert told("stop", "running", "Write the model") == (writes, "", "")
    assert told("", "running", "Write the model") == (writes, "", "")
    assert told("cancel", "running", "Write the model") == ("ending", "", "")
    assert told("", None, "Write the model") == ("starting", "", "")
    assert told("", "done", "Write the model", going_on) == ("done", "", "")
    early = "Stopped before the first step, so there is no network."
    assert told("", "stopped", "", early, going_on) == ("stopped", "", early)


@pytest.mark.parametrize(
    ("state", "text", "checkpoint", "resumable"),
    [
        ("failed", "No points were found.", False, False),
        ("failed", "No points were found.", True, True),
        ("failed", "'run' cannot be written: the disk is full.", False, True),
        ("failed", "Put it back, or say with --inputs where it lies now.", False, True),
        ("killed", "The run's process was ended from outside.", False, True),
    ],
)
def test_a_failure_that_would_come_again_is_not_resumed(
    qtbot: QtBot,
    viewer: ViewerModel,
    tmp_path: Path,
    state: State,
    text: str,
    checkpoint: bool,
    resumable: bool,
):
    (tmp_path / "run.yaml").touch()
    if checkpoint:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.pt").touch()
    watch = RunWatch(Session.of(viewer), tmp_path)
    watch.view = RunView(state, text=text)
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    monitor.watch(watch)
    assert monitor.resume.isEnabled() is resumable
    assert monitor.message.text.endswith("Correct this, then press Start.") is not resumable


def test_points_are_no_picture_of_the_monitor(qtbot: QtBot, viewer: ViewerModel):
    watch = RunWatch(Session.of(viewer), Path("run"))
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    watch._on_news(Preview("early", np.zeros((0, 3)), 10, "points"))
    monitor.watch(watch)
    for frame in (
        Preview("cells", np.array([[1.0, 2, 0.5]]), 10, "points"),
        Preview("map", np.full((8, 8), 0.5, np.float32), 10),
    ):
        watch._on_news(frame)
    assert [monitor.which.itemText(k) for k in range(monitor.which.count())] == ["map"]
    assert {"early · run", "cells · run", "map · run"} <= {layer.name for layer in viewer.layers}


def test_a_picture_takes_the_width_that_there_is_and_asks_for_none(
    qtbot: QtBot, viewer: ViewerModel
):
    watch = RunWatch(Session.of(viewer), Path("run"))
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    monitor.watch(watch)
    monitor.previews.setChecked(False)
    monitor.picture.setStyleSheet("padding: 1px;")  # as napari's style has it
    narrowest = monitor.minimumSizeHint().width()
    monitor.resize(narrowest + 200, 600)
    watch._on_news(Preview("map", np.full((600, 600), 0.5, np.float32), 10))
    monitor.layout().activate()
    assert monitor.minimumSizeHint().width() == narrowest
    assert monitor.width() - 10 < monitor.picture.pixmap().width() < monitor.width()
    monitor.resize(narrowest + 100, 600)
    assert monitor.width() - 10 < monitor.picture.pixmap().width() < monitor.width()


def test_it_is_told_which_image_the_pictures_show(qtbot: QtBot, viewer: ViewerModel):
    monitor = RunMonitor()
    qtbot.addWidget(monitor)
    watch, other = (RunWatch(Session.of(viewer), Path(name)) for name in ("run", "other"))
    for run in (watch, other):
        run.frames["map"] = [Preview("map", np.full((8, 8), 0.5, np.float32), 10)]
    watch.pictures.place = Place(shows="tissue")
    for run in (watch, other):
        run.show_pictures(True)
    monitor.watch(watch)
    assert "map on tissue · run" in viewer.layers
    assert monitor.caption.text() == "The picture shows tissue."
    assert not monitor.caption.isHidden()
    monitor.watch(other)
    assert "map · other" in viewer.layers
    assert monitor.caption.isHidden()


def test_pictures_that_come_later_do_not_turn_the_time_back():
    viewer = ViewerModel()
    layers = RunLayers(RunWatch(Session.of(viewer), Path("run")))
    picture = np.full((8, 8), 0.5, np.float32)
    for index in (10, 20, 30):
        layers.show(Preview("style", picture, index))
    for index in (40, 50):
        for name in ("style", "classes"):
            layers.show(Preview(name, picture, index))
    early, late = viewer.layers["style · run"], viewer.layers["classes · run"]
    assert (early.data.shape[0], late.data.shape[0]) == (5, 2)
    assert (early.translate[0], late.translate[0]) == (0, 3)
    assert viewer.dims.current_step[0] == 4
    viewer.dims.set_current_step(0, 1)
    layers.show(Preview("classes", picture, 60))
    assert viewer.dims.current_step[0] == 1
    viewer.layers.clear()
    layers.show(Preview("classes", picture, 70))
    assert len(viewer.layers) == 0


def test_pictures_of_an_opened_run_are_shown_at_once_as_if_they_had_come_one_by_one():
    viewer = ViewerModel()
    layers = RunLayers(RunWatch(Session.of(viewer), Path("run")))
    updates = []
    steps = [("style", 10), ("style", 20), ("style", 30), ("classes", 30), ("style", 40)]
    frames = [Preview(name, np.full((8, 8), i / 50, np.float32), i) for name, i in steps]
    layers.show(*frames[:1])
    viewer.layers["style · run"].events.data.connect(updates.append)
    layers.show(*frames[1:])
    assert len(updates) == 1
    style, classes = viewer.layers["style · run"], viewer.layers["classes · run"]
    assert (style.data.shape[0], classes.data.shape[0]) == (4, 1)
    assert (style.translate[0], classes.translate[0]) == (0, 2)
    assert viewer.dims.current_step[0] == 3


def test_words_for_people():
    assert [duration(s) for s in (8, 89, 200, 7500)] == ["8 s", "89 s", "3 min", "2 h 5 min"]
    assert gigabytes(2_340_000_000) == "2.3 GB"
