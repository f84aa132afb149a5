"""How objects are separated: method, thresholds, sizes, and what comes of it as a preview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QSpinBox,
    QWidget,
)

from napari_cellda.core.instances import InstanceParams
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.object_preview import ObjectPreview
from napari_cellda.ui.panels.parts import check_box, choices

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

METHODS = (
    (
        "auto",
        "automatic",
        "Watershed with a foreground and a boundary map, multicut with boundaries alone, "
        "distance otherwise",
    ),
    ("watershed", "watershed", "Grow the insides until they meet on the boundary map"),
    ("distance", "distance", "Split where the foreground has a waist"),
    ("multicut", "multicut", "Partition along membranes"),
)
ONLY_FOR = {
    "waist": ("auto", "distance"),
    "boundary_threshold": ("multicut",),
    "beta": ("multicut",),
}
"""Settings that only some methods use."""


class ObjectSettings(QWidget):
    """Edits `session.instance_params` and shows the objects that they give."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.preview = ObjectPreview(session, self)
        self.method = choices(METHODS)
        self.threshold = _number(0.01, 0.99, 0.05)
        self.threshold.setToolTip("Foreground begins above this probability")
        self.waist = _number(0, 50, 0.25)
        self.waist.setToolTip(
            "How much narrower than its ends a waist must be to be cut, in pixels of radius; "
            "more splits less"
        )
        self.boundary_threshold = _number(0.01, 0.99, 0.05)
        self.boundary_threshold.setToolTip("Membranes begin above this probability")
        self.beta = _number(0.01, 0.99, 0.05)
        self.beta.setToolTip("Above 0.5 cuts more, below joins more")
        self.min_size = QSpinBox()
        self.min_size.setRange(0, 1_000_000)
        self.min_size.setSuffix(" px")
        self.min_size.setToolTip("Smaller objects are dropped")
        self.min_size.setKeyboardTracking(False)
        self.remove_border = check_box(
            "Drop objects at the border", "Those that touch the border of the image", on=False
        )
        self.show_preview = check_box(
            "Preview", "Outlines that follow these settings and the maps", on=False
        )
        self.count = QLabel()
        self.count.setWordWrap(True)
        self._lay_out()
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._form.addRow(self.show_preview, self.count)
        self._form.addRow("Separate by", self.method)
        self._form.addRow("Threshold", self.threshold)
        self._form.addRow("Waist", self.waist)
        self._form.addRow("Membranes above", self.boundary_threshold)
        self._form.addRow("Cut or join", self.beta)
        self._form.addRow("At least", self.min_size)
        self._form.addRow(self.remove_border)

    def _connect(self) -> None:
        self.method.currentIndexChanged.connect(self._apply)
        for box in (self.threshold, self.waist, self.boundary_threshold, self.beta, self.min_size):
            box.valueChanged.connect(self._apply)
        self.remove_border.toggled.connect(self._apply)
        self.show_preview.toggled.connect(self.preview.switch)
        self.preview.counted.connect(self.count.setText)
        self.preview.failed.connect(lambda error: self.count.setText(str(error)))
        connect_while_alive(self, self._session.objects_changed, self.refresh)

    def value(self) -> InstanceParams:
        """Return what the widgets say."""
        known = self._session.instance_params or InstanceParams()
        entered = {
            "method": self.method.currentData(),
            "threshold": self.threshold.value(),
            "waist": self.waist.value(),
            "boundary_threshold": self.boundary_threshold.value(),
            "beta": self.beta.value(),
            "min_size": self.min_size.value(),
            "remove_border": self.remove_border.isChecked(),
        }
        return InstanceParams.model_validate({**known.model_dump(), **entered})

    def _apply(self, *_: Any) -> None:
        self._session.set_instance_params(self.value())
        self._show_rows()

    def refresh(self) -> None:
        """Show the session's settings."""
        params = self._session.instance_params or InstanceParams()
        fields: tuple[tuple[Any, Any], ...] = (
            (self.threshold, params.threshold),
            (self.waist, params.waist),
            (self.boundary_threshold, params.boundary_threshold),
            (self.beta, params.beta),
            (self.min_size, params.min_size),
        )
        widgets = [self.method, self.remove_border, *(box for box, _ in fields)]
        for widget in widgets:
            widget.blockSignals(True)
        self.method.setCurrentIndex(self.method.findData(params.method))
        self.remove_border.setChecked(params.remove_border)
        for box, value in fields:
            box.setValue(value)
        for widget in widgets:
            widget.blockSignals(False)
        self._show_rows()

    def _show_rows(self) -> None:
        method = self.method.currentData()
        for name, methods in ONLY_FOR.items():
            self._form.setRowVisible(getattr(self, name), method in methods)


def _number(low: float, high: float, step: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setKeyboardTracking(False)
    return box
