"""Measure how quickly the IoU slider of the panel Inspect answers, in a real window.

Two rivals repaint the same Labels layer at another IoU: our slider, moved by one step, and the
plainest way, ``layer.data = table[pairs]`` with a table of colours by numpy and a picture of the
pairs of objects. Both end when the canvas has been drawn. What the window needs anyway is measured
beside them: drawing the same picture once more.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/overlay.py [--size 2048]

The table goes to benchmarks/results/overlay.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import field
from timing import RESULTS, where

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 25
SLIDER = "our slider, moved by one"
PLAIN = "plain numpy table, then layer.data"
DRAWING = "drawing alone"
BAR = 1.0
"""Of the rival's time, until drawn."""


class Window:
    """A window with the panel Inspect, comparing two planes by their objects."""

    def __init__(self, size: int, n_objects: int) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        from napari_cellda.ui.panels.inspect import InspectPanel

        self.viewer = napari.Viewer(show=True)
        self.app = QApplication.instance()
        self.viewer.window.resize(1400, 900)
        self.panel = InspectPanel(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, name="Inspect", area="right")
        predicted, truth = field(size, n_objects)
        layers = [
            self.viewer.add_labels(labels, name=name, visible=False)
            for labels, name in ((predicted, "mine"), (truth, "truth"))
        ]
        self.tab = self.panel.overlay
        self.wait(lambda: self.panel.pair.result.count() == 2)
        self.panel.pair.choose(*layers)
        self.tab.kind.setCurrentIndex(self.tab.kind.findData("objects"))
        self.tab.show_button.click()
        self.wait(lambda: self.tab.view.comparison is not None)
        self.viewer.reset_view()
        self.draws = 0
        canvas = self.viewer.window._qt_viewer.canvas._scene_canvas
        canvas.events.draw.connect(self._count, position="last")
        self.canvas = canvas

    def _count(self, event: Any) -> None:
        self.draws += 1

    def wait(self, done: Callable[[], bool]) -> None:
        """Let the window live until something is so."""
        while not done():
            self.app.processEvents()

    def drawn(self, work: Callable[[], object], layer: Any) -> dict[str, float]:
        """Time work on the only visible layer until the canvas was drawn, and its computing."""
        for one in self.viewer.layers:
            one.visible = one is layer
        for _ in range(3):
            self.app.processEvents()
        before, began, mine = self.draws, time.perf_counter(), time.thread_time()
        work()
        computed = time.thread_time() - mine
        self.wait(lambda: self.draws > before)
        return {"until drawn": time.perf_counter() - began, "computing": computed}


def contestants(window: Window) -> dict[str, Callable[[int], dict[str, float]]]:
    from napari_cellda.core.compare.overlays import pair_values

    tab, comparison, ours = window.tab, window.tab.view.comparison, window.tab.view.layer
    layer = window.viewer.add_labels(
        np.asarray(ours.data), name="plain", opacity=ours.opacity, colormap=ours.colormap
    )
    runs = comparison.overlaps.runs
    pairs = np.repeat(runs.entry, runs.length).reshape(runs.shape).astype(np.uint16)
    matches = comparison.objects.matches

    def plain(step: int) -> None:
        table = pair_values(matches, matches.at(iou(step)), comparison.overlaps)
        layer.data = table[pairs]

    return {
        SLIDER: lambda i: window.drawn(lambda: tab.iou.setValue(round(100 * iou(i))), ours),
        PLAIN: lambda i: window.drawn(lambda: plain(i), layer),
        DRAWING: lambda i: window.drawn(window.canvas.update, ours),
    }


def iou(step: int) -> float:
    return 0.3 + 0.01 * (step % 60)


def measure(window: Window) -> dict[str, dict[str, float]]:
    """Return the medians, in seconds, of rounds in turns."""
    found: dict[str, dict[str, list[float]]] = {}
    runners = contestants(window)
    for step in range(-3, ROUNDS):
        for name in list(runners)[:: 1 if step % 2 else -1]:
            for part, value in runners[name](step).items():
                if step >= 0:
                    found.setdefault(name, {}).setdefault(part, []).append(value)
    return {
        name: {part: statistics.median(values) for part, values in parts.items()}
        for name, parts in found.items()
    }


def table(found: dict[str, dict[str, float]], size: int, n_objects: int) -> str:
    ratio = found[SLIDER]["until drawn"] / found[PLAIN]["until drawn"]
    rows = [
        f"| {name} | {1e3 * one['computing']:.1f} | {1e3 * one['until drawn']:.1f} | "
        f"{one['until drawn'] / found[PLAIN]['until drawn']:.2f} x |"
        for name, one in found.items()
    ]
    verdict = "held" if ratio <= BAR else "**missed**"
    return "\n".join(
        [
            "# The IoU slider",
            "",
            f"`python benchmarks/overlay.py --size {size} --objects {n_objects}`; a window of "
            "1400 x 900, drawn by software.",
            "",
            f"{where('napari', 'numpy', 'vispy')}; load {os.getloadavg()[0]:.1f}.",
            "",
            "| what | computing in the window's thread, ms | until drawn, ms | of the rival |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            f"Bar: the slider within {BAR:g} x the plain way: {ratio:.2f} x, {verdict}. Medians of "
            f"{ROUNDS} rounds in turns.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--objects", type=int, default=2000)
    options = parser.parse_args()
    window = Window(options.size, options.objects)
    text = table(measure(window), options.size, options.objects)
    (RESULTS / "overlay.md").write_text(text)
    print(text)
    window.panel.session.close()
    window.viewer.close()


if __name__ == "__main__":
    main()
