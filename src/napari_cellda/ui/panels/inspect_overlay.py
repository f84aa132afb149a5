"""The tab Overlay: where a result is right and wrong, error by error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QWidget,
)

from napari_cellda.core.compare import OVERLAY_VALUES, PIXEL_NAMES
from napari_cellda.core.compare.matching import STATES
from napari_cellda.core.inspect.comparison import Comparing
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_corrections import (
    error_to_point,
    error_to_strokes,
    save_points,
    suggested_class,
)
from napari_cellda.ui.overlays import OverlayView, may_go_through
from napari_cellda.ui.panels.inspect_legend import Legend
from napari_cellda.ui.panels.inspect_tabs import PairTab, WorkBar, button
from napari_cellda.ui.panels.parts import check_box, choices, row_of

if TYPE_CHECKING:
    from napari_cellda.core.inspect.comparison import PlaneComparison
    from napari_cellda.ui.panels.inspect_pair import LayerPair
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session

KINDS = (
    ("pixels", "pixels", "True and false, positive and negative, pixel by pixel"),
    ("objects", "objects", "Matched, missed, spurious, split and merged objects"),
    ("boundaries", "boundaries", "Outlines or membranes, give or take a distance"),
)
NEXT_KEY, PREVIOUS_KEY = "N", "Shift-N"
HINT = "Click into the overlay to see what is there."


class OverlayTab(PairTab):
    """What to compare and how, the legend, the errors and what becomes of them."""

    def __init__(self, session: Session, pair: LayerPair, trying: Trying) -> None:
        super().__init__(session, pair, trying)
        self.view = OverlayView(session, self)
        self._points: Any = None
        self.build()

    # -- widgets --------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self._make_settings()
        self._make_errors()

    def _make_settings(self) -> None:
        self.kind = choices(KINDS)
        self.threshold = _spin(0.5, 0.01, 0.99, 0.05, "A map is foreground above it")
        self.tolerance = _spin(2.0, 0.0, 50.0, 1.0, "Boundaries this far apart are one, in pixels")
        self.classes = check_box(
            "Labels are classes",
            "So the wrong class is an error; else every number is an object",
            on=False,
        )
        self.membranes = check_box(
            "The foreground is the boundary",
            "For maps of membranes; else objects' outlines are compared",
            on=False,
        )
        self.through = check_box(
            "Objects go through the planes",
            "Match the whole stack's objects; else each plane has its own",
            on=True,
        )
        self.iou = QSlider(Qt.Orientation.Horizontal)
        self.iou.setRange(0, 95)
        self.iou.setValue(50)
        self.iou.setToolTip("Objects match above this intersection over union")
        self.iou_label = QLabel()
        self.show_button = QPushButton("Show right and wrong")
        self.hide_button = QPushButton("Remove")
        self.matching = QLabel("Matching objects through the planes\u2026")
        self.bar = WorkBar(self.view.matching, self.matching)
        self.legend = Legend()
        self.figures = QLabel()
        self.figures.setWordWrap(True)

    def _make_errors(self) -> None:
        self.previous = button("\u2190", f"The error before (key {PREVIOUS_KEY} over the image)")
        self.next = button("", f"The worst comes first (key {NEXT_KEY} over the image)")
        self.told = QLabel(HINT)
        self.told.setWordWrap(True)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.right_class = QComboBox()
        self.right_class.setToolTip("The class that is right where the error is")
        tip = "Paint the error's inside with this class; Ctrl-Z takes it back"
        self.to_strokes = button("Error to strokes", tip)
        self.to_point = button("to point", "Put a point on it, for training from points")
        tip = "As CSV with the columns row and col, for adapt --points"
        self.save_points = button("Save points\u2026", tip)
        self.save_points.hide()

    def _lay_out(self) -> None:
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("By", self.kind)
        self._form.addRow("Threshold", self.threshold)
        self._form.addRow("Tolerance", self.tolerance)
        for box in (self.classes, self.membranes, self.through):
            self._form.addRow(box)
        self.body.addLayout(self._form)
        self.body.addLayout(row_of(self.show_button, self.hide_button, stretch=1))
        self.body.addWidget(self.bar)
        self._iou_row = QWidget()
        row = QHBoxLayout(self._iou_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.iou_label)
        row.addWidget(self.iou, 1)
        self.body.addWidget(self._iou_row)
        self.body.addWidget(self.legend)
        self.body.addWidget(self.figures)
        self.body.addLayout(row_of(self.previous, self.next, stretch=(0, 1)))
        self.body.addWidget(self.told)
        self.body.addLayout(row_of(self.right_class, self.to_strokes, self.to_point, stretch=1))
        self.body.addWidget(self.save_points)
        self.body.addStretch(1)

    def _connect(self) -> None:
        self.kind.currentIndexChanged.connect(self._on_setting)
        for spin in (self.threshold, self.tolerance):
            spin.valueChanged.connect(self._on_setting)
        for box in (self.classes, self.membranes, self.through):
            box.toggled.connect(self._on_setting)
        self.iou.valueChanged.connect(self._on_iou)
        self.show_button.clicked.connect(self._trying(self.compare))
        self.hide_button.clicked.connect(self._trying(self._remove))
        self.next.clicked.connect(self._trying(lambda: self.view.step(1)))
        self.previous.clicked.connect(self._trying(lambda: self.view.step(-1)))
        self.to_strokes.clicked.connect(self._trying(self._to_strokes))
        self.to_point.clicked.connect(self._trying(self._to_point))
        self.save_points.clicked.connect(self._trying(self._ask_points))
        self._pair.changed.connect(self._on_pair)
        self.view.compared.connect(self._refresh)
        self.view.matching.changed.connect(self._refresh)
        self.view.clicked.connect(self.told.setText)
        self.view.stepped.connect(self._on_stepped)
        connect_while_alive(self, self._session.classes_changed, self._show_classes)
        self._show_classes()
        self._refresh_settings()

    # -- what the user does ---------------------------------------------------------------------

    def settings(self) -> Comparing:
        """Return what the widgets say."""
        return Comparing(
            kind=self.kind.currentData(),
            threshold=self.threshold.value(),
            iou=self.iou.value() / 100,
            tolerance=self.tolerance.value(),
            classes=self.classes.isChecked(),
            membranes=self.membranes.isChecked(),
            ignore=self._pair.ignore,
        )

    def compare(self) -> None:
        """Show the overlay of the two layers that are chosen."""
        through = self.through.isChecked()
        self.view.compare(*self._pair.layers, self.settings(), through=through)
        self.told.setText(HINT)
        self._refresh()

    def _remove(self) -> None:
        self.view.close()
        self.told.setText(HINT)
        self._refresh()

    def _on_setting(self, *_: Any) -> None:
        self._refresh_settings()
        if self.view.result is not None:
            self._trying(self.compare)()

    def _on_pair(self) -> None:
        if self._pair.holds_classes:
            self.classes.setChecked(True)
        self._on_setting()

    def _on_iou(self, value: int) -> None:
        self.iou_label.setText(f"IoU > {value / 100:.2f}")
        self.view.set_iou(value / 100)

    def _to_strokes(self) -> None:
        n = error_to_strokes(self._session, self.view, self.right_class.currentIndex())
        name = self.right_class.currentText()
        self.told.setText(f"Painted {n} pixels as {name}; Ctrl-Z takes them back.")

    def _to_point(self) -> None:
        layer = self._points = error_to_point(self._session, self.view)
        self.told.setText(f"The layer '{layer.name}' has {len(layer.data)} point(s) now.")
        self.save_points.show()

    def _ask_points(self) -> None:
        title, kinds = "Save the points", "Table (*.csv)"
        chosen, _ = QFileDialog.getSaveFileName(self, title, "points.csv", kinds)
        if chosen:
            save_points(self._session, self.view, self._points, Path(chosen))

    # -- what is shown --------------------------------------------------------------------------

    def _show_classes(self) -> None:
        chosen = max(self.right_class.currentIndex(), 0)
        self.right_class.clear()
        self.right_class.addItems(self._session.classes.names)
        self.right_class.setCurrentIndex(min(chosen, self.right_class.count() - 1))

    def _refresh_settings(self) -> None:
        kind, layers = self.kind.currentData(), self._pair.chosen
        self._iou_row.setVisible(kind == "objects")
        self._form.setRowVisible(self.tolerance, kind == "boundaries")
        self._form.setRowVisible(self.membranes, kind == "boundaries")
        may = None not in layers and may_go_through(layers, self.settings())
        self._form.setRowVisible(self.through, may)

    def _refresh(self) -> None:
        self.iou_label.setText(f"IoU > {self.iou.value() / 100:.2f}")
        comparison = self.view.comparison
        self.bar.setVisible(self.view.matching.running)
        self.hide_button.setEnabled(self.view.result is not None)
        for widget in (self.next, self.previous, self.to_strokes, self.to_point, self.right_class):
            widget.setEnabled(comparison is not None)
        self.legend.show_counts({} if comparison is None else self._counts(comparison))
        self.figures.setText("" if comparison is None else self._figures(comparison))
        n = len(self.view.errors)
        self.next.setText(f"Next error  {NEXT_KEY}" + (f"   ({n})" if comparison else ""))

    def _counts(self, comparison: PlaneComparison) -> dict[str, str]:
        found = self.view.matches
        if found is not None:
            return {state: f"{found.count(state)} objects" for state in STATES}
        pixels = np.bincount(comparison.overlay(0).ravel(), minlength=len(OVERLAY_VALUES))
        names = list(PIXEL_NAMES if comparison.settings.classes else PIXEL_NAMES[:3])
        if comparison.ignore is not None:
            names = [*dict.fromkeys([*names, "ignored"])]
        else:
            names = [name for name in names if name != "ignored"]
        return {name: f"{int(pixels[OVERLAY_VALUES[name]]):,} px" for name in names}

    def _figures(self, comparison: PlaneComparison) -> str:
        scores = comparison.counts.scores
        text = f"Foreground of this plane: IoU {scores.iou:.3f}, Dice {scores.dice:.3f}, "
        text += f"precision {scores.precision:.3f}, recall {scores.recall:.3f}."
        found, objects = self.view.matches, comparison.objects
        if found is not None and objects is not None:
            where = "of the whole stack" if objects.is_stack else "of this plane"
            text += f" Objects {where}: F1 {found.f1:.3f}, precision {found.precision:.3f}, "
            text += f"recall {found.recall:.3f}."
        return text

    def _on_stepped(self, index: int) -> None:
        error = self.view.error
        assert error is not None
        assert self.view.comparison is not None
        unit = "px" if error.plane is None else f"voxels, plane {error.plane}"
        place = f"{index + 1} of {len(self.view.errors)}: {error.name}, {error.pixels} {unit}"
        best = f", best IoU {error.iou:.2f}" if error.iou else ""
        self.told.setText(f"{place}{best}.")
        right = suggested_class(self.view.comparison, error)
        self.right_class.setCurrentIndex(min(right, self.right_class.count() - 1))


def _spin(value: float, low: float, high: float, step: float, tip: str) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setRange(low, high)
    spin.setSingleStep(step)
    spin.setValue(value)
    spin.setToolTip(tip)
    spin.setKeyboardTracking(False)
    return spin
