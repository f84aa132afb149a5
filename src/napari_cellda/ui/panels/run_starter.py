"""What the panels that start runs share: where the run goes, what it costs, start, and the run."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.runs.history import RunView
from napari_cellda.ui.connect import when_deleted
from napari_cellda.ui.model_loading import agreed, ask_consent
from napari_cellda.ui.panel_words import error_words
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.parts import FolderField
from napari_cellda.ui.panels.run_monitor import RunMonitor, duration, gigabytes, pace_words
from napari_cellda.ui.runs import SessionRuns, runs_folder
from napari_cellda.ui.worker import TaskHandle, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_cellda.core.events import Stop
    from napari_cellda.core.runs.estimate import Estimate
    from napari_cellda.ui.inputs import Prepared
    from napari_cellda.ui.run_layers import Place
    from napari_cellda.ui.runs import RunWatch
    from napari_cellda.ui.state import Session

RUNS_ARE_KEPT = "Where runs are kept"


@dataclass(frozen=True)
class RunPlan:
    """A run that could be started now."""

    words: Sequence[str]
    """The command, without ``-o``."""
    inputs: Sequence[Prepared]
    trial: Mapping[str, Any]
    """Settings that make it short, for the estimate."""
    lengths: Mapping[int, int] = field(default_factory=dict)
    ratio: float = 1.0
    validations: int = 1
    """These three: see `core.runs.estimate.estimate_run`."""
    place: Place | None = None
    """Where its pictures go; None: beside all that is there."""
    check: Callable[[], object] | None = None
    """Called in the background before it is started; raises what forbids it."""

    def write_inputs(self, stop: Stop = never) -> None:
        """Write the layers that are not on disk; in the background."""
        for item in self.inputs:
            if item.write is not None and not stop():
                item.write(stop)


class RunStarter(QWidget):
    """Name a run, estimate it, start it, watch it.

    Parameters
    ----------
    session : Session
    command : {"adapt", "enhancer"}
        What its runs are started with: one that goes on is shown again.
    method : callable () -> str
        For the proposed name.
    plan : callable (Path) -> RunPlan
        Called with the run's folder when it is about to be started; raises a `UserError` that is
        shown here.
    """

    def __init__(
        self,
        session: Session,
        command: str,
        method: Callable[[], str],
        plan: Callable[[Path], RunPlan],
    ) -> None:
        super().__init__()
        self.session, self.runs = session, SessionRuns.of(session)
        self._method, self._plan = method, plan
        self.estimating: TaskHandle | None = None
        self.checking: TaskHandle | None = None
        self._missing: Sequence[str] = ()
        self._proposed = ""
        self.name = QLineEdit()
        self.name.setToolTip("Name of the run: a folder of its own")
        self.where = FolderField(runs_folder(), RUNS_ARE_KEPT, RUNS_ARE_KEPT)
        self.folder = self.where.field
        self.estimate = QPushButton("Estimate")
        self.estimate.setToolTip("Try a few real steps, and tell time and memory of the whole run")
        self.start = QPushButton("Start")
        self.cost = QLabel()
        self.cost.setWordWrap(True)
        self.message = Banner()
        self.monitor = RunMonitor()
        self._lay_out()
        self.estimate.clicked.connect(self._on_estimate)
        self.start.clicked.connect(self.begin)
        self.where.changed.connect(self.propose)
        self.monitor.refreshed.connect(self._show_state)
        when_deleted(self, self._abandon)
        self.propose()
        # A panel that was closed while its run goes on shows it when it is opened again.
        for watch in [watch for watch in self.runs.alive if watch.command == command][-1:]:
            self.watch(watch)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Name", self.name)
        form.addRow("Runs in", self.where)
        layout.addLayout(form)
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.estimate, 1)
        layout.addLayout(buttons)
        for widget in (self.cost, self.message, self.monitor):
            layout.addWidget(widget)
        self.cost.hide()

    def need(self, missing: Sequence[str]) -> None:
        """Tell what a run still needs; it can be started when that is nothing."""
        self._missing = missing
        self._show_state()

    def _show_state(self) -> None:
        # A second click while a run starts means the first one; another may queue behind it later.
        starting = self.checking is not None or self.monitor.is_starting
        self.start.setEnabled(not (self._missing or starting))
        self.start.setToolTip("The run is starting" if starting else "")
        if self._missing:
            self.start.setToolTip(f"Still needed: {'; '.join(self._missing)}")
        self.estimate.setEnabled(not self._missing)

    def propose(self) -> None:
        """Propose a name that is free, unless the user has given one."""
        from napari_cellda.core.runs.table import new_run_folder

        if self.name.text().strip() in ("", self._proposed):
            with suppress(UserError, OSError):  # Start will tell
                self._show_proposed(new_run_folder(self.root, self._method()).name)

    def _show_proposed(self, name: str) -> None:
        self._proposed = name
        self.name.setText(name)

    @property
    def root(self) -> Path:
        """Where runs are kept.

        Raises
        ------
        UserError
            If no folder can be there.
        """
        return self.where.path()

    def begin(self) -> None:
        """Start the run; the window stays usable."""
        self.message.clear()
        try:
            folder = self._new_folder()
            plan = self._plan(folder)
        except UserError as error:
            self.complain(error)
            return
        self._abandon()
        if plan.check is None:
            self._launch(plan, folder)
            return
        check = plan.check
        self.cost.setText("Looking at the inputs\u2026")
        self.cost.show()
        self.checking = run_task(
            lambda stop: check(),
            session=self.session,
            title="check",
            on_result=lambda _: self._launch(plan, folder),
            on_error=self._on_unchecked,
        )
        self._show_state()

    def _on_unchecked(self, error: Exception) -> None:
        self.checking = None
        self._show_state()
        self._on_error(self.begin, error)

    def _launch(self, plan: RunPlan, folder: Path) -> None:
        self.checking = None
        self._show_state()
        watch = self.runs.start(
            plan.words,
            folder,
            plan.write_inputs,
            place=plan.place,
            show_pictures=self.monitor.previews.isChecked(),
        )
        self.watch(watch)
        self.propose_next(folder)

    def _on_error(self, again: Callable[[], None], error: Exception) -> None:
        self.cost.hide()
        if agreed(self.session, error, partial(ask_consent, self)):
            self._abandon()
            again()
        else:
            self.complain(error)

    def complain(self, error: Exception) -> None:
        """Say what went wrong."""
        self.message.tell(error_words(error), "error")

    def watch(self, watch: RunWatch) -> None:
        """Show a run."""
        self.cost.hide()
        self.monitor.watch(watch)

    def propose_next(self, taken: Path) -> None:
        """Propose another name, though the folder of this one may not be there yet."""
        if self.name.text().strip() == taken.name:
            self.name.clear()
        self.propose()
        stem, _, number = self.name.text().rpartition("-")
        if self.name.text() == taken.name and number.isdecimal():
            self._show_proposed(f"{stem}-{int(number) + 1}")

    def _new_folder(self) -> Path:
        name = self.name.text().strip()
        if not name or Path(name).name != name or name in (".", "..") or "\0" in name:
            raise UserError(f"The run's name is {name!r}; expected the name of a new folder.")
        folder = self.root / name
        try:
            taken = folder.exists() and any(folder.iterdir())
        except OSError as error:
            raise UserError(f"'{folder}' cannot be read: {error.strerror}.") from error
        if taken:
            raise UserError(f"'{folder}' is not empty; choose another name.")
        return folder

    # -- estimate -------------------------------------------------------------------------------

    def _on_estimate(self) -> None:
        if self.estimating is not None:
            self._abandon()
            self._show_state()
            self.cost.hide()
            return
        self.message.clear()
        scratch = Path(tempfile.mkdtemp(prefix="napari-cellda-"))
        try:
            plan = self._plan(scratch)
        except UserError as error:
            scratch.rmdir()
            self.complain(error)
            return
        self.cost.setText("Trying a few steps\u2026")
        self.cost.show()
        self.estimate.setText("Cancel")
        self.estimating = run_task(
            lambda stop: _estimate(plan, scratch, stop),
            session=self.session,
            title="estimate",
            on_event=self._on_trial,
            on_result=self._on_estimated,
            on_error=partial(self._on_error, self._on_estimate),
            on_finished=self._on_tried,
        )

    def _on_trial(self, view: Any) -> None:
        words = pace_words(view) if isinstance(view, RunView) else ""
        if words:
            self.cost.setText(f"Trying: {words}")

    def _on_estimated(self, estimate: Estimate | None) -> None:
        if estimate is not None:
            words = f"About {duration(estimate.seconds)}"
            if estimate.device:  # a trial may be over before it told
                where = {"cpu": "the processor"}.get(estimate.device, estimate.device)
                words += f" and {gigabytes(estimate.memory)} on {where}"
            self.cost.setText(f"{words}.")

    def _on_tried(self) -> None:
        self.estimating = None
        self.estimate.setText("Estimate")
        if self.cost.text().startswith("Trying"):
            self.cost.hide()

    def _abandon(self) -> None:
        if self.checking is not None:
            self.checking.abandon()
            self.checking = None
        if self.estimating is not None:
            self.estimating.abandon()
            self.estimating = None
            self.estimate.setText("Estimate")


def _estimate(plan: RunPlan, scratch: Path, stop: Callable[[], bool]) -> Any:
    from napari_cellda.core.runs.estimate import estimate_run

    try:
        if plan.check is not None:
            plan.check()
        plan.write_inputs(stop)
        return (
            yield from estimate_run(
                plan.words,
                plan.trial,
                plan.lengths,
                stop,
                ratio=plan.ratio,
                validations=plan.validations,
            )
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
