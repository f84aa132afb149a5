"""The foot of a panel that writes files: begin and cancel, how far it is, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cellda.ui.connect import when_deleted
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtpy.QtWidgets import QProgressBar

    from napari_cellda.core.events import Event, Stop
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle


class TaskFoot(QWidget):
    """Runs one task at a time beside the window; always in sight, below what scrolls.

    Parameters
    ----------
    session : Session
    title : str
        Of the button that begins; what it does is the panel's affair.
    bars : sequence of QProgressBar
        Shown while a task runs.
    folder : callable () -> Path
        Where the files are, for the button that opens it.
    below_message : QWidget, optional
    """

    def __init__(
        self,
        session: Session,
        title: str,
        bars: Sequence[QProgressBar],
        folder: Callable[[], Path],
        below_message: QWidget | None = None,
    ) -> None:
        super().__init__()
        self._session, self._folder = session, folder
        self.task: TaskHandle | None = None
        self.message = Banner()
        self.open_folder = QPushButton("Open the folder")
        self.open_folder.hide()
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.start, self.cancel = QPushButton(title), QPushButton("Cancel")
        self._while_running = (self.status, *bars)
        above = [self.message] if below_message is None else [self.message, below_message]
        self._lay_out([*above, self.open_folder, *self._while_running])
        self.cancel.clicked.connect(lambda: self.stop())
        self.open_folder.clicked.connect(lambda: self._open_folder())
        when_deleted(self, self._abandon)
        self._show_state()

    def _lay_out(self, rows: Sequence[QWidget]) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 4, 10, 6)
        layout.setSpacing(6)
        for widget in rows:
            layout.addWidget(widget)
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)
        layout.addLayout(buttons)

    @property
    def stopping(self) -> bool:
        """Whether the task was asked to stop."""
        return self.task is not None and self.task.stopping

    def run(
        self,
        make_task: Callable[[Stop], Any],
        *,
        on_event: Callable[[Event], None],
        on_result: Callable[[Any], None],
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run a task, see `run_task`; one that still runs is given up.

        Without `on_error`, errors are told here.
        """
        self._abandon()
        self.clear()
        self.task = run_task(
            make_task,
            session=self._session,
            title=self.start.text(),
            on_event=on_event,
            on_result=on_result,
            on_error=on_error or self.fail,
            on_finished=self._on_finished,
        )
        self._show_state()

    def stop(self) -> None:
        """Cancel; what is done stays, the image in work is not written."""
        if self.task is not None:
            self.task.stop()
            self.status.setText("Stopping\u2026")

    def clear(self) -> None:
        """Forget what was told of the last task."""
        self.message.clear()
        self.open_folder.hide()

    def fail(self, error: Exception) -> None:
        """Tell an error."""
        self.message.tell(str(error) or repr(error), "error")

    def _abandon(self) -> None:
        """End the work: nobody could cancel it any more."""
        if self.task is not None:
            self.task.abandon()

    def _on_finished(self) -> None:
        self.task = None
        self._show_state()

    def _show_state(self) -> None:
        running = self.task is not None
        self.start.setEnabled(not running)
        self.cancel.setEnabled(running)
        for widget in self._while_running:
            widget.setVisible(running)

    def _open_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder())))
