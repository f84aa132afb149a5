"""How large the objects are here and in the enhancer's training; the zoom that makes them match."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QHBoxLayout, QPushButton, QWidget

ZOOM_LIMITS = (0.1, 10.0)


class ObjectSize(QWidget):
    """A diameter in pixels with a button that measures it, and the switch that uses it.

    Signals
    -------
    zoom_changed(float)
        The zoom for the enhancer; 1.0 while the switch is off.
    measure_wanted
        The button was pressed: answer with `set_diameter`.
    """

    zoom_changed = Signal(float)
    measure_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._trained: float | None = None
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(1, 10000)
        self.diameter.setDecimals(0)
        self.diameter.setSuffix(" px")
        self.diameter.setValue(20)
        self.diameter.setToolTip("Typical diameter of the objects in this image, in pixels")
        self.measure = QPushButton("Measure")
        self.measure.setToolTip("Measure it on the forest's map of this class")
        self.switch = QCheckBox()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.diameter)
        row.addWidget(self.measure)
        row.addStretch(1)
        self.measure.clicked.connect(self.measure_wanted)
        self.diameter.valueChanged.connect(self._update)
        self.switch.toggled.connect(self._update)
        self.set_trained(None)

    @property
    def zoom(self) -> float:
        """Zoom that brings the objects here to the size in training; 1.0 while switched off."""
        if not self.switch.isChecked() or self._trained is None:
            return 1.0
        low, high = ZOOM_LIMITS
        return min(max(self._trained / self.diameter.value(), low), high)

    def set_trained(self, diameter: float | None) -> None:
        """Take over the diameter in training; None when the package does not tell."""
        self._trained = diameter
        self.switch.setEnabled(diameter is not None)
        if diameter is None:
            self.switch.setChecked(False)
            self.switch.setText("Rescale to the training size")
            self.switch.setToolTip("The package does not tell the object size it was trained on")
        else:
            self.switch.setText(f"Rescale to the training size ({diameter:.0f} px)")
            self.switch.setToolTip(
                "Zoom the forest's map before the network and the result back, so that the objects "
                "get the size that the network was trained on"
            )

    def set_diameter(self, diameter: float) -> None:
        """Enter a measured diameter."""
        self.diameter.setValue(round(diameter))

    def _update(self) -> None:
        self.zoom_changed.emit(self.zoom)
