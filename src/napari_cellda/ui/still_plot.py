"""A plot that stays as it is drawn; imported when one is made: its library loads slowly."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg

BACKGROUND = "#1b1d23"


class StillPlot(pg.PlotWidget):
    """A dark plot that no mouse moves, and that leaves the wheel to the panel around it.

    Parameters
    ----------
    height : int
        Pixels.
    """

    def __init__(self, height: int) -> None:
        super().__init__(background=BACKGROUND)
        self.setFixedHeight(height)
        self.setMouseEnabled(False, False)
        self.setMenuEnabled(False)
        self.hideButtons()

    def wheelEvent(self, event: Any) -> None:
        """Let the panel scroll."""
        event.ignore()
