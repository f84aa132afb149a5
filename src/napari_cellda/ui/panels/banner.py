"""A coloured box with one sentence: for what must not be overlooked."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QWidget

Kind = Literal["info", "success", "warning", "error"]

# Background, text and sign; contrast at least 7 to 1, and the sign speaks to colour-blind eyes.
_LOOKS = {
    "info": ("#1f3a52", "#dceefb", "\u2139"),
    "success": ("#17402b", "#d8f5e3", "\u2713"),
    "warning": ("#f2b134", "#1e1600", "\u26a0"),
    "error": ("#7d1d1d", "#ffe9e6", "\u2716"),
}


class Banner(QFrame):
    """Hidden until it has something to say."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("banner")
        self._sign = QLabel()
        self._sign.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self._sign)
        layout.addWidget(self._text, 1)
        self.kind: Kind = "info"
        self.hide()

    @property
    def text(self) -> str:
        """What it says now; "" while it is hidden."""
        return self._text.text()

    def tell(self, text: str, kind: Kind = "info") -> None:
        """Show a sentence; an empty one hides the box."""
        background, colour, sign = _LOOKS[kind]
        self.kind = kind
        self._sign.setText(sign)
        self._text.setText(text)
        self.setStyleSheet(
            f"#banner {{ background: {background}; border-radius: 4px; }}"
            f"#banner QLabel {{ background: transparent; color: {colour}; }}"
        )
        self.setVisible(bool(text))

    def clear(self) -> None:
        """Hide the box."""
        self.tell("")
