"""The diameter of a cell: typed, or measured with a line on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QWidget

from napari_cellda.ui.layers import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.ui.state import Session

LAYER = "Draw a line across a cell"


class Diameter(QWidget):
    """A number of pixels; 0 is not known.

    Parameters
    ----------
    session : Session
    chosen : callable () -> sequence of napari Image layers
        The images whose pixels count; empty if they are in no layer.

    Signals
    -------
    changed
    """

    changed = Signal()

    def __init__(self, session: Session, chosen: Callable[[], Sequence[Any]]) -> None:
        super().__init__()
        self._session, self._chosen = session, chosen
        self._layer: Any = None
        self.pixels = QDoubleSpinBox()
        self.pixels.setRange(0, 10_000)
        self.pixels.setDecimals(1)
        self.pixels.setSuffix(" px")
        self.pixels.setSpecialValueText("not known")
        # Else a narrow panel cuts digits off, and what is left reads as another number.
        self.pixels.setMinimumWidth(self.pixels.sizeHint().width())
        self.pixels.setToolTip("Diameter of a typical cell, in pixels of the image")
        self.measure = QPushButton("Measure")
        self.measure.setToolTip("Draw a line across a cell; of several lines the mean counts")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.pixels, 1)
        row.addWidget(self.measure)
        self.pixels.valueChanged.connect(lambda value: self.changed.emit())
        self.measure.clicked.connect(self._start)

    @property
    def value(self) -> float | None:
        """Pixels; None when not known."""
        return self.pixels.value() or None

    def on(self, layer: Any) -> float | None:
        """Return the diameter in pixels of another layer, which may be binned; None: not known."""
        image = self._image()
        if self.value is None or image is None:
            return self.value
        return float(self.value * image.scale[-1] / layer.scale[-1])

    def _start(self) -> None:
        """Let the user draw lines, on a layer that goes when the panel does."""
        viewer = self._session.viewer
        viewer.dims.ndisplay = 2  # in 3D napari draws no lines
        if self._layer is None or self._layer not in viewer.layers:
            image = self._image()
            settings = (
                {} if image is None else {"scale": image.scale[-2:], "units": image.units[-2:]}
            )
            self._layer = viewer.add_shapes(
                ndim=2,
                name=LAYER,
                edge_color="yellow",
                edge_width=2,
                metadata={TAG: {"role": "diameter"}},
                **settings,
            )
            self._layer.events.data.connect(self._on_lines)
        viewer.layers.selection.active = self._layer
        self._layer.mode = "add_line"

    def _on_lines(self, event: Any = None) -> None:
        lengths = [self._length(line[[0, -1]]) for line in self._layer.data]
        lengths = [length for length in lengths if length > 0]
        if lengths:
            self.pixels.setValue(float(np.mean(lengths)))

    def _length(self, ends: np.ndarray) -> float:
        """Return how many pixels of the image lie between two points of the layer of lines."""
        image = self._image() or self._layer
        start, end = (image.world_to_data(self._layer.data_to_world(point)) for point in ends)
        return float(np.linalg.norm(np.subtract(end, start)[-2:]))

    def _image(self) -> Any:
        """Return the image whose pixels count: of the chosen ones, or else of all, the one seen."""
        from napari_cellda.ui.images import image_layers

        images, chosen = image_layers(self._session.viewer), self._chosen()
        images = [layer for layer in images if layer in chosen] or images
        return next((layer for layer in images if layer.visible), next(iter(images), None))
