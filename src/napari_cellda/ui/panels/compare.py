"""The panel Compare: models against a folder of truth, and domains against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.inspect_compare import CompareTab
from napari_cellda.ui.panels.inspect_domains import DomainsTab
from napari_cellda.ui.panels.inspect_tabs import in_scroll_area, trying
from napari_cellda.ui.state import Session

if TYPE_CHECKING:
    import napari


class ComparePanel(QWidget):
    """Whole folders at once, for one viewer."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Compare")
        self.banner = Banner()
        act = trying(self.session, self.banner)
        self.models = CompareTab(self.session, act)
        self.domains = DomainsTab(self.session, act)
        self.tabs = QTabWidget()
        for title, tab in (("Models", self.models), ("Domains", self.domains)):
            self.tabs.addTab(in_scroll_area(tab), title)
            tab.told.connect(self.banner.tell)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(6)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.banner)
