"""A panel whose content scrolls when the window is low, and never sideways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

TURNED = (QComboBox, QAbstractSpinBox, QSlider)
"""Widgets whose value the mouse wheel changes."""


class Scrolling(QScrollArea):
    """Put widgets into `body`; the wheel scrolls them, and changes only what has the focus."""

    def __init__(self) -> None:
        super().__init__()
        inner = QWidget()
        self.body = QVBoxLayout(inner)
        self.body.setContentsMargins(8, 8, 8, 8)
        self.body.setSpacing(8)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        """Ask for the width that the content needs, and little height."""
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(self.widget().minimumSizeHint().width() + bar, 160)

    def sizeHint(self) -> QSize:
        """Ask for all that the content would like."""
        hint = self.widget().sizeHint()
        return QSize(hint.width() + self.verticalScrollBar().sizeHint().width(), hint.height())

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Ask for another width when the content does, e.g. once a card is shown.

        What comes into the content is watched from then on: it asks for a layout, too.
        """
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
            self._watch_content()
        turns = event.type() == QEvent.Type.Wheel and isinstance(watched, TURNED)
        if turns and not watched.hasFocus():
            event.ignore()  # so that Qt offers it to the widgets around
            return True
        return bool(super().eventFilter(watched, event))

    def _watch_content(self) -> None:
        for kind in TURNED:
            for widget in self.widget().findChildren(kind):
                widget.installEventFilter(self)  # perhaps again: it is called once all the same
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


def fill_panel(panel: QWidget, parts: Iterable[QWidget], foot: QWidget) -> None:
    """Lay out a panel: parts that scroll, and a foot that is always in sight."""
    scrolling = Scrolling()
    for part in parts:
        scrolling.body.addWidget(part)
    scrolling.body.addStretch(1)
    layout = QVBoxLayout(panel)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    layout.addWidget(scrolling, 1)
    layout.addWidget(foot)
