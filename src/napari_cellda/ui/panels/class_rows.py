"""The list of classes: colour, name, key, painted pixels; one of them is painted with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QColorDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from napari_cellda.ui.classes import ClassList, PaintClass


class ClassRow(QFrame):
    """One class.

    Signals
    -------
    picked(int), renamed(int, str), recolored(int, str), removed(int)
        With the index of the class.
    """

    picked = Signal(int)
    renamed = Signal(int, str)
    recolored = Signal(int, str)
    removed = Signal(int)

    def __init__(self, index: int, item: PaintClass, *, removable: bool) -> None:
        super().__init__()
        self._index, self._item = index, item
        self.setObjectName("classRow")
        self._make_widgets(item)
        self.remove.setEnabled(removable)
        self._lay_out()
        self.swatch.clicked.connect(self._choose_color)
        self.name.editingFinished.connect(self._finish_rename)
        self.remove.clicked.connect(lambda: self.removed.emit(self._index))
        self.set_selected(False)

    def _make_widgets(self, item: PaintClass) -> None:
        self.swatch = QPushButton()
        self.swatch.setFixedSize(20, 20)
        self.swatch.setToolTip("Strokes, and at the right their map; click to change the colour")
        self.swatch.setStyleSheet(
            "background: qlineargradient(x1: 0, y1: 0, x2: 1, y2: 0,"
            f" stop: 0 {item.color}, stop: 0.62 {item.color},"
            f" stop: 0.63 {item.map_color}, stop: 1 {item.map_color});"
            " border: 1px solid rgba(0, 0, 0, 90); border-radius: 4px;"
        )
        self.name = QLineEdit(item.name)
        self.name.setToolTip("Click to paint with this class; double-click to rename it")
        self.name.setReadOnly(True)
        self.name.setFrame(False)
        self.name.setCursor(Qt.CursorShape.ArrowCursor)
        self.name.installEventFilter(self)
        self.count = QLabel("")
        self.count.setToolTip("Painted pixels, over all images")
        self.key = QLabel(item.key)
        self.key.setObjectName("keyBadge")
        self.key.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.key.setFixedSize(22, 20)
        self.key.setToolTip(f"Press {item.key} over the image to paint with this class")
        self.remove = QToolButton()
        self.remove.setText("\u00d7")
        self.remove.setAutoRaise(True)
        self.remove.setToolTip("Remove this class and its strokes (can be undone)")

    def _lay_out(self) -> None:
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 3, 4, 3)
        layout.setSpacing(6)
        layout.addWidget(self.swatch)
        layout.addWidget(self.name, 1)
        for widget in (self.count, self.key, self.remove):
            layout.addWidget(widget)

    def set_selected(self, selected: bool) -> None:
        """Show whether this class is painted with."""
        border = self._item.color if selected else "transparent"
        background = f"rgba(128, 128, 128, {60 if selected else 25})"
        self.setStyleSheet(
            f"#classRow {{ border: 2px solid {border}; border-radius: 6px;"
            f" background: {background}; }}"
            "#classRow QLineEdit { background: transparent; border: none; padding: 0px; }"
            "#classRow QLineEdit:focus:!read-only { background: rgba(128, 128, 128, 80); }"
            "#classRow QLabel { background: transparent; }"
            "#keyBadge { border: 1px solid rgba(128, 128, 128, 200); border-radius: 4px; }"
            "#classRow QToolButton { background: transparent; border: none; font-size: 14px; }"
        )

    def set_count(self, count: int) -> None:
        """Show how many pixels are painted."""
        self.count.setText(f"{count:,} px" if count else "\u2013")

    def start_rename(self) -> None:
        """Let the name be edited."""
        self.name.setReadOnly(False)
        self.name.setFocus()
        self.name.selectAll()

    def _finish_rename(self) -> None:
        if self.name.isReadOnly():
            return
        self.name.setReadOnly(True)
        self.name.deselect()
        text = self.name.text()
        if text.strip() != self._item.name:
            self.renamed.emit(self._index, text)

    def _choose_color(self) -> None:
        color = QColorDialog.getColor(QColor(self._item.color), self, "Colour of the class")
        if color.isValid():
            self.recolored.emit(self._index, color.name())

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Pick the class by a click on its name, rename it by a double click."""
        if watched is self.name and self.name.isReadOnly():
            if event.type() == event.Type.MouseButtonDblClick:
                self.start_rename()
                return True
            if event.type() == event.Type.MouseButtonPress:
                self.picked.emit(self._index)
                return True
        return False

    def mousePressEvent(self, event: Any) -> None:
        """Pick the class."""
        self.picked.emit(self._index)


class ClassRows(QWidget):
    """All classes; signals as `ClassRow`."""

    picked = Signal(int)
    renamed = Signal(int, str)
    recolored = Signal(int, str)
    removed = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(3)
        self.rows: list[ClassRow] = []
        self._selected = 0

    def show_classes(self, classes: ClassList) -> None:
        """Make one row for each class."""
        for row in self.rows:
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = [
            ClassRow(k, item, removable=k > 0 and len(classes) > 2)
            for k, item in enumerate(classes)
        ]
        for row in self.rows:
            self._layout.addWidget(row)
            row.picked.connect(self.picked)
            row.renamed.connect(self.renamed)
            row.recolored.connect(self.recolored)
            row.removed.connect(self.removed)
        self.select(min(self._selected, len(self.rows) - 1))

    def select(self, index: int) -> None:
        """Show which class is painted with; -1 for none."""
        self._selected = index
        for k, row in enumerate(self.rows):
            row.set_selected(k == index)

    def show_counts(self, counts: Sequence[int]) -> None:
        """Show the painted pixels of each class."""
        for row, count in zip(self.rows, counts, strict=False):
            row.set_count(count)
