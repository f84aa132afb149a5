"""What the tabbed panels share: tabs that scroll, and errors that end in the panel's banner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QHBoxLayout

from napari_cellda.core.errors import UserError
from napari_cellda.ui.panels.scrolling import Scrolling

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_cellda.ui.panels.banner import Banner
    from napari_cellda.ui.state import Session


def side_by_side(*widgets: QWidget, stretch: tuple[int, ...] = ()) -> QHBoxLayout:
    """Return widgets side by side, equally wide unless `stretch` says otherwise."""
    layout = QHBoxLayout()
    layout.setSpacing(6)
    for place, widget in enumerate(widgets):
        layout.addWidget(widget, stretch[place] if stretch else 1)
    return layout


def in_scroll_area(content: QWidget) -> Scrolling:
    """Return a scroll area around the content of a tab."""
    scrolling = Scrolling()
    scrolling.body.setContentsMargins(0, 0, 0, 0)
    scrolling.body.addWidget(content, 1)
    return scrolling


def trying(session: Session, banner: Banner) -> Callable[[Callable[[], Any]], Callable[..., None]]:
    """Return what wraps an action so that its error is shown: a user's mistake in the banner."""

    def wrap(action: Callable[[], Any]) -> Callable[..., None]:
        def run(*_: Any) -> None:
            banner.clear()
            try:
                action()
            except UserError as error:
                banner.tell(str(error), "error")
            except Exception as error:
                session.report(error)

        return run

    return wrap
