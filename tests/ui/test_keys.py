"""Keys: none of napari's own is taken, and each does what its badge says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from app_model.types import KeyBinding
from napari.utils.shortcuts import default_shortcuts

from napari_cellda.ui.classes import CLASS_KEYS, MAX_CLASSES
from napari_cellda.ui.keys import (
    ENHANCED_KEY,
    FOREST_KEY,
    STACK_KEY,
    STROKES_KEY,
    UNCERTAIN_KEY,
    select_key,
    toggle,
)
from painting import cells, paint_both, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]

OURS = (*CLASS_KEYS, STROKES_KEY, FOREST_KEY, ENHANCED_KEY, UNCERTAIN_KEY, STACK_KEY)
OTHERS = (
    "points",
    "shapes",
    "vertex",
    "polygon_lasso",
    "polyline",
    "finish",
    "add_",
    "direct",
)


def bindings() -> set[KeyBinding]:
    return {KeyBinding.from_str(key.replace("-", "+")) for key in OURS}


def test_one_key_for_each_class_and_no_key_twice() -> None:
    assert len(CLASS_KEYS) == MAX_CLASSES
    assert len(bindings()) == len(OURS)


def test_no_key_of_the_viewer_a_labels_or_an_image_layer_is_taken() -> None:
    # Points and shapes layers have keys of their own, which win while such a layer is selected.
    theirs = {
        key: action
        for action, keys in default_shortcuts.items()
        for key in keys
        if not any(word in action for word in OTHERS) and "select_" not in action
    }
    assert KeyBinding.from_str("P") in theirs  # the brush: the table was read
    clashes = {str(key): theirs[key] for key in bindings() if key in theirs}
    assert clashes == {}


def test_all_are_bound_in_the_viewer(open_panel: Open) -> None:
    panel = open_panel(cells())
    bound = set(panel.session.viewer.keymap)
    assert bindings() <= {KeyBinding.from_str(str(key)) for key in bound}


def test_class_keys_choose_the_brush_and_unused_ones_do_nothing(open_panel: Open) -> None:
    panel = open_panel(cells())
    layer = panel.session.current.strokes
    select_key(panel.session, CLASS_KEYS[1])
    assert layer.selected_label == 2
    select_key(panel.session, CLASS_KEYS[5])
    assert layer.selected_label == 2


def test_toggles_hide_all_of_a_kind_and_show_it_again(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    panel.add_class.click()
    paint_both(panel)
    panel.session.current.strokes.paint((100, 80), 3)
    wait_idle(panel, qtbot)
    results = panel.session.current.results
    foreground = [results["forest:1"], results["forest:2"]]
    assert all(layer.visible for layer in foreground)
    toggle(panel.session, "forest")
    assert not any(layer.visible for layer in foreground)
    assert not results["forest:0"].visible
    toggle(panel.session, "forest")
    assert all(layer.visible for layer in foreground)
    assert panel.show_buttons.buttons["forest"].isChecked()
    results["forest:1"].visible = results["forest:2"].visible = False
    assert not panel.show_buttons.buttons["forest"].isChecked()


def test_toggle_brings_a_deleted_layer_back(open_panel: Open, qtbot: QtBot) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    viewer, painted = panel.session.viewer, panel.session.current
    viewer.layers.remove(painted.results["mask"])
    viewer.layers.remove(painted.results["uncertainty"])
    toggle(panel.session, "mask")
    assert painted.results["mask"].visible
    assert painted.results["mask"] in viewer.layers
    assert "uncertainty" not in painted.results


def test_keys_without_an_image_do_nothing(open_panel: Open) -> None:
    panel = open_panel()
    toggle(panel.session, "forest")
    select_key(panel.session, "Q")
    assert panel.session.last_error is None


def test_error_of_a_key_is_shown_in_the_panel(open_panel: Open) -> None:
    panel = open_panel(cells())
    viewer = panel.session.viewer
    key = next(k for k in viewer.keymap if str(k) == UNCERTAIN_KEY)
    viewer.keymap[key](viewer)
    assert panel.banner.text.startswith("No forest is trained yet")
