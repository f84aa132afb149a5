"""The panel Runs: all runs of a folder; open, compare, apply, export, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import stem
from napari_cellda.ui.adapt_inputs import place_on
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.images import image_layers
from napari_cellda.ui.panel_words import error_words
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.judged_on import layers_of
from napari_cellda.ui.panels.parts import FolderField
from napari_cellda.ui.panels.run_monitor import STATES, RunMonitor
from napari_cellda.ui.panels.run_starter import RUNS_ARE_KEPT
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.verdict import Verdict
from napari_cellda.ui.runs import SessionRuns, runs_folder
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari

    from napari_cellda.core.runs.table import RunLine
    from napari_cellda.ui.run_layers import Place
    from napari_cellda.ui.runs import RunWatch

COLUMNS = ("Run", "State", "Score", "Begun", "Method")
WIDEST = 96
"""Pixels of a column in a narrow dock, where Run, State and Score are seen side by side."""
LOOK_MS = 3000
"""The table is read anew so often while the panel is seen."""


class RunsPanel(QWidget):
    """Find runs again, whoever started them, and use what came of them.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self.runs = SessionRuns.of(self.session)
        self.lines: list[RunLine] = []
        self._reading = False
        settle_in_dock(self, "Runs")
        self._make_widgets()
        self._lay_out()
        self._connect()
        self.refresh()

    def _make_widgets(self) -> None:
        self.where = FolderField(runs_folder(), RUNS_ARE_KEPT, RUNS_ARE_KEPT)
        self.folder = self.where.field
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(220)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setMaximumSectionSize(WIDEST)
        # The number of a run, at the end of its name, tells it from its fellows.
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.open = QPushButton("Open")
        self.open.setToolTip("Show its curves and pictures; follow it if it goes on")
        self.export = QPushButton("Export\u2026")
        self.export.setToolTip("Copy its model, a bioimage.io package, as a zip file")
        self.delete = QPushButton("Delete\u2026")
        self.delete.setToolTip("Delete the runs that are selected, with their models")
        self.message = Banner()
        self.monitor = RunMonitor()
        self.verdict = Verdict(self.session)

    def _lay_out(self) -> None:
        scrolling = Scrolling()
        section = Section("Runs")
        section.body.addWidget(self.where)
        section.body.addWidget(self.table)
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        for button in (self.open, self.export, self.delete):
            buttons.addWidget(button)
        section.body.addLayout(buttons)
        section.body.addWidget(self.message)
        self.shown = Section("This run")
        self.shown.body.addWidget(self.monitor)
        self.shown.body.addWidget(self.verdict)
        self.shown.hide()
        for widget in (section, self.shown):
            scrolling.body.addWidget(widget)
        scrolling.body.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolling)

    def _connect(self) -> None:
        self._timer = QTimer(self, interval=LOOK_MS)
        self._timer.timeout.connect(self._on_timer)
        self._timer.start()
        self.where.changed.connect(self._on_folder)
        self.table.itemSelectionChanged.connect(self._on_selection)
        self.table.itemDoubleClicked.connect(lambda item: self.show_run())
        self.open.clicked.connect(self.show_run)
        self.export.clicked.connect(self._export)
        self.delete.clicked.connect(self._delete)
        self.monitor.refreshed.connect(self._on_run)
        self.verdict.discarded.connect(self.refresh)
        connect_while_alive(self, self.runs.added, lambda run: self.refresh())
        connect_while_alive(self, self.session.failed, self._on_failure)
        self._on_selection()

    def resizeEvent(self, event: Any) -> None:
        """Give wide columns the room that there is; words that need more take several lines."""
        super().resizeEvent(event)
        self.table.horizontalHeader().setMaximumSectionSize(max(WIDEST, 3 * self.width() // 10))
        self.table.resizeColumnsToContents()

    # -- the table ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the folder again, in the background."""
        if self._reading or self.session.is_closed:
            return
        try:
            root = self.where.path()
        except UserError as error:
            self._complain(error)
            return
        self._reading = True

        def read(stop: Callable[[], bool]) -> list[RunLine]:
            from napari_cellda.core.runs.table import list_runs

            try:
                return list_runs(root)
            except OSError as error:
                raise UserError(f"'{root}' cannot be read: {error.strerror}.") from error

        run_task(
            read,
            session=self.session,
            owner=self,
            title="list runs",
            on_result=self._show_lines,
            on_error=self._complain,
            on_finished=self._on_read,
        )

    def _on_read(self) -> None:
        self._reading = False

    def _on_timer(self) -> None:
        if self.isVisible():
            self.refresh()

    def _show_lines(self, lines: list[RunLine]) -> None:
        if lines == self.lines:
            return
        chosen = {line.folder for line in self.selected()}
        self.lines = lines
        self.table.blockSignals(True)
        self.table.setRowCount(len(lines))
        self.table.clearSelection()
        for row, line in enumerate(lines):
            for column, text in enumerate(_cells(line)):
                item = QTableWidgetItem(text)
                item.setToolTip(_tip(line))
                self.table.setItem(row, column, item)
                if line.folder in chosen:
                    item.setSelected(True)
        self.table.blockSignals(False)
        self._on_selection()

    def selected(self) -> list[RunLine]:
        """Return the lines that are selected, from above."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [self.lines[row] for row in rows if row < len(self.lines)]

    def _on_selection(self) -> None:
        chosen = self.selected()
        self.open.setEnabled(len(chosen) == 1)
        self.export.setEnabled(len(chosen) == 1 and chosen[0].has_model)
        self.delete.setEnabled(bool(chosen))

    def _on_folder(self) -> None:
        self.message.clear()
        self.refresh()

    # -- what to do with a run ------------------------------------------------------------------

    def show_run(self) -> None:
        """Open the run that is selected."""
        chosen = self.selected()
        if len(chosen) == 1:
            self.message.clear()
            folder = chosen[0].folder
            pictures = self.runs.watch(folder).pictures
            if pictures.place is None:
                pictures.place = _place_of(folder, image_layers(self.session.viewer))
            self.watch(self.runs.open(folder))
            self.verdict.list_runs()

    def watch(self, run: RunWatch) -> None:
        """Show a run below the table."""
        self.monitor.watch(run)

    def _on_run(self) -> None:
        self.verdict.show_run(self.monitor.run)
        self.shown.setVisible(self.monitor.run is not None)

    def _export(self) -> None:
        (line,) = self.selected()
        proposal = str(Path.home() / f"{line.name}.zip")
        name, _ = QFileDialog.getSaveFileName(self, "Export the model", proposal, "Zip (*.zip)")
        if name:
            self.export_to(line, Path(name))

    def export_to(self, line: RunLine, target: Path) -> None:
        """Copy a run's model: as a zip file, or a folder if the name has no such ending."""
        from napari_cellda.core.runs.table import export_model

        run_task(
            lambda stop: export_model(line.folder, target),
            session=self.session,
            owner=self,
            title="export model",
            on_result=lambda path: self.message.tell(f"Wrote {path}.", "success"),
            on_error=self._complain,
        )

    def _delete(self) -> None:
        chosen = self.selected()
        names = ", ".join(line.name for line in chosen)
        answer = QMessageBox.question(
            self, "Delete runs", f"Delete {names}, with checkpoints, pictures and models?"
        )
        if answer == QMessageBox.StandardButton.Yes:
            self.delete_runs([line.folder for line in chosen])

    def delete_runs(self, folders: list[Path]) -> None:
        """Delete runs without asking."""
        from napari_cellda.core.runs.table import delete_run

        def delete(stop: Callable[[], bool]) -> None:
            for folder in folders:
                delete_run(folder)

        def forget() -> None:
            for folder in folders:
                self.runs.forget(folder)
            self.refresh()

        run_task(
            delete,
            session=self.session,
            owner=self,
            title="delete runs",
            on_error=self._complain,
            on_finished=forget,
        )

    def _complain(self, error: Exception) -> None:
        self.message.tell(error_words(error), "error")

    def _on_failure(self, error: Exception) -> None:
        if self.verdict.isHidden():
            self._complain(error)
        else:
            self.verdict.complain(error)


def _place_of(folder: Path, layers: Sequence[Any]) -> Place | None:
    """Return where a run's pictures belong: on the first image that it trained on, if it is here.

    Of runs on points, only images with points are trained on.
    """
    from napari_cellda.core.jobs import Run

    try:
        run = Run(folder)
        files = find_originals(run.input_path("target_images"))
        for item in run.record.inputs:
            if item.role in ("points", "nuclei_images"):
                marked = {stem(path) for path in run.input_path(item.role).iterdir()}
                files = [path for path in files if stem(path) in marked]
        found = layers_of(files[:1], layers)
        return place_on(found[0]) if found else None
    except (UserError, OSError):  # moved since, or its axes cannot be told
        return None


def _cells(line: RunLine) -> tuple[str, ...]:
    score = f"{line.scores[line.chosen_by]:.3f}\n{line.chosen_by}" if line.chosen_by else ""
    return (
        line.name,
        STATES[line.state],
        score,
        line.begun.strftime("%d %b\n%H:%M"),
        line.method,
    )


def _tip(line: RunLine) -> str:
    """Tell where it lies, which step was chosen and how, and what else was measured there."""
    words = [str(line.folder)]
    scores = {name: value for name, value in line.scores.items() if name != line.chosen_by}
    others = [f"{name}: {value:.3f}" for name, value in scores.items()]
    if line.chosen_by:
        chosen = f"{line.chosen_by} {line.scores[line.chosen_by]:.3f}"
        words.append(f"Step {line.step} was chosen, the highest: {chosen}")
        words += ["Measured there, too:"] if others else []
    elif others:
        words.append("No score chose among the steps. The latest:")
    return "\n".join((*words, *others))
