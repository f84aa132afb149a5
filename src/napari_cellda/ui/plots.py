"""Curves that grow while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from napari_cellda.core.colors import color_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.runs.history import Curve

TEXT = "#d0d4dc"
HEIGHT = 130


def load() -> None:
    """Load the plotting library; to be called in the background, since it takes a moment."""
    import pyqtgraph  # noqa: F401


class Curves(QWidget):
    """Losses above, scores below; hidden until there is something to draw.

    The plotting library is loaded with the first curve, unless `load` was called before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses = _Plot("loss")
        self.scores = _Plot("score")
        self.log = QCheckBox("Logarithmic losses")
        self.log.setToolTip("Spread small losses out")
        self.log.hide()
        self.log.toggled.connect(self.losses.set_log)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.losses, self.log, self.scores):
            layout.addWidget(widget)

    def draw(self, losses: Mapping[str, Curve], scores: Mapping[str, Curve]) -> None:
        """Show curves by their names; those that are not among them go."""
        self.losses.draw(losses)
        self.scores.draw(scores)
        self.log.setVisible(bool(losses))


class _Plot(QWidget):
    """Curves over the same steps, each with its name."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._plot: Any = None
        self._log = False
        self.curves: dict[str, Any] = {}
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self._layout.addWidget(self.legend)
        self.hide()

    def draw(self, curves: Mapping[str, Curve]) -> None:
        """Show these curves and no others."""
        self.setVisible(bool(curves))
        if not curves:
            if self._plot is not None:
                self._clear()
            return
        if self._plot is None:
            self._plot = _make_plot(self._title)
            self._plot.setLogMode(False, self._log)
            self._layout.addWidget(self._plot)
        if not self.curves.keys() <= curves.keys():
            self._clear()
        for name, curve in curves.items():
            if name not in self.curves:
                self.curves[name] = self._plot.add_curve(color_of(len(self.curves)))
                self.legend.setText(legend_text(list(self.curves)))
            self.curves[name].setData(curve.steps, curve.values)

    def set_log(self, on: bool) -> None:
        """Choose between a linear and a logarithmic axis."""
        self._log = on
        if self._plot is not None:
            self._plot.setLogMode(False, on)

    def _clear(self) -> None:
        self._plot.clear()
        self.curves = {}


def legend_text(names: list[str]) -> str:
    """Return rich text that gives each name its curve's colour."""
    from html import escape

    parts = (
        f'<span style="color:{color_of(i)}">\u25a0</span>&nbsp;{escape(name)}'
        for i, name in enumerate(names)
    )
    return " &nbsp; ".join(parts)


def _make_plot(title: str) -> Any:
    import pyqtgraph as pg

    from napari_cellda.ui.still_plot import StillPlot

    class CurvePlot(StillPlot):
        """Curves over the steps of a training."""

        def __init__(self) -> None:
            super().__init__(HEIGHT)
            self.setToolTip(f"The {title} over the steps")
            for side in ("bottom", "left"):
                self.getAxis(side).setTextPen(TEXT)
                self.getAxis(side).enableAutoSIPrefix(False)

        def add_curve(self, color: str) -> Any:
            """Add an empty curve; the few values of a score are seen by their symbols."""
            if title == "loss":  # wide lines through many points are slow to draw
                return self.plot([], [], pen=pg.mkPen(color, width=1))
            dots = {"symbol": "o", "symbolSize": 5, "symbolBrush": color, "symbolPen": None}
            return self.plot([], [], pen=pg.mkPen(color, width=2), **dots)

    return CurvePlot()
