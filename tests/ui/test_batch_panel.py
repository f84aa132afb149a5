"""The panel Batch: a folder through the session's forest, failures listed, cancel, projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from napari_cellda.core.batch import predict_batch
from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.errors import ProgramRefused
from napari_cellda.core.events import Note, Stage, Step, run_quietly
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.ui import batching
from napari_cellda.ui.batching import BatchProgress
from napari_cellda.ui.images import choose_image, default_choice
from napari_cellda.ui.panels.batch import PROJECT, BatchPanel
from napari_cellda.ui.projects import SessionProject

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

PIXELS = np.full((40, 48), 10, np.uint8)
PIXELS[4:16, 4:16] = PIXELS[22:36, 28:44] = 200
STROKES = np.zeros_like(PIXELS)
STROKES[0, :], STROKES[8:12, 6:14] = 1, 2


@pytest.fixture
def panel(qtbot: QtBot, tmp_path: Path) -> BatchPanel:
    viewer = ViewerModel()
    viewer.add_image(PIXELS, name="cells")
    panel = BatchPanel(viewer)
    panel.viewer_kept_alive = viewer
    qtbot.addWidget(panel)
    panel.folder.setText(str(tmp_path / "out"))
    panel.processes.setValue(1)
    panel.show()
    return panel


@pytest.fixture
def ready(panel: BatchPanel, tmp_path: Path) -> BatchPanel:
    """The panel with a trained forest and a folder of three images, one of them damaged."""
    painted = choose_image(panel.session, default_choice(panel.session.viewer.layers[0]))
    spec, params = FeatureSpec(name="compact", scales=(0.7,)), ForestParams(trees=5, jobs=1)
    task = train_classifier([painted.image], [STROKES], spec=spec, params=params)
    panel.session.set_spec(spec)
    panel.session.set_classifier(run_quietly(task))
    (tmp_path / "in").mkdir()
    for number, name in enumerate("ac"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", np.roll(PIXELS, number, axis=1))
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0 damaged")
    panel.set_images([tmp_path / "in"])
    return panel


def finish(panel: BatchPanel, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: panel.task is None, timeout=60000)


def test_a_folder_is_done_and_what_fails_is_listed(
    ready: BatchPanel, qtbot: QtBot, tmp_path: Path
) -> None:
    ready.start.click()
    assert not ready.start.isEnabled()
    finish(ready, qtbot)
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    for stem in "ac":
        kinds = ("mask.tif", "probability.tif", "instances.tif", "objects.csv")
        assert {f"{stem}_{kind}" for kind in kinds} <= names
    assert "2 done, 1 failed" in ready.message.text
    assert ready.failures.count() == 1
    assert "b.tif' is a damaged TIFF" in ready.failures.item(0).text()
    assert ready.overall.value() >= 2
    tifffile.imwrite(tmp_path / "in" / "b.tif", PIXELS)
    ready.start.click()
    finish(ready, qtbot)
    assert "1 done, 2 were done before" in ready.message.text
    assert ready.failures.isHidden()


def test_failures_are_listed_while_the_batch_goes_on(
    ready: BatchPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "_on_result", lambda report: None)
    ready.start.click()
    finish(ready, qtbot)
    assert ready.failures.isVisible()
    (failure,) = [ready.failures.item(row).text() for row in range(ready.failures.count())]
    assert "b.tif' is a damaged TIFF" in failure
    assert "Skipped" not in failure


def test_a_saved_project_gives_what_the_session_gives(
    ready: BatchPanel, qtbot: QtBot, tmp_path: Path
) -> None:
    ready.instances.setChecked(False)
    ready.start.click()
    finish(ready, qtbot)
    assert not list((tmp_path / "out").glob("*_instances.tif"))
    SessionProject.of(ready.session).freeze()(tmp_path / "work.cellda")
    ready.set_model(PROJECT, str(tmp_path / "work.cellda"))
    assert ready.model_label.text() == "work.cellda"
    ready.folder.setText(str(tmp_path / "second"))
    ready.start.click()
    finish(ready, qtbot)
    maps = [tifffile.imread(tmp_path / f / "a_probability.tif") for f in ("out", "second")]
    np.testing.assert_array_equal(*maps)


def test_what_is_missing_is_said_before_anything_runs(panel: BatchPanel, tmp_path: Path) -> None:
    panel.start.click()
    assert "No images are chosen" in panel.message.text
    panel.set_images([tmp_path])
    panel.start.click()
    assert "No forest is trained" in panel.message.text
    panel.set_model(PROJECT)
    panel.start.click()
    assert "No model is chosen" in panel.message.text
    assert panel.task is None
    assert not (tmp_path / "out").exists()


def test_cancel_keeps_what_is_done(
    ready: BatchPanel, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args, stop, **settings):
        task = predict_batch(*args, stop=stop, **settings)
        while True:
            try:
                event = next(task)
            except StopIteration as end:
                return end.value
            yield event
            if isinstance(event, Stage) and event.title.startswith("2/3"):
                ready_to_stop.append(True)
                while not stop():
                    yield Step(1)

    ready_to_stop: list[bool] = []
    monkeypatch.setattr("napari_cellda.core.batch.predict_batch", slow)
    (tmp_path / "in" / "b.tif").unlink()
    tifffile.imwrite(tmp_path / "in" / "b.tif", PIXELS)
    ready.start.click()
    qtbot.waitUntil(lambda: bool(ready_to_stop), timeout=60000)
    qtbot.waitUntil(lambda: ready.overall.value() == 1 and ready.overall.maximum() == 3)
    ready.cancel.click()
    finish(ready, qtbot)
    assert ready.message.text.startswith("Cancelled: 1 done")
    assert (tmp_path / "out" / "a_mask.tif").exists()
    assert not (tmp_path / "out" / "c_mask.tif").exists()


@pytest.mark.parametrize("answer", [True, False])
def test_a_program_runs_after_a_yes_and_is_not_asked_about_again(
    ready: BatchPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bool
) -> None:
    refused = ProgramRefused("Elsewhere's model", tmp_path / "weights.pt", "ab" * 32)

    def may_refuse(*args, options, **settings):
        if refused.sha256 not in options.trusted:
            raise refused
        return predict_batch(*args, options=options, **settings)

    asked: list[Exception] = []
    monkeypatch.setattr("napari_cellda.core.batch.predict_batch", may_refuse)
    monkeypatch.setattr(
        "napari_cellda.ui.panels.batch.ask_consent", lambda _, error: asked.append(error) or answer
    )
    for _ in range(2):
        ready.start.click()
        finish(ready, qtbot)
    assert asked == ([refused] if answer else [refused, refused])
    assert ready.message.kind == ("warning" if answer else "error")  # one file is damaged
    assert (tmp_path / "out" / "a_mask.tif").exists() == answer
    assert ready.start.isEnabled()


def test_progress_counts_images_in_turn_and_in_processes() -> None:
    progress = BatchProgress()
    for event in (Stage("2/5 Forest on b", 4), Step(3), Note("x")):
        progress.take(event)
    assert (progress.done, progress.total, progress.step, progress.steps) == (1, 5, 3, 4)
    for event in (Stage("5 images in 2 processes", 5), Step(2)):
        progress.take(event)
    assert (progress.done, progress.total) == (2, 5)


def test_closing_the_panel_ends_its_work(
    ready: BatchPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def work(job: batching.BatchJob, stop):
        while not stop():
            yield Step(1)
        ended.append(True)

    monkeypatch.setattr("napari_cellda.ui.panels.batch.run_job", work)
    second = BatchPanel(ready.session.viewer)
    second.set_images([batching.Path("x")])
    second.start.click()
    second.deleteLater()
    qtbot.waitUntil(lambda: bool(ended))
