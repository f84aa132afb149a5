"""The tab Next: where to paint next, and how far to trust what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_guide import Guide
from napari_cellda.ui.inspect_trust import Trust
from napari_cellda.ui.keys import STACK_KEY
from napari_cellda.ui.panels.inspect_lights import Lights
from napari_cellda.ui.panels.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.state import Session


class NextTab(QWidget):
    """The list of places to paint, and the traffic lights.

    Parameters
    ----------
    session : Session
    pair : LayerPair
        Two maps whose disagreement may speak for a place.
    trying : callable
        Wraps an action so that its error is shown in the panel.
    """

    def __init__(
        self, session: Session, pair: LayerPair, trying: Callable[[Callable[[], Any]], Any]
    ) -> None:
        super().__init__()
        self._session, self._pair, self._trying = session, pair, trying
        self.guide = Guide.of(session)
        self.trust = Trust(session, self)
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._refresh()

    def _make_widgets(self) -> None:
        self.contradiction = QCheckBox("the enhancer contradicts the forest")
        self.contradiction.setToolTip("Enhances every plane that is searched: slower")
        self.discrepancy = QCheckBox("the two maps above disagree")
        self.search = QPushButton("Look for places")
        self.search.setToolTip("In planes spread over the whole stack, in the background")
        self.next = QPushButton(f"Next place  {STACK_KEY.replace('Shift-', '⇧')}")
        self.next.setToolTip(f"Skips what is painted by now (key {STACK_KEY} over the image)")
        self.list = QListWidget()
        self.list.setFixedHeight(190)
        self.list.setToolTip("Click to go there")
        self.check = QPushButton("Check the enhanced map")
        self.check.setToolTip("On what is in view")
        self.check_network = QPushButton("a run or model\u2026")
        self.check_network.setToolTip("Whether its network agrees with itself on what is in view")
        self.subject = QLabel("Checks that need no truth. They catch much, but not everything.")
        self.subject.setWordWrap(True)
        self.lights = Lights()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 8, 4, 4)
        paint = Section("Where to paint next")
        paint.body.addWidget(QLabel("Where the forest is unsure, and also where"))
        paint.body.addWidget(self.contradiction)
        paint.body.addWidget(self.discrepancy)
        row = QHBoxLayout()
        row.addWidget(self.search)
        row.addWidget(self.next)
        paint.body.addLayout(row)
        paint.body.addWidget(self.list)
        trust = Section("Can it be trusted?")
        trust.body.addWidget(self.subject)
        row = QHBoxLayout()
        row.addWidget(self.check)
        row.addWidget(self.check_network)
        trust.body.addLayout(row)
        trust.body.addWidget(self.lights)
        layout.addWidget(paint)
        layout.addWidget(trust)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.search.clicked.connect(self._trying(self._search))
        self.next.clicked.connect(self._trying(self.guide.next))
        self.list.currentRowChanged.connect(self._on_row)
        self.check.clicked.connect(self._trying(self.trust.check_enhancer))
        self.check_network.clicked.connect(self._trying(self._ask_network))
        self.trust.changed.connect(self._show_trust)
        connect_while_alive(self, self.guide.changed, self._refresh)
        for signal in (self._session.enhancer_changed, self._session.classifier_changed):
            connect_while_alive(self, signal, self._refresh)

    def _search(self) -> None:
        self.guide.contradiction = self.contradiction.isChecked()
        self.guide.layers = self._pair.layers if self.discrepancy.isChecked() else None
        self.guide.search()

    def _ask_network(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "The folder of a run or a model package")
        if chosen:
            self.trust.check_network(Path(chosen))

    def _on_row(self, row: int) -> None:
        if 0 <= row < len(self.guide.places) and row != self.guide.index:
            self._trying(lambda: self.guide.visit(row))()

    def _refresh(self) -> None:
        guide = self.guide
        self.search.setEnabled(self._session.classifier is not None and not guide.searching)
        self.next.setEnabled(self._session.classifier is not None)
        self.contradiction.setEnabled(self._session.enhancer is not None)
        self.search.setText("Looking\u2026" if guide.searching else "Look for places")
        self.list.blockSignals(True)
        self.list.clear()
        deep = len({(place.t, place.z) for place in guide.places}) > 1
        for number, place in enumerate(guide.places, 1):
            where = f"plane {place.z}, " if deep else ""
            item = QListWidgetItem(f"{number}.  {where}row {place.y}, column {place.x}")
            item.setToolTip(place.reason[0].upper() + place.reason[1:])
            self.list.addItem(item)
        self.list.setCurrentRow(guide.index)
        self.list.blockSignals(False)

    def _show_trust(self) -> None:
        running = self.trust.running
        for button in (self.check, self.check_network):
            button.setEnabled(not running)
        self.subject.setText(
            f"Checking {self.trust.subject}\u2026" if running else f"{self.trust.subject}:"
        )
        if not running:
            self.lights.show_verdicts(self.trust.verdicts)
