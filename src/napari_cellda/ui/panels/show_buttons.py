"""Show and hide strokes and maps, and how strongly maps cover the image."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.keys import ENHANCED_KEY, FOREST_KEY, STROKES_KEY, shown_layers, toggle
from napari_cellda.ui.results import layers_of

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

BUTTONS = (
    ("strokes", "Strokes", STROKES_KEY, "Your strokes"),
    ("forest", "Forest", FOREST_KEY, "The forest's map of every foreground class"),
    ("enhanced", "Enhanced", ENHANCED_KEY, "The enhanced map"),
    ("mask", "Mask", "", "The likeliest class of every pixel"),
    ("uncertainty", "Uncertainty", "", "Where the forest is unsure"),
    ("difference", "Difference", "", "Enhanced minus forest: what the enhancer changed"),
)

CHECKED_STYLE = """
QToolButton { border: 1px solid rgba(128, 128, 128, 120); border-radius: 4px; padding: 3px; }
QToolButton:checked { background: #3d6fb4; border-color: #3d6fb4; color: white; }
"""


class ShowButtons(QWidget):
    """One button for each kind of layer, lit while it is visible."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._followed: weakref.WeakSet[Any] = weakref.WeakSet()
        self.buttons: dict[str, QToolButton] = {}
        grid = QGridLayout()
        grid.setSpacing(4)
        for place, (what, title, key, tip) in enumerate(BUTTONS):
            button = self.buttons[what] = QToolButton()
            button.setText(f"{title}  {key}" if key else title)
            button.setToolTip(f"{tip} (key {key} over the image)" if key else tip)
            button.setCheckable(True)
            button.setStyleSheet(CHECKED_STYLE)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(partial(self._on_clicked, what))
            grid.addWidget(button, place // 3, place % 3)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(5, 100)
        self.opacity.setValue(round(100 * session.opacity))
        self.opacity.setToolTip("How strongly maps cover the image")
        self.opacity.valueChanged.connect(self._on_opacity)
        row = QHBoxLayout()
        row.addWidget(QLabel("Opacity"))
        row.addWidget(self.opacity, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addLayout(row)
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Bring the buttons in line with the layers, the slider with the session."""
        self.opacity.blockSignals(True)
        self.opacity.setValue(round(100 * self._session.opacity))
        self.opacity.blockSignals(False)
        for what, button in self.buttons.items():
            layers = shown_layers(self._session, what)
            for layer in layers:
                if layer not in self._followed:
                    self._followed.add(layer)
                    connect_while_alive(self, layer.events.visible, self.refresh)
            deleted = self._session.current is not None and any(
                role.split(":")[0] == what for role in self._session.current.unwanted
            )
            button.setEnabled(bool(layers) or deleted)
            button.setChecked(any(layer.visible for layer in layers))

    def _on_clicked(self, what: str) -> None:
        toggle(self._session, what)
        self.refresh()

    def _on_opacity(self, value: int) -> None:
        self._session.opacity = value / 100
        for painted in self._session.images:
            for layer in layers_of(painted, ("forest", "enhanced", "difference", "uncertainty")):
                layer.opacity = self._session.opacity
