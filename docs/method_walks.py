"""Pictures of every method of the panel Adapt: a real run each, with mouse and keys.

Part of ``make pictures``; alone: ``python docs/method_walks.py [METHOD...] -o FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget
from run_pictures import IMAGES, PATIENCE, Walk
from scipy.ndimage import gaussian_filter

from napari_cellda.core.runs.table import RUNS_VARIABLE
from napari_cellda.core.samples import nuclei_field, organelles_field
from napari_cellda.ui.demo import PLUGIN, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 256
LEFT = Qt.MouseButton.LeftButton
UNET = {"crop": 96, "batch": 2, "width": 8, "preview_every": 20}
SETTINGS: dict[str, dict[str, Any]] = {
    "supervised": {**UNET, "steps": 80, "validate_every": 20},
    "pseudo-label": {**UNET, "steps": 100, "validate_every": 20},
    "culpico": {**UNET, "steps": 160, "warmup": 60, "validate_every": 20},
    "cellseguda": {**UNET, "steps": 100, "validate_every": 20},
    "cellsegssda": {**UNET, "steps": 100, "validate_every": 20},
    "stylefilter": {**UNET, "steps": 160, "validate_every": 20, "style_crop": 64,
                    "style_width": 8, "style_blocks": 2, "patches": 32},
    "cks": {"crop": 96, "batch": 2, "steps": 150, "validate_every": 15, "preview_every": 15,
            "head_start": 40},
}  # fmt: skip
FRAMES = 3
"""Pictures that a run has taken when the window is shown."""


class User(Walk):
    """Does everything with the mouse."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "Adapt")
        self.canvas = self.viewer.window._qt_viewer.canvas.native

    def picture(self, name: str) -> None:
        """Take a picture of the window, in which the runs lie where a user's would."""
        folder = self.panel.starter.folder
        real = folder.text()
        folder.setText("cellda/runs")
        super().picture(name)
        folder.setText(real)

    def show(self, widget: QWidget) -> None:
        """Scroll until a widget of the panel is seen."""
        QTest.qWait(50)
        self.panel.findChild(QScrollArea).ensureWidgetVisible(widget)
        QTest.qWait(50)

    def press(self, widget: QWidget) -> None:
        """Scroll to a widget and click it."""
        self.show(widget)
        middle = QPoint(min(12, widget.width() // 2), widget.height() // 2)
        QTest.mouseClick(widget, LEFT, pos=middle)

    def pick(self, role: str, names: Sequence[str]) -> None:
        """Choose layers from the menu of an input."""
        picker = self.panel.pickers[role]
        for name in names:
            QTimer.singleShot(300, lambda name=name: self._take(name))
            self.press(picker)
            wait_until(lambda name=name: has(picker.picked.layers, name), name)

    def _take(self, name: str) -> None:
        menu: Any = QApplication.activePopupWidget()
        if menu is None:  # a loaded machine needs longer
            QTimer.singleShot(100, lambda: self._take(name))
            return
        (action,) = [one for one in menu.actions() if one.text() == name]
        QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())

    def choose(self, method: str) -> None:
        """Click a method's card, after showing them all."""
        if not self.panel.cards.cards[method].isVisible():
            self.press(self.panel.cards.others)
        self.press(self.panel.cards.cards[method])
        self.panel.settings.choose("cpu", SETTINGS[method])

    def place(self, spot: Any) -> QPoint:
        """Return where a (y, x) pixel of the image is on the canvas."""
        centre = np.array(self.viewer.camera.center[-2:])
        half = np.array([self.canvas.height(), self.canvas.width()]) / 2
        y, x = (np.asarray(spot) - centre) * self.viewer.camera.zoom + half
        return QPoint(round(x), round(y))

    def draw(self, path: Sequence[Any]) -> None:
        """Draw along (y, x) pixels of the image."""
        points = [self.place(spot) for spot in path]
        QTest.mouseMove(self.canvas, points[0])
        QTest.qWait(30)
        QTest.mousePress(self.canvas, LEFT, pos=points[0])
        for point in points:
            QTest.mouseMove(self.canvas, point)
            QTest.qWait(30)
        QTest.mouseRelease(self.canvas, LEFT, pos=points[-1])
        QTest.qWait(100)

    def look_at(self, fields: int) -> None:
        """Let so many fields beside each other fill the canvas, whatever else is hidden there."""
        width = fields * SIDE
        self.viewer.camera.center = (SIDE / 2, width / 2)
        self.viewer.camera.zoom = 0.95 * min(
            self.canvas.height() / SIDE, self.canvas.width() / width
        )

    def hide_all_but(self, *beginnings: str) -> None:
        """Show the layers whose names begin so, and no others."""
        for layer in self.viewer.layers:
            layer.visible = layer.name.startswith(beginnings)


def has(layers: Sequence[Any], name: str) -> bool:
    """Whether a layer of a name is among some."""
    return name in [layer.name for layer in layers]


# -- what is in the window -----------------------------------------------------------------------


def other_microscope(image: np.ndarray, seed: int) -> np.ndarray:
    """Look at the same through haze and out of focus."""
    grey = image.reshape(*image.shape[:2], -1).mean(axis=-1) / 255
    hazy = 0.2 + 0.45 * gaussian_filter(grey, 1.2)
    noise = np.random.default_rng(seed).normal(0, 0.03, grey.shape)
    return (255 * np.clip(hazy + noise, 0, 1)).astype(np.uint8)


def add_nuclei(one: User, *, source: bool = True) -> None:
    """Add two annotated fields and two of another microscope; the truth of one is known."""
    for seed in range(2 if source else 0):
        sample = nuclei_field((SIDE, SIDE), seed, "a")
        one.viewer.add_image(sample.image, name=f"old {seed}", visible=False)
        one.viewer.add_labels(sample.labels, name=f"old {seed} masks", visible=False)
    for seed in (11, 10):
        sample = nuclei_field((SIDE, SIDE), seed, "a")
        one.viewer.add_image(other_microscope(sample.image, seed), name=f"new {seed}")
        one.viewer.add_labels(sample.labels, name=f"new {seed} masks", visible=False)
    one.viewer.layers.selection.active = one.viewer.layers["new 10"]
    one.hide_all_but("new 10")
    one.viewer.layers["new 10 masks"].visible = False
    one.viewer.reset_view()


def line(middle: np.ndarray, half: tuple[float, float]) -> list[np.ndarray]:
    """Return a short line."""
    return [middle - half, middle, np.add(middle, half)]


def pick_source(one: User) -> None:
    """Pick the annotated images and their masks."""
    one.pick("source_images", ["old 0", "old 1"])
    one.pick("source_masks", ["old 0 masks", "old 1 masks"])


def supervised(one: User) -> None:
    """Train on masks of one of the images."""
    add_nuclei(one, source=False)
    one.pick("target_images", ["new 10", "new 11"])
    one.choose("supervised")
    one.pick("target_masks", ["new 10 masks"])


def domain_adaptation(method: str, one: User) -> None:
    """Annotated images of the old microscope, nothing of the new."""
    add_nuclei(one)
    one.pick("target_images", ["new 10", "new 11"])
    one.choose(method)
    pick_source(one)


def with_strokes(one: User) -> None:
    """Paint a few strokes on one of the new images, besides."""
    domain_adaptation("cellsegssda", one)
    labels = one.viewer.layers["new 10 masks"].data
    strokes = one.viewer.add_labels(np.zeros(labels.shape, np.uint8), name="new 10 strokes")
    strokes.brush_size, strokes.mode = 5, "paint"
    cells = [np.argwhere(labels == k) for k in np.unique(labels)[3:9]]
    for pixels in cells:
        strokes.selected_label = 2
        centre = pixels.mean(axis=0)
        one.draw(line(centre, (3, 0)))
    for column in (40, 120, 200):
        strokes.selected_label = 1
        for row in range(20, 236, 24):
            if not labels[row - 4 : row + 5, column - 4 : column + 5].any():
                one.draw([(row, column - 2), (row, column + 2)])
    one.pick("target_strokes", ["new 10 strokes"])


def from_maps(one: User) -> None:
    """Paint, and take the maps of the forest."""
    add_nuclei(one, source=False)
    _, paint = one.viewer.window.add_plugin_dock_widget(PLUGIN, "Paint")
    wait_until(lambda: paint.painter.loaded and paint.session.current is not None, "the panel")
    labels, layer = one.viewer.layers["new 10 masks"].data, paint.session.current.strokes
    for pixels in [np.argwhere(labels == k) for k in np.unique(labels)[3:9]]:
        QTest.keyClick(one.canvas, Qt.Key.Key_W)
        centre = pixels.mean(axis=0)
        one.draw(line(centre, (3, 0)))
    QTest.keyClick(one.canvas, Qt.Key.Key_Q)
    for row, column in [(r, c) for r in range(16, 240, 32) for c in range(16, 240, 40)]:
        if not labels[row - 6 : row + 7, column - 6 : column + 7].any():
            one.draw([(row, column - 3), (row, column + 3)])
    assert layer is not None
    wait_until(lambda: paint.session.classifier is not None and paint.painter.settled, "the forest")
    for title, dock in one.viewer.window._wrapped_dock_widgets.items():
        if title.startswith("Adapt"):
            dock.raise_()
    one.pick("target_images", ["new 10", "new 11"])
    one.choose("pseudo-label")
    one.press(one.panel.own_maps)
    assert one.panel.own_maps.isChecked()


def with_image_labels(one: User) -> None:
    """Organelles of two classes, and a table of what each image shows."""
    for look, kind, seeds in (("a", "old", (0, 1)), ("b", "new", (10, 11))):
        for seed in seeds:
            sample = organelles_field((SIDE, SIDE), seed, look)
            name, classes = f"{kind} {seed}", np.where(sample.boundary_mask, 2, sample.labels > 0)
            one.viewer.add_image(sample.image, name=name, visible=seed == 10)
            one.viewer.add_labels(classes.astype(np.uint8), name=f"{name} masks", visible=False)
    one.viewer.reset_view()
    one.pick("target_images", ["new 10", "new 11"])
    one.choose("stylefilter")
    pick_source(one)
    one.press(one.panel.classes)
    QTest.keyClicks(one.panel.classes, "mitochondrion, membrane")
    QTest.keyClick(one.panel.classes, Qt.Key.Key_Return)
    one.press(one.panel.fill_in)


def from_points(one: User) -> None:
    """Find the points in a nuclei channel, correct them, and measure a cell."""
    add_nuclei(one, source=False)
    one.pick("target_images", ["new 10", "new 11"])
    one.choose("cks")
    for seed in (11, 10):
        dapi = nuclei_field((SIDE, SIDE), seed, "a").image
        one.viewer.add_image(dapi, name=f"dapi {seed}", visible=False, colormap="blue")
    one.pick("nuclei_images", ["dapi 10", "dapi 11"])
    one.press(one.panel.diameter.measure)
    labels = one.viewer.layers["new 10 masks"].data
    inside = np.unique(labels[64:-64, 32:-64])[1:]
    cell = max((np.argwhere(labels == k) for k in inside), key=lambda pixels: np.ptp(pixels[:, 1]))
    middle, width = cell.mean(axis=0), np.ptp(cell[:, 1])
    one.draw(line(middle, (0, width / 2)))
    assert one.panel.diameter.value is not None, "a line was drawn"
    one.press(one.panel.find_points)
    wait_until(lambda: one.panel.find_points.task is None, "the points")
    QTest.qWait(300)
    one.hide_all_but("new 10", "dapi 10 points", "Draw")
    one.viewer.layers["new 10 masks"].visible = False
    one.show(one.panel.diameter)
    one.picture("cks-points")


WALKS = {
    "supervised": supervised,
    "pseudo-label": from_maps,
    "culpico": lambda one: domain_adaptation("culpico", one),
    "cellseguda": lambda one: domain_adaptation("cellseguda", one),
    "cellsegssda": with_strokes,
    "stylefilter": with_image_labels,
    "cks": from_points,
}


# -- the run, and whether it helped --------------------------------------------------------------


def walk(method: str, folder: Path) -> None:
    """Pick inputs, start, look at it while it runs and at what came of it."""
    one = User(folder)
    WALKS[method](one)
    panel = one.panel
    assert panel.starter.start.isEnabled(), panel.starter.start.toolTip()
    one.press(panel.starter.start)
    monitor = panel.starter.monitor
    wait_until(lambda: monitor.run is not None, "the run")
    run = monitor.run
    one.wait_for_run(frames=FRAMES)
    assert run.view.state == "running", run.view.text
    for layer in one.viewer.layers:
        first = re.escape(next(iter(run.frames)))
        layer.visible = re.fullmatch(rf"new 10|{first} on .* · {run.name}", layer.name) is not None
    one.viewer.reset_view()
    one.show(panel.starter.monitor.previews)
    one.picture(f"{method}-running")
    one.wait_for_run()
    assert run.view.state == "done", run.view.text
    judge(one, method)
    apply(one, folder)
    one.viewer.close()


def judge(one: User, method: str) -> None:
    """Compare on the image that had no annotation."""
    verdict = one.panel.verdict
    for box, text in ((verdict.image, "new 11"), (verdict.truth, "new 11 masks")):
        one.show(box)
        box.setCurrentIndex(box.findText(text))
    one.press(verdict.compare)
    wait_until(lambda: not verdict.work.running, "the maps", PATIENCE)
    assert verdict.message.text == "", verdict.message.text
    one.press(verdict.apart)
    one.hide_all_but("new 11", "Compare")
    one.viewer.layers["new 11 masks"].visible = False
    QTest.qWait(300)
    one.look_at(sum(layer.name.startswith("Compare") for layer in one.viewer.layers))
    one.show(verdict.discard)
    one.picture(f"{method}-verdict")


def apply(one: User, folder: Path) -> None:
    """Apply it to a folder, and keep it."""
    import tifffile

    verdict = one.panel.verdict
    with tempfile.TemporaryDirectory() as scratch:
        images, results = Path(scratch) / "images", Path(scratch) / "results"
        images.mkdir()
        tifffile.imwrite(images / "more.tif", one.viewer.layers["new 11"].data)
        if not verdict.instances.isChecked():
            one.press(verdict.instances)
        verdict.apply(images, results)
        wait_until(lambda: not verdict.work.running, "the files", PATIENCE)
        assert verdict.message.kind == "success", verdict.message.text
        assert (results / "more_instances.tif").is_file()
    one.press(verdict.keep)
    assert verdict.message.text.startswith("Kept"), verdict.message.text


def walk_methods(folder: Path, methods: Sequence[str] = tuple(WALKS)) -> None:
    """Take the pictures of all methods."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ[RUNS_VARIABLE] = str(Path(scratch) / "runs")
        for method in methods:
            walk(method, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=list(WALKS))
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as autosave:
        os.environ["NAPARI_CELLDA_AUTOSAVE"] = autosave
        walk_methods(chosen.output, chosen.methods)
