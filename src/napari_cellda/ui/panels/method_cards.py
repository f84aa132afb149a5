"""The methods as cards: a picture, one sentence, what each needs, and what is still missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFrame,
    QGraphicsOpacityEffect,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.adaptation.method import alternatives
from napari_cellda.ui.panels.method_pictures import WIDTH, method_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.adaptation.method import Method

FAINT = 0.55


WORDS = {
    "target_images": "your images",
    "source_images": "annotated images",
    "source_masks": "their masks",
    "target_masks": "masks",
    "target_strokes": "strokes on some of yours",
    "points": "points",
    "nuclei_images": "a nuclei channel",
    "diameter": "a diameter",
    "pseudo_labels": "maps",
    "project": "a project",
}
"""Inputs in few words; the rows below the cards tell more."""


def missing_words(method: Method, given: set[str]) -> list[str]:
    """Return, in few words, the needed inputs that are not among those given."""
    return [
        " or ".join(WORDS.get(name, name.replace("_", " ")) for name in alternatives(need))
        for need in method.lacking(given)
    ]


def _choices(method: Method) -> int:
    return sum(len(alternatives(need)) for need in method.needs)


class MethodCard(QFrame):
    """One method, to be chosen with a click or the keyboard.

    Signals
    -------
    clicked
    """

    clicked = Signal()

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.setObjectName("method")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip(f"{method.title}. Published: {method.paper}")
        self._picture = QLabel()
        self._picture.setPixmap(method_picture(method.name))
        self._picture.setFixedWidth(WIDTH)
        self._name = QLabel(f"<b>{method.name}</b>")
        self._title = QLabel(method.title)
        self.reason = QLabel()
        text = QVBoxLayout()
        text.setSpacing(1)
        for label in (self._name, self._title, self.reason):
            label.setWordWrap(True)
            text.addWidget(label)
        row = QHBoxLayout(self)
        row.setContentsMargins(6, 4, 6, 4)
        row.addWidget(self._picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(text, 1)
        self._faint = QGraphicsOpacityEffect(self)
        self.setGraphicsEffect(self._faint)
        self.show_state((), chosen=False)

    def show_state(self, missing: Sequence[str], *, chosen: bool) -> None:
        """Say what is missing, in words; grey while anything is."""
        self.missing, self.chosen = tuple(missing), chosen
        self.reason.setText(f"Needs {', '.join(missing)}." if missing else "Ready.")
        self._faint.setOpacity(FAINT if missing and not chosen else 1.0)
        frame = "2px solid #56b4e9" if chosen else "1px solid palette(mid)"
        self.setStyleSheet(
            f"#method {{ border: {frame}; border-radius: 4px; }}"
            "#method QLabel { background: transparent; }"
        )
        self.reason.setStyleSheet("color: #f2b134;" if missing else "color: #5fd39a;")
        self._fit()

    def _fit(self) -> None:
        """Ask for the height that the wrapped text needs: a scrolling panel would squeeze it."""
        self.setMinimumHeight(self.layout().totalHeightForWidth(self.width()))

    def resizeEvent(self, event: Any) -> None:
        """Wrap the text anew."""
        super().resizeEvent(event)
        self._fit()

    def mousePressEvent(self, event: Any) -> None:
        """Choose it."""
        self.clicked.emit()

    def keyPressEvent(self, event: Any) -> None:
        """Choose it with the space bar or Enter."""
        if event.key() in (Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.clicked.emit()
        else:
            super().keyPressEvent(event)


class MethodCards(QWidget):
    """All methods; once one is chosen, it alone, until others are asked for.

    Signals
    -------
    chosen(object)
        The `Method`.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.cards: dict[str, MethodCard] = {}
        self.method: Method | None = None
        self._given: set[str] = set()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.others = QPushButton("Other methods\u2026")
        self.others.clicked.connect(lambda: self._show_all(True))
        self.others.hide()

    def fill(self, methods: Sequence[Method]) -> None:
        """Show these methods, first those that need the least, or let it be chosen."""
        for method in sorted(methods, key=lambda one: (len(one.needs), -_choices(one))):
            card = self.cards[method.name] = MethodCard(method)
            card.clicked.connect(lambda method=method: self.choose(method))
            self._layout.addWidget(card)
        self._layout.addWidget(self.others)
        self._refresh()

    def choose(self, method: Method) -> None:
        """Choose a method, ready or not: its inputs then have rows."""
        again, self.method = method is self.method, method
        self._show_all(False)
        if not again:  # its settings may have been changed
            self._refresh()
            self.chosen.emit(method)

    def _show_all(self, on: bool) -> None:
        self.others.setVisible(not on)
        for card in self.cards.values():
            card.setVisible(on or card.method is self.method)

    def show_given(self, given: set[str]) -> None:
        """Tell which inputs there are."""
        self._given = given
        self._refresh()

    def _refresh(self) -> None:
        for card in self.cards.values():
            missing = missing_words(card.method, self._given)
            card.show_state(missing, chosen=card.method is self.method)
