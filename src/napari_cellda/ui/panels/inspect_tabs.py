"""What the tabs of Inspect and Compare share: how they are made, choices, progress, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.panels.parts import row_of
from napari_cellda.ui.panels.scrolling import Scrolling

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.ui.panels.banner import Banner
    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.state import Session

    Trying = Callable[[Callable[[], Any]], Callable[..., None]]


class Tab(QWidget):
    """One tab; call `build` when what its widgets stand for is there.

    Parameters
    ----------
    session : Session
    trying : callable
        Wraps an action so that its error is shown in the panel; see `trying`.
    """

    def __init__(self, session: Session, trying: Trying) -> None:
        super().__init__()
        self._session, self._trying = session, trying
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(4, 8, 4, 4)
        self.body.setSpacing(8)

    def build(self) -> None:
        """Make the widgets, lay them out and connect them."""
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._refresh()

    def _make_widgets(self) -> None:
        raise NotImplementedError

    def _lay_out(self) -> None:
        raise NotImplementedError

    def _connect(self) -> None:
        raise NotImplementedError

    def _refresh(self) -> None:
        """Show what is so now."""
        raise NotImplementedError


class PairTab(Tab):
    """A tab about two layers of the viewer.

    Parameters
    ----------
    session : Session
    pair : LayerPair
        The two layers.
    trying : callable
        See `Tab`.
    """

    def __init__(self, session: Session, pair: LayerPair, trying: Trying) -> None:
        super().__init__(session, trying)
        self._pair = pair


class WorkTab(Tab):
    """A tab about folders, with work of its own; call `build`, see `Tab`.

    Signals
    -------
    told(str, str)
        A sentence for the panel's banner, and its kind.
    """

    told = Signal(str, str)

    def __init__(self, session: Session, trying: Trying) -> None:
        super().__init__(session, trying)
        self.work = BackgroundWork(session, self)
        self.work.changed.connect(self._refresh)
        self.work.noted.connect(lambda text: self.told.emit(text, "info"))
        self.work.failed.connect(lambda text: self.told.emit(text, "error"))


class WorkBar(QWidget):
    """What starts or tells of work, a button that stops it, and how far it is.

    Parameters
    ----------
    work : BackgroundWork
    start : QPushButton or QLabel
        Who enables it is the tab's own affair.
    """

    def __init__(self, work: BackgroundWork, start: QWidget) -> None:
        super().__init__()
        self._work = work
        self.stop = QPushButton("Stop")
        self.progress = QProgressBar()
        self.progress.setFixedHeight(6)
        self.progress.setTextVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row_of(start, self.stop, stretch=(1, 0)))
        layout.addWidget(self.progress)
        self.stop.clicked.connect(work.stop)
        work.changed.connect(self._refresh)
        work.progressed.connect(self._on_progress)
        self._refresh()

    def _refresh(self) -> None:
        self.stop.setEnabled(self._work.running)
        self.progress.setVisible(self._work.running)
        if not self._work.running:
            self.progress.reset()

    def _on_progress(self, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)


def button(title: str, tip: str = "") -> QPushButton:
    """Return a button."""
    made = QPushButton(title)
    made.setToolTip(tip)
    return made


def in_scroll_area(content: QWidget) -> Scrolling:
    """Return a scroll area around the content of a tab."""
    scrolling = Scrolling()
    scrolling.body.setContentsMargins(0, 0, 0, 0)
    scrolling.body.addWidget(content, 1)
    return scrolling


def trying(session: Session, banner: Banner) -> Trying:
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
