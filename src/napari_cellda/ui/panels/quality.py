"""How good the forest is: its accuracy on pixels its trees did not see, and what it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

SHOWN = 8
"""The most important features are shown, so many."""
BAR_COLOR, TEXT_COLOR = "#2f6f9f", "#ffffff"


class Quality(QWidget):
    """Shows `session.score` and the importances of `session.classifier`."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.score = QLabel()
        self.score.setWordWrap(True)
        self.score.setToolTip(
            "Each tree is tested on the painted pixels that it was not trained on. "
            "Neighbouring pixels are alike, so this is rather too high than too low."
        )
        self._plot: Any = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.score)
        self._wanted = False
        self.refresh()

    def show_plot(self) -> None:
        """Make the plot (its library is loaded only now) and keep it up to date."""
        self._wanted = True
        self.refresh()

    def refresh(self) -> None:
        """Show the session's forest."""
        classifier, score = self._session.classifier, self._session.score
        if classifier is None:
            self.score.setText("No forest yet.")
        elif score is None:
            self.score.setText("Out-of-bag accuracy: measured when you pause.")
        else:
            self.score.setText(f"Out-of-bag accuracy: {score:.1%}")
        if self._wanted and classifier is not None:
            self._show_importances(classifier.forest)

    def _show_importances(self, forest: Any) -> None:
        if self._plot is None:
            self._plot = _make_plot()
            self._layout.addWidget(self._plot)
        order = np.argsort(forest.importances)[::-1][:SHOWN][::-1]
        names = forest.feature_names or [f"feature {i}" for i in range(forest.n_features)]
        self._plot.draw_bars([names[i] for i in order], forest.importances[order])


def _make_plot() -> Any:
    import pyqtgraph as pg

    from napari_cellda.ui.still_plot import StillPlot

    class ImportancePlot(StillPlot):
        """Horizontal bars, the longest on top, each with its name beside it."""

        def __init__(self) -> None:
            super().__init__(24 * SHOWN + 20)
            self.hideAxis("left")
            self.hideAxis("bottom")
            self.setToolTip("The features that matter most to the forest")

        def draw_bars(self, names: list[str], values: np.ndarray) -> None:
            """Show features and their importances, least first."""
            self.clear()
            y = np.arange(len(names))
            self.addItem(
                pg.BarGraphItem(x0=0, y=y, height=0.7, width=values, brush=BAR_COLOR, pen=None)
            )
            for row, name in enumerate(names):
                label = pg.TextItem(name, color=TEXT_COLOR, anchor=(0, 0.5))
                label.setPos(0, row)
                self.addItem(label)
            self.setXRange(0, max(float(values.max()), 1e-9) * 1.02, padding=0)
            self.setYRange(-0.6, SHOWN - 0.4, padding=0)

    return ImportancePlot()
