"""The tab Discrepancy: where two maps disagree, now or over a run's steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_heatmap import Heatmap, run_pictures
from napari_cellda.ui.panels.inspect_curve import make_curve
from napari_cellda.ui.panels.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.state import Session

ITSELF = "(it is a discrepancy itself)"


class HeatmapTab(QWidget):
    """Two layers or a run, the heatmap, its curve and its most disputed regions.

    Parameters
    ----------
    session : Session
    pair : LayerPair
        The two layers.
    trying : callable
        Wraps an action so that its error is shown in the panel.
    """

    def __init__(
        self, session: Session, pair: LayerPair, trying: Callable[[Callable[[], Any]], Any]
    ) -> None:
        super().__init__()
        self._session, self._pair, self._trying = session, pair, trying
        self.heatmap = Heatmap(session, self)
        self.folder: Path | None = None
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._refresh()

    def _make_widgets(self) -> None:
        self.show_button = QPushButton("Show the discrepancy")
        self.show_button.setToolTip("|result - against|, from 0 (black) to 1 (bright)")
        self.choose_run = QPushButton("Choose a run\u2026")
        self.choose_run.setToolTip("The folder of a training with pictures of its way")
        self.run_label = QLabel("A training's pictures show how two networks came to agree.")
        self.run_label.setWordWrap(True)
        self.first, self.second = QComboBox(), QComboBox()
        self.show_run = QPushButton("Show over its steps")
        self.curve: Any = None
        self.find = QPushButton("Find the most disputed regions")
        self.cancel = QPushButton("Stop")
        self.progress = QProgressBar()
        self.progress.setFixedHeight(6)
        self.progress.setTextVisible(False)
        self.list = QListWidget()
        self.list.setToolTip("Click to go there")
        self.list.setFixedHeight(150)
        self.boxes = QPushButton("Add them as boxes to annotate")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 8, 4, 4)
        layout.setSpacing(8)
        layout.addWidget(self.show_button)
        self.run_section = Section("Over the steps of a run", folded=True)
        body = self.run_section.body
        body.addWidget(self.run_label)
        body.addWidget(self.choose_run)
        form = QFormLayout()
        form.addRow("Map", self.first)
        form.addRow("Against", self.second)
        body.addLayout(form)
        body.addWidget(self.show_run)
        layout.addWidget(self.run_section)
        row = QHBoxLayout()
        row.addWidget(self.find, 1)
        row.addWidget(self.cancel)
        layout.addLayout(row)
        layout.addWidget(self.progress)
        layout.addWidget(self.list)
        layout.addWidget(self.boxes)
        layout.addStretch(1)

    def _connect(self) -> None:
        heatmap = self.heatmap
        self.show_button.clicked.connect(
            self._trying(lambda: heatmap.show_pair(*self._pair.layers))
        )
        self.choose_run.clicked.connect(self._trying(self._ask_run))
        self.show_run.clicked.connect(self._trying(self._show_run))
        self.find.clicked.connect(self._trying(self._find))
        self.cancel.clicked.connect(heatmap.stop)
        self.boxes.clicked.connect(self._trying(heatmap.add_boxes))
        self.list.currentRowChanged.connect(self._on_row)
        heatmap.changed.connect(self._refresh)
        heatmap.progressed.connect(self._on_progress)
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
        if self.curve is None:
            self.curve = make_curve()
            self.curve.picked.connect(self.heatmap.show_step)
            self.run_section.body.addWidget(self.curve)
        self.curve.draw(self.heatmap.steps, self.heatmap.means)
        self._on_moved()

    def _on_moved(self, event: Any = None) -> None:
        if self.curve is not None and self.heatmap.layer is not None and self.heatmap.steps:
            self.curve.mark(self.heatmap.step)

    # -- disputed regions -----------------------------------------------------------------------

    def _find(self) -> None:
        self.heatmap.find_disputed()
        self._refresh()

    def _on_progress(self, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)

    def _on_row(self, row: int) -> None:
        if 0 <= row < len(self.heatmap.places):
            self._trying(lambda: self.heatmap.visit(row))()

    def _refresh(self) -> None:
        heatmap = self.heatmap
        running = heatmap.running
        self.show_run.setEnabled(self.folder is not None)
        self.find.setEnabled(heatmap.layer is not None and not running)
        self.cancel.setEnabled(running)
        self.progress.setVisible(running)
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
