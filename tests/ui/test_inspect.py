"""The panel Inspect, used as a person would: overlays, errors, heatmaps, numbers, next places."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Points
from napari.layers._source import layer_source
from napari.utils.shortcuts import default_shortcuts
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_cellda.core.compare import OVERLAY_VALUES
from napari_cellda.core.compare.evaluate import evaluate
from napari_cellda.core.events import Preview, Step, run_quietly
from napari_cellda.core.inspect.discrepancy import discrepancy_over_epochs
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams
from napari_cellda.ui import inspect_heatmap, overlays
from napari_cellda.ui.inspect_corrections import save_points
from napari_cellda.ui.inspect_layers import ShownPlane, comparable_layers
from napari_cellda.ui.panels.inspect import InspectPanel
from napari_cellda.ui.panels.inspect_numbers import NO_SCORES
from napari_cellda.ui.panels.inspect_overlay import NEXT_KEY, PREVIOUS_KEY
from painting import WAIT_MS, cells, paint_both, wait_idle


def squares(*boxes: tuple[int, int, int], shape: tuple[int, int] = (80, 100)) -> np.ndarray:
    """Labels 1, 2... in boxes of (y, x, size)."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x, size) in enumerate(boxes, 1):
        labels[y : y + size, x : x + size] = number
    return labels


TRUTH = squares((5, 5, 20), (40, 10, 12), (50, 60, 8))
MINE = squares((7, 5, 20), (20, 70, 10))


class Watched:
    """An array that notes which planes were read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim
        self.read: set[int] = set()

    def __getitem__(self, key) -> np.ndarray:
        first = key[0] if isinstance(key, tuple) else key
        planes = range(*first.indices(self.shape[0])) if isinstance(first, slice) else [int(first)]
        self.read.update(planes)
        return self.data[key]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        raise AssertionError("nobody may load the whole volume")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def panel(qtbot: QtBot, viewer: ViewerModel):
    panel = InspectPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    yield panel
    panel.session.close()


def choose(panel: InspectPanel, result, reference) -> None:
    viewer = panel.session.viewer
    mine = viewer.add_labels(result, name="mine")
    truth = viewer.add_labels(reference, name="truth")
    panel.pair.choose(mine, truth)


def compare(panel: InspectPanel, qtbot: QtBot, kind: str, result=MINE, reference=TRUTH) -> None:
    choose(panel, result, reference)
    tab = panel.overlay
    tab.kind.setCurrentIndex(tab.kind.findData(kind))
    QTest.mouseClick(tab.show_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: tab.view.comparison is not None and not tab.view.busy, timeout=WAIT_MS)


def test_the_guess_takes_masks_and_maps_before_images(panel: InspectPanel, qtbot: QtBot):
    viewer = panel.session.viewer
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (20, 20)), name="raw")
    viewer.add_image(np.random.default_rng(0).random((20, 20, 3)), name="colour", rgb=True)
    viewer.add_labels(np.zeros((20, 20), int), name="a")
    viewer.add_labels(np.zeros((20, 20), int), name="b")
    qtbot.waitUntil(lambda: panel.pair.result.count() == 3)
    assert {layer.name for layer in panel.pair.layers} == {"a", "b"}


def test_layers_are_chosen_at_once_beside_others_that_were_listed(panel: InspectPanel):
    viewer = panel.session.viewer
    for name in "ab":
        viewer.add_labels(MINE, name=name)
    panel.pair.refresh()
    choose(panel, MINE, TRUTH)
    assert [layer.name for layer in panel.pair.layers] == ["mine", "truth"]


def test_objects_are_coloured_by_what_became_of_them(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "objects")
    tab = panel.overlay
    shown = np.asarray(tab.view.layer.data)
    assert shown[10, 10] == OVERLAY_VALUES["matched"]
    assert shown[45, 12] == OVERLAY_VALUES["missed"]
    assert shown[25, 75] == OVERLAY_VALUES["spurious"]
    rows = {name: label.text() for name, label in tab.legend.rows.items()}
    assert rows["matched"] == "1 objects"
    assert rows["missed"] == "2 objects"
    assert rows["spurious"] == "1 objects"
    assert "F1 0.400" in tab.figures.text()


def test_another_iou_is_shown_at_once_and_nothing_is_computed_again(
    panel: InspectPanel, qtbot: QtBot
):
    compare(panel, qtbot, "objects")
    view = panel.overlay.view
    before = view.comparison.objects.matches
    panel.overlay.iou.setValue(90)
    assert np.asarray(view.layer.data)[10, 10] == OVERLAY_VALUES["spurious"]
    assert not view.busy
    assert view.comparison.objects.matches is before
    panel.overlay.iou.setValue(50)
    assert np.asarray(view.layer.data)[10, 10] == OVERLAY_VALUES["matched"]


def test_errors_come_worst_first_and_are_ringed(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "objects")
    tab = panel.overlay
    tab.next.click()
    ring = panel.session.viewer.layers["Look here"]
    y, x = ring.data[0].astype(int)
    assert TRUTH[y, x] == 2
    assert "1 of 3: missed, 144 px" in tab.told.text()
    tab.next.click()
    y, x = ring.data[0].astype(int)
    assert MINE[y, x] == 2
    tab.previous.click()
    assert "1 of 3" in tab.told.text()
    tab.kind.setCurrentIndex(tab.kind.findData("pixels"))
    assert "1 of 3" not in tab.told.text()
    assert not ring.visible


def test_pixels_and_boundaries_have_their_own_errors(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "pixels")
    tab = panel.overlay
    assert list(tab.legend.rows) == ["true positive", "false positive", "false negative"]
    wrong = (MINE > 0) != (TRUTH > 0)
    assert sum(error.pixels for error in tab.view.errors) == wrong.sum()
    tab.kind.setCurrentIndex(tab.kind.findData("boundaries"))
    qtbot.waitUntil(lambda: not tab.view.busy and tab.view.comparison is not None, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: tab.view.settings.kind == "boundaries")
    exact = len(tab.view.errors)
    tab.tolerance.setValue(40)
    qtbot.waitUntil(lambda: not tab.view.busy and tab.view.comparison is not None, timeout=WAIT_MS)
    assert len(tab.view.errors) < exact


def test_shapes_that_differ_are_both_told(panel: InspectPanel, qtbot: QtBot):
    choose(panel, MINE, TRUTH[:-5])
    panel.overlay.show_button.click()
    assert "(80, 100)" in panel.banner.text
    assert "(75, 100)" in panel.banner.text
    assert panel.overlay.view.layer is None


@pytest.mark.parametrize("tab", ["overlay", "heatmap"])
def test_a_map_outside_0_to_1_is_told_in_a_sentence(panel: InspectPanel, qtbot: QtBot, tab: str):
    viewer = panel.session.viewer
    wrong = viewer.add_image(np.full((80, 100), 3.5, np.float32), name="raw")
    truth = viewer.add_labels((TRUTH > 0).astype(int), name="truth")
    panel.pair.choose(wrong, truth)
    getattr(panel, tab).show_button.click()
    qtbot.waitUntil(lambda: bool(panel.banner.text), timeout=WAIT_MS)
    assert panel.banner.text.startswith("'raw' holds values from 3.5 to 3.5")


def test_negative_labels_are_told_in_a_sentence(panel: InspectPanel, qtbot: QtBot):
    choose(panel, MINE - 2, TRUTH)
    panel.overlay.show_button.click()
    qtbot.waitUntil(lambda: bool(panel.banner.text), timeout=WAIT_MS)
    assert panel.banner.text == "'mine' holds the label -2; expected labels from 0."


def test_two_layers_are_needed(panel: InspectPanel):
    panel.overlay.show_button.click()
    assert panel.banner.text.startswith("Two different layers are needed")


def test_a_plane_that_would_fill_the_memory_is_refused(
    panel: InspectPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(overlays, "MOST_PIXELS", 7_999)
    choose(panel, MINE, TRUTH)
    panel.overlay.show_button.click()
    assert panel.banner.text.startswith("A plane of 'mine' has 80 x 100 pixels; up to 7,999")


def test_a_lazy_stack_is_compared_plane_by_plane(panel: InspectPanel, qtbot: QtBot):
    mine, truth = Watched(np.stack([MINE] * 30)), Watched(np.stack([TRUTH] * 30))
    mine.data[7] = 0
    panel.overlay.through.setChecked(False)
    compare(panel, qtbot, "objects", mine, truth)
    view = panel.overlay.view
    mine.read.clear()
    truth.read.clear()
    panel.session.viewer.dims.set_point(0, 7)
    qtbot.waitUntil(lambda: view.plane == (7,), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not view.busy)
    assert view.matches.count("missed") == 3
    assert mine.read == truth.read == {7}
    assert isinstance(view.layer.data, ShownPlane)
    assert not np.asarray(view.layer.data[3]).any()


def stack_of_two() -> tuple[Watched, Watched]:
    """Object 2 is missed on plane 3 only; object 1 is spurious, on planes 5 to 9, largest on 6."""
    planes = np.zeros((2, 12, 80, 100), np.int32)
    planes[1, :, 5:25, 5:25] = 2
    planes[0] = planes[1]
    planes[0, 3] = 0
    for z, size in ((5, 6), (6, 14), (7, 8), (8, 4), (9, 2)):
        planes[0, z, 50 : 50 + size, 60 : 60 + size] = 1
    return Watched(planes[0]), Watched(planes[1])


def test_objects_that_go_through_planes_are_matched_in_the_stack(panel: InspectPanel, qtbot: QtBot):
    mine, truth = stack_of_two()
    tab = panel.overlay
    seen = []
    tab.view.matching.progressed.connect(lambda done, total: seen.append((done, total)))
    compare(panel, qtbot, "objects", mine, truth)
    assert not tab.through.isHidden()
    qtbot.waitUntil(lambda: tab.view.comparison.objects.is_stack, timeout=WAIT_MS)
    assert seen[-1] == (12, 12)
    assert tab.legend.rows["matched"].text() == "1 objects"
    assert tab.legend.rows["spurious"].text() == "1 objects"
    assert "Objects of the whole stack: F1 0.667" in tab.figures.text()
    tab.next.click()
    qtbot.waitUntil(
        lambda: "1 of 1: spurious, 316 voxels, plane 6" in tab.told.text(), timeout=WAIT_MS
    )
    assert panel.session.viewer.dims.current_step[0] == 6
    assert np.asarray(tab.view.layer.data[6])[55, 65] == OVERLAY_VALUES["spurious"]
    panel.session.viewer.dims.set_point(0, 3)  # where the matched object has no partner
    qtbot.waitUntil(lambda: tab.view.plane == (3,), timeout=WAIT_MS)
    assert np.asarray(tab.view.layer.data[3])[10, 10] == OVERLAY_VALUES["matched"]
    tab.through.setChecked(False)
    qtbot.waitUntil(lambda: tab.view.comparison is not None and not tab.view.busy, timeout=WAIT_MS)
    assert np.asarray(tab.view.layer.data[3])[10, 10] == OVERLAY_VALUES["missed"]


def test_every_time_point_has_a_stack_of_its_own(panel: InspectPanel, qtbot: QtBot):
    truth = np.zeros((2, 4, 40, 40), np.uint8)
    truth[:, :, 5:15, 5:15] = 1
    mine = truth.copy()
    mine[1] = 0
    view = panel.overlay.view
    compare(panel, qtbot, "objects", mine, truth)
    qtbot.waitUntil(lambda: view.comparison.objects.is_stack, timeout=WAIT_MS)
    assert view.matches.count("matched") == 1
    panel.session.viewer.dims.set_point(0, 1)
    qtbot.waitUntil(lambda: view.plane[0] == 1 and view.comparison.objects.is_stack)
    assert view.matches.count("missed") == 1
    view.step()
    qtbot.waitUntil(lambda: view.error is not None, timeout=WAIT_MS)
    assert view.error.pixels == 400


def test_an_object_that_changes_is_matched_again(panel: InspectPanel, qtbot: QtBot):
    """A plane with objects that the stack did not know is shown by itself, not wrongly."""
    truth = np.zeros((4, 40, 40), np.uint8)
    truth[:, 5:15, 5:15] = 1
    view = panel.overlay.view
    compare(panel, qtbot, "objects", truth.copy(), truth)
    qtbot.waitUntil(lambda: view.comparison.objects.is_stack, timeout=WAIT_MS)
    view.result.data[2, 20:30, 20:30] = 9
    panel.session.viewer.dims.set_point(0, 2)
    qtbot.waitUntil(lambda: view.plane == (2,), timeout=WAIT_MS)
    assert not view.comparison.objects.is_stack
    assert view.matches.count("spurious") == 1


def test_matching_a_long_stack_is_stopped_and_the_plane_stays(panel: InspectPanel, qtbot: QtBot):
    mine, truth = (Watched(np.stack([one] * 100)) for one in (MINE, TRUTH))
    tab = panel.overlay
    tab.view.matching.progressed.connect(lambda done, _: tab.bar.stop.click() if done else None)
    compare(panel, qtbot, "objects", mine, truth)
    qtbot.waitUntil(lambda: not tab.view.matching.running, timeout=WAIT_MS)
    assert not tab.view.comparison.objects.is_stack or len(mine.read) == 100
    assert tab.legend.rows["matched"].text() == "1 objects"


def test_pixels_can_be_ignored(panel: InspectPanel, qtbot: QtBot):
    truth = TRUTH.copy()
    truth[30:] = 255
    panel.overlay.classes.setChecked(True)
    choose(panel, (MINE > 0).astype(int), np.where(truth > 1, truth, truth > 0))
    panel.overlay.show_button.click()
    qtbot.waitUntil(lambda: bool(panel.banner.text), timeout=WAIT_MS)
    assert panel.banner.text.endswith("set Ignore to 255.")
    panel.banner.clear()
    panel.numbers.classes.setChecked(True)
    score(panel, qtbot, "semantic")
    assert panel.banner.text.endswith("set Ignore to 255.")
    panel.numbers.classes.setChecked(False)
    panel.pair.ignored.setValue(255)
    panel.overlay.show_button.click()
    qtbot.waitUntil(lambda: panel.overlay.view.comparison is not None, timeout=WAIT_MS)
    assert panel.overlay.legend.rows["ignored"].text() == "5,000 px"
    score(panel, qtbot, "semantic")
    (row,) = panel.numbers.numbers.rows()
    assert row.figures["iou"] == pytest.approx(360 / (440 + 100))


def test_the_overlay_goes_with_its_layers(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "pixels")
    panel.session.viewer.layers.remove("mine")
    assert "Right and wrong" not in panel.session.viewer.layers
    assert panel.overlay.view.comparison is None


def test_our_own_pictures_cannot_be_compared(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "pixels")
    assert {one.name for one in comparable_layers(panel.session)} == {"mine", "truth"}


def test_a_click_tells_what_is_there_and_keys_step(make_napari_viewer, qtbot: QtBot):
    viewer = make_napari_viewer(show=True)
    panel = InspectPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Inspect", area="right")
    compare(panel, qtbot, "objects")
    view = panel.overlay.view
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.reset_view()
    viewer.layers.selection.active = view.layer
    qtbot.wait(300)
    camera = viewer.camera
    half = np.array([canvas.height(), canvas.width()]) / 2
    y, x = (np.array([12, 15]) - np.array(camera.center[-2:])) * camera.zoom + half
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(round(x), round(y)))
    qtbot.waitUntil(lambda: panel.overlay.told.text().startswith("Matched."), timeout=WAIT_MS)
    assert "IoU 0.82" in panel.overlay.told.text()
    QTest.keyClick(canvas, Qt.Key.Key_N)
    assert view.index == 0
    QTest.keyClick(canvas, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert view.index == 2
    panel.session.close()


def test_our_keys_are_not_naparis():
    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    assert not {NEXT_KEY, PREVIOUS_KEY.replace("-", "+")} & taken


# -- corrections -------------------------------------------------------------------------------


def test_an_error_becomes_strokes_and_undo_takes_them_back(open_panel, qtbot: QtBot):
    paint = open_panel(cells((80, 100)))
    session = paint.session
    panel = InspectPanel(session.viewer)
    qtbot.addWidget(panel)
    compare(panel, qtbot, "objects")
    panel.overlay.next.click()
    assert panel.overlay.right_class.currentText() == "foreground"
    strokes = session.current.strokes
    session.viewer.layers.selection.active = session.viewer.layers["truth"]
    panel.overlay.to_strokes.click()
    assert session.viewer.layers.selection.active is strokes  # Ctrl-Z, which the panel promises
    painted = np.asarray(strokes.data)
    assert set(np.unique(painted)) == {0, 2}
    assert ((painted == 2) <= (TRUTH == 2)).all()
    assert (painted == 2).sum() == 100  # 12 x 12 without its rim
    wait_idle(paint, qtbot)
    assert session.current.index.snapshot()
    strokes.undo()
    assert not np.asarray(strokes.data).any()


def test_an_error_becomes_a_point_that_is_saved(
    panel: InspectPanel, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compare(panel, qtbot, "objects")
    panel.overlay.to_point.click()
    assert panel.banner.text.startswith("No error is in view")
    panel.overlay.next.click()
    panel.overlay.to_point.click()
    chosen = str(tmp_path / "points.csv")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (chosen, ""))
    panel.overlay.save_points.click()
    (row,) = csv.DictReader((tmp_path / "points.csv").read_text().splitlines())
    assert TRUTH[int(float(row["row"])), int(float(row["col"]))] == 2


@pytest.mark.parametrize(
    ("ndim", "table"),
    [(3, ["z,row,col", "2.000,3.000,4.000"]), (4, ["t,z,row,col", "1.000,2.000,3.000,4.000"])],
)
def test_points_of_a_stack_are_saved_with_their_plane(
    panel: InspectPanel, tmp_path: Path, ndim: int, table: list[str]
):
    view, points = panel.overlay.view, Points(np.array([[1, 2, 3, 4]])[:, 4 - ndim :])
    view.result = SimpleNamespace(data=np.zeros((5, 6, 7, 8)[4 - ndim :]))
    save_points(panel.session, view, points, tmp_path / "points.csv")
    assert (tmp_path / "points.csv").read_text().splitlines() == table


def test_strokes_need_an_image(panel: InspectPanel, qtbot: QtBot):
    compare(panel, qtbot, "objects")
    panel.overlay.next.click()
    panel.overlay.to_strokes.click()
    assert panel.banner.text.startswith("No image of the shape (80, 100)")


# -- discrepancy -------------------------------------------------------------------------------


def maps() -> tuple[np.ndarray, np.ndarray]:
    a = np.full((3, 150, 150), 0.5, np.float32)
    b = a.copy()
    b[1, 30:80, 30:80] = 1.0
    b[2, 90:130, 90:130] = 0.1
    return a, b


def show_maps(panel: InspectPanel) -> None:
    a, b = (
        panel.session.viewer.add_image(one, name=n) for one, n in zip(maps(), "ab", strict=True)
    )
    panel.pair.choose(a, b)
    panel.heatmap.show_button.click()


def test_a_heatmap_has_a_fixed_scale_and_regions_to_visit(panel: InspectPanel, qtbot: QtBot):
    show_maps(panel)
    tab = panel.heatmap
    layer = tab.heatmap.layer
    assert tuple(layer.contrast_limits) == (0, 1)
    np.testing.assert_allclose(np.asarray(layer.data[1]), np.abs(maps()[0][1] - maps()[1][1]))
    tab.find.click()
    qtbot.waitUntil(lambda: not tab.heatmap.running, timeout=WAIT_MS)
    best = tab.heatmap.places[0]
    assert best.z == 1
    assert 30 <= best.y < 80
    tab.list.setCurrentRow(0)
    assert panel.session.viewer.dims.current_step[0] == 1
    tab.boxes.click()
    boxes = panel.session.viewer.layers["Annotate here"]
    assert len(boxes.data) == len(tab.heatmap.places)
    assert boxes.data[0][:, 0].tolist() == [1] * 4


def test_an_overlay_of_a_heatmap_is_not_offered(panel: InspectPanel, qtbot: QtBot):
    show_maps(panel)
    qtbot.wait(20)
    assert panel.pair.result.count() == 2


class _Params(BaseParams):
    pass


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", "culpico", _Params(), {}, seed=0)

    def task():
        for step in (1, 2, 3):
            yield Step(step, {"discrepancy": 0.6 / step})
            yield Preview("network m", np.full((40, 50), 0.9, np.float32), step)
            yield Preview("network n", np.full((40, 50), 0.9 - 0.6 / step, np.float32), step)
            yield Preview("found cells", np.array([[1.0, 2, 0.5]]), step, "points")

    run_quietly(run.drive(task()))
    return run


def test_the_discrepancy_of_a_run_has_a_slider_and_a_curve(
    panel: InspectPanel, qtbot: QtBot, run: Run, monkeypatch: pytest.MonkeyPatch
):
    threads = []

    def watched(*args):
        threads.append(threading.current_thread())
        return discrepancy_over_epochs(*args)

    monkeypatch.setattr(inspect_heatmap, "discrepancy_over_epochs", watched)
    tab = panel.heatmap
    tab.open_run(run.folder)
    assert (tab.first.currentText(), tab.second.currentText()) == ("network m", "network n")
    assert tab.first.findText("found cells") < 0
    tab.show_run.click()
    qtbot.waitUntil(lambda: not tab.heatmap.running, timeout=WAIT_MS)
    assert threading.main_thread() not in threads
    assert tab.heatmap.steps == [1, 2, 3]
    np.testing.assert_allclose(tab.heatmap.means, [0.6, 0.3, 0.2], atol=1e-6)
    tab.heatmap.show_step(2)
    assert panel.session.viewer.dims.current_step[0] == 2
    assert tab.curve._line.value() == 3
    assert np.asarray(tab.heatmap.layer.data[2]).mean() == pytest.approx(0.2, abs=1e-6)


def test_a_folder_without_a_run_is_told(panel: InspectPanel, tmp_path: Path):
    panel.heatmap._trying(lambda: panel.heatmap.open_run(tmp_path))()
    assert "There is no run in" in panel.banner.text


# -- numbers -----------------------------------------------------------------------------------


def score(panel: InspectPanel, qtbot: QtBot, kind: str) -> None:
    tab = panel.numbers
    tab.kind.setCurrentIndex(tab.kind.findData(kind))
    tab.score_button.click()
    qtbot.waitUntil(lambda: not tab.numbers.running, timeout=WAIT_MS)


def test_figures_are_listed_sorted_copied_and_saved(
    panel: InspectPanel, qtbot: QtBot, tmp_path: Path
):
    stack = np.stack([TRUTH, MINE, np.zeros_like(TRUTH)])
    choose(panel, stack, np.stack([TRUTH] * 3))
    score(panel, qtbot, "semantic")
    tab = panel.numbers
    parts = [row.part for row in tab.numbers.rows()]
    assert parts == ["all", "plane 0", "plane 1", "plane 2"]
    dice = {row.part: row.figures["dice"] for row in tab.numbers.rows()}
    assert dice["plane 0"] == 1
    assert dice["plane 2"] == 0
    tab.table.sortItems(3)
    assert tab.table.item(0, 1).text() == "plane 2"
    tab.table.cellClicked.emit(0, 3)
    assert panel.session.viewer.dims.current_step[0] == 2
    lines = tab.text().splitlines()
    assert lines[0].split("\t")[:4] == ["Image", "Part", "IoU", "Dice"]
    assert len(lines) == 5
    tab.numbers.write(tmp_path / "figures.csv")
    rows = list(csv.DictReader((tmp_path / "figures.csv").read_text().splitlines()))
    assert float(rows[1]["dice"]) == 1
    tab.numbers.write(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["images"]


def test_classes_that_paint_does_not_know_are_told(panel: InspectPanel, qtbot: QtBot):
    choose(panel, TRUTH, TRUTH)
    panel.numbers.classes.setChecked(True)
    score(panel, qtbot, "semantic")
    assert panel.banner.text.startswith("Class 2, 3 is none of the classes in Paint")
    assert panel.banner.kind == "info"
    (row,) = panel.numbers.numbers.rows()
    assert row.figures["iou"] == 1


def test_undefined_figures_are_told_and_sort_last(panel: InspectPanel, qtbot: QtBot):
    stack = np.stack([TRUTH, np.zeros_like(TRUTH)])
    choose(panel, stack, np.stack([MINE] * 2))
    score(panel, qtbot, "semantic")
    table = panel.numbers.table
    titles = [table.horizontalHeaderItem(c).text() for c in range(table.columnCount())]
    column = titles.index("HD95")
    table.sortItems(column)
    assert table.item(table.rowCount() - 1, column).text() == "undefined"


def test_objects_have_their_own_figures(panel: InspectPanel, qtbot: QtBot):
    choose(panel, MINE, TRUTH)
    score(panel, qtbot, "instances")
    (row,) = panel.numbers.numbers.rows()
    assert row.figures["f1_50"] == pytest.approx(0.4)
    assert (row.figures["objects"], row.figures["true objects"]) == (2, 3)
    assert panel.numbers.note.text().endswith("No AP for 'mine': the objects have no scores.")
    assert "AP50" not in panel.numbers.text()


FOUND = squares((5, 5, 20), (5, 60, 20), (50, 30, 20))
"""The objects of the truth here: the first and the last are found, and one that is none."""
REAL = np.where(FOUND == 2, 0, FOUND)


def write_found(folder: Path) -> tuple[Path, Path]:
    """Write a prediction whose wrong object has the second best score, and its truth."""
    for name in ("predicted", "truth"):
        (folder / name).mkdir()
    predicted, truth = folder / "predicted" / "f_instances.tif", folder / "truth" / "f.tif"
    tifffile.imwrite(predicted, FOUND.astype(np.uint16))
    tifffile.imwrite(truth, REAL.astype(np.uint16))
    (folder / "predicted" / "f_objects.csv").write_text("label,score\n1,0.9\n2,0.8\n3,0.7\n")
    return predicted, truth


@pytest.mark.parametrize("how", ["file", "index", "label", "rows"])
def test_scores_give_the_average_precision_of_evaluate(
    panel: InspectPanel, qtbot: QtBot, tmp_path: Path, how: str
):
    predicted, truth = write_found(tmp_path)
    viewer = panel.session.viewer
    if how == "file":
        with layer_source(path=str(predicted)):  # as a reader leaves it
            mine = viewer.add_labels(tifffile.imread(predicted))
    else:
        mine = viewer.add_labels(FOUND, name="mine")
        numbers = {} if how == "rows" else {how: [3, 1, 2]}
        scores = [None, 0.9, 0.8, 0.7] if how == "rows" else [0.7, 0.9, 0.8]
        mine.features = {**numbers, "score": scores}
    truth_layer = viewer.add_labels(REAL, name="truth")
    panel.pair.choose(mine, truth_layer)
    score(panel, qtbot, "instances")
    evaluation = run_quietly(
        evaluate({"all": predicted.parent}, truth.parent, "instances", "instances")
    )
    (row,) = panel.numbers.numbers.rows()
    assert row.figures["ap50"] == evaluation.models["all"].mean["ap50"]
    assert row.figures["ap50"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert "AP50" in panel.numbers.text()
    assert "No AP" not in panel.numbers.note.text()


def test_a_row_without_scores_says_why_beside_one_that_has_some(panel: InspectPanel, qtbot: QtBot):
    viewer = panel.session.viewer
    truth = viewer.add_labels(REAL, name="truth")
    for name, features in (("CKS", {"label": [1, 2, 3], "score": [0.9, "?", 0.7]}), ("bare", {})):
        layer = viewer.add_labels(FOUND, name=name)
        layer.features = features
        panel.pair.choose(layer, truth)
        score(panel, qtbot, "instances")
    table = panel.numbers.table
    titles = [table.horizontalHeaderItem(c).text() for c in range(table.columnCount())]
    cells = {table.item(row, 0).text(): table.item(row, titles.index("AP50")) for row in range(2)}
    told = {name: (cell.text(), cell.toolTip()) for name, cell in cells.items()}
    assert told == {"CKS / truth": ("1.000", ""), "bare / truth": ("undefined", NO_SCORES)}
    assert "No AP for 'bare'" in panel.numbers.note.text()


def test_a_long_scoring_is_stopped(panel: InspectPanel, qtbot: QtBot):
    mine, truth = (Watched(np.stack([one] * 100)) for one in (MINE, TRUTH))
    choose(panel, mine, truth)
    tab = panel.numbers
    seen = []
    tab.numbers.progressed.connect(lambda done, total: seen.append((done, total)))
    tab.numbers.progressed.connect(lambda done, total: tab.bar.stop.click())
    tab.score_button.click()
    qtbot.waitUntil(lambda: not tab.numbers.running, timeout=WAIT_MS)
    assert seen[0] == (1, 100)
    assert tab.numbers.rows() == [] or len(mine.read) == 100


# -- next, and trust ---------------------------------------------------------------------------


def test_places_are_listed_visited_and_skipped_once_painted(open_panel, qtbot: QtBot):
    paint = open_panel(np.stack([cells()] * 6), axis_labels=("z", "y", "x"))
    session = paint.session
    panel = InspectPanel(session.viewer)
    qtbot.addWidget(panel)
    paint_both(paint)
    wait_idle(paint, qtbot)
    tab = panel.next
    qtbot.waitUntil(tab.search.isEnabled)
    tab.search.click()
    qtbot.waitUntil(lambda: not tab.guide.searching, timeout=WAIT_MS)
    assert tab.list.count() == len(tab.guide.places) == 10
    assert len({place.z for place in tab.guide.places}) > 2
    assert tab.guide.index == 0
    second, third = tab.guide.places[1:3]
    session.current.strokes.paint((second.z, second.y, second.x), 2)
    wait_idle(paint, qtbot)
    tab.next.click()
    assert tab.guide.places[tab.guide.index] == third
    ring = session.viewer.layers["Look here"]
    assert ring.data[0].astype(int).tolist() == [third.z, third.y, third.x]


def test_there_is_nothing_to_check_without_an_enhancer(panel: InspectPanel):
    panel.next.check.click()
    assert panel.banner.text.startswith("No image is chosen")


def test_a_run_without_a_model_is_told(open_panel, qtbot: QtBot, run: Run):
    paint = open_panel(cells())
    panel = InspectPanel(paint.session.viewer)
    qtbot.addWidget(panel)
    panel.next.trust.check_network(run.folder)
    qtbot.waitUntil(lambda: not panel.next.trust.running, timeout=WAIT_MS)
    assert panel.banner.text
    assert panel.next.trust.verdicts == []
