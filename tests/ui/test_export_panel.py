"""The panel Export: files, layer, messages, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget

from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.events import Note, Stage, Step, run_quietly
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.ui.images import choose_image, default_choice
from napari_cellda.ui.panels import export as export_panel
from napari_cellda.ui.panels.export import ExportPanel

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

PIXELS = np.full((40, 48), 10, np.uint8)
PIXELS[4:16, 4:16] = PIXELS[22:36, 28:44] = 200
STROKES = np.zeros_like(PIXELS)
STROKES[0, :], STROKES[8:12, 6:14] = 1, 2


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(PIXELS, name="cells")
    return viewer


@pytest.fixture
def panel(qtbot: QtBot, viewer: ViewerModel, tmp_path: Path) -> ExportPanel:
    panel = ExportPanel(viewer)
    qtbot.addWidget(panel)
    panel.folder.setText(str(tmp_path / "out"))
    panel.show()
    return panel


@pytest.fixture
def ready(panel: ExportPanel, viewer: ViewerModel) -> ExportPanel:
    """The panel with an image and a trained forest."""
    painted = choose_image(panel.session, default_choice(viewer.layers[0]))
    spec, params = FeatureSpec(name="compact", scales=(0.7,)), ForestParams(trees=5)
    task = train_classifier([painted.image], [STROKES], spec=spec, params=params)
    panel.session.set_classifier(run_quietly(task))
    return panel


def finish(panel: ExportPanel, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: panel.task is None, timeout=20000)


def test_files_are_written_and_named_in_the_message(
    ready: ExportPanel, qtbot: QtBot, tmp_path: Path
):
    ready.start.click()
    finish(ready, qtbot)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["cells_instances.tif", "cells_mask.tif", "cells_objects.csv"]
    assert all(name in ready.message.text for name in names)
    assert str(tmp_path / "out") in ready.message.text
    assert ready.message.kind == "success"
    assert ready.open_folder.isVisible()


def test_objects_become_a_layer_with_their_table(
    ready: ExportPanel, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    ready.start.click()
    finish(ready, qtbot)
    layer = next(layer for layer in viewer.layers if layer.name.startswith("Objects"))
    np.testing.assert_array_equal(layer.data, tifffile.imread(tmp_path / "out/cells_instances.tif"))
    assert list(layer.features["index"]) == [1, 2]
    assert layer.features["area"].sum() == pytest.approx((PIXELS > 100).sum(), rel=0.15)
    ready.start.click()
    finish(ready, qtbot)
    assert sum(layer.name.startswith("Objects") for layer in viewer.layers) == 1


def test_no_layer_when_not_wanted(ready: ExportPanel, qtbot: QtBot, viewer: ViewerModel):
    ready.add_layer.click()
    ready.start.click()
    finish(ready, qtbot)
    assert len(viewer.layers) == 1


def test_files_on_disk_go_through_the_same_forest(
    ready: ExportPanel, qtbot: QtBot, tmp_path: Path, viewer: ViewerModel
):
    for name in ("a.png", "b.png"):
        iio.imwrite(tmp_path / name, PIXELS)
    ready.set_files([tmp_path / "a.png", tmp_path / "b.png"])
    assert "a.png, b.png" in ready.files_label.text()
    ready.start.click()
    finish(ready, qtbot)
    masks = [tifffile.imread(tmp_path / f"out/{name}_mask.tif") for name in "ab"]
    np.testing.assert_array_equal(*masks)
    assert len(viewer.layers) == 1


def test_without_a_forest_it_says_what_to_do(panel: ExportPanel, tmp_path: Path):
    panel.start.click()
    assert panel.message.kind == "error"
    assert "No forest is trained" in panel.message.text
    assert not (tmp_path / "out").exists()


def test_without_a_folder_it_says_so(ready: ExportPanel):
    ready.folder.setText("  ")
    ready.start.click()
    assert "No folder is given" in ready.message.text


def test_nothing_ticked_is_refused(ready: ExportPanel, qtbot: QtBot):
    for box in (ready.mask, ready.instances, ready.table):
        box.click()
    assert not ready.method.isEnabled()
    ready.start.click()
    finish(ready, qtbot)
    assert "Nothing is chosen" in ready.message.text


def test_watershed_without_a_boundary_map_is_refused_at_once(ready: ExportPanel):
    ready.method.setCurrentIndex(ready.method.findData("watershed"))
    ready.start.click()
    assert ready.task is None
    assert "choose automatic or distance" in ready.message.text


def test_png_offers_no_probabilities(ready: ExportPanel):
    ready.probabilities.click()
    ready.file_format.setCurrentIndex(ready.file_format.findData("png"))
    assert not ready.probabilities.isEnabled()
    assert ready.choice().probabilities is False


def test_progress_and_cancel(ready: ExportPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch):
    def work(pipeline, sources, choice, stop):
        yield Stage("Forest on cells", 1000)
        step = 0
        while not stop():
            step += 1
            yield Step(min(step, 1000))
        return []

    monkeypatch.setattr(export_panel, "export_images", work)
    ready.start.click()
    qtbot.waitUntil(lambda: ready.progress.value() > 1)
    assert ready.status.text() == "Forest on cells"
    assert not ready.start.isEnabled()
    ready.cancel.click()
    finish(ready, qtbot)
    assert ready.message.text == "Cancelled. Nothing was written."
    assert ready.start.isEnabled()
    assert not ready.progress.isVisible()


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), OSError("disk gone")])
def test_any_error_ends_the_work_with_a_message(
    ready: ExportPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def work(*args):
        yield Note("soon")
        raise error

    monkeypatch.setattr(export_panel, "export_images", work)
    ready.start.click()
    finish(ready, qtbot)
    assert ready.message.text == str(error)
    assert ready.message.kind == "error"
    assert ready.start.isEnabled()


def test_closing_the_session_ends_the_work_quietly(
    ready: ExportPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ended = []

    def work(pipeline, sources, choice, stop):
        yield Stage("Forest on cells")
        while not stop():
            yield Step(1)
        ended.append(True)
        return []

    monkeypatch.setattr(export_panel, "export_images", work)
    ready.start.click()
    qtbot.waitUntil(lambda: ready.status.text() == "Forest on cells")
    ready.session.close()
    qtbot.waitUntil(lambda: bool(ended))
    assert ready.message.text == ""


def test_closing_the_panel_ends_its_work(
    ready: ExportPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
):
    ended = []

    def work(pipeline, sources, choice, stop):
        while not stop():
            yield Step(1)
        ended.append(True)
        return []

    monkeypatch.setattr(export_panel, "export_images", work)
    second = ExportPanel(ready.session.viewer)  # not known to qtbot, which would close it again
    second.start.click()
    second.deleteLater()
    qtbot.waitUntil(lambda: bool(ended))
    ready.session.set_classifier(None)
    qtbot.wait(50)
    assert ready.message.text == ""


def test_an_image_deleted_meanwhile_does_no_harm(
    ready: ExportPanel, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    ready.start.click()
    ready.session.forget_layer(viewer.layers[0])
    viewer.layers.clear()
    finish(ready, qtbot)
    assert ready.message.kind == "success"
    assert (tmp_path / "out/cells_mask.tif").is_file()


def test_nothing_is_cut_off_in_a_narrow_dock(ready: ExportPanel, qtbot: QtBot):
    ready.message.tell("Wrote a_very_long_name_of_an_image_mask.tif to a folder.", "success")
    qtbot.wait(20)
    width = ready.minimumSizeHint().width()
    ready.resize(width, 500)
    qtbot.wait(20)
    assert width < 400
    for child in ready.findChildren(QWidget):
        if child.isVisible():
            assert child.mapTo(ready, child.rect().topRight()).x() < width
