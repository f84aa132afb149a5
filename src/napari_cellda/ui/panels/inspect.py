"""The panel Inspect: whether to believe a result, and where to spend the next minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.inspect_heatmap import HeatmapTab
from napari_cellda.ui.panels.inspect_next import NextTab
from napari_cellda.ui.panels.inspect_numbers import NumbersTab
from napari_cellda.ui.panels.inspect_overlay import NEXT_KEY, PREVIOUS_KEY, OverlayTab
from napari_cellda.ui.panels.inspect_pair import LayerPair
from napari_cellda.ui.panels.inspect_tabs import in_scroll_area, trying
from napari_cellda.ui.state import Session

if TYPE_CHECKING:
    import napari


class InspectPanel(QWidget):
    """Overlays, heatmaps, numbers and doubts, for one viewer."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Inspect")
        self.banner = Banner()
        self.pair = LayerPair(self.session)
        self._act = act = trying(self.session, self.banner)
        self.overlay = OverlayTab(self.session, self.pair, act)
        self.heatmap = HeatmapTab(self.session, self.pair, act)
        self.numbers = NumbersTab(self.session, self.pair, act)
        self.next = NextTab(self.session, self.pair, act)
        self.tabs = QTabWidget()
        for title, tab in (
            ("Overlay", self.overlay),
            ("Discrepancy", self.heatmap),
            ("Numbers", self.numbers),
            ("Next", self.next),
        ):
            self.tabs.addTab(in_scroll_area(tab), title)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(6)
        layout.addWidget(self.pair)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.banner)
        for part in (
            self.overlay.view,
            self.heatmap.heatmap,
            self.numbers.numbers,
            self.next.trust,
        ):
            part.failed.connect(lambda text: self.banner.tell(text, "error"))
        self.numbers.numbers.noted.connect(lambda text: self.banner.tell(text, "info"))
        connect_while_alive(self, self.session.failed, self._on_error)
        self._bind_keys()

    def _bind_keys(self) -> None:
        view = self.overlay.view
        for key, by in ((NEXT_KEY, 1), (PREVIOUS_KEY, -1)):
            step = self._act(lambda by=by: view.step(by))  # type: ignore[misc]
            self.session.viewer.bind_key(key, lambda viewer, step=step: step(), overwrite=True)

    def _on_error(self, error: Exception) -> None:
        self.banner.tell(str(error) or repr(error), "error")
