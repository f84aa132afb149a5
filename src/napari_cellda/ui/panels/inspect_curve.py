"""A curve over the steps of a run; imported when it is made: its library loads slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal

from napari_cellda.ui.still_plot import StillPlot


class Curve(StillPlot):
    """Means in [0, 1] over steps, with a line at the step that is looked at.

    Signals
    -------
    picked(int)
        Index of the step that was clicked.
    """

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__(150)
        self.setLabel("bottom", "step")
        self.setLabel("left", "mean discrepancy")
        self.getAxis("left").enableAutoSIPrefix(False)
        self.setToolTip("Click to see that step")
        self._steps = np.zeros(0)
        self._curve = self.plot(pen=pg.mkPen("#56b4e9", width=2), symbol="o", symbolSize=5)
        self._line = pg.InfiniteLine(angle=90, pen=pg.mkPen("#e69f00", width=2))
        self.addItem(self._line)

    def draw(self, steps: list[int], means: np.ndarray) -> None:
        """Show a curve."""
        self._steps = np.asarray(steps, float)
        self._curve.setData(self._steps, means)
        self.setYRange(0, 1.1 * float(means.max(initial=0.1)), padding=0)
        self.enableAutoRange(axis="x")

    def mark(self, index: int) -> None:
        """Put the line at a step."""
        if 0 <= index < len(self._steps):
            self._line.setValue(self._steps[index])

    def mousePressEvent(self, event: Any) -> None:
        """Pick the nearest step."""
        if event.button() == Qt.MouseButton.LeftButton and len(self._steps):
            position = self.plotItem.vb.mapSceneToView(self.mapToScene(event.pos()))
            self.picked.emit(int(np.abs(self._steps - position.x()).argmin()))
