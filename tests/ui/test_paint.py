"""The panel Paint: what a user clicks, paints and sees; layers that come and go."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_cellda.core.classifier import Normalised, train_classifier
from napari_cellda.core.events import run_quietly
from napari_cellda.core.tiles import whole
from napari_cellda.ui.advice import OPEN_AN_IMAGE
from napari_cellda.ui.axes import ImageChoice
from napari_cellda.ui.images import choose_image, take_over
from napari_cellda.ui.ring import show_ring
from napari_cellda.ui.view import camera_of, current_place, visible_region
from napari_cellda.ui.worker import tasks_of
from painting import WAIT_MS, cells, paint_both, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]


def names(panel: PaintPanel) -> list[str]:
    return [layer.name.split(" · ")[0] for layer in panel.session.viewer.layers]


def maps(panel: PaintPanel) -> np.ndarray:
    arrays = panel.session.current.arrays
    return np.stack([arrays[f"forest:{k}"] for k in range(len(panel.session.classes))])


# -- the way of a first-time user --------------------------------------------------------------


def test_without_an_image_it_says_how_to_open_one(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel()
    qtbot.waitUntil(lambda: panel.advice.text() == OPEN_AN_IMAGE)
    assert not panel.train.isEnabled()
    panel.session.viewer.add_image(cells(), name="later")
    qtbot.waitUntil(lambda: panel.session.current is not None)
    assert panel.picker.layers.currentText() == "later"
    assert names(panel)[-1] == "Strokes"


def test_two_strokes_give_the_map_of_the_command_line(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    qtbot.waitUntil(lambda: "background: press Q" in panel.advice.text())
    paint_both(panel)
    wait_idle(panel, qtbot)
    painted, session = panel.session.current, panel.session
    task = train_classifier(
        [painted.image], [painted.strokes_array], spec=session.spec, params=session.forest_params
    )
    expected = run_quietly(task).predict(Normalised.measure(painted.image), whole((1, 120, 160)))
    np.testing.assert_array_equal(maps(panel), expected[:, 0])
    np.testing.assert_array_equal(painted.arrays["mask"], expected[:, 0].argmax(axis=0))
    order = ["cells", "Uncertainty", "Mask", "Forest background", "Forest foreground", "Strokes"]
    assert names(panel) == order
    visible = {n for n, layer in zip(order, session.viewer.layers, strict=True) if layer.visible}
    assert visible == {"cells", "Forest foreground", "Strokes"}
    assert session.viewer.layers.selection.active is painted.strokes
    assert [row.count.text() != "–" for row in panel.rows.rows] == [True, True]
    qtbot.waitUntil(lambda: panel.advice.text().startswith("Paint where the map is wrong"))


def test_undo_and_redo_bring_a_new_answer(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    layer = panel.session.current.strokes
    before = maps(panel).copy()
    for row in range(80, 110, 3):
        layer.paint((row, 140), 1)
    wait_idle(panel, qtbot)
    after = maps(panel).copy()
    assert not np.array_equal(before, after)
    for _ in range(10):
        layer.undo()
    wait_idle(panel, qtbot)
    np.testing.assert_array_equal(maps(panel), before)
    for _ in range(10):
        layer.redo()
    wait_idle(panel, qtbot)
    np.testing.assert_array_equal(maps(panel), after)


def test_accuracy_is_measured_when_painting_rests(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    qtbot.waitUntil(lambda: panel.session.score is not None, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: panel.quality.score.text().startswith("Out-of-bag accuracy: "))
    panel.quality_section.open()
    qtbot.waitUntil(lambda: panel.quality._plot is not None)


def test_without_live_update_only_the_button_trains(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    panel.live.setChecked(False)
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert panel.session.classifier is None
    qtbot.waitUntil(lambda: "Train now" in panel.advice.text())
    panel.train.click()
    wait_idle(panel, qtbot)
    forest = panel.session.classifier.forest
    panel.session.current.strokes.paint((100, 20), 1)
    camera_of(panel.session.viewer).zoom *= 2
    wait_idle(panel, qtbot)
    assert panel.session.classifier.forest is forest
    panel.live.setChecked(True)
    wait_idle(panel, qtbot)
    assert panel.session.classifier.forest is not forest


# -- classes -----------------------------------------------------------------------------------


def test_clicking_a_class_paints_with_it(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    layer = panel.session.current.strokes
    layer.mode = "pan_zoom"
    panel.session.viewer.layers.selection.clear()
    qtbot.mouseClick(panel.rows.rows[1].key, Qt.MouseButton.LeftButton)
    assert (layer.selected_label, layer.mode) == (2, "paint")
    assert panel.session.viewer.layers.selection.active is layer
    layer.selected_label = 1
    assert panel.rows._selected == 0


def test_third_class_gets_its_map_and_leaves_with_its_strokes(
    open_panel: Open, qtbot: QtBot
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    panel.add_class.click()
    panel.rows.rows[2].name.setText("walls")
    panel.rows.rows[2].name.editingFinished.emit()
    painted = panel.session.current
    assert painted.strokes.selected_label == 3
    painted.strokes.paint((100, 80), 3)
    wait_idle(panel, qtbot)
    assert "Forest walls" in names(panel)
    assert maps(panel).shape[0] == 3
    strokes = painted.strokes_array.copy()
    panel.rows.rows[1].remove.click()
    wait_idle(panel, qtbot)
    assert panel.session.classes.names == ("background", "walls")
    np.testing.assert_array_equal(painted.strokes_array, np.array([0, 1, 0, 2])[strokes])
    assert set(painted.arrays) == {"forest:0", "forest:1", "mask", "uncertainty"}
    assert painted.results["forest:1"].name == "Forest walls"
    panel.undo.click()
    wait_idle(panel, qtbot)
    assert panel.session.classes.names == ("background", "foreground", "walls")
    np.testing.assert_array_equal(painted.strokes_array, strokes)
    assert maps(panel).shape[0] == 3
    assert [painted.results[f"forest:{k}"].name for k in (1, 2)] == [
        "Forest foreground",
        "Forest walls",
    ]


def test_brush_keeps_its_class_when_classes_are_removed(open_panel: Open) -> None:
    panel = open_panel(cells())
    panel.add_class.click()
    panel.add_class.click()
    layer = panel.session.current.strokes
    assert layer.selected_label == 4
    panel.rows.rows[2].remove.click()
    assert layer.selected_label == 3, "class 2 (of 4) was removed: the brush's moved down"
    panel.rows.rows[2].remove.click()
    assert layer.selected_label == 1, "its class is gone: background, not a label of no class"
    layer.selected_label = 0
    panel.undo.click()
    assert layer.selected_label == 0, "what erases goes on erasing"


def test_maps_are_called_by_their_class_unless_the_user_named_them(
    open_panel: Open, qtbot: QtBot
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    background, foreground = (panel.session.current.results[f"forest:{k}"] for k in (0, 1))
    background.name = "mine"
    panel.rows.renamed.emit(0, "empty")
    panel.rows.renamed.emit(1, "nuclei")
    assert (background.name, foreground.name) == ("mine", "Forest nuclei")
    panel.undo.click()
    assert foreground.name == "Forest foreground"


def test_undoing_a_removal_keeps_what_was_painted_since(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    panel.add_class.click()
    layer = panel.session.current.strokes
    layer.brush_size = 4
    layer.paint((60, 80), 3)
    wait_idle(panel, qtbot)
    panel.rows.rows[2].remove.click()
    layer.paint((60, 80), 1)
    layer.paint((10, 10), 2)
    wait_idle(panel, qtbot)
    panel.undo.click()
    assert layer.data[60, 80] == 1
    assert layer.data[10, 10] == 2
    assert (layer.data == 3).sum() == 0


def test_names_taken_twice_are_refused_and_undo_names_what_it_does(
    open_panel: Open, qtbot: QtBot
) -> None:
    panel = open_panel(cells())
    panel.rows.rows[1].renamed.emit(1, "background")
    assert "already" in panel.banner.text
    panel.rows.rows[1].renamed.emit(1, "nuclei")
    assert panel.banner.text == ""
    panel.rows.recolored.emit(1, "#ff0000")
    qtbot.waitUntil(lambda: panel.undo.text() == "Undo: colour of nuclei")
    panel.undo.click()
    panel.undo.click()
    assert panel.session.classes.names[1] == "foreground"
    qtbot.waitUntil(panel.undo.isHidden)


def test_colour_reaches_strokes_and_maps(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.rows.recolored.emit(1, "#ff0000")
    painted = panel.session.current
    np.testing.assert_allclose(painted.strokes.get_color(2)[:3], [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(painted.results["mask"].get_color(1)[:3], [1, 0, 0], atol=0.01)
    solid = painted.results["forest:1"].colormap.map(np.ones(1, np.float32))[0]
    np.testing.assert_allclose(solid, [1, 0.5, 0.5, 1], atol=0.01)  # a lighter shade of it


# -- masks taken over --------------------------------------------------------------------------


def test_mask_becomes_strokes_without_covering_those_there(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    session = panel.session
    session.current.strokes.data[5, 5] = 2
    mask = np.zeros((120, 160), np.int32)
    mask[20:40, 100:140] = 1
    layer = session.viewer.add_labels(mask, name="truth")
    menu = panel.take_over.menu()
    menu.aboutToShow.emit()
    assert [action.text() for action in menu.actions()] == ["truth"]
    menu.actions()[0].trigger()
    qtbot.waitUntil(lambda: session.current.strokes_array.all(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not tasks_of(session), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: session.classifier is not None, timeout=WAIT_MS)
    expected = mask + 1
    expected[5, 5] = 2
    np.testing.assert_array_equal(session.current.strokes_array, expected)
    assert layer in session.viewer.layers


def test_instances_become_one_foreground_class(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    instances = np.zeros((120, 160), np.uint32)
    instances[10:20, 10:20], instances[50:60, 50:60] = 7, 900
    layer = panel.session.viewer.add_labels(instances)
    take_over(panel.session, layer, foreground_only=True)
    strokes = panel.session.current.strokes_array
    qtbot.waitUntil(lambda: np.count_nonzero(strokes) == 200, timeout=WAIT_MS)
    np.testing.assert_array_equal(panel.session.current.strokes_array, 2 * (instances > 0))


def test_mask_of_another_shape_is_refused(open_panel: Open) -> None:
    panel = open_panel(cells())
    panel.session.viewer.add_labels(np.zeros((5, 6), np.uint8), name="tiny")
    panel.take_over.menu().aboutToShow.emit()
    panel.take_over.menu().actions()[0].trigger()
    assert panel.banner.text.startswith("The mask 'tiny' has shape (5, 6), but 'cells' needs")


# -- kinds of images ---------------------------------------------------------------------------


def as_zarr(array: np.ndarray) -> Any:
    return zarr.create_array(store={}, data=array, chunks=(1,) * (array.ndim - 2) + (64, 64))


@pytest.mark.parametrize(
    ("image", "settings"),
    [
        (np.dstack([cells()] * 3), {"rgb": True}),
        (np.stack([cells()] * 3), {}),
        (da.from_array(cells((5, 120, 160)), chunks=(1, 64, 64)), {}),
        (as_zarr(cells((2, 3, 5, 80, 90))), {}),
        ([cells(), cells((60, 80))], {"multiscale": True}),
        (cells() > 1, {}),
        ((1000 * cells()).astype(">u2"), {}),
    ],
    ids=["rgb", "channels", "dask stack", "zarr 5D", "multiscale", "bool", "big-endian"],
)
def test_every_kind_of_image_is_painted_and_answered(
    open_panel: Open, qtbot: QtBot, image: Any, settings: dict[str, Any]
) -> None:
    panel = open_panel(image, **settings)
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert panel.session.last_error is None
    mask = panel.session.current.results["mask"]
    panel.session.viewer.dims.set_point(0, 0)
    wait_idle(panel, qtbot)
    place = current_place(panel.session.viewer, panel.session.current)
    index = panel.session.current.image.label_index(place.get("t", 0), place.get("z", 0))
    plane = np.asarray(panel.session.current.arrays["mask"][index])
    assert mask.data.ndim == mask.ndim
    width = plane.shape[-1]
    assert plane[:, : width // 4].mean() < 0.2
    assert plane[:, -width // 4 :].mean() > 0.8


def test_slices_are_computed_when_they_are_looked_at(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells((5, 120, 160)))
    panel.session.viewer.dims.set_point(0, 0)
    paint_both(panel)
    wait_idle(panel, qtbot)
    foreground = panel.session.current.arrays["forest:1"]
    assert [bool(plane.any()) for plane in foreground] == [True, False, False, False, False]
    panel.session.viewer.dims.set_point(0, 3)
    wait_idle(panel, qtbot)
    assert [bool(plane.any()) for plane in foreground] == [True, False, False, True, False]


def test_axes_and_channels_are_the_users_choice(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells((3, 120, 160)))
    assert panel.session.current.choice.axes == "cyx"
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.channels_menu = panel.picker.channels.menu()
    panel.channels_menu.actions()[0].trigger()
    wait_idle(panel, qtbot)
    assert panel.session.current.choice.channels == (1, 2)
    assert panel.session.current.image.n_channels == 2
    assert panel.session.current.strokes_array.any()
    assert len(panel.session.classifier.forest.feature_names) == 2 * panel.session.spec.count()
    index = panel.picker.axes.findData("zyx")
    panel.picker.axes.setCurrentIndex(index)
    panel.picker.axes.activated.emit(index)
    assert panel.session.current.strokes.data.shape == (3, 120, 160)


def test_another_layer_serves_as_second_channel(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    panel.session.viewer.add_image(cells()[::-1].copy(), name="gfp")
    qtbot.waitUntil(lambda: panel.picker.channels.menu() is not None)
    action = panel.picker.channels.menu().actions()[1]
    assert action.text() == "gfp"
    action.trigger()
    assert panel.session.current.image.n_channels == 2
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert len(panel.session.classifier.forest.feature_names) == 2 * panel.session.spec.count()


def test_last_channel_cannot_be_switched_off(open_panel: Open) -> None:
    panel = open_panel(cells((2, 120, 160)))
    panel.picker.channels.menu().actions()[0].trigger()
    panel.picker.channels.menu().actions()[1].trigger()
    assert panel.session.current.choice.channels == (1,)
    assert panel.banner.text.startswith("At least one channel is needed")


def test_strokes_of_several_images_train_one_forest(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    session = panel.session
    second = session.viewer.add_image(cells((90, 110)), name="second")
    panel.picker.offer(second)
    assert session.current.name == "second"
    session.current.strokes.paint((40, 20), 1)
    wait_idle(panel, qtbot)
    task = train_classifier(
        [p.image for p in session.images],
        [p.strokes_array for p in session.images],
        spec=session.spec,
        params=session.forest_params,
    )
    expected = run_quietly(task).forest
    np.testing.assert_array_equal(session.classifier.forest.threshold, expected.threshold)
    assert session.current.arrays["forest:1"].any()


# -- settings ----------------------------------------------------------------------------------


def test_settings_reach_the_forest(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    settings = panel.features
    settings._scales[0.7].click()
    wait_idle(panel, qtbot)
    assert panel.session.spec.scales == (0.7, 1.0)
    settings._groups["hessian"].click()
    wait_idle(panel, qtbot)
    count = panel.session.spec.count()
    assert len(panel.session.classifier.forest.feature_names) == count
    assert settings._count.text() == f"{count} features per pixel"
    index = settings.normalisation.findData("zscore")
    settings.normalisation.setCurrentIndex(index)
    settings.normalisation.activated.emit(index)
    wait_idle(panel, qtbot)
    assert panel.session.classifier.normalisation == "zscore"


def test_settings_that_leave_no_feature_are_refused(open_panel: Open) -> None:
    panel = open_panel(cells())
    panel.features._scales[1.0].click()
    assert panel.banner.text.startswith("At least one feature group and one scale")
    assert panel.features._scales[1.0].isChecked()


def test_opacity_reaches_the_maps(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.show_buttons.opacity.setValue(25)
    assert panel.session.current.results["forest:1"].opacity == 0.25


# -- what goes wrong ---------------------------------------------------------------------------


def test_constant_image_gets_a_flat_map_and_a_note(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(np.full((120, 160), 7, np.uint8))
    paint_both(panel)
    wait_idle(panel, qtbot)
    qtbot.waitUntil(lambda: "is constant, so its map is flat" in panel.advice.text())
    assert np.ptp(maps(panel)[1]) == 0


def test_image_without_a_number_is_refused_in_one_sentence(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(np.full((120, 160), np.nan, np.float32), contrast_limits=(0, 1))
    qtbot.waitUntil(lambda: "cells" in panel.banner.text, timeout=WAIT_MS)
    assert panel.banner.kind == "error"
    assert "\n" not in panel.banner.text


def test_pixels_that_are_no_number_are_background(open_panel: Open, qtbot: QtBot) -> None:
    image = cells()
    image[70:80, 140:150] = np.nan
    panel = open_panel(image, contrast_limits=(0, 2))
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert (maps(panel)[0, 70:80, 140:150] == 1).all()


def test_runtime_error_in_the_background_is_shown_and_painting_goes_on(
    open_panel: Open, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = open_panel(cells())
    notified: list[Exception] = []
    monkeypatch.setattr("napari_cellda.ui.panels.paint._notify", notified.append)
    gather = panel.painter.work.engine._gather

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(panel.painter.work.engine, "_gather", fail)
    paint_both(panel)
    qtbot.waitUntil(lambda: "RuntimeError: out of memory" in panel.banner.text, timeout=WAIT_MS)
    wait_idle(panel, qtbot)
    assert len(notified) == 1
    monkeypatch.setattr(panel.painter.work.engine, "_gather", gather)
    panel.session.current.strokes.paint((100, 20), 1)
    wait_idle(panel, qtbot)
    assert panel.session.classifier is not None
    assert panel.banner.text == ""


def test_layers_deleted_renamed_and_replaced_while_work_runs(
    open_panel: Open, qtbot: QtBot
) -> None:
    panel = open_panel(cells())
    session, layers = panel.session, panel.session.viewer.layers
    painted = session.current
    paint_both(panel)
    wait_idle(panel, qtbot)
    painted.strokes.paint((100, 20), 1)
    layers.remove(painted.results["mask"])
    painted.results["forest:1"].name = "mine"
    painted.strokes.name = "my strokes"
    wait_idle(panel, qtbot)
    assert "Mask" not in names(panel)
    assert "mine" in names(panel)
    painted.strokes.paint((100, 60), 1)
    painted.layer.data = cells()[::-1].copy()
    wait_idle(panel, qtbot)
    assert session.current.image.data[0, 0, 0, 0, 0] == cells()[-1, 0]
    assert session.current.strokes is painted.strokes
    session.current.strokes.paint((100, 70), 1)
    layers.remove(session.current.layer)
    wait_idle(panel, qtbot)
    assert session.current is None
    qtbot.waitUntil(lambda: panel.advice.text() == OPEN_AN_IMAGE)
    assert session.last_error is None


def test_deleted_strokes_can_be_begun_again(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.session.viewer.layers.remove(panel.session.current.strokes)
    wait_idle(panel, qtbot)
    qtbot.waitUntil(lambda: "Start painting" in panel.advice.text())
    assert panel.session.classifier is None
    panel.start.click()
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert panel.session.classifier is not None


def test_image_replaced_by_another_shape_needs_new_strokes(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.session.current.layer.data = cells((60, 70))
    wait_idle(panel, qtbot)
    assert panel.session.current.image.limits == (1, 60, 70)
    assert panel.session.current.strokes is None
    qtbot.waitUntil(lambda: "Start painting" in panel.advice.text())


def test_two_viewers_do_not_meet(open_panel: Open, qtbot: QtBot) -> None:
    one, two = open_panel(cells()), open_panel(cells())
    one.add_class.click()
    paint_both(one)
    wait_idle(one, qtbot)
    wait_idle(two, qtbot)
    assert one.session.classifier is not None
    assert two.session.classifier is None
    assert len(two.session.classes) == 2
    assert not two.session.current.strokes.data.any()


# -- uncertain spots ---------------------------------------------------------------------------


def test_key_shows_uncertain_spots_one_after_another(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    qtbot.waitUntil(lambda: not panel.uncertain.isEnabled())
    paint_both(panel)
    wait_idle(panel, qtbot)
    qtbot.waitUntil(panel.uncertain.isEnabled)
    panel.uncertain.click()
    ring = panel.session.viewer.layers["Look here"]
    first = tuple(ring.data[0])
    assert panel.session.current.strokes_array[int(first[0]), int(first[1])] == 0
    panel.uncertain.click()
    second = tuple(ring.data[0])
    assert np.hypot(*np.subtract(first, second)) > 15
    assert panel.session.viewer.layers.selection.active is panel.session.current.strokes
    qtbot.waitUntil(lambda: panel.advice.text().startswith("The forest is least sure"))
    qtbot.waitUntil(lambda: not panel.go_on.isHidden())  # hidden while the forest is at work
    panel.session.current.strokes.paint((100, 100), 2)
    wait_idle(panel, qtbot)
    assert not ring.visible


def test_ring_lies_on_top_and_is_seen_on_any_colour(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    viewer = panel.session.viewer
    show_ring(panel.session, (10, 20), {})
    viewer.add_labels(np.ones((160, 160), int), name="overlay")
    show_ring(panel.session, (40, 50), {}, diameter=3000)
    ring = viewer.layers[-1]
    assert ring.name == "Look here"
    assert ring.data.tolist() == [[40, 50], [40, 50]]
    assert ring.border_color[:, :3].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert max(ring.border_width * ring.size) < 60, "a large ring has a thin line"
    assert viewer.layers.selection.active.name == "overlay"


def test_search_of_a_stack_goes_to_the_plane(open_panel: Open, qtbot: QtBot) -> None:
    stack = np.stack([cells()] * 4)
    stack[2, 60:100, 40:80] = 0.7 + stack[2, 60:100, 40:80] / 4
    panel = open_panel(stack, axis_labels=("z", "y", "x"))
    panel.session.viewer.dims.set_point(0, 0)
    paint_both(panel)
    wait_idle(panel, qtbot)
    qtbot.waitUntil(panel.uncertain_stack.isEnabled)
    panel.uncertain_stack.click()
    qtbot.waitUntil(lambda: "Look here" in panel.session.viewer.layers, timeout=WAIT_MS)
    plane, row, column = panel.session.viewer.layers["Look here"].data[0]
    assert panel.session.viewer.dims.point[0] == plane
    region = visible_region(panel.session.viewer, panel.session.current)
    assert region.y.start <= row < region.y.stop
    assert region.x.start <= column < region.x.stop


def test_uncertain_spots_need_a_forest(open_panel: Open) -> None:
    panel = open_panel(cells())
    panel.uncertain.setEnabled(True)
    panel.uncertain.click()
    assert panel.banner.text.startswith("No forest is trained yet")


# -- the enhancer ------------------------------------------------------------------------------


class Invert:
    """An enhancer that turns the map round, with a second output."""

    card = SimpleNamespace(n_outputs=2)

    def enhance_region(self, read: Any, region: Any, limits: Any, **options: Any) -> np.ndarray:
        forest_map = read(region)
        return np.stack([1 - forest_map, forest_map])


def test_enhanced_map_follows_and_takes_the_forests_place(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.session.set_enhancer(Invert())
    wait_idle(panel, qtbot)
    painted = panel.session.current
    forest_map = maps(panel)[1]
    np.testing.assert_allclose(painted.arrays["enhanced"], 1 - forest_map)
    np.testing.assert_allclose(painted.arrays["boundary"], forest_map)
    np.testing.assert_allclose(painted.arrays["difference"], 1 - 2 * forest_map, atol=1e-6)
    np.testing.assert_array_equal(painted.arrays["mask"], 1 - forest_map > 0.5)
    shown = {role for role, layer in painted.results.items() if layer.visible}
    assert shown == {"enhanced"}
    painted.strokes.paint((100, 20), 1)
    wait_idle(panel, qtbot)
    np.testing.assert_allclose(painted.arrays["enhanced"], 1 - maps(panel)[1])
    panel.session.set_enhancer(None)
    wait_idle(panel, qtbot)
    shown = {role for role, layer in painted.results.items() if layer.visible}
    assert shown == {"forest:1"}
    np.testing.assert_array_equal(painted.arrays["mask"], maps(panel)[1] > 0.5)


# -- with a real window, mouse and keys --------------------------------------------------------


def test_mouse_paints_and_keys_choose_undo_and_toggle(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells((240, 320)), window="shown")
    viewer, painted = panel.session.viewer, panel.session.current
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_viewer.setFocus()
    qtbot.wait(200)

    def stroke(x: float) -> None:
        places = [
            QPoint(int(x * canvas.width()), int(y * canvas.height()))
            for y in np.linspace(0.4, 0.6, 8)
        ]
        QTest.mouseMove(canvas, places[0])
        QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=places[0])
        for place in places:
            QTest.mouseMove(canvas, place)
            qtbot.wait(5)
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=places[-1])

    qtbot.keyClick(canvas, Qt.Key.Key_Q)
    stroke(0.3)
    qtbot.keyClick(canvas, Qt.Key.Key_W)
    assert painted.strokes.selected_label == 2
    stroke(0.7)
    wait_idle(panel, qtbot)
    counts = [int(n) for n in painted.index.counts(2)]
    assert min(counts) > 0
    assert painted.arrays["forest:1"].any()
    for key, layer in (
        (Qt.Key.Key_H, painted.strokes),
        (Qt.Key.Key_J, painted.results["forest:1"]),
    ):
        qtbot.keyClick(canvas, key)
        assert not layer.visible
        qtbot.keyClick(canvas, key)
        assert layer.visible
    qtbot.keyClick(canvas, Qt.Key.Key_U)
    assert "Look here" in viewer.layers
    qtbot.keyClick(canvas, Qt.Key.Key_Z, modifier=Qt.KeyboardModifier.ControlModifier)
    wait_idle(panel, qtbot)
    assert painted.index.counts(2).tolist() == [counts[0], 0]
    assert panel.session.classifier is None


def test_nothing_is_cut_off_in_a_small_window(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells(), window="shown")
    panel.session.viewer.window.resize(1280, 800)
    panel.quality_section.open()
    qtbot.wait(100)
    window = panel.session.viewer.window._qt_window
    assert window.width() <= 1280
    for widget in (panel.add_class, panel.take_over, panel.undo, panel.train, panel.uncertain):
        assert widget.width() >= widget.minimumSizeHint().width()
        right = widget.mapTo(panel, QPoint(widget.width(), 0)).x()
        assert right <= panel.width()
    assert panel.advice.isVisible()


def test_choice_of_another_layer_made_by_a_script(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    other = panel.session.viewer.add_image(cells((80, 90)), name="other")
    choose_image(panel.session, ImageChoice(other, "yx", "grey"))
    qtbot.waitUntil(lambda: panel.picker.layers.currentText() == "other")


def test_image_chosen_by_mistake_leaves_no_strokes_behind(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    other = panel.session.viewer.add_image(cells((80, 90)), name="other")
    panel.picker.offer(other)
    wait_idle(panel, qtbot)
    assert [painted.name for painted in panel.session.images] == ["other"]
    assert [layer.name for layer in panel.session.viewer.layers if "Strokes" in layer.name] == [
        "Strokes · other"
    ]


def test_results_leave_with_their_image_and_strokes_stay(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    layers = panel.session.viewer.layers
    layers.remove(panel.session.current.layer)
    qtbot.waitUntil(lambda: [layer.name for layer in layers] == ["Strokes · cells"])


def test_labels_that_are_no_class_do_not_stop_training(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    strokes = panel.session.current.strokes
    strokes.paint((100, 80), 3)  # napari's key M takes the next free label
    wait_idle(panel, qtbot)
    assert panel.session.last_error is None
    assert panel.session.classifier is not None
    qtbot.waitUntil(lambda: panel.advice.text() == "Label 3 is no class; press Add class.")
    panel.add_class.click()
    wait_idle(panel, qtbot)
    assert maps(panel).shape[0] == 3
