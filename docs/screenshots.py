"""Make the pictures of these pages: the whole job in a real window, with mouse and keys.

    make pictures

Opens a real stained section, paints, sees the forest, switches the enhancer on, looks at what it
changed, jumps to the most uncertain spot, undoes a stroke, previews objects, exports, runs a batch;
takes a picture of each step. `any_image.py` does the same for stacks, series and channels.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import napari
import numpy as np
import tifffile
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from scipy import ndimage

from napari_cellda.core.samples import ihc_sample
from napari_cellda.ui.autosave import FOLDER_VARIABLE
from napari_cellda.ui.demo import (
    ENHANCER,
    PLUGIN,
    WINDOW_SIZE,
    open_panels,
    run_demo,
    wait_until,
)
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.panels.docks import open_panel

IMAGES = Path(__file__).parent / "images"
KEYS = {1: Qt.Key.Key_Q, 2: Qt.Key.Key_W}


class Walk:
    """A user at the window."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.viewer = napari.Viewer(show=False)
        self.panels = open_panels(self.viewer)
        self.session = self.panels["Paint"].session
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self.viewer.show()
        self.viewer.window.resize(*WINDOW_SIZE)

    def picture(self, name: str) -> None:
        """Take a picture of the window when all has come to rest."""
        self.rest()
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        save_small(Image.fromarray(pixels), self.folder / f"{name}.webp")

    def rest(self) -> None:
        """Wait until the background thread has nothing left to do."""
        QTest.qWait(400)
        wait_until(lambda: not LivePainter.of(self.session).busy, "the maps")
        QTest.qWait(400)

    def raise_panel(self, name: str) -> None:
        """Bring a panel's tab to the front."""
        for title, dock in self.viewer.window._wrapped_dock_widgets.items():
            if title.startswith(name):
                dock.raise_()

    def place(self, spot: np.ndarray) -> QPoint:
        """Return where a (y, x) pixel of the image is on the canvas."""
        centre = np.array(self.viewer.camera.center[-2:])
        half = np.array([self.canvas.height(), self.canvas.width()]) / 2
        y, x = (spot - centre) * self.viewer.camera.zoom + half
        return QPoint(round(x), round(y))

    def stroke(self, path: np.ndarray, label: int) -> None:
        """Choose a class by its key and draw along (y, x) pixels with the mouse."""
        QTest.keyClick(self.canvas, KEYS[label])
        points = [self.place(spot) for spot in path]
        left = Qt.MouseButton.LeftButton
        QTest.mousePress(self.canvas, left, pos=points[0])
        for point in points:
            QTest.mouseMove(self.canvas, point)
            QTest.qWait(10)
        QTest.mouseRelease(self.canvas, left, pos=points[-1])

    def painted(self) -> int:
        """Count the painted pixels."""
        return int(np.count_nonzero(self.session.current.strokes_array))


def save_small(picture: Image.Image, path: Path) -> None:
    """Save a picture as WebP, a fifth of the size that it has as PNG."""
    picture.convert("RGB").save(path, quality=90, method=6)
    print(path.name, flush=True)


def stroke_paths(strokes: np.ndarray, label: int) -> list[np.ndarray]:
    """Turn painted areas back into the lines that a hand drew, as (y, x) pixels."""
    components, n = ndimage.label(strokes == label, np.ones((3, 3)))
    paths = []
    for i in range(1, n + 1):
        spots = np.argwhere(components == i)
        direction = np.linalg.svd(spots - spots.mean(0), full_matrices=False)[2][0]
        along = (spots - spots.mean(0)) @ direction
        steps = np.linspace(along.min(), along.max(), 8)
        paths.append(np.array([spots[np.argmin(abs(along - step))] for step in steps]))
    return paths


def walk(folder: Path) -> None:
    """Do the whole job and take the pictures."""
    sample = ihc_sample()
    one = Walk(folder)
    one.session.set_classes(one.session.classes.rename(1, "nuclei"))
    one.viewer.add_image(sample.image, name="tissue", rgb=True)
    one.rest()
    one.viewer.reset_view()
    one.picture("opened")
    one.session.current.strokes.brush_size = 5

    for label in (1, 2):
        for path in stroke_paths(sample.strokes, label):
            one.stroke(path, label)
    one.picture("painted")
    assert one.session.classifier is not None, "two classes are painted, so there is a forest"

    one.raise_panel("Enhance")
    one.panels["Enhance"].picker.pick(ENHANCER)
    wait_until(lambda: one.session.enhancer is not None, "the enhancer")
    one.picture("enhanced")
    one.panels["Enhance"].difference.click()
    one.picture("difference")
    one.panels["Enhance"].difference.click()

    one.raise_panel("Paint")
    QTest.keyClick(one.canvas, Qt.Key.Key_U)
    one.picture("uncertain")

    before = one.painted()
    one.stroke(stroke_paths(sample.strokes, 1)[0] + [4, 4], 1)
    one.rest()
    assert one.painted() > before, "the stroke was painted"
    QTest.keyClick(one.canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    one.rest()
    assert one.painted() == before, "undo takes back the stroke and nothing else"

    one.raise_panel("Export")
    export = one.panels["Export"]
    export.folder.setText("results")
    preview = export.objects.show_preview
    QTest.mouseClick(preview, Qt.MouseButton.LeftButton, pos=QPoint(8, preview.height() // 2))
    wait_until(lambda: "objects in the image" in export.objects.count.text(), "the objects")
    one.picture("objects")
    with tempfile.TemporaryDirectory() as results:
        export.folder.setText(str(Path(results) / "results"))
        QTest.mouseClick(export.start, Qt.MouseButton.LeftButton)
        wait_until(lambda: export.task is None, "the files")
        export.folder.setText("results")
        export.message.tell(export.message.text.replace(f"{results}/", ""), "success")
        one.picture("exported")
    batch(one)
    one.viewer.close()


def batch(one: Walk) -> None:
    """Run the forest and the enhancer over a folder in which one file is damaged."""
    panel = open_panel(one.viewer, "Batch")
    pixels = one.session.current.layer.data
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(1, 4):
            part = np.roll(pixels, 90 * number, axis=0)[:256]
            tifffile.imwrite(images / f"field_{number}.tif", part, photometric="rgb")
        (images / "field_4.tif").write_bytes(b"II*\0 not all of it was copied")
        panel.set_images([images])
        panel.folder.setText(str(Path(folder) / "results"))
        panel.processes.setValue(1)
        QTest.mouseClick(panel.start, Qt.MouseButton.LeftButton)
        wait_until(lambda: panel.task is None, "the batch")
        assert panel.failures.count() == 1, "the damaged file is listed"
        panel.failures.item(0).setText(panel.failures.item(0).text().replace(f"{folder}/", ""))
        panel.message.tell(panel.message.text.replace(f"{folder}/", ""), panel.message.kind)
        panel.images_label.setText(panel.images_label.text().replace(f"{folder}/", ""))
        panel.folder.setText("results")
        one.picture("batch")


def doubt(folder: Path) -> None:
    """Use an enhancer for what it was not made for, and take a picture of the warning."""
    one = Walk(folder)
    one.viewer.open_sample(PLUGIN, "organelles_a")
    one.raise_panel("Enhance")
    one.panels["Enhance"].picker.pick(ENHANCER)
    wait_until(lambda: one.panels["Enhance"].doubts.isVisible(), "the warning")
    one.viewer.reset_view()
    one.picture("doubt")
    one.viewer.close()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    from any_image import walk_all
    from method_walks import walk_methods
    from run_pictures import walk_runs
    from screenshots_inspect import walk_inspect

    with tempfile.TemporaryDirectory() as scratch:
        os.environ[FOLDER_VARIABLE] = scratch  # strokes of earlier days would be offered again
        walk(output)
        doubt(output)
        walk_all(output)
        walk_runs(output)
        walk_methods(output)
        walk_inspect(output)
        os.environ[FOLDER_VARIABLE] = scratch
        run_demo(Path(scratch), show=False)
        save_small(Image.open(Path(scratch) / "window.png"), output / "window.webp")


if __name__ == "__main__":
    main()
