"""One task at a time beside the window, with progress, a stop and its errors as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.ui.connect import when_deleted
from napari_cellda.ui.model_loading import agreed, ask_consent
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.errors import ProgramRefused
    from napari_cellda.core.events import Event, Stop
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle


class BackgroundWork(QObject):
    """Runs a session's task; a new one takes the place of the old.

    Signals
    -------
    changed
        A task began or ended.
    progressed(int, int)
        Steps done, and how many there are.
    noted(str)
        A sentence of the task.
    failed(str)
        The user's mistake, in one sentence; other errors go to the session.
    """

    changed = Signal()
    progressed = Signal(int, int)
    noted = Signal(str)
    failed = Signal(str)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self.stage = ""
        self._total = self._given = 0
        self._task: TaskHandle | None = None
        when_deleted(self, self._abandon)

    @property
    def running(self) -> bool:
        """Whether a task runs."""
        return self._task is not None

    def begin(
        self,
        make_task: Callable[[Stop], Any],
        title: str,
        take: Callable[[Any], None],
        *,
        total: int = 0,
    ) -> None:
        """Run a task, see `run_task`, and hand its result to `take`.

        If it meets a program that nobody agreed to run, it begins again after a yes: it is to pass
        on what the session trusts by then.

        Parameters
        ----------
        make_task : callable
        title : str
        take : callable
        total : int
            How many steps it has, where its stages do not say so.
        """

        def on_error(error: Exception) -> None:
            if agreed(self._session, error, self._ask):
                self.begin(make_task, title, take, total=total)
            else:
                self._on_error(error)

        self._abandon()
        self.stage, self._total, self._given = title, total, total
        self._task = run_task(
            make_task,
            session=self._session,
            title=title,
            on_event=self._on_event,
            on_result=take,
            on_error=on_error,
            on_finished=self._on_finished,
        )
        self.changed.emit()

    def stop(self) -> None:
        """Ask the task to end with what it has."""
        if self._task is not None:
            self._task.stop()

    def cancel(self) -> None:
        """End the task and forget it."""
        if self._task is not None:
            self._abandon()
            self.changed.emit()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.stage, self._total = event.title, event.total or self._given
            self.progressed.emit(0, self._total)
        elif isinstance(event, Step):
            self.progressed.emit(event.index, self._total)
        elif isinstance(event, Note):
            self.noted.emit(event.text)

    def _ask(self, refused: ProgramRefused) -> bool:
        parent = self.parent()
        return ask_consent(parent if isinstance(parent, QWidget) else None, refused)

    def _on_error(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.failed.emit(str(error))
        else:
            self._session.report(error)

    def _on_finished(self) -> None:
        self._task = None
        self.changed.emit()
