"""The tab Next: where to paint next, and how far to trust what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
)

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_guide import Guide
from napari_cellda.ui.inspect_trust import Trust
from napari_cellda.ui.keys import STACK_KEY
from napari_cellda.ui.panels.inspect_lights import Lights
from napari_cellda.ui.panels.inspect_tabs import PairTab, button
from napari_cellda.ui.panels.parts import check_box, row_of
from napari_cellda.ui.panels.section import Section

if TYPE_CHECKING:
    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session


class NextTab(PairTab):
    """The list of places to paint, and the traffic lights."""

    def __init__(self, session: Session, pair: LayerPair, trying: Trying) -> None:
        super().__init__(session, pair, trying)
        self.guide = Guide.of(session)
        self.trust = Trust(session, self)
        self.build()

    def _make_widgets(self) -> None:
        tip = "Enhances every plane that is searched: slower"
        self.contradiction = check_box("the enhancer contradicts the forest", tip, on=False)
        self.discrepancy = QCheckBox("the two maps above disagree")
        tip = "In planes spread over the whole stack, in the background"
        self.search = button("Look for places", tip)
        tip = f"Skips what is painted by now (key {STACK_KEY} over the image)"
        self.next = button(f"Next place  {STACK_KEY.replace('Shift-', '⇧')}", tip)
        self.list = QListWidget()
        self.list.setFixedHeight(190)
        self.list.setToolTip("Click to go there")
        self.check = button("Check the enhanced map", "On what is in view")
        tip = "Whether its network agrees with itself on what is in view"
        self.check_network = button("a run or model\u2026", tip)
        self.subject = QLabel("Checks that need no truth. They catch much, but not everything.")
        self.subject.setWordWrap(True)
        self.lights = Lights()

    def _lay_out(self) -> None:
        paint = Section("Where to paint next")
        paint.body.addWidget(QLabel("Where the forest is unsure, and also where"))
        paint.body.addWidget(self.contradiction)
        paint.body.addWidget(self.discrepancy)
        paint.body.addLayout(row_of(self.search, self.next, stretch=1))
        paint.body.addWidget(self.list)
        trust = Section("Can it be trusted?")
        trust.body.addWidget(self.subject)
        trust.body.addLayout(row_of(self.check, self.check_network, stretch=1))
        trust.body.addWidget(self.lights)
        self.body.addWidget(paint)
        self.body.addWidget(trust)
        self.body.addStretch(1)

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
        for widget in (self.check, self.check_network):
            widget.setEnabled(not running)
        self.subject.setText(
            f"Checking {self.trust.subject}\u2026" if running else f"{self.trust.subject}:"
        )
        if not running:
            self.lights.show_verdicts(self.trust.verdicts)
