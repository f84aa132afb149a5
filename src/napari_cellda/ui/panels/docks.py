"""Panels and the docks they live in: short titles, one row of tabs, opening one from another."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_cellda.ui.readers import PLUGIN


class _Docking(QObject):
    """Gives a panel's dock its title as soon as the panel is in it, and its place beside others."""

    def __init__(self, panel: QWidget, title: str) -> None:
        super().__init__(panel)
        self._title = title
        self._joining = QTimer(self, singleShot=True, interval=0)
        self._joining.timeout.connect(self._join_fellows)
        self._joined = False
        panel.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Look for the dock when the panel is shown or moved into another widget."""
        if event.type() in (QEvent.Type.Show, QEvent.Type.ParentChange):
            dock = self._dock()
            if dock is not None:
                dock.setWindowTitle(self._title)
        if event.type() == QEvent.Type.Show and not self._joined:
            self._joined = True
            self._joining.start()
        return False

    def _dock(self) -> QDockWidget | None:
        parent = self.parent()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parent()
        return parent

    def _join_fellows(self) -> None:
        """Become a tab of our other panels, once: napari's menu squeezes panels in a column."""
        dock = self._dock()
        if dock is None:
            return
        window = dock.parent()
        if not isinstance(window, QMainWindow) or window.tabifiedDockWidgets(dock):
            return
        area = window.dockWidgetArea(dock)
        for other in window.findChildren(QDockWidget):
            ours = other is not dock and other.findChild(_Docking) is not None
            if ours and not other.isFloating() and window.dockWidgetArea(other) == area:
                window.tabifyDockWidget(other, dock)
                dock.raise_()
                return


def settle_in_dock(panel: QWidget, title: str) -> None:
    """Let a panel's tab show `title` alone, and let it open as a tab of our other panels.

    napari adds the plugin's name to titles, which tabs cut off.
    """
    _Docking(panel, title)


def open_panel(viewer: Any, name: str) -> Any:
    """Bring one of our panels to the front, docked as a tab of its fellows if it is new."""
    if not hasattr(viewer, "window"):
        return None
    dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock.show()
    dock.raise_()
    return panel
