"""The project at the head of the panel: its name, Open and Save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMenu, QPushButton, QToolButton, QWidget

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.panels.project_dialogs import ask_where_to_save, ask_which_to_open
from napari_cellda.ui.project_desk import ProjectDesk

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

REFRESH_MS = 200
NAME_WIDTH = 120
"""Pixels; longer names lose their middle."""


class ProjectBar(QWidget):
    """Shows which project this is, and whether it holds the latest changes."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._desk = ProjectDesk.of(session)
        self._project = self._desk.project
        self.name = QLabel()
        self.name.setToolTip("A project keeps strokes, classes, forest, enhancer and settings")
        self.open_button = QPushButton("Open\u2026")
        self.open_button.setToolTip("Open a project (.cellda); or drop it into the window")
        self.save_button = QPushButton("Save")
        self.save_button.setToolTip("Save the project; the arrow saves it under another name")
        self.more = QToolButton()
        self.more.setArrowType(Qt.ArrowType.DownArrow)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        menu = QMenu(self.more)
        menu.addAction("Save as\u2026", lambda: self.save(ask=True))
        self.more.setMenu(menu)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.name, 1)
        row.addWidget(self.open_button)
        row.addWidget(self.save_button)
        row.addWidget(self.more)
        self._timer = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._timer.timeout.connect(self.refresh)
        self.open_button.clicked.connect(lambda: self.open())
        self.save_button.clicked.connect(lambda: self.save())
        connect_while_alive(self, self._project.changed, self._refresh_soon)
        self.refresh()

    def _refresh_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self) -> None:
        """Show the name; a dot says that there is something to save."""
        project = self._project
        mark = " \u2022" if project.unsaved else ""
        name = project.name or ("Not saved" if mark else "New project")
        room = self.name.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, NAME_WIDTH)
        self.name.setText(room + mark)
        for button in (self.save_button, self.more):
            button.setEnabled(bool(project.images()) and not self._desk.saver.busy)

    def save(self, *, ask: bool = False) -> None:
        """Save under the known name, or ask for one."""
        path = self._project.path
        if path is None or ask:
            path = ask_where_to_save(self, path or Path.home() / "cellda.cellda")
        if path is not None:
            self._desk.save(path)

    def open(self) -> None:
        """Ask for a project and open it, once changes of the present one are saved or dropped."""
        path = ask_which_to_open(self, (self._project.path or Path.home() / "x").parent)
        if path is not None:
            self._desk.open(path)
