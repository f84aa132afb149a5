"""What the colours of an overlay mean, and how much there is of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_cellda.core.compare import OVERLAY_COLORS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Legend(QWidget):
    """Rows of a colour, its name and a count."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.rows: dict[str, QLabel] = {}

    def show_counts(self, counts: Mapping[str, str]) -> None:
        """Show names of `OVERLAY_COLORS` with a count each, in this order; {} for nothing."""
        if list(counts) != list(self.rows):
            self._make_rows(list(counts))
        for name, count in counts.items():
            self.rows[name].setText(count)

    def _make_rows(self, names: list[str]) -> None:
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            widget.hide()
            widget.deleteLater()
        self.rows = {}
        for row, name in enumerate(names):
            swatch = QLabel()
            swatch.setFixedSize(14, 14)
            swatch.setStyleSheet(f"background: {OVERLAY_COLORS[name]}; border-radius: 3px;")
            self.rows[name] = QLabel()
            self._grid.addWidget(swatch, row, 0)
            self._grid.addWidget(QLabel(name), row, 1)
            self._grid.addWidget(self.rows[name], row, 2)
