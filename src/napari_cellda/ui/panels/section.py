"""A titled part of a panel that can be folded away."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget


class Section(QWidget):
    """Put widgets into `body`.

    Signals
    -------
    opened
        It was unfolded; the first time, its content may be made now.
    """

    opened = Signal()

    def __init__(self, title: str, *, folded: bool = False) -> None:
        super().__init__()
        self._header = QToolButton()
        self._header.setText(title)
        self._header.setCheckable(True)
        self._header.setChecked(not folded)
        self._header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._header.setStyleSheet(
            "QToolButton { border: none; background: transparent; font-weight: bold;"
            " padding: 2px; }"
        )
        self._content = QWidget()
        self.body = QVBoxLayout(self._content)
        self.body.setContentsMargins(4, 0, 0, 4)
        self.body.setSpacing(6)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._header)
        layout.addWidget(self._content)
        self._header.toggled.connect(self._on_toggled)
        self._on_toggled(not folded)

    @property
    def is_open(self) -> bool:
        """Whether its content shows."""
        return bool(self._header.isChecked())

    def open(self) -> None:
        """Unfold it."""
        self._header.setChecked(True)

    def _on_toggled(self, show: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if show else Qt.ArrowType.RightArrow
        self._header.setArrowType(arrow)
        self._content.setVisible(show)
        if show:
            self.opened.emit()
