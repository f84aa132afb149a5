"""Make the pictures of the page about inspecting: in a real window, with mouse and keys.

Part of ``make pictures``; alone: ``python docs/screenshots_inspect.py [--run FOLDER]``.

Classifies and enhances generated stained nuclei, holds the result against its truth, steps through
errors, compares forest and enhancer, lists figures, looks for places to paint, holds two small
networks against their size and maps domains.
With the folder of a run of CULPICO it shows the run's discrepancy too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from screenshots import IMAGES, Walk

from napari_cellda.cli import main as main_command
from napari_cellda.core.samples import nuclei_field, organelles_field, phase_field
from napari_cellda.ui.autosave import FOLDER_VARIABLE
from napari_cellda.ui.demo import ENHANCER, PLUGIN, is_enhanced, wait_until

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton, QTableWidget

LEFT = Qt.MouseButton.LeftButton


class InspectWalk(Walk):
    """A user at the window with the panels Inspect and Compare beside the others."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("Inspect", "Compare"):
            _, self.panels[name] = self.viewer.window.add_plugin_dock_widget(
                PLUGIN, name, tabify=True
            )
        self.inspect = self.panels["Inspect"]

    def click(self, button: QPushButton) -> None:
        """Click a button with the mouse, when it can be clicked."""
        wait_until(button.isEnabled, f"the button {button.text()}")
        QTest.mouseClick(button, LEFT)
        QTest.qWait(100)

    def show_only(self, *names: str) -> None:
        """Hide all layers but some."""
        for layer in self.viewer.layers:
            layer.visible = layer.name in names

    def compare(self, result: str, reference: str) -> None:
        """Choose two layers by their names."""
        layers = self.viewer.layers
        self.inspect.pair.choose(layers[result], layers[reference])

    def shorten(self, table: QTableWidget, folder: Path) -> None:
        """Let a table show folders as they are called below another one."""
        table.blockSignals(True)
        for row in range(table.rowCount()):
            item = table.item(row, 1)
            item.setText(item.text().replace(f"{folder}/", ""))

    def tab(self, index: int) -> None:
        """Bring one of the tabs of Inspect to the front."""
        self.inspect.tabs.setCurrentIndex(index)
        QTest.qWait(200)


def inspect(folder: Path, run: Path | None) -> None:
    """Go through the tabs of Inspect."""
    one = InspectWalk(folder)
    one.viewer.open_sample(PLUGIN, "nuclei_b")
    one.rest()
    one.panels["Enhance"].picker.pick(ENHANCER)
    wait_until(lambda: is_enhanced(one.session), "the enhanced map")
    one.viewer.reset_view()
    one.raise_panel("Inspect")
    truth = next(layer.name for layer in one.viewer.layers if layer.name.startswith("Truth"))
    enhanced, forest = "Enhanced nuclei", "Forest nuclei"
    image = one.session.current.name

    overlay = one.inspect.overlay
    one.show_only(image)
    one.compare(enhanced, truth)
    overlay.kind.setCurrentIndex(overlay.kind.findData("objects"))
    one.click(overlay.show_button)
    wait_until(lambda: overlay.view.comparison is not None and not overlay.view.busy, "the overlay")
    for _ in range(2):
        QTest.keyClick(one.canvas, Qt.Key.Key_N)
        QTest.qWait(100)
    assert overlay.view.index == 1, "the key goes to the next error"
    one.picture("inspect-objects")

    overlay.kind.setCurrentIndex(overlay.kind.findData("pixels"))
    one.compare(enhanced, forest)
    wait_until(lambda: overlay.view.settings.kind == "pixels", "the overlay")
    wait_until(lambda: not overlay.view.busy, "the overlay")
    one.picture("inspect-pixels")
    one.show_only(image)  # a layer that is deleted can take napari along where software draws

    one.tab(1)
    heatmap = one.inspect.heatmap
    one.click(heatmap.show_button)
    one.click(heatmap.find)
    wait_until(lambda: bool(heatmap.heatmap.places), "the disputed regions")
    one.click(heatmap.boxes)
    one.picture("inspect-discrepancy")
    one.show_only(image)

    one.tab(2)
    numbers = one.inspect.numbers
    numbers.kind.setCurrentIndex(numbers.kind.findData("instances"))
    for result in (enhanced, forest):
        one.compare(result, truth)
        one.click(numbers.score_button)
        wait_until(lambda: not numbers.numbers.running, "the figures")
    one.picture("inspect-numbers")

    one.tab(3)
    following = one.inspect.next
    one.click(following.search)
    wait_until(lambda: bool(following.guide.places), "the places")
    one.click(following.check)
    wait_until(lambda: bool(following.lights.texts), "the checks")
    one.picture("inspect-next")
    one.viewer.close()
    if run is not None:
        over_steps(folder, run)


def over_steps(folder: Path, run: Path) -> None:
    """Show how two networks came to agree."""
    one = InspectWalk(folder)
    one.raise_panel("Inspect")
    one.tab(1)
    heatmap = one.inspect.heatmap
    heatmap.open_run(run)
    one.click(heatmap.show_run)
    heatmap.heatmap.show_step(len(heatmap.heatmap.steps) // 3)
    one.viewer.reset_view()
    one.picture("inspect-steps")
    one.viewer.close()


def models(folder: Path, scratch: Path) -> None:
    """Hold a small and a large network against the truth, and against their size."""
    for part, seeds in (("train", range(4)), ("test", range(10, 14))):
        for kind in ("images", "masks"):
            (scratch / part / kind).mkdir(parents=True)
        for seed in seeds:
            field = nuclei_field((160, 160), seed=seed)
            imageio.imwrite(scratch / part / "images" / f"{seed}.png", np.asarray(field.image))
            mask = (np.asarray(field.labels) > 0).astype(np.uint8)
            imageio.imwrite(scratch / part / "masks" / f"{seed}.png", mask)
    train = scratch / "train"
    given = ["--target-images", train / "images", "--target-masks", train / "masks"]
    for name, width in (("small", 4), ("large", 12)):
        sizes = ["--set", f"width={width}", "--set", "steps=120", "--set", "depth=3"]
        words = ["adapt", "supervised", *given, *sizes, "-o", scratch / name]
        assert main_command([str(word) for word in words]) == 0
    one = InspectWalk(folder)
    one.raise_panel("Compare")
    tab = one.panels["Compare"].models
    for name in ("small", "large"):
        tab.folders.add(scratch / name, name)
    tab.set_images(scratch / "test" / "images")
    tab.set_reference(scratch / "test" / "masks")
    one.click(tab.start)
    wait_until(lambda: tab.evaluation is not None and not tab.work.running, "the comparison")
    tab.figure.setCurrentIndex(tab.figure.findText("Dice (F1)"))
    one.session.viewer.open_sample(PLUGIN, "nuclei_a")
    QTest.qWait(200)
    one.shorten(tab.folders.table, scratch)
    one.picture("compare-models")
    one.viewer.close()


def domains(folder: Path, scratch: Path) -> None:
    """Map generated domains."""
    one = InspectWalk(folder)
    for name, make, domain in (
        ("fluorescent nuclei", nuclei_field, "a"),
        ("mitochondria, thin section", organelles_field, "a"),
        ("mitochondria, block face", organelles_field, "b"),
        ("cells, phase contrast", phase_field, "a"),
    ):
        (scratch / name).mkdir()
        for seed in range(3):
            picture = make((384, 384), seed=seed, domain=domain).image
            imageio.imwrite(scratch / name / f"{seed}.png", np.asarray(picture))
    one.viewer.open_sample(PLUGIN, "phase_b")
    one.rest()
    one.raise_panel("Compare")
    compare = one.panels["Compare"]
    compare.tabs.setCurrentIndex(1)
    for sub in sorted(scratch.iterdir()):
        compare.domains.folders.add(sub, sub.name)
    compare.domains.pictures.setChecked(True)
    one.click(compare.domains.start)
    wait_until(lambda: compare.domains.plot is not None, "the map")
    one.viewer.reset_view()
    one.shorten(compare.domains.folders.table, scratch)
    one.picture("domain-map")
    one.viewer.close()


def walk_inspect(folder: Path, run: Path | None = None) -> None:
    """Take all pictures; that of a run's steps only where a run is given."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[FOLDER_VARIABLE] = str(Path(scratch) / "autosave")
        for name in ("domains", "models"):
            (Path(scratch) / name).mkdir()
        inspect(folder, run)
        models(folder, Path(scratch) / "models")
        domains(folder, Path(scratch) / "domains")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    parser.add_argument("--run", type=Path, help="a run of CULPICO, for its discrepancy over steps")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    walk_inspect(chosen.output, chosen.run)
