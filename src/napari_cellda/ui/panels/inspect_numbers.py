"""The tab Numbers: figures per image, class and plane; sort, click, copy, save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
)

from napari_cellda.core.compare.report import TITLES
from napari_cellda.core.compare.scoring import AP_KEYS
from napari_cellda.core.errors import UserError
from napari_cellda.ui.inspect_numbers import Numbers, Row, Scored
from napari_cellda.ui.panels.inspect_tabs import PairTab, WorkBar, button
from napari_cellda.ui.panels.parts import check_box, choices, row_of

if TYPE_CHECKING:
    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session

KINDS = (
    ("semantic", "pixels", "IoU, Dice, precision, recall; HD95 and ASD between the outlines"),
    ("instances", "objects", "Besides, F1 at IoU 0.5, instance Dice, variation of information"),
    ("boundary", "membranes", "The map is cut into cells (multicut), then compared as objects"),
)
EXTRA = {
    "area": "Area fraction of the result",
    "objects": "Objects in the result",
    "true objects": "Objects in the reference",
}
SHORT = {
    "dice": "Dice",
    "precision": "Prec",
    "recall": "Rec",
    "instance_dice": "Obj Dice",
    "f1_50": "Obj F1",
    "area": "Area",
    "objects": "Objects",
    "true objects": "True obj",
}
"""For the narrow panel; the whole title is the tooltip."""
OBJECT_KEYS = ("f1_50", "instance_dice", "ap50", "objects", "true objects")
NO_SCORES = "Average precision needs a score for every object"
NO_OBJECTS = "Average precision needs true objects"
NAME_WIDTH = 100
ROW_ROLE = int(Qt.ItemDataRole.UserRole) + 1


class _Number(QTableWidgetItem):
    """A figure that sorts as a number; undefined ones come last."""

    def __init__(self, value: float, text: str) -> None:
        super().__init__(text)
        self.value = value
        self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: Any) -> bool:
        if isinstance(other, _Number):
            return bool(
                np.nan_to_num(self.value, nan=np.inf) < np.nan_to_num(other.value, nan=np.inf)
            )
        return bool(super().__lt__(other))


class NumbersTab(PairTab):
    """Score the two layers that are chosen; see `Numbers`."""

    def __init__(self, session: Session, pair: LayerPair, trying: Trying) -> None:
        super().__init__(session, pair, trying)
        self.numbers = Numbers(session, self)
        self._rows: list[Row] = []
        self.build()

    def _make_widgets(self) -> None:
        self.kind = choices(KINDS)
        self.classes = check_box(
            "classes apart", "Labels are classes, each with figures of its own", on=False
        )
        self.live = check_box("live", "Score again whenever the maps change", on=False)
        self.score_button = button("Score", "Every plane of the two layers, plane by plane")
        self.bar = WorkBar(self.numbers, self.score_button)
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setToolTip("Click a heading to sort, a row to go to its plane")
        self.table.verticalHeader().hide()
        self.table.setWordWrap(False)
        self.table.setStyleSheet("QTableWidget, QHeaderView { font-size: 11px; }")
        self.table.horizontalHeader().setMinimumSectionSize(20)
        self.table.setMinimumHeight(220)
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.copy = button("Copy")
        self.save = button("Save\u2026", "As CSV or JSON")
        self.clear = button("Clear")

    def _lay_out(self) -> None:
        self.body.addLayout(row_of(self.kind, self.classes, self.live, stretch=(1, 0, 0)))
        self.body.addWidget(self.bar)
        self.body.addWidget(self.table, 1)
        self.body.addWidget(self.note)
        self.body.addLayout(row_of(self.copy, self.save, self.clear, stretch=1))

    def _connect(self) -> None:
        self.score_button.clicked.connect(self._trying(self.score))
        self.live.toggled.connect(self._on_live)
        self.copy.clicked.connect(self._trying(self._copy))
        self.save.clicked.connect(self._trying(self._save))
        self.clear.clicked.connect(self.numbers.clear)
        self.table.cellClicked.connect(self._on_cell)
        self.numbers.changed.connect(self._refresh)
        self._pair.changed.connect(self._on_pair)

    def score(self) -> None:
        """Score the two layers that are chosen."""
        self.numbers.score(
            *self._pair.layers,
            self.kind.currentData(),
            classes=self.classes.isChecked(),
            ignore=self._pair.ignore,
        )

    def _on_pair(self) -> None:
        if self._pair.holds_classes:
            self.classes.setChecked(True)

    def _on_live(self, live: bool) -> None:
        self.numbers.live = live

    # -- the table ------------------------------------------------------------------------------

    def _refresh(self) -> None:
        running = self.numbers.running
        self.score_button.setEnabled(not running)
        if not running:
            self._rows = self.numbers.rows()
            self._fill()
        for widget in (self.copy, self.save, self.clear):
            widget.setEnabled(bool(self._rows))
        self.note.setText(self._notes())

    def _notes(self) -> str:
        """Return the unit of distances, and which layers have no average precision, and why."""
        scored = self.numbers.scored
        units = sorted({one.figures.unit for one in scored})
        told = [f"HD95 and ASD in {', '.join(units)}."] if units else []
        bare = [f"'{one.result.name}'" for one in scored if _lacks_scores(one)]
        if bare:
            told.append(f"No AP for {', '.join(dict.fromkeys(bare))}: the objects have no scores.")
        return " ".join(told)

    def _fill(self) -> None:
        titles = self._columns()
        table = self.table
        table.setSortingEnabled(False)
        table.setColumnCount(2 + len(titles))
        table.setHorizontalHeaderLabels(
            ["Image", "Part", *(SHORT.get(k, titles[k]) for k in titles)]
        )
        for column, title in enumerate(titles.values(), 2):
            table.horizontalHeaderItem(column).setToolTip(title)
        table.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            name, part = QTableWidgetItem(row.image), QTableWidgetItem(row.part)
            if row.plane is not None:
                part = _Number(row.plane, row.part)
            name.setData(ROW_ROLE, index)
            name.setToolTip(row.image)
            table.setItem(index, 0, name)
            table.setItem(index, 1, part)
            for column, key in enumerate(titles, 2):
                value = row.figures.get(key, float("nan"))
                item = _Number(value, _text(value, key))
                if key in AP_KEYS and not np.isfinite(value):
                    item.setToolTip(NO_SCORES if _lacks_scores(row.scored) else NO_OBJECTS)
                table.setItem(index, column, item)
        table.setSortingEnabled(True)
        table.resizeColumnsToContents()
        table.setColumnWidth(0, min(table.columnWidth(0), NAME_WIDTH))
        table.setColumnHidden(1, all(row.part == "all" for row in self._rows))

    def _columns(self) -> dict[str, str]:
        """Return the figures that are defined anywhere, with their titles; objects' first."""
        known = {**TITLES, **EXTRA}
        if any(one.scheme.kind != "semantic" for one in self.numbers.scored):
            known = {key: known[key] for key in (*OBJECT_KEYS, *known)}
        return {
            key: title
            for key, title in known.items()
            if any(np.isfinite(row.figures.get(key, float("nan"))) for row in self._rows)
        }

    def _on_cell(self, row: int, column: int) -> None:
        index = self.table.item(row, 0).data(ROW_ROLE)
        self._trying(lambda: self.numbers.go_to(self._rows[index]))()

    def text(self) -> str:
        """Return the table as it is shown, with tabs between the cells."""
        columns = range(self.table.columnCount())
        lines = [[self.table.horizontalHeaderItem(c).text() for c in columns]]
        for row in range(self.table.rowCount()):
            lines.append([self.table.item(row, c).text() for c in columns])
        return "\n".join("\t".join(line) for line in lines)

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.text())

    def _save(self) -> None:
        kinds = "Table (*.csv);;JSON (*.json)"
        chosen, kind = QFileDialog.getSaveFileName(self, "Save the figures", "figures.csv", kinds)
        if chosen:
            path = Path(chosen)
            if not path.suffix:
                path = path.with_suffix(".json" if "json" in kind else ".csv")
            try:
                self.numbers.write(path)
            except OSError as error:
                raise UserError(f"'{path}' cannot be written ({error}).") from error


def _lacks_scores(scored: Scored) -> bool:
    return scored.scheme.kind == "instances" and scored.figures.detections is None


def _text(value: float, key: str) -> str:
    if not np.isfinite(value):
        return "" if key in EXTRA else "undefined"  # which are counted for whole images only
    if key in ("objects", "true objects"):
        return f"{value:.0f}"
    return f"{value:.1%}" if key == "area" else f"{value:.3f}"
