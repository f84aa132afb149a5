"""Which classes are in which image: a table of ticks."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem

if TYPE_CHECKING:
    from collections.abc import Sequence

HEIGHT = 140


class ImageTable(QTableWidget):
    """Images are rows, classes columns; everything is ticked at first."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.setToolTip("Untick the classes that an image does not show")
        self.setFixedHeight(HEIGHT)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names often differ at their ends
        self.verticalHeader().setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self._absent: set[tuple[str, str]] = set()
        """Images and classes without a tick, those that are not shown any more included."""

    def show_axes(self, images: Sequence[str], classes: Sequence[str]) -> None:
        """Show these images and classes; what was unticked before still is."""
        if [list(images), list(classes)] == list(self._axes()):
            return
        self._remember()
        self.clear()
        self.setRowCount(len(images))
        self.setColumnCount(len(classes))
        self.setVerticalHeaderLabels(list(images))
        self.setHorizontalHeaderLabels(list(classes))
        for i, image in enumerate(images):
            self.verticalHeaderItem(i).setToolTip(image)
        for i, image in enumerate(images):
            for k, name in enumerate(classes):
                item = QTableWidgetItem()
                item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
                ticked = (image, name) not in self._absent
                item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
                self.setItem(i, k, item)
        self.resizeColumnsToContents()

    def resizeEvent(self, event: Any) -> None:
        """Leave half of the width to the classes, however long the images' names are."""
        self.verticalHeader().setMaximumWidth(max(1, self.width() // 2))
        super().resizeEvent(event)

    def as_csv(self) -> str:
        """Return what the command line takes: ``image,<class>,...`` and 0 or 1."""
        images, classes = self._axes()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *classes])
        for i, image in enumerate(images):
            writer.writerow([image, *(int(self._is_ticked(i, k)) for k in range(len(classes)))])
        return text.getvalue()

    def _remember(self) -> None:
        """Keep what is ticked now, since images and classes may be gone for a moment only."""
        images, classes = self._axes()
        for i, image in enumerate(images):
            for k, name in enumerate(classes):
                change = self._absent.discard if self._is_ticked(i, k) else self._absent.add
                change((image, name))

    def _axes(self) -> tuple[list[str], list[str]]:
        rows = [self.verticalHeaderItem(i) for i in range(self.rowCount())]
        columns = [self.horizontalHeaderItem(k) for k in range(self.columnCount())]
        return [one.text() for one in rows if one], [one.text() for one in columns if one]

    def _is_ticked(self, row: int, column: int) -> bool:
        item = self.item(row, column)
        return item is not None and item.checkState() == Qt.CheckState.Checked
