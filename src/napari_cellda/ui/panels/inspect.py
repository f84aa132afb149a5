"""The panel Inspect: whether to believe a result, and where to spend the next minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.inspect_overlay import NEXT_KEY, PREVIOUS_KEY, OverlayTab
from napari_cellda.ui.panels.inspect_pair import LayerPair
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.state import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari


class InspectPanel(QWidget):
    """Overlays, heatmaps, numbers and doubts, for one viewer."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self.banner = Banner()
        self.pair = LayerPair(self.session)
        self.overlay = OverlayTab(self.session, self.pair, self.trying)
        self.tabs = QTabWidget()
        self.tabs.addTab(_scrolling(self.overlay), "Overlay")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(6)
        layout.addWidget(self.pair)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.banner)
        self.overlay.view.failed.connect(lambda text: self.banner.tell(text, "error"))
        connect_while_alive(self, self.session.failed, self._on_error)
        self._bind_keys()

    def trying(self, action: Callable[[], Any]) -> Callable[..., None]:
        """Wrap an action so that its error is shown in this panel."""

        def run(*_: Any) -> None:
            self.banner.clear()
            try:
                action()
            except UserError as error:
                self.banner.tell(str(error), "error")
            except Exception as error:
                self.session.report(error)

        return run

    def _bind_keys(self) -> None:
        view = self.overlay.view
        for key, by in ((NEXT_KEY, 1), (PREVIOUS_KEY, -1)):
            step = self.trying(lambda by=by: view.step(by))  # type: ignore[misc]
            self.session.viewer.bind_key(key, lambda viewer, step=step: step(), overwrite=True)

    def _on_error(self, error: Exception) -> None:
        self.banner.tell(str(error) or repr(error), "error")


def _scrolling(content: QWidget) -> Scrolling:
    scrolling = Scrolling()
    scrolling.body.setContentsMargins(0, 0, 0, 0)
    scrolling.body.addWidget(content, 1)
    return scrolling
