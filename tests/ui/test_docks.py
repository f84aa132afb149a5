"""Panels that are opened one after the other from napari's menu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_cellda.ui.readers import PLUGIN
from painting import WAIT_MS

if TYPE_CHECKING:
    import napari
    from pytestqt.qtbot import QtBot

Make = Callable[[], "napari.Viewer"]


@pytest.fixture
def viewer(make_napari_viewer: Make) -> napari.Viewer:
    viewer = make_napari_viewer()
    viewer.window._qt_window.show()
    return viewer


def names_beside(viewer: napari.Viewer, dock: object) -> list[str]:
    window = viewer.window._qt_window
    return sorted(other.windowTitle() for other in window.tabifiedDockWidgets(dock))


def test_panels_become_tabs_of_one_row(viewer: napari.Viewer, qtbot: QtBot) -> None:
    docks = [viewer.window.add_plugin_dock_widget(PLUGIN, n)[0] for n in ("Enhance", "Export")]
    qtbot.waitUntil(lambda: names_beside(viewer, docks[0]) == ["Export"], timeout=WAIT_MS)
    batch, _ = viewer.window.add_plugin_dock_widget(PLUGIN, "Batch")
    qtbot.waitUntil(lambda: names_beside(viewer, docks[0]) == ["Batch", "Export"], timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not batch.visibleRegion().isEmpty(), timeout=WAIT_MS)


def test_other_docks_and_panels_that_float_are_left_alone(
    viewer: napari.Viewer, qtbot: QtBot
) -> None:
    from qtpy.QtWidgets import QLabel

    viewer.add_image(np.zeros((9, 9)))
    label = viewer.window.add_dock_widget(QLabel("mine"), area="right")
    enhance, _ = viewer.window.add_plugin_dock_widget(PLUGIN, "Enhance")
    qtbot.wait(100)
    assert names_beside(viewer, enhance) == names_beside(viewer, label) == []
    enhance.setFloating(True)
    export, _ = viewer.window.add_plugin_dock_widget(PLUGIN, "Export")
    qtbot.wait(100)
    assert names_beside(viewer, export) == []
