"""A display, viewers, and painting in small: what the tests of the window share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from napari_cellda.core.runs import launch
from napari_cellda.ui import live
from painting import WAIT_MS

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel


def _start_display() -> subprocess.Popen[bytes] | None:
    """Start a virtual display where there is none; napari cannot draw without."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return None
    if shutil.which("Xvfb") is None:
        pytest.exit("The tests of the window need a display or Xvfb; neither was found.", 2)
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24"]
    process = subprocess.Popen(
        command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    return process


def pytest_configure(config: pytest.Config) -> None:
    display = _start_display()

    def stop() -> None:
        if display is not None:
            display.terminate()
            display.wait()

    config.add_cleanup(stop)
    # napari's random colours, now and then.
    config.addinivalue_line("filterwarnings", "ignore:Conversion from CIE-LAB:UserWarning")


@pytest.fixture(autouse=True)
def runs_as_urgent_as_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs have their share of a machine that other tests keep busy."""
    monkeypatch.setattr(launch, "NICENESS", 0)


@pytest.fixture(autouse=True)
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each answer without the pauses that keep a window smooth."""
    for name in ("VIEW_MS", "REDRAW_MS", "LAYER_MS"):
        monkeypatch.setattr(live, name, 5)


@pytest.fixture(autouse=True)
def own_autosave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep autosaved strokes of a test to itself."""
    monkeypatch.setenv("NAPARI_CELLDA_AUTOSAVE", str(tmp_path / "autosave"))
    return tmp_path / "autosave"


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train small forests in this process: starting a helper takes seconds."""
    from napari_cellda.core.forest import fit as forest
    from napari_cellda.core.live import trainer

    def refuse() -> None:
        raise OSError("not in tests")

    monkeypatch.setattr(trainer, "_spawn", refuse)
    monkeypatch.setattr(forest, "fast_classifier", lambda: None)


@pytest.fixture
def open_panel(
    request: pytest.FixtureRequest, qtbot: QtBot, train_here: None
) -> Iterator[Callable[..., PaintPanel]]:
    """Open an image and the panel Paint, loaded, with few features and a small forest.

    `window` is None (a viewer without a window: quick), "hidden" or "shown".
    """
    from napari.components import ViewerModel

    from napari_cellda.core.features import FeatureSpec
    from napari_cellda.core.forest import ForestParams
    from napari_cellda.ui.panels.paint import PaintPanel

    panels = []

    def open_it(image: Any = None, *, window: str | None = None, **settings: Any) -> PaintPanel:
        if window is None:
            viewer = ViewerModel()
        else:
            viewer = request.getfixturevalue("make_napari_viewer")(show=window == "shown")
        if image is not None:
            viewer.add_image(image, **{"name": "cells", **settings})
        panel = PaintPanel(viewer)
        panels.append(panel)
        panel.session.set_spec(FeatureSpec(name="compact", scales=(1.0,)))
        panel.session.set_forest_params(ForestParams(trees=25, jobs=1))
        if window is None:
            qtbot.addWidget(panel)
            panel.viewer_kept_alive = viewer
        else:
            viewer.window.add_dock_widget(panel, name="Paint", area="right")
        qtbot.waitUntil(lambda: panel.painter.loaded, timeout=WAIT_MS)
        if image is not None:
            qtbot.waitUntil(lambda: panel.session.current is not None, timeout=WAIT_MS)
        return panel

    yield open_it
    for panel in panels:
        panel.session.close()
        assert panel.painter.wait(60)
