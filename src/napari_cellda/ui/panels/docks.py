"""Panels and the docks they live in: short titles, and opening one from another."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_cellda.ui.readers import PLUGIN


class _Titler(QObject):
    """Gives a panel's dock its title as soon as the panel is in it."""

    def __init__(self, panel: QWidget, title: str) -> None:
        super().__init__(panel)
        self._title = title
        panel.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Look for the dock when the panel is shown or moved into another widget."""
        if event.type() in (QEvent.Type.Show, QEvent.Type.ParentChange):
            parent = watched.parent()
            while parent is not None and not isinstance(parent, QDockWidget):
                parent = parent.parent()
            if parent is not None:
                parent.setWindowTitle(self._title)
        return False


def shorten_title(panel: QWidget, title: str) -> None:
    """Let a panel's tab show `title` alone: napari adds the plugin's name, and tabs cut it off."""
    _Titler(panel, title)


def open_panel(viewer: Any, name: str) -> Any:
    """Bring one of our panels to the front, docked as a tab of its fellows if it is new."""
    if not hasattr(viewer, "window"):
        return None
    dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock.show()
    dock.raise_()
    return panel
