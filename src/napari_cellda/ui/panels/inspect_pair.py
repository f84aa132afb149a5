"""Choose the two layers that are held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QSizePolicy, QSpinBox, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_layers import comparable_layers, is_probable_map
from napari_cellda.ui.layers import TAG

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session


NOTHING = -2
"""Stands for "no number is ignored"; -1 is what some programs ignore."""


class LayerPair(QWidget):
    """Two lists of the viewer's maps, masks and objects, and what of the second does not count.

    Signals
    -------
    changed
        Another layer, or another number to ignore, was chosen by the user.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.result, self.reference = QComboBox(), QComboBox()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for title, box, tip in (
            ("Result", self.result, "A map, a mask or objects: what is judged"),
            ("Against", self.reference, "The truth, or any other map, mask or objects"),
        ):
            box.setToolTip(tip)
            box.setMinimumContentsLength(12)
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.activated.connect(lambda _: self.changed.emit())
            form.addRow(title, box)
        self.ignored = QSpinBox()
        self.ignored.setRange(NOTHING, 2**16)
        self.ignored.setValue(NOTHING)
        self.ignored.setSpecialValueText("nothing")
        self.ignored.setKeyboardTracking(False)
        self.ignored.setToolTip("Number in the truth whose pixels do not count, often 255")
        self.ignored.valueChanged.connect(lambda _: self.changed.emit())
        form.addRow("Ignore", self.ignored)
        # Later, since several layers come and go at once.
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self.refresh)
        layers = session.viewer.layers.events
        for signal in (layers.inserted, layers.removed, layers.renamed):
            connect_while_alive(self, signal, self._later)
        self.refresh()

    @property
    def chosen(self) -> tuple[Any, Any]:
        """The two layers; None where none is chosen."""
        return self.result.currentData(), self.reference.currentData()

    @property
    def layers(self) -> tuple[Any, Any]:
        """The two layers.

        Raises
        ------
        UserError
            If there are not two layers to choose.
        """
        pair = self.chosen
        if pair[0] is None or pair[1] is None or pair[0] is pair[1]:
            raise UserError(
                "Two different layers are needed: a map, a mask or objects, and what to hold it "
                "against."
            )
        return pair

    @property
    def ignore(self) -> int | None:
        """Number in the reference that marks pixels that do not count."""
        value = self.ignored.value()
        return None if value == NOTHING else value

    @property
    def holds_classes(self) -> bool:
        """Whether one of the layers is a mask of classes of ours."""
        chosen = [layer for layer in self.chosen if layer is not None]
        return "mask" in [(layer.metadata.get(TAG) or {}).get("role") for layer in chosen]

    def choose(self, result: Any, reference: Any) -> None:
        """Choose two layers, as a user would, even if they were added a moment ago."""
        self.refresh()
        for box, layer in ((self.result, result), (self.reference, reference)):
            box.setCurrentIndex(_index(box, layer))
        self.changed.emit()

    def refresh(self) -> None:
        """List the layers that are there, keeping the choice where it still is."""
        if self._session.is_closed or self._session.viewer is None:
            return
        layers = comparable_layers(self._session)
        for box, default in ((self.result, 0), (self.reference, 1)):
            chosen = box.currentData()
            box.clear()
            for layer in layers:
                box.addItem(layer.name, layer)
            index = _index(box, chosen)
            box.setCurrentIndex(index if index >= 0 else _likely(layers, default))

    def _later(self, event: Any = None) -> None:
        self._timer.start()


def _index(box: QComboBox, layer: Any) -> int:
    """Return the row of a layer; Qt's own search would compare layers as values."""
    return next((i for i in range(box.count()) if box.itemData(i) is layer), -1)


def _likely(layers: list[Any], number: int) -> int:
    """Guess the first and the second layer: masks and maps before plain images."""
    from napari.layers import Labels

    likely = [i for i, layer in enumerate(layers) if isinstance(layer, Labels)]
    likely += [i for i, layer in enumerate(layers) if i not in likely and is_probable_map(layer)]
    return likely[number] if number < len(likely) else -1
