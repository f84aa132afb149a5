"""A model that is a program, in the window: one question, and then the same work again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QMessageBox

from napari_cellda.core.adaptation.inputs import AdaptInputs
from napari_cellda.core.adaptation.run import begin_adaptation
from napari_cellda.core.jobs import Run
from napari_cellda.core.runs import launch
from napari_cellda.core.runs.table import RUNS_VARIABLE
from napari_cellda.methods import find_method
from napari_cellda.ui.panels.adapt import AdaptPanel
from napari_cellda.ui.panels.compare import ComparePanel
from napari_cellda.ui.panels.verdict import Verdict
from napari_cellda.ui.runs import RunWatch, SessionRuns
from napari_cellda.ui.state import Session
from painting import WAIT_MS
from programs import make_project


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> tuple[Path, str]:
    return make_project(tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def viewer() -> Iterator[ViewerModel]:
    viewer = ViewerModel()
    yield viewer
    Session.of(viewer).close()


@pytest.fixture(params=["Run it", "Do not load"])
def answer(request, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[str]]:
    """What is pressed in the question, and the questions so far."""
    asked: list[str] = []

    def press(box: QMessageBox) -> int:
        asked.append(box.text())
        next(b for b in box.buttons() if b.text() == request.param).click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", press)
    return request.param == "Run it", asked


def twice(act: Callable[[], None], ended: Callable[[], bool], qtbot: QtBot) -> None:
    for _ in range(2):
        act()
        qtbot.waitUntil(ended, timeout=WAIT_MS)


def check_asked(answer: tuple[bool, list[str]], session: Session, digest: str) -> None:
    yes, asked = answer
    assert len(asked) == (1 if yes else 2)
    assert "Elsewhere's enhancer comes as TorchScript" in asked[0]
    assert session.trusted == ({digest} if yes else set())


def test_compare_asks_once(viewer, theirs, answer, qtbot: QtBot) -> None:
    project, digest = theirs
    panel = ComparePanel(viewer)
    qtbot.addWidget(panel)
    panel.models.folders.add(project, "theirs")
    panel.models.set_images(project.parent / "images")
    panel.models.set_reference(project.parent / "truth")
    twice(panel.models.compare, lambda: not panel.models.work.running, qtbot)
    check_asked(answer, panel.session, digest)
    assert (panel.models.evaluation is not None) == answer[0]
    assert ("nobody agreed to run it" in panel.banner.text) != answer[0]


def test_adapt_asks_before_it_starts_and_tells_the_run(
    viewer, theirs, answer, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, digest = theirs
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    started: list[list[str]] = []
    monkeypatch.setattr(SessionRuns, "start", lambda _, words, *__, **___: started.append(words))
    panel = AdaptPanel(viewer)
    monkeypatch.setattr(panel.starter, "watch", lambda *_: None)
    qtbot.addWidget(panel)
    qtbot.waitUntil(panel.isEnabled, timeout=WAIT_MS)
    panel.pickers["target_images"].choose_path(project.parent / "images")
    panel.pickers["project"].choose_path(project)
    panel.cards.cards["pseudo-label"].clicked.emit()

    def ended() -> bool:
        return bool(panel.starter.message.text) or len(started) > len(seen)

    seen: list[list[str]] = []
    for _ in range(2):
        seen[:] = started
        panel.starter.start.click()
        qtbot.waitUntil(ended, timeout=WAIT_MS)
    check_asked(answer, panel.session, digest)
    assert [words[words.index("--trust") + 1] for words in started] == [digest] * 2 * answer[0]
    assert ("nobody agreed to run it" in panel.starter.message.text) != answer[0]


def test_resume_asks_when_maps_of_the_project_may_be_missing(
    viewer, theirs, answer, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, digest = theirs
    inputs = AdaptInputs(target_images=project.parent / "images", project=project)
    method = find_method("pseudo-label")
    run = begin_adaptation(tmp_path / "run", method, inputs, trusted=[digest])
    started: list[list[str]] = []
    monkeypatch.setattr(launch, "start_run", lambda words, _: started.append(words))
    watch = RunWatch(Session.of(viewer), run.folder)
    twice(watch.resume, lambda: not watch.alive, qtbot)
    check_asked(answer, watch.session, digest)
    assert started == [["adapt", "--resume", "--trust", digest]] * 2 * answer[0]
    assert ("nobody agreed to run it" in watch.view.text) != answer[0]

    run.save("last", {"step": 1, "parts": {}})
    watch.session.trusted.clear()
    watch.resume()
    qtbot.waitUntil(lambda: not watch.alive, timeout=WAIT_MS)
    assert started[-1] == ["adapt", "--resume"]


def test_a_run_from_elsewhere_is_asked_about_when_it_is_applied(
    viewer, theirs, answer, qtbot: QtBot, tmp_path: Path
) -> None:
    project, digest = theirs
    run, maps, results = (tmp_path / name for name in ("run", "maps", "results"))
    Run.create(run, "supervised", find_method("supervised").settings("cpu"), {}, seed=0)
    maps.mkdir()
    tifffile.imwrite(maps / "f0.tif", np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64))
    (run / "model").symlink_to(project.parent / "elsewhere")
    verdict = Verdict(Session.of(viewer))
    qtbot.addWidget(verdict)
    verdict.run = RunWatch(verdict.session, run)
    apply = partial(verdict.apply, maps, results)
    twice(apply, lambda: not verdict.work.running, qtbot)
    check_asked(answer, verdict.session, digest)
    assert (results / "f0_mask.tif").exists() == answer[0]
