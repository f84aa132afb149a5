"""Projects in the window: saved, closed, reopened with the same maps; moved and wrong images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from npe2 import PluginManager
from qtpy.QtCore import QTimer

from napari_cellda.core.batch import (
    ClassifyJob,
    classify_batch,
    open_pipeline,
    predict_batch,
)
from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.events import run_quietly
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.live.stroke_index import StrokeIndex
from napari_cellda.core.project import load_project, save_project
from napari_cellda.ui import strokes as ui_strokes
from napari_cellda.ui.autosave import Autosave, painted_pixels
from napari_cellda.ui.axes import ImageChoice
from napari_cellda.ui.images import choose_image
from napari_cellda.ui.panel_states import PanelStates
from napari_cellda.ui.panels import project_dialogs as dialogs
from napari_cellda.ui.project_desk import ProjectDesk
from napari_cellda.ui.projects import SessionProject
from painting import WAIT_MS, cells, paint_both, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]


@pytest.fixture(autouse=True)
def no_dialogs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answer every question as the test says; one without an answer fails."""
    answers: dict[str, Any] = {}

    def answering(name: str) -> Callable[..., Any]:
        def answer(*args: Any) -> Any:
            found = answers[name]
            return found(*args) if callable(found) else found

        return answer

    for name in ("ask_unsaved", "ask_copies", "ask_for_image", "ask_where_to_save"):
        monkeypatch.setattr(dialogs, name, answering(name))
    return answers


@pytest.fixture(autouse=True, scope="module")
def plugins() -> None:
    """Make napari's own readers known, which it does itself only when it opens a window."""
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    assert "napari" in PluginManager.instance()


def file_in(folder: Path, pixels: np.ndarray | None = None, name: str = "cells.tif") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    tifffile.imwrite(folder / name, cells() if pixels is None else pixels)
    return folder / name


def opened(open_panel: Open, qtbot: QtBot, image: Path) -> PaintPanel:
    panel = open_panel()
    panel.session.viewer.open(image, plugin="napari")
    qtbot.waitUntil(lambda: panel.session.current is not None, timeout=WAIT_MS)
    return panel


def save(panel: PaintPanel, qtbot: QtBot, path: Path, *, error: bool = False) -> None:
    desk = ProjectDesk.of(panel.session)
    desk.save(path)
    qtbot.waitUntil(lambda: not desk.saver.busy, timeout=WAIT_MS)
    assert (panel.session.last_error is not None) is error
    assert not desk.project.unsaved


def reopen(panel: PaintPanel, qtbot: QtBot, path: Path) -> None:
    ProjectDesk.of(panel.session).open(path)
    qtbot.waitUntil(lambda: not panel.session.is_opening, timeout=WAIT_MS)
    wait_idle(panel, qtbot)


def arrays(panel: PaintPanel) -> dict[str, np.ndarray]:
    return {role: np.array(array) for role, array in panel.session.current.arrays.items()}


def assert_same_maps(panel: PaintPanel, before: dict[str, np.ndarray]) -> None:
    after = arrays(panel)
    assert after.keys() >= before.keys()
    for role, array in before.items():
        np.testing.assert_array_equal(after[role], array, err_msg=role)


def test_reopened_project_gives_the_same_maps_bit_for_bit(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    panel._editor.rename(1, "nuclei")
    panel.rows.recolored.emit(1, "#123456")
    paint_both(panel)
    wait_idle(panel, qtbot)
    before, strokes = arrays(panel), panel.session.current.strokes_array.copy()
    forest = panel.session.classifier.forest
    save(panel, qtbot, tmp_path / "data" / "work.cellda")
    panel.session.close()

    again = open_panel()
    reopen(again, qtbot, tmp_path / "data" / "work.cellda")
    assert again.session.last_error is None
    assert_same_maps(again, before)
    np.testing.assert_array_equal(again.session.current.strokes_array, strokes)
    assert again.session.classes == panel.session.classes
    assert again.session.spec == panel.session.spec
    assert again.session.forest_params == panel.session.forest_params
    # The very forest of the file: nothing was trained again.
    np.testing.assert_array_equal(again.session.classifier.forest.leaves, forest.leaves)
    assert again.painter.work.engine._classifier is again.session.classifier
    assert not SessionProject.of(again.session).unsaved
    again.session.current.strokes.paint((100, 5), 1)
    wait_idle(again, qtbot)
    assert SessionProject.of(again.session).unsaved


def test_project_runs_headless_with_the_maps_of_the_window(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    image = file_in(tmp_path / "data")
    panel = opened(open_panel, qtbot, image)
    paint_both(panel)
    wait_idle(panel, qtbot)
    save(panel, qtbot, tmp_path / "work.cellda")
    run_quietly(predict_batch(str(tmp_path / "work.cellda"), [image], tmp_path / "out"))
    written = tifffile.imread(tmp_path / "out" / "cells_probability.tif")
    seen = arrays(panel)
    np.testing.assert_array_equal(written, np.stack([seen["forest:0"], seen["forest:1"]]))


def test_project_of_the_command_line_opens_in_the_window(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    image, path = file_in(tmp_path / "data"), tmp_path / "line.cellda"
    strokes = np.zeros((120, 160), np.uint8)
    strokes[20:40, 10:14], strokes[20:40, 120:124], strokes[90:99, 140:150] = 1, 2, 3
    tifffile.imwrite(tmp_path / "strokes.tif", strokes)
    job = ClassifyJob(features="compact", channels="grey", save=path)
    run_quietly(classify_batch([image], [tmp_path / "strokes.tif"], tmp_path / "out", job))
    written = tifffile.imread(tmp_path / "out" / "cells_probability.tif")
    panel = open_panel()
    reopen(panel, qtbot, path)
    seen = arrays(panel)
    np.testing.assert_array_equal(written, np.stack([seen[f"forest:{k}"] for k in range(3)]))
    np.testing.assert_array_equal(panel.session.current.strokes_array, strokes)
    assert len(set(panel.session.classes.colors)) == 3


def test_saved_forest_counts_and_not_what_training_would_give_today(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    """Another library, or another version of it, may train another forest."""
    image = file_in(tmp_path / "data")
    panel = opened(open_panel, qtbot, image)
    paint_both(panel)
    wait_idle(panel, qtbot)
    path = tmp_path / "work.cellda"
    save(panel, qtbot, path)
    project, strokes, _ = load_project(path)
    other = run_quietly(
        train_classifier(
            [panel.session.current.image],
            [strokes[0]],
            spec=project.features,
            params=ForestParams(trees=3, seed=8, jobs=1),
        )
    )
    save_project(path, project, strokes, other.forest)
    panel.session.close()
    again = open_panel()
    reopen(again, qtbot, path)
    pipeline, measured, _ = open_pipeline(path)
    assert pipeline.classifier.forest.n_trees == 3
    assert again.session.classifier.forest.n_trees == 3
    assert next(iter(measured.values())) == again.session.current.norm


def test_project_saved_right_after_a_stroke_holds_its_forest(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    paint_both(panel)  # not waited for
    save(panel, qtbot, tmp_path / "work")
    wait_idle(panel, qtbot)
    _, strokes, forest = load_project(tmp_path / "work.cellda")
    np.testing.assert_array_equal(strokes[0], panel.session.current.strokes_array)
    np.testing.assert_array_equal(forest.leaves, panel.session.classifier.forest.leaves)


def test_strokes_that_are_being_read_again_are_saved_and_asked_about(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    paint_both(panel)
    wait_idle(panel, qtbot)
    current, desk = panel.session.current, ProjectDesk.of(panel.session)
    go_on = threading.Event()

    class SlowIndex(StrokeIndex):
        def update(self, *args: Any) -> bool:
            assert go_on.wait(60)
            return super().update(*args)

    monkeypatch.setattr(ui_strokes, "SMALL", 0)  # as if the image were large
    monkeypatch.setattr(ui_strokes, "StrokeIndex", SlowIndex)
    panel.session.set_spec(panel.session.spec.model_copy(update={"ndim": 3}))
    assert current.index is None
    assert not panel.painter.up_to_date
    assert desk.project.unsaved
    assert len(painted_pixels(current).ids) == np.count_nonzero(current.strokes_array)
    desk.save(tmp_path / "work.cellda")
    QTimer.singleShot(300, go_on.set)
    qtbot.waitUntil(lambda: not desk.saver.busy, timeout=WAIT_MS)
    assert go_on.is_set()
    project, strokes, forest = load_project(tmp_path / "work.cellda")
    np.testing.assert_array_equal(strokes[0], current.strokes_array)
    assert project.features.ndim == 3
    assert forest is not None
    assert not desk.project.unsaved


def test_class_is_removed_from_strokes_that_are_being_read_again(
    open_panel: Open, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = open_panel(cells())
    panel._editor.add("other")
    paint_both(panel)
    panel.session.current.strokes.paint((100, 100), 3)
    wait_idle(panel, qtbot)
    monkeypatch.setattr(ui_strokes, "SMALL", 0)
    panel.session.set_spec(panel.session.spec.model_copy(update={"ndim": 3}))
    assert panel.session.current.index is None
    panel._editor.remove(1)
    assert set(np.unique(panel.session.current.strokes_array)) == {0, 1, 2}
    wait_idle(panel, qtbot)
    assert panel.session.current.index.counts(2)[1] > 0
    panel._editor.undo()
    assert set(np.unique(panel.session.current.strokes_array)) == {0, 1, 2, 3}


def test_class_edits_of_one_project_are_not_undone_in_another(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel._editor.rename(1, "nuclei")
    save(panel, qtbot, tmp_path / "work.cellda")
    assert panel._editor.undo_title == "rename foreground"
    reopen(panel, qtbot, tmp_path / "work.cellda")
    assert panel._editor.undo_title is None


def test_channel_layer_that_is_in_no_file_is_asked_about(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    session = panel.session
    other = session.viewer.add_image(cells(), name="other")
    choose_image(session, ImageChoice(session.current.layer, "yx", "all", (other,)))
    desk = ProjectDesk.of(session)
    assert desk.project.not_on_disk() == [session.current]
    no_dialogs["ask_copies"] = "copy"
    desk.save(tmp_path / "work.cellda")
    qtbot.waitUntil(lambda: not desk.saver.busy, timeout=WAIT_MS)
    assert "several layers that are not all on disk" in str(session.last_error)
    assert not (tmp_path / "work.cellda").exists()


def test_stack_with_channels_comes_back_with_its_axes(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    """Never on disk, with axes in an order that no file format keeps."""
    panel = open_panel(cells((3, 2, 60, 70)), name="a/b stack")
    layer = panel.session.current.layer
    choose_image(panel.session, ImageChoice(layer, "zcyx", (1,)))
    panel.painter.start_strokes(panel.session.current)
    paint_both(panel)
    wait_idle(panel, qtbot)
    before = arrays(panel)
    no_dialogs["ask_copies"] = "copy"
    save(panel, qtbot, tmp_path / "work.cellda")
    assert [p.name for p in (tmp_path / "work_images").iterdir()] == ["a_b stack.ome.zarr"]
    panel.session.close()
    again = open_panel()
    reopen(again, qtbot, tmp_path / "work.cellda")
    choice = again.session.current.choice
    assert (choice.axes, choice.channels) == ("zcyx", (1,))
    assert choice.layer.data.shape == (3, 2, 60, 70)
    np.testing.assert_array_equal(np.asarray(choice.layer.data), layer.data)
    assert_same_maps(again, before)
    assert SessionProject.of(again.session).not_on_disk() == []


@pytest.mark.parametrize("kind", ["rgb", "bool"])
def test_images_of_other_kinds_are_kept_or_refused(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any], kind: str
) -> None:
    pixels = (cells((60, 70, 3)) * 100).astype(np.uint8)
    pixels = pixels if kind == "rgb" else pixels[..., 0] > 50
    panel = open_panel(pixels)
    no_dialogs["ask_copies"] = "copy"
    desk = ProjectDesk.of(panel.session)
    desk.save(tmp_path / "work.cellda")
    qtbot.waitUntil(lambda: not desk.saver.busy, timeout=WAIT_MS)
    if kind == "bool":
        assert "bool values that no image file keeps" in str(panel.session.last_error)
        assert not (tmp_path / "work.cellda").exists()
        return
    panel.session.close()
    again = open_panel()
    reopen(again, qtbot, tmp_path / "work.cellda")
    np.testing.assert_array_equal(np.asarray(again.session.current.layer.data), pixels)
    assert again.session.current.layer.rgb


def test_moved_image_is_found_by_name_or_asked_for_and_a_wrong_one_refused(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    image = file_in(tmp_path / "data")
    panel = opened(open_panel, qtbot, image)
    paint_both(panel)
    wait_idle(panel, qtbot)
    before = arrays(panel)
    path = tmp_path / "work.cellda"
    save(panel, qtbot, path)
    panel.session.close()

    image.rename(tmp_path / "cells.tif")  # beside the project: found without a question
    again = open_panel()
    reopen(again, qtbot, path)
    assert_same_maps(again, before)
    again.session.close()

    elsewhere = tmp_path / "other" / "renamed.tif"
    elsewhere.parent.mkdir()
    (tmp_path / "cells.tif").rename(elsewhere)
    wrong = file_in(tmp_path / "far" / "away", cells() + 1)
    asked: list[str] = []

    def answer(parent: Any, reference: Any, sentence: str) -> Path:
        asked.append(sentence)
        return wrong if len(asked) == 1 else elsewhere

    no_dialogs["ask_for_image"] = answer
    third = open_panel()
    reopen(third, qtbot, path)
    assert "was moved" in asked[0]
    assert asked[1].startswith("'cells.tif' is not the image 'cells'")
    assert len(asked) == 2
    assert_same_maps(third, before)
    layers = [layer.name for layer in third.session.viewer.layers]
    assert sum("Strokes" not in n and "renamed" in n for n in layers) == 1


def test_image_left_out_keeps_the_forest_and_its_strokes(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "a", name="a.tif"))
    paint_both(panel)
    panel.session.viewer.open(file_in(tmp_path / "b", cells() * 2, "b.tif"), plugin="napari")
    panel.picker.offer(panel.session.viewer.layers[-1])
    paint_both(panel)
    wait_idle(panel, qtbot)
    path = tmp_path / "work.cellda"
    save(panel, qtbot, path)
    panel.session.close()
    (tmp_path / "a" / "a.tif").unlink()
    no_dialogs["ask_for_image"] = None
    again = open_panel()
    reopen(again, qtbot, path)
    assert again.session.current.name == "b"
    np.testing.assert_array_equal(
        again.session.classifier.forest.leaves, panel.session.classifier.forest.leaves
    )
    save(again, qtbot, tmp_path / "second.cellda")
    project, strokes, _ = load_project(tmp_path / "second.cellda")
    assert {reference.name for reference in project.images} == {"a", "b"}
    assert sorted(strokes) == [0, 1]


def test_enhancer_comes_back_and_one_with_other_weights_does_not(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    panel.session.set_enhancer(Enhancer.open("nuclei"), "nuclei")
    panel.session.set_enhancer_options(rescale=1.5)
    paint_both(panel)
    wait_idle(panel, qtbot)
    before, path = arrays(panel), tmp_path / "work.cellda"
    save(panel, qtbot, path)
    panel.session.close()
    again = open_panel()
    reopen(again, qtbot, path)
    qtbot.waitUntil(lambda: again.session.enhancer is not None, timeout=WAIT_MS)
    wait_idle(again, qtbot)
    assert "enhanced" in before
    assert_same_maps(again, before)
    assert not SessionProject.of(again.session).unsaved
    again.session.close()

    project, strokes, forest = load_project(path)
    other = project.enhancer.model_copy(update={"sha256": "0" * 64})
    save_project(path, project.model_copy(update={"enhancer": other}), strokes, forest)
    third = open_panel()
    reopen(third, qtbot, path)
    qtbot.waitUntil(lambda: "has other weights" in third.banner.text, timeout=WAIT_MS)
    assert third.session.enhancer is None
    save(third, qtbot, tmp_path / "second.cellda", error=True)
    assert load_project(tmp_path / "second.cellda")[0].enhancer == other


def test_strokes_painted_after_the_last_save_are_offered_after_a_crash(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    paint_both(panel)
    wait_idle(panel, qtbot)
    path = tmp_path / "work.cellda"
    save(panel, qtbot, path)
    panel.session.current.strokes.paint((100, 100), 2)
    wait_idle(panel, qtbot)
    strokes = panel.session.current.strokes_array.copy()
    saver = Autosave.of(panel.session)
    saver.save()
    saver._writing.wait(30)

    again = open_panel()  # the first one crashed: nothing of it was closed
    reopen(again, qtbot, path)
    assert not again.restore_bar.isHidden()
    assert "after the project" in again.restore_bar.text.text()
    again.restore_bar.bring_back.click()
    wait_idle(again, qtbot)
    np.testing.assert_array_equal(again.session.current.strokes_array, strokes)
    assert again.restore_bar.isHidden()


def test_unsaved_changes_are_asked_about(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    desk = ProjectDesk.of(panel.session)
    assert desk.may_drop()  # nothing painted, nothing asked
    paint_both(panel)
    wait_idle(panel, qtbot)
    for answer, leaves in (("cancel", False), ("drop", True)):
        no_dialogs["ask_unsaved"] = answer
        assert desk.may_drop() is leaves
    no_dialogs.update(ask_unsaved="save", ask_where_to_save=None)
    assert not desk.may_drop()
    no_dialogs["ask_where_to_save"] = tmp_path / "named.cellda"
    assert desk.may_drop()
    assert (tmp_path / "named.cellda").is_file()
    no_dialogs.clear()
    assert desk.may_drop()


def test_closing_by_hand_asks_and_by_a_script_does_not(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, no_dialogs: dict[str, Any]
) -> None:
    panel = open_panel(cells(), window="hidden")
    paint_both(panel)
    wait_idle(panel, qtbot)
    window = panel.session.viewer.window._qt_window
    asked: list[str] = []

    def stay(parent: Any, name: str) -> str:
        asked.append(name)
        return "cancel"

    no_dialogs["ask_unsaved"] = stay
    window.close(confirm_need=True)  # what napari's menu and Ctrl-W call
    assert asked == [""]
    assert not panel.session.is_closed
    no_dialogs.clear()  # a question would fail now


def test_panels_find_their_state_again(open_panel: Open, qtbot: QtBot, tmp_path: Path) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    states = PanelStates.of(panel.session)
    states.join(panel, "mine", lambda: {"box": 3}, lambda state: None)
    panel.session.opacity = 0.25
    panel.live.setChecked(False)
    save(panel, qtbot, tmp_path / "work.cellda")
    panel.session.close()
    again = open_panel()
    reopen(again, qtbot, tmp_path / "work.cellda")
    given: list[Any] = []
    PanelStates.of(again.session).join(again, "mine", dict, given.append)
    assert given == [{"box": 3}]
    assert again.session.opacity == 0.25
    assert not again.session.live
    assert not again.live.isChecked()


def test_dropped_file_opens_in_the_viewer(
    open_panel: Open, qtbot: QtBot, tmp_path: Path, make_napari_viewer: Any
) -> None:
    panel = opened(open_panel, qtbot, file_in(tmp_path / "data"))
    paint_both(panel)
    wait_idle(panel, qtbot)
    save(panel, qtbot, tmp_path / "work.cellda")
    panel.session.close()
    viewer = make_napari_viewer()
    viewer.open(tmp_path / "work.cellda", plugin="napari-cellda")
    names = lambda: [layer.name for layer in viewer.layers]  # noqa: E731
    qtbot.waitUntil(lambda: "Strokes · cells" in names(), timeout=WAIT_MS)
    (paint,) = [one for title, one in viewer.window.dock_widgets.items() if "Paint" in title]
    qtbot.waitUntil(lambda: paint.painter.loaded and paint.painter.settled, timeout=WAIT_MS)
    assert paint.project_bar.name.text() == "work.cellda"
    assert paint.parent().windowTitle() == "Paint"
    paint.session.close()
    assert paint.painter.wait(60)


def test_foreign_file_is_refused_and_the_work_stays(
    open_panel: Open, qtbot: QtBot, tmp_path: Path
) -> None:
    panel = open_panel(cells())
    (tmp_path / "bad.cellda").write_bytes(b"no zip")
    ProjectDesk.of(panel.session).open(tmp_path / "bad.cellda")
    qtbot.waitUntil(lambda: "not a napari-cellda project" in panel.banner.text, timeout=WAIT_MS)
    assert panel.session.current.name == "cells"
    assert not panel.session.is_opening
    assert isinstance(panel.session.viewer, ViewerModel)
