"""A table of folders, each with a name that can be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.ui.panels.inspect_tabs import button
from napari_cellda.ui.panels.parts import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_cellda.ui.panels.inspect_tabs import Trying


class Folders(QWidget):
    """Paths by their names.

    Parameters
    ----------
    noun : str
        What each of them is, for messages: "prediction".
    asks : mapping of button title to callable
        Each asks the user for a path, and returns "" when there is none.
    trying : callable
        See `Tab`.
    taken : sequence of str
        Names that stand for something else.

    Signals
    -------
    changed
        Another path or another name.
    """

    changed = Signal()

    def __init__(
        self,
        noun: str,
        asks: Mapping[str, Callable[[], str]],
        trying: Trying,
        *,
        taken: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._noun, self._taken = noun, taken
        self.paths: dict[str, Path] = {}
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["Name", "Folder"])
        self.table.verticalHeader().hide()
        self.table.setWordWrap(False)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setFixedHeight(110)
        self.table.cellChanged.connect(self._on_renamed)
        self.remove = button("Remove")
        self.remove.clicked.connect(trying(self._remove))
        adding = [button(title) for title in asks]
        for made, ask in zip(adding, asks.values(), strict=True):
            made.clicked.connect(trying(lambda ask=ask: self._ask(ask)))  # type: ignore[misc]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(row_of(*adding, self.remove, stretch=1))
        self._show()

    def add(self, path: Path, name: str) -> None:
        """Add a path.

        Raises
        ------
        UserError
            If the name is taken.
        """
        if name in self.paths or name in self._taken:
            raise UserError(f"There is a {self._noun} called '{name}' already; rename it first.")
        self.paths[name] = path
        self._show()

    def _ask(self, ask: Callable[[], str]) -> None:
        chosen = ask()
        if chosen:
            self.add(Path(chosen), natural_name(Path(chosen)))

    def _remove(self) -> None:
        row = self.table.currentRow()
        if 0 <= row < len(self.paths):
            del self.paths[list(self.paths)[row]]
            self._show()

    def _on_renamed(self, row: int, column: int) -> None:
        names = list(self.paths)
        new = self.table.item(row, 0).text().strip()
        if column == 0 and new and new not in (*names, *self._taken):
            names[row] = new
            self.paths = dict(zip(names, self.paths.values(), strict=True))
        self._show()

    def _show(self) -> None:
        self.table.blockSignals(True)
        self.table.setRowCount(len(self.paths))
        for row, (name, path) in enumerate(self.paths.items()):
            self.table.setItem(row, 0, QTableWidgetItem(name))
            item = QTableWidgetItem(str(path))
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            item.setToolTip(str(path))
            self.table.setItem(row, 1, item)
        self.table.resizeColumnToContents(0)
        self.table.blockSignals(False)
        self.remove.setEnabled(bool(self.paths))
        self.changed.emit()


def natural_name(path: Path) -> str:
    """Return what a folder is called; of a folder called "images" what it lies in."""
    return path.parent.name if path.name == "images" else path.stem if path.suffix else path.name
