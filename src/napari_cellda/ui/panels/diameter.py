"""The diameter of a cell: typed, or measured with a line on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QWidget

from napari_cellda.ui.layers import TAG

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

LAYER = "Draw a line across a cell"


class Diameter(QWidget):
    """A number of pixels; 0 is not known.

    Signals
    -------
    changed
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._layer: Any = None
        self.pixels = QDoubleSpinBox()
        self.pixels.setRange(0, 10_000)
        self.pixels.setDecimals(1)
        self.pixels.setSuffix(" px")
        self.pixels.setSpecialValueText("not known")
        self.pixels.setToolTip("Diameter of a typical cell, in pixels of the image")
        self.measure = QPushButton("Measure")
        self.measure.setToolTip("Draw a line across a cell; of several lines the mean counts")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.pixels, 1)
        row.addWidget(self.measure)
        self.pixels.valueChanged.connect(lambda value: self.changed.emit())
        self.measure.clicked.connect(self._start)

    @property
    def value(self) -> float | None:
        """Pixels; None when not known."""
        return self.pixels.value() or None

    def _start(self) -> None:
        """Let the user draw lines, on a layer that goes when the panel does."""
        viewer = self._session.viewer
        if self._layer is None or self._layer not in viewer.layers:
            # In pixels of the image that is looked at.
            below = next((one for one in viewer.layers if one._type_string == "image"), None)
            settings = {} if below is None else {"scale": below.scale[-2:]}
            self._layer = viewer.add_shapes(
                ndim=2,
                name=LAYER,
                edge_color="yellow",
                edge_width=2,
                metadata={TAG: {"role": "diameter"}},
                **settings,
            )
            self._layer.events.data.connect(self._on_lines)
        viewer.layers.selection.active = self._layer
        self._layer.mode = "add_line"

    def _on_lines(self, event: Any = None) -> None:
        lengths = [float(np.linalg.norm(line[-1] - line[0])) for line in self._layer.data]
        lengths = [length for length in lengths if length > 0]
        if lengths:
            self.pixels.setValue(float(np.mean(lengths)))
