"""The tab Discrepancy: where two maps disagree, now or over a run's steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QLabel, QListWidget

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_heatmap import Heatmap, run_pictures
from napari_cellda.ui.panels.inspect_tabs import PairTab, WorkBar, button
from napari_cellda.ui.panels.section import Section

if TYPE_CHECKING:
    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session

ITSELF = "(it is a discrepancy itself)"


class HeatmapTab(PairTab):
    """Two layers or a run, the heatmap, its curve and its most disputed regions."""

    def __init__(self, session: Session, pair: LayerPair, trying: Trying) -> None:
        super().__init__(session, pair, trying)
        self.heatmap = Heatmap(session, self)
        self.folder: Path | None = None
        self.build()

    def _make_widgets(self) -> None:
        tip = "|result - against|, from 0 (black) to 1 (bright)"
        self.show_button = button("Show the discrepancy", tip)
        tip = "The folder of a training with pictures of its way"
        self.choose_run = button("Choose a run\u2026", tip)
        self.run_label = QLabel("A training's pictures show how two networks came to agree.")
        self.run_label.setWordWrap(True)
        self.first, self.second = QComboBox(), QComboBox()
        self.show_run = button("Show over its steps")
        self.curve: Any = None
        self.find = button("Find the most disputed regions")
        self.bar = WorkBar(self.heatmap, self.find)
        self.list = QListWidget()
        self.list.setToolTip("Click to go there")
        self.list.setFixedHeight(150)
        self.boxes = button("Add them as boxes to annotate")

    def _lay_out(self) -> None:
        self.body.addWidget(self.show_button)
        self.run_section = Section("Over the steps of a run", folded=True)
        run = self.run_section.body
        run.addWidget(self.run_label)
        run.addWidget(self.choose_run)
        form = QFormLayout()
        form.addRow("Map", self.first)
        form.addRow("Against", self.second)
        run.addLayout(form)
        run.addWidget(self.show_run)
        for widget in (self.run_section, self.bar, self.list, self.boxes):
            self.body.addWidget(widget)
        self.body.addStretch(1)

    def _connect(self) -> None:
        heatmap = self.heatmap
        self.show_button.clicked.connect(
            self._trying(lambda: heatmap.show_pair(*self._pair.layers))
        )
        self.choose_run.clicked.connect(self._trying(self._ask_run))
        self.show_run.clicked.connect(self._trying(self._show_run))
        self.find.clicked.connect(self._trying(heatmap.find_disputed))
        self.boxes.clicked.connect(self._trying(heatmap.add_boxes))
        self.list.currentRowChanged.connect(self._on_row)
        heatmap.changed.connect(self._refresh)
        connect_while_alive(self, self._session.viewer.dims.events.current_step, self._on_moved)

    # -- runs -----------------------------------------------------------------------------------

    def _ask_run(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "The folder of a run")
        if chosen:
            self.open_run(Path(chosen))

    def open_run(self, folder: Path) -> None:
        """List the pictures of a run.

        Raises
        ------
        UserError
            If there is no run in the folder, or it kept none.
        """
        names = run_pictures(folder)
        self.folder = folder
        self.run_label.setText(f"{folder.name}: {len(names)} kind(s) of pictures.")
        own = [name for name in names if "discrepancy" in name.lower()]
        self.first.clear()
        self.first.addItems(own + [name for name in names if name not in own])
        self.second.clear()
        self.second.addItems([ITSELF, *names])
        if not own:
            self.second.setCurrentIndex(min(2, self.second.count() - 1))
        self.run_section.open()
        self._refresh()

    def _show_run(self) -> None:
        assert self.folder is not None
        names = [self.first.currentText()]
        if self.second.currentIndex() > 0:
            names.append(self.second.currentText())
        self.heatmap.show_run(self.folder, names)

    def _show_curve(self) -> None:
        if self.curve is None:
            from napari_cellda.ui.panels.inspect_curve import Curve

            self.curve = Curve()
            self.curve.picked.connect(self.heatmap.show_step)
            self.run_section.body.addWidget(self.curve)
        self.curve.draw(self.heatmap.steps, self.heatmap.means)
        self._on_moved()

    def _on_moved(self, event: Any = None) -> None:
        if self.curve is not None and self.heatmap.layer is not None and self.heatmap.steps:
            self.curve.mark(self.heatmap.step)

    # -- disputed regions -----------------------------------------------------------------------

    def _on_row(self, row: int) -> None:
        if 0 <= row < len(self.heatmap.places):
            self._trying(lambda: self.heatmap.visit(row))()

    def _refresh(self) -> None:
        heatmap = self.heatmap
        if heatmap.steps:
            self._show_curve()
        self.show_run.setEnabled(self.folder is not None)
        self.find.setEnabled(heatmap.layer is not None and not heatmap.running)
        self.boxes.setEnabled(bool(heatmap.places))
        lines = [
            f"{place.score:.2f}   plane {place.z}, row {place.y}, column {place.x}"
            if heatmap.layer is not None and heatmap.layer.ndim > 2
            else f"{place.score:.2f}   row {place.y}, column {place.x}"
            for place in heatmap.places
        ]
        if lines != [self.list.item(i).text() for i in range(self.list.count())]:
            self.list.blockSignals(True)
            self.list.clear()
            self.list.addItems(lines)
            self.list.blockSignals(False)
