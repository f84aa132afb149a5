"""The tab Models: several predictions or models against one folder of truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_cellda.core.compare.efficiency import standings
from napari_cellda.core.compare.models import evaluate_sources, is_model
from napari_cellda.core.compare.report import TITLES, rank
from napari_cellda.core.errors import UserError
from napari_cellda.ui.panels.inspect_folders import Folders
from napari_cellda.ui.panels.inspect_tabs import WorkBar, WorkTab, button
from napari_cellda.ui.panels.parts import choices, row_of

if TYPE_CHECKING:
    from napari_cellda.core.compare.evaluate import Evaluation
    from napari_cellda.core.compare.summary import ModelResult
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session

KINDS = (
    ("semantic", "pixels", "Files *_mask, or any masks"),
    (
        "instances",
        "objects",
        "Files *_instances, with *_objects.csv for scores, or any labels",
    ),
    ("boundary", "membranes", "Files *_probability, or any boundary maps"),
)
PROMPT = "Choose\u2026"
BEST = "the best of each figure"
PROJECTS = "Projects and packages (*.cellda *.zip)"


class CompareTab(WorkTab):
    """Choose folders, compare, look, write a report."""

    def __init__(self, session: Session, trying: Trying) -> None:
        super().__init__(session, trying)
        self.images: Path | None = None
        self.reference: Path | None = None
        self.evaluation: Evaluation | None = None
        self.build()

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        asks = {"Add a folder\u2026": self._ask_folder, "Add a project\u2026": self._ask_project}
        self.folders = Folders("prediction", asks, self._trying)
        self.folders.table.setToolTip(
            "Folders of predictions, runs or model packages; the names can be changed"
        )
        self.image_folder = button(PROMPT, "The images that runs, projects and packages predict")
        tip = "The folder of the truth; files pair with the predictions by name"
        self.truth = button(PROMPT, tip)
        self.kind = choices(KINDS)
        self.start = button("Compare")
        self.bar = WorkBar(self.work, self.start)
        self.status = QLabel()
        self._make_results()

    def _make_results(self) -> None:
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().hide()
        self.figure = QComboBox()
        self.strips: Any = None
        self.sizes: Any = None
        self.upper_bound = QComboBox()
        self.upper_bound.setToolTip("What performance efficiency is measured against")
        self.extremes = QLabel()
        self.extremes.setWordWrap(True)
        self.report = button("Write a report\u2026", "One HTML page with tables, plots, pictures")
        self.save = button("Save the table\u2026")

    def _lay_out(self) -> None:
        self.body.addWidget(self.folders)
        self._form = QFormLayout()
        self._form.addRow("Images", self.image_folder)
        self._form.addRow("Truth", self.truth)
        self._form.addRow("Compare by", self.kind)
        self.body.addLayout(self._form)
        self.body.addWidget(self.bar)
        self.body.addWidget(self.status)
        self.body.addWidget(self.table)
        self.body.addWidget(self.figure)
        self._plot_place = QVBoxLayout()
        self.body.addLayout(self._plot_place)
        self._bound_form = QFormLayout()
        self._bound_form.addRow("Upper bound", self.upper_bound)
        self.body.addLayout(self._bound_form)
        self.body.addWidget(self.extremes)
        self.body.addLayout(row_of(self.report, self.save, stretch=1))
        self.body.addStretch(1)

    def _connect(self) -> None:
        self.folders.changed.connect(self._refresh)
        self.image_folder.clicked.connect(self._trying(self._ask_images))
        self.truth.clicked.connect(self._trying(self._ask_truth))
        self.start.clicked.connect(self._trying(self.compare))
        self.work.progressed.connect(lambda *_: self.status.setText(self.work.stage))
        self.figure.currentIndexChanged.connect(self._draw)
        self.upper_bound.currentIndexChanged.connect(self._draw)
        self.report.clicked.connect(self._trying(self._ask_report))
        self.save.clicked.connect(self._trying(self._ask_table))

    # -- what is compared -----------------------------------------------------------------------

    def _ask_folder(self) -> str:
        title = "A folder of predictions, a run or a model package"
        return QFileDialog.getExistingDirectory(self, title)

    def _ask_project(self) -> str:
        return QFileDialog.getOpenFileName(self, "A project or a package", "", PROJECTS)[0]

    def set_images(self, folder: Path) -> None:
        """Choose the folder of the images that models predict."""
        self.images = folder
        self._refresh()

    def set_reference(self, folder: Path) -> None:
        """Choose the folder of the truth."""
        self.reference = folder
        self._refresh()

    def _ask_images(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "The folder of the images")
        if chosen:
            self.set_images(Path(chosen))

    def _ask_truth(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "The folder of the truth")
        if chosen:
            self.set_reference(Path(chosen))

    # -- comparing ------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare in the background.

        Raises
        ------
        UserError
            If a folder is missing.
        """
        if not self.folders.paths or self.reference is None:
            raise UserError(
                "Choose at least one folder of predictions and the folder of the truth."
            )
        sources, images, reference = dict(self.folders.paths), self.images, self.reference
        kind, trusted = self.kind.currentData(), self._session.trusted
        self.work.begin(
            lambda stop: evaluate_sources(
                sources, images, reference, kind, trusted=frozenset(trusted), stop=stop
            ),
            "compare models",
            self._take,
        )

    def _take(self, found: Evaluation | None) -> None:
        if found is None:
            return
        self.evaluation = found
        keys = self._fill(found.models)
        ranked = rank(found)
        self.extremes.setText(
            f"Worst images: {', '.join(ranked[:3])}.  Best: {', '.join(ranked[::-1][:3])}."
        )
        _refill(self.figure, [(TITLES[key], key) for key in keys])
        _refill(self.upper_bound, [(BEST, None), *((name, name) for name in found.models)])
        self._draw()

    # -- what came of it ------------------------------------------------------------------------

    def _refresh(self) -> None:
        running = self.work.running
        for chooser, folder in ((self.image_folder, self.images), (self.truth, self.reference)):
            chooser.setText(PROMPT if folder is None else f"{folder.parent.name}/{folder.name}")
        self._form.setRowVisible(self.image_folder, any(map(is_model, self.folders.paths.values())))
        ready = bool(self.folders.paths) and self.reference is not None
        self.start.setEnabled(ready and not running)
        self.status.setVisible(running)
        for widget in (self.table, self.figure, self.extremes, self.report, self.save):
            widget.setVisible(self.evaluation is not None)
        self._bound_form.setRowVisible(self.upper_bound, self._has_sizes())

    def _has_sizes(self) -> bool:
        models = {} if self.evaluation is None else self.evaluation.models
        return sum(model.n_parameters is not None for model in models.values()) > 1

    def _fill(self, models: dict[str, ModelResult]) -> list[str]:
        """Fill the table; returns the figures that it shows."""
        keys = [key for key in TITLES if any(np.isfinite(m.mean[key]) for m in models.values())]
        self.table.setColumnCount(1 + len(keys))
        self.table.setHorizontalHeaderLabels(["Model", *(TITLES[key] for key in keys)])
        self.table.setRowCount(len(models))
        for row, (name, model) in enumerate(models.items()):
            self.table.setItem(row, 0, QTableWidgetItem(name))
            mean, std, missing = model.mean, model.std, model.undefined
            for column, key in enumerate(keys, 1):
                text = f"{mean[key]:.3f} ± {std[key]:.3f}" if np.isfinite(mean[key]) else "–"
                lacking = f"  ({missing[key]} undefined)" if missing[key] else ""
                self.table.setItem(row, column, QTableWidgetItem(text + lacking))
        self.table.resizeColumnsToContents()
        self.table.setFixedHeight(56 + 30 * min(len(models), 6))
        return keys

    def _draw(self, *_: Any) -> None:
        key = self.figure.currentData()
        if self.evaluation is None or key is None:
            return
        if self.strips is None:
            from napari_cellda.ui.panels.inspect_plots import Sizes, Strips

            self.strips, self.sizes = Strips(), Sizes()
            self._plot_place.addWidget(self.strips)
            self._plot_place.addWidget(self.sizes)
        models = self.evaluation.models
        values = {name: model.values(key) for name, model in models.items()}
        self.strips.draw(values, TITLES[key])
        found = standings(models, key, self.upper_bound.currentData())
        self.sizes.setVisible(bool(found))
        self.sizes.draw(found, list(models), TITLES[key])

    def _ask_report(self) -> None:
        title, kinds = "Write a report", "Web page (*.html)"
        chosen, _ = QFileDialog.getSaveFileName(self, title, "comparison.html", kinds)
        if chosen:
            self.write_report(Path(chosen))
            QDesktopServices.openUrl(QUrl.fromLocalFile(chosen))

    def write_report(self, path: Path) -> None:
        """Write the HTML page."""
        from napari_cellda.core.compare.report import write_report

        assert self.evaluation is not None
        write_report(path, self.evaluation, upper_bound=self.upper_bound.currentData())
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


def _refill(box: QComboBox, entries: list[tuple[str, Any]]) -> None:
    """List other entries, keeping the choice where it still is; tells nobody."""
    chosen = box.currentText()
    box.blockSignals(True)
    box.clear()
    for title, value in entries:
        box.addItem(title, value)
    box.setCurrentIndex(max(0, box.findText(chosen)))
    box.blockSignals(False)
