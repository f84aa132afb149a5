"""Traffic lights: green, amber or red, each with a word and its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_cellda.core.inspect.quality import overall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.inspect.quality import Verdict

# Colours that colour-blind eyes tell apart by their lightness; the word says it as well.
COLORS = {"green": ("#17774a", "white"), "amber": ("#f2b134", "black"), "red": ("#a11d1d", "white")}


class Lights(QWidget):
    """One row per check, the gravest summed up on top."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self.texts: list[str] = []

    def show_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Show verdicts; none clears the rows."""
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            widget.hide()
            widget.deleteLater()
        self.texts = []
        if not verdicts:
            return
        worst = overall(verdicts)
        self._add_row(worst.level, f"<b>{_SUMMARY[worst.level]}</b>")
        for verdict in verdicts:
            self._add_row(verdict.level, f"<b>{verdict.check}.</b> {verdict.reason}")

    def _add_row(self, level: str, text: str) -> None:
        background, color = COLORS[level]
        light = QLabel(level)
        light.setAlignment(Qt.AlignmentFlag.AlignCenter)
        light.setFixedWidth(56)
        light.setStyleSheet(
            f"background: {background}; color: {color}; border-radius: 6px; padding: 3px;"
        )
        label = QLabel(text)
        label.setWordWrap(True)
        label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        row = self._grid.rowCount()
        self._grid.addWidget(light, row, 0, Qt.AlignmentFlag.AlignTop)
        self._grid.addWidget(label, row, 1)
        self.texts.append(f"{level}: {text}")


_SUMMARY = {
    "green": "Nothing speaks against this result.",
    "amber": "Look twice before you trust this result.",
    "red": "Do not trust this result without checking it.",
}
