"""Measure whether the window stays fluent while one paints and enhances.

A timer beats in Qt's event loop; its longest gap is how long the window could not react. The same
script runs twice in one process: once as a user sees it (forest and enhancer follow the strokes),
and once with the background thread only replaying the very same answers at the same times, so that
all that is left is napari drawing the same layer arrays.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/window.py

The table goes to benchmarks/results/window.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SIZE = 1024
STROKES = 12
BEAT_MS = 2
BAR_MS, BAR_RATIO = 100.0, 1.5


class Heartbeat:
    """Records the gaps between two turns of the event loop."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: list[float] = []
        self._last: float | None = None
        self._timer = QTimer(interval=BEAT_MS)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def _beat(self) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.gaps.append(1000 * (now - self._last))
        self._last = now

    def start(self) -> None:
        """Begin anew."""
        self.gaps.clear()
        self._last = None
        self._timer.start()

    def stop(self) -> np.ndarray:
        """Return the gaps in milliseconds."""
        self._timer.stop()
        return np.array(self.gaps)


class Recorder:
    """Stands in for the engine: passes answers on and remembers them with their times."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.tape: list[list[tuple[float, Any]]] = []

    def answer(self, snapshot: Any, superseded: Any, stop: Any) -> Any:
        """Answer as the engine does."""
        began = time.perf_counter()
        reel: list[tuple[float, Any]] = []
        self.tape.append(reel)
        for answer in self._engine.answer(snapshot, superseded, stop):
            reel.append((time.perf_counter() - began, answer))
            yield answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Replay:
    """Stands in for the engine: gives recorded answers at their times, and computes nothing."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._next = 0

    def answer(self, snapshot: Any, superseded: Any, stop: Any) -> Any:
        """Give the recorded answers of the next question."""
        began = time.perf_counter()
        reel = self._recorder.tape[min(self._next, len(self._recorder.tape) - 1)]
        self._next += 1
        for delay, answer in reel:
            time.sleep(max(0.0, delay - (time.perf_counter() - began)))
            yield answer
            if superseded():
                return

    def score(self, snapshot: Any, stop: Any) -> None:
        """Measure nothing."""

    def normalisation_of(self, key: Any) -> Any:
        """Return what the engine measured."""
        return self._recorder.normalisation_of(key)


def spin(seconds: float) -> None:
    """Let the event loop run as it does in a program."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError("the window did not get there in time")
        spin(0.02)


def draw_stroke(viewer: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a stroke with the mouse, from one place of the canvas (0 to 1) to another."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    canvas = viewer.window._qt_viewer.canvas.native
    size = np.array([canvas.width(), canvas.height()])
    places = [QPoint(*(np.array(p) * size).astype(int)) for p in np.linspace(start, end, 15)]
    button = Qt.MouseButton.LeftButton
    QTest.mouseMove(canvas, places[0])
    spin(0.02)
    QTest.mousePress(canvas, button, Qt.KeyboardModifier.NoModifier, places[0])
    for place in places:
        QTest.mouseMove(canvas, place)
        spin(0.016)
    QTest.mouseRelease(canvas, button, Qt.KeyboardModifier.NoModifier, places[-1])


def paint_all(viewer: Any, panel: Any) -> None:
    """Paint strokes of both classes by turns, waiting for some answers and not for others."""
    from napari_cellda.ui.keys import select_class

    rng = np.random.default_rng(0)
    for number in range(STROKES):
        select_class(panel.session, number % 2)
        start = rng.uniform(0.2, 0.8, 2)
        draw_stroke(viewer, tuple(start), tuple(start + rng.uniform(-0.08, 0.08, 2)))
        if number % 3 == 2:
            wait_for(lambda: panel.painter.settled)
        spin(0.15)
    wait_for(lambda: panel.painter.settled)
    spin(0.3)


def make_enhancer(folder: Path) -> tuple[Any, str]:
    """Open the bundled nuclei enhancer; an untrained network of its size where there is none."""
    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.modelzoo import list_bundled

    nuclei = [name for name in list_bundled() if "nuclei" in name] or list_bundled()
    if nuclei:
        return Enhancer.open(nuclei[0]), nuclei[0]
    import torch

    from napari_cellda.core.modelzoo.description import PackageInfo
    from napari_cellda.core.modelzoo.package import write_package
    from napari_cellda.core.nets.unet import UNet

    torch.manual_seed(0)
    info = PackageInfo(id="untrained", name="untrained U-Net", description="For timing only.")
    test_input = np.random.default_rng(0).random((1, 128, 128), dtype=np.float32)
    write_package(UNet(1, 1), info, test_input, folder / "untrained")
    return Enhancer.open(folder / "untrained"), "untrained U-Net, width 16"


def run_once(image: np.ndarray, enhancer: Any, recorder: Recorder | None) -> Any:
    """Paint in a fresh viewer; returns (gaps in ms, recorder)."""
    import napari

    from napari_cellda.ui.panels.paint import PaintPanel

    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    viewer.add_image(image, name="nuclei")
    panel = PaintPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Paint", area="right")
    wait_for(lambda: panel.painter.loaded and panel.session.current is not None)
    panel.session.set_enhancer(enhancer)
    wait_for(lambda: panel.painter.settled)
    spin(1)
    engine = panel.painter.work.engine
    panel.painter.work.engine = Recorder(engine) if recorder is None else Replay(recorder)
    heartbeat = Heartbeat()
    heartbeat.start()
    paint_all(viewer, panel)
    gaps = heartbeat.stop()
    made = panel.painter.work.engine
    viewer.close()
    spin(0.5)
    return gaps, made


def describe(gaps: np.ndarray) -> str:
    return f"{gaps.max():.0f} | {np.percentile(gaps, 99.9):.0f} | {(gaps > 50).sum()}"


def report(live: np.ndarray, arrays: np.ndarray, model: str) -> str:
    bar = max(BAR_MS, BAR_RATIO * arrays.max())
    verdict = "met" if live.max() <= bar else "missed"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return "\n".join(
        [
            "# Longest gap of the window's event loop",
            "",
            f"{SIZE} x {SIZE}, 49 features, 100 trees, enhancer: {model}; {STROKES} strokes.",
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
            f"software rendering; commit {commit}.",
            "",
            "| script | longest gap, ms | 99.9th percentile, ms | gaps above 50 ms |",
            "|---|---|---|---|",
            f"| painting and enhancing | {describe(live)} |",
            f"| setting the same layer arrays | {describe(arrays)} |",
            "",
            f"Bar: max({BAR_MS:.0f} ms, {BAR_RATIO} x the second line) = {bar:.0f} ms: {verdict}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "window.md")
    output = parser.parse_args().output
    from napari_cellda.core.samples import nuclei_field

    image = nuclei_field((SIZE, SIZE), seed=1, domain="a").image
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CELLDA_AUTOSAVE"] = folder
        enhancer, model = make_enhancer(Path(folder))
        live, recorder = run_once(image, enhancer, None)
        arrays, _ = run_once(image, enhancer, recorder)
    text = report(live, arrays, model)
    print(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)


if __name__ == "__main__":
    main()
