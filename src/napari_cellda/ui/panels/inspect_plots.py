"""Plots of the panel Compare; imported when one is made: their library loads slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt

from napari_cellda.core.colors import color_of
from napari_cellda.ui.still_plot import BACKGROUND, StillPlot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_cellda.core.compare.efficiency import Standing

SYMBOLS = ("o", "s", "t", "d", "+", "x", "star", "p")


class Strips(StillPlot):
    """A strip of points per model, one point per image, and their mean."""

    def __init__(self) -> None:
        super().__init__(160)
        self.getAxis("left").enableAutoSIPrefix(False)

    def draw(self, values: Mapping[str, np.ndarray], title: str) -> None:
        """Show the figures of every model's images; undefined ones are left out."""
        self.clear()
        self.setLabel("left", title)
        rng = np.random.default_rng(0)
        for place, found in enumerate(values.values()):
            known = found[np.isfinite(found)]
            color = color_of(place)
            x = place + rng.uniform(-0.15, 0.15, len(known))
            self.plot(x, known, pen=None, symbol="o", symbolSize=5, symbolBrush=color)
            if len(known):
                mean = [float(known.mean())] * 2
                self.plot([place - 0.3, place + 0.3], mean, pen=pg.mkPen("white", width=2))
        self.getAxis("bottom").setTicks([list(enumerate(values))])
        self.setXRange(-0.5, len(values) - 0.5)


class Sizes(StillPlot):
    """Score over size, one point per model, with its performance efficiency."""

    def __init__(self) -> None:
        super().__init__(190)
        self.setLabel("bottom", "million parameters")
        for side in ("left", "bottom"):
            self.getAxis(side).enableAutoSIPrefix(False)
        self.setToolTip(
            "Performance efficiency: 1 like the upper bound in score and size, 0 farthest "
            "from it; it depends on which models take part"
        )
        self.texts: list[str] = []

    def draw(self, found: Mapping[str, Standing], order: Sequence[str], title: str) -> None:
        """Show models; `order` lists all of them, for their colours."""
        self.clear()
        self.setLabel("left", title)
        self.texts = []
        for name, one in found.items():
            x, y = one.n_parameters / 1e6, one.score
            color = color_of(list(order).index(name))
            self.plot([x], [y], pen=None, symbol="o", symbolSize=10, symbolBrush=color)
            rated = "" if np.isnan(one.efficiency) else f"  {one.efficiency:.2f}"
            label = pg.TextItem(name + rated, color=color, anchor=(0.5, 1.3))
            label.setPos(x, y)
            self.addItem(label)
            self.texts.append(name + rated)
        places = [(one.n_parameters / 1e6, one.score) for one in found.values()]
        if places:
            low, high = np.min(places, axis=0), np.max(places, axis=0)
            room = np.maximum(high - low, (0.1 * high[0], 0.02)) * (0.3, 0.35)
            self.setRange(
                xRange=(low[0] - room[0], high[0] + room[0]),
                yRange=(low[1] - room[1] / 3, high[1] + room[1]),
                padding=0,
            )


class DomainMap(pg.PlotWidget):
    """A point per patch, coloured by domain, with pictures on request."""

    def __init__(self) -> None:
        super().__init__(background=BACKGROUND)
        self.setFixedHeight(330)
        self.setMenuEnabled(False)
        self.hideAxis("left")
        self.hideAxis("bottom")
        self.setAspectLocked(True)
        self.setToolTip("One point per patch; Ctrl and the wheel zoom")
        self._legend = self.addLegend(offset=(4, 4), labelTextColor="w")
        self.pictures: list[Any] = []

    def draw(
        self,
        spots: np.ndarray,
        domains: Sequence[str],
        thumbnails: np.ndarray,
        *,
        pictures: bool,
    ) -> None:
        """Show patches.

        Parameters
        ----------
        spots : (N, 2) ndarray
        domains : sequence of str
            Of each patch.
        thumbnails : (N, S, S) ndarray of uint8
        pictures : bool
            Show the patches themselves, framed in their domain's colour.
        """
        self.clear()
        self._legend.clear()
        self.pictures = []
        extent = float(np.ptp(spots, axis=0).max()) or 1.0
        size = extent / 14
        for place, name in enumerate(dict.fromkeys(domains)):
            own = [i for i, domain in enumerate(domains) if domain == name]
            color = color_of(place)
            self.plot(
                spots[own, 0],
                spots[own, 1],
                pen=None,
                symbol=SYMBOLS[place % len(SYMBOLS)],
                symbolSize=9,
                symbolBrush=color,
                symbolPen=None,
                name=name,
            )
            if pictures:
                for i in own:
                    self._add_picture(thumbnails[i], spots[i], size, color)
        low, high = spots.min(axis=0), spots.max(axis=0)
        room = 0.1 * len(set(domains)) * (high[1] - low[1])  # for the legend
        self.setRange(xRange=(low[0], high[0]), yRange=(low[1], high[1] + room), padding=0.08)

    def _add_picture(self, picture: np.ndarray, spot: np.ndarray, size: float, color: str) -> None:
        item = pg.ImageItem(np.ascontiguousarray(picture[::-1].T), levels=(0, 255))
        left, bottom = spot[0] - size / 2, spot[1] - size / 2
        item.setRect(left, bottom, size, size)
        frame = pg.QtWidgets.QGraphicsRectItem(left, bottom, size, size)
        pen = pg.mkPen(color, width=2)
        pen.setCosmetic(True)
        frame.setPen(pen)
        frame.setBrush(pg.mkBrush(None))
        self.addItem(item)
        self.addItem(frame)
        self.pictures.append(item)

    def wheelEvent(self, event: Any) -> None:
        """Zoom only with Ctrl held, so that the panel can scroll."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(event)
        else:
            event.ignore()
