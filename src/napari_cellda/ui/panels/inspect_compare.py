"""The tab Models: several folders of predictions against one folder of truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.compare.report import TITLES, rank
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.ui.panels.inspect_plots import make_strips
from napari_cellda.ui.panels.inspect_tabs import side_by_side
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.compare.evaluate import Evaluation
    from napari_cellda.core.events import Event
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

KINDS = (
    ("semantic", "pixels", "Files *_mask, or any masks"),
    (
        "instances",
        "objects",
        "Files *_instances, with *_objects.csv for scores, or any labels",
    ),
    ("boundary", "membranes", "Files *_probability, or any boundary maps"),
)


class CompareTab(QWidget):
    """Choose folders, compare, look, write a report.

    Parameters
    ----------
    session : Session
    trying : callable
        Wraps an action so that its error is shown in the panel.

    Signals
    -------
    told(str, str)
        A sentence for the panel's banner, and its kind.
    """

    told = Signal(str, str)

    def __init__(self, session: Session, trying: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._session, self._trying = session, trying
        self.predictions: dict[str, Path] = {}
        self.reference: Path | None = None
        self.evaluation: Evaluation | None = None
        self._task: TaskHandle | None = None
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._refresh()
        self.destroyed.connect(lambda: self._abandon())

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self.list = QTableWidget(0, 2)
        self.list.setHorizontalHeaderLabels(["Name", "Folder"])
        self.list.verticalHeader().hide()
        self.list.horizontalHeader().setStretchLastSection(True)
        self.list.setFixedHeight(110)
        self.list.setToolTip("Predictions, one folder per model; the name can be changed")
        self.add = QPushButton("Add a folder\u2026")
        self.remove = QPushButton("Remove")
        self.truth = QPushButton("Choose\u2026")
        self.truth.setToolTip("The folder of the truth; files pair with the predictions by name")
        self.kind = QComboBox()
        for index, (value, title, tip) in enumerate(KINDS):
            self.kind.addItem(title, value)
            self.kind.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)
        self.start = QPushButton("Compare")
        self.cancel = QPushButton("Stop")
        self.status = QLabel()
        self.progress = QProgressBar()
        self.progress.setFixedHeight(6)
        self.progress.setTextVisible(False)
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().hide()
        self.table.setMinimumHeight(130)
        self.figure = QComboBox()
        self.plot: Any = None
        self.extremes = QLabel()
        self.extremes.setWordWrap(True)
        self.report = QPushButton("Write a report\u2026")
        self.report.setToolTip("One HTML page with tables, plots and pictures")
        self.save = QPushButton("Save the table\u2026")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 8, 4, 4)
        layout.setSpacing(8)
        layout.addWidget(self.list)
        layout.addLayout(side_by_side(self.add, self.remove))
        form = QFormLayout()
        form.addRow("Truth", self.truth)
        form.addRow("Compare by", self.kind)
        layout.addLayout(form)
        layout.addLayout(side_by_side(self.start, self.cancel))
        layout.addWidget(self.status)
        layout.addWidget(self.progress)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.figure)
        self._plot_place = QVBoxLayout()
        layout.addLayout(self._plot_place)
        layout.addWidget(self.extremes)
        layout.addLayout(side_by_side(self.report, self.save))
        layout.addStretch(0)

    def _connect(self) -> None:
        self.add.clicked.connect(self._trying(self._ask_prediction))
        self.remove.clicked.connect(self._trying(self._remove))
        self.truth.clicked.connect(self._trying(self._ask_truth))
        self.start.clicked.connect(self._trying(self.compare))
        self.cancel.clicked.connect(self.stop)
        self.figure.currentIndexChanged.connect(self._draw)
        self.report.clicked.connect(self._trying(self._ask_report))
        self.save.clicked.connect(self._trying(self._ask_table))
        self.list.cellChanged.connect(self._on_renamed)

    # -- folders --------------------------------------------------------------------------------

    def _ask_prediction(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A folder of predictions")
        if chosen:
            self.add_prediction(Path(chosen))

    def add_prediction(self, folder: Path, name: str = "") -> None:
        """Add a model's folder of predictions, called like the folder unless named.

        Raises
        ------
        UserError
            If there is a prediction of this name.
        """
        name = name or folder.name
        if name in self.predictions:
            raise UserError(f"There is a prediction called '{name}' already; rename it first.")
        self.predictions[name] = folder
        self._show_folders()

    def set_reference(self, folder: Path) -> None:
        """Choose the folder of the truth."""
        self.reference = folder
        self._show_folders()

    def _ask_truth(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "The folder of the truth")
        if chosen:
            self.set_reference(Path(chosen))

    def _remove(self) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self.predictions):
            del self.predictions[list(self.predictions)[row]]
            self._show_folders()

    def _on_renamed(self, row: int, column: int) -> None:
        names = list(self.predictions)
        new = self.list.item(row, 0).text().strip()
        if column == 0 and new and new not in names:
            names[row] = new
            self.predictions = dict(zip(names, self.predictions.values(), strict=True))
        self._show_folders()

    def _show_folders(self) -> None:
        self.list.blockSignals(True)
        self.list.setRowCount(len(self.predictions))
        for row, (name, folder) in enumerate(self.predictions.items()):
            self.list.setItem(row, 0, QTableWidgetItem(name))
            item = QTableWidgetItem(str(folder))
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            item.setToolTip(str(folder))
            self.list.setItem(row, 1, item)
        self.list.resizeColumnToContents(0)
        self.list.blockSignals(False)
        self.truth.setText(self.reference.name if self.reference is not None else "Choose\u2026")
        self._refresh()

    # -- comparing ------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether models are being compared."""
        return self._task is not None

    def compare(self) -> None:
        """Compare in the background.

        Raises
        ------
        UserError
            If a folder is missing.
        """
        from napari_cellda.core.compare.evaluate import evaluate

        if not self.predictions or self.reference is None:
            raise UserError(
                "Choose at least one folder of predictions and the folder of the truth."
            )
        predictions, reference = dict(self.predictions), self.reference
        kind = self.kind.currentData()

        def take(found: Evaluation | None) -> None:
            if found is not None:
                self.evaluation = found

        self._task = run_task(
            lambda stop: evaluate(predictions, reference, kind, pictures=True, stop=stop),
            session=self._session,
            title="compare models",
            on_event=self._on_event,
            on_result=take,
            on_error=self._fail,
            on_finished=self._on_finished,
        )
        self._refresh()

    def stop(self) -> None:
        """End the comparison; the table stays as it is."""
        if self._task is not None:
            self._task.stop()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.abandon()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.status.setText(event.title)
            self.progress.setRange(0, event.total or 0)
        elif isinstance(event, Step):
            self.progress.setValue(event.index)
        elif isinstance(event, Note):
            self.told.emit(event.text, "info")

    def _fail(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.told.emit(str(error), "error")
        else:
            self._session.report(error)

    def _on_finished(self) -> None:
        self._task = None
        self._refresh()
        self._show_figures()

    # -- what came of it ------------------------------------------------------------------------

    def _refresh(self) -> None:
        running = self.running
        self.start.setEnabled(bool(self.predictions) and self.reference is not None and not running)
        self.cancel.setEnabled(running)
        self.remove.setEnabled(bool(self.predictions))
        self.status.setVisible(running)
        self.progress.setVisible(running)
        for widget in (self.table, self.figure, self.extremes, self.report, self.save):
            widget.setVisible(self.evaluation is not None)

    def _show_figures(self) -> None:
        if self.evaluation is None:
            return
        models = self.evaluation.models
        keys = [key for key in TITLES if any(np.isfinite(m.mean[key]) for m in models.values())]
        self.table.setColumnCount(1 + len(keys))
        self.table.setHorizontalHeaderLabels(["Model", *(TITLES[key] for key in keys)])
        self.table.setRowCount(len(models))
        for row, (name, model) in enumerate(models.items()):
            self.table.setItem(row, 0, QTableWidgetItem(name))
            mean, std, missing = model.mean, model.std, model.undefined
            for column, key in enumerate(keys, 1):
                text = f"{mean[key]:.3f} ± {std[key]:.3f}" if np.isfinite(mean[key]) else "–"
                item = QTableWidgetItem(
                    text + (f"  ({missing[key]} undefined)" * bool(missing[key]))
                )
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()
        ranked = rank(self.evaluation)
        self.extremes.setText(
            f"Worst images: {', '.join(ranked[:3])}.  Best: {', '.join(ranked[::-1][:3])}."
        )
        if self.plot is None:
            self.plot = make_strips()
            self._plot_place.addWidget(self.plot)
        self.figure.blockSignals(True)
        self.figure.clear()
        for key in keys:
            self.figure.addItem(TITLES[key], key)
        self.figure.blockSignals(False)
        self._draw()

    def _draw(self, *_: Any) -> None:
        key = self.figure.currentData()
        if self.evaluation is not None and self.plot is not None and key is not None:
            values = {name: m.values(key) for name, m in self.evaluation.models.items()}
            self.plot.draw(values, TITLES[key])

    def _ask_report(self) -> None:
        title, kinds = "Write a report", "Web page (*.html)"
        chosen, _ = QFileDialog.getSaveFileName(self, title, "comparison.html", kinds)
        if chosen:
            self.write_report(Path(chosen))
            QDesktopServices.openUrl(QUrl.fromLocalFile(chosen))

    def write_report(self, path: Path) -> None:
        """Write the HTML page."""
        from napari_cellda.core.compare.report import check_report, write_report

        assert self.evaluation is not None
        check_report(path, None, self.evaluation.models)
        write_report(path, self.evaluation)
        self.told.emit(f"Wrote {path}.", "success")

    def _ask_table(self) -> None:
        kinds = "Table (*.csv);;JSON (*.json)"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the table", "comparison.csv", kinds)
        if chosen:
            self.write_table(Path(chosen))

    def write_table(self, path: Path) -> None:
        """Write the figures as CSV or JSON, by the ending of `path`."""
        from napari_cellda.core.compare.tables import write_table

        assert self.evaluation is not None
        write_table(path, self.evaluation)
        self.told.emit(f"Wrote {path}.", "success")
