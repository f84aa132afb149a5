"""Pictures of the panels Train enhancer, Adapt and Runs, with real runs in a real window.

Part of ``make pictures``; alone: ``python docs/run_pictures.py -o FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QPushButton, QScrollArea

from napari_cellda.core.runs.table import RUNS_VARIABLE
from napari_cellda.core.samples import nuclei_field
from napari_cellda.ui.compare_layers import NEXT_KEY
from napari_cellda.ui.demo import PLUGIN, WINDOW_SIZE, wait_until

IMAGES = Path(__file__).parent / "images"
SHOWN_FOLDER = "cellda/runs"
"""Shown where there is a temporary one."""
PATIENCE = 1200
"""Seconds that a run may take."""
ENHANCER = {"forests": 8, "validation_forests": 2, "maps_per_forest": 3, "map_size": 128,
            "trees": 20, "width": 8, "depth": 3, "patch": 96, "batch": 4, "steps": 300,
            "validate_every": 50}  # fmt: skip
ADAPT = {"steps": 240, "crop": 96, "batch": 2, "width": 8, "preview_every": 30}


class Walk:
    """A user with one panel."""

    def __init__(self, folder: Path, panel: str) -> None:
        self.folder = folder
        self.viewer = napari.Viewer(show=False)
        _, self.panel = self.viewer.window.add_plugin_dock_widget(PLUGIN, panel)
        self.viewer.show()
        self.viewer.window.resize(*WINDOW_SIZE)
        wait_until(self.panel.isEnabled, "the panel")

    def add(self, kind: str, seed: int, name: str, *, masks: bool) -> list[Any]:
        """Add a field of nuclei, with its masks."""
        sample = nuclei_field((256, 256), seed, kind)
        image = sample.image.mean(axis=-1) if sample.image.ndim == 3 else sample.image
        layers = [self.viewer.add_image(image.astype(np.float32), name=name)]
        if masks:
            labels = np.asarray(sample.labels, np.int32)
            layers.append(self.viewer.add_labels(labels, name=f"{name} masks"))
        return layers

    def click(self, button: QPushButton) -> None:
        """Click a button."""
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def scroll(self, share: float) -> None:
        """Scroll the panel: 0 is its top, 1 its end."""
        QTest.qWait(200)
        bar = self.panel.findChild(QScrollArea).verticalScrollBar()
        bar.setValue(round(share * bar.maximum()))

    def picture(self, name: str) -> None:
        """Take a picture of the window."""
        QTest.qWait(400)
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        path = self.folder / f"{name}.webp"
        Image.fromarray(pixels).convert("RGB").save(path, quality=90, method=6)
        print(path.name, flush=True)

    def wait_for_run(self, frames: int = 0) -> None:
        """Wait until the panel's run has ended, or has taken so many pictures."""
        monitor = self.panel.starter.monitor

        def there() -> bool:
            taken = max(map(len, monitor.run.frames.values()), default=0)
            return not monitor.run.alive or (frames > 0 and taken >= frames)

        wait_until(there, "the run", PATIENCE)


def train(folder: Path) -> None:
    """Train an enhancer."""
    one = Walk(folder, "Train enhancer")
    pairs = [one.add("a", seed, f"field {seed}", masks=True) for seed in range(3)]
    one.viewer.reset_view()
    one.panel.images.choose_layers([image for image, _ in pairs])
    one.panel.masks.choose_layers([masks for _, masks in pairs])
    one.panel.shows.setText("nuclei")
    one.panel.settings.choose("cpu", ENHANCER)
    one.click(one.panel.starter.start)
    one.wait_for_run(frames=4)
    one.viewer.reset_view()
    one.panel.starter.folder.setText(SHOWN_FOLDER)
    one.scroll(0.6)
    one.picture("train-running")
    one.wait_for_run()
    one.viewer.close()


def adapt(folder: Path) -> None:
    """Train on the source alone, adapt to the target, and see whether it helped."""
    one = Walk(folder, "Adapt")
    source = [one.add("a", seed, f"fluorescence {seed}", masks=True) for seed in range(3)]
    for pair in source:
        for layer in pair:
            layer.visible = False
    target = [one.add("b", 10 + seed, f"tissue {seed}", masks=seed == 1) for seed in range(2)]
    target[1][1].visible = False
    one.viewer.reset_view()
    panel = one.panel
    panel.pickers["target_images"].choose_layers([pair[0] for pair in target])
    one.picture("adapt-methods")
    panel.pickers["source_images"].choose_layers([pair[0] for pair in source])
    panel.pickers["source_masks"].choose_layers([pair[1] for pair in source])
    for method in ("supervised", "cellseguda"):
        panel.cards.cards[method].clicked.emit()
        panel.settings.choose("cpu", ADAPT)
        one.click(panel.starter.start)
        if method == "cellseguda":
            one.wait_for_run(frames=3)
            for layer in one.viewer.layers:  # the pictures lie on the first image
                if layer.name == "tissue 1" or "· supervised" in layer.name:
                    layer.visible = False
            panel.starter.folder.setText(SHOWN_FOLDER)
            one.scroll(0.75)
            one.picture("adapt-running")
        one.wait_for_run()
    verdict = panel.verdict
    for box, text in ((verdict.image, "tissue 1"), (verdict.truth, "tissue 1 masks")):
        box.setCurrentIndex(box.findText(text))
    wait_until(lambda: verdict.other.count() > 1, "the other runs")
    verdict.other.setCurrentIndex(1)
    one.click(verdict.compare)
    wait_until(lambda: not verdict.work.running, "the maps", PATIENCE)
    for layer in one.viewer.layers:
        layer.visible = layer.name == "tissue 1" or layer.name.startswith("Compare")
    verdict.apart.setChecked(True)
    one.viewer.reset_view()
    one.scroll(1)
    one.picture("adapt-verdict")
    verdict.apart.setChecked(False)
    QTest.keyClick(one.viewer.window._qt_viewer.canvas.native, Qt.Key[f"Key_{NEXT_KEY}"])
    one.viewer.close()


def runs(folder: Path) -> None:
    """Find the runs again in another window."""
    one = Walk(folder, "Runs")
    wait_until(lambda: len(one.panel.lines) == 3, "the table")
    one.panel.table.selectRow(0)
    one.click(one.panel.open)
    run = one.panel.monitor.run
    wait_until(lambda: run.view.state == "done", "the curves")
    one.viewer.reset_view()
    one.panel.folder.setText(SHOWN_FOLDER)
    one.picture("runs")
    one.viewer.close()


def walk_runs(folder: Path) -> None:
    """Take all pictures of runs."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ[RUNS_VARIABLE] = str(Path(scratch) / "runs")
        train(folder)
        adapt(folder)
        runs(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    walk_runs(output)
