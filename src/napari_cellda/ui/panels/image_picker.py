"""Choose an image layer, what its axes are, and which channels count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QMenu, QPushButton, QSizePolicy, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.ui.axes import AXIS_NAMES, ImageChoice, axes_choices, default_channels
from napari_cellda.ui.images import default_choice, image_layers

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

NO_IMAGE = "no image yet"


class ImagePicker(QWidget):
    """The top of the panel.

    Signals
    -------
    chosen(object)
        The user's `ImageChoice`, or None when there is no image.
    """

    chosen = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._choices: dict[int, ImageChoice] = {}
        self.layers = _wide(QComboBox())
        self.layers.setToolTip("The image to paint on")
        self.axes = _wide(QComboBox())
        self.axes.setToolTip("What the axes of this layer are, as napari counts them")
        self.channels = QPushButton()
        self.channels.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.channels.setToolTip("Which channels the forest sees")
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("Image", self.layers)
        self._form.addRow("Axes", self.axes)
        self._form.addRow("Channels", self.channels)
        self.layers.activated.connect(self._on_layer)
        self.axes.activated.connect(self._on_axes)
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Bring the lists in line with the viewer and the session."""
        if self._session.viewer is None:
            return
        layers = image_layers(self._session.viewer)
        current = self._session.current
        self.layers.clear()
        for layer in layers:
            self.layers.addItem(layer.name, layer)
        self.layers.setEnabled(bool(layers))
        if not layers:
            self.layers.addItem(NO_IMAGE, None)
        elif current is not None and current.layer in layers:
            self.layers.setCurrentIndex(layers.index(current.layer))
        self._show_details(current.choice if current is not None else None)

    def offer(self, layer: Any) -> None:
        """Choose a layer as if the user had, with its likeliest axes, or those chosen before."""
        known = self._choices.get(id(layer))
        if known is None or known.layer is not layer:
            known = default_choice(layer)
        self._emit(known)

    def _emit(self, choice: ImageChoice) -> None:
        self._choices[id(choice.layer)] = choice
        self.chosen.emit(choice)

    def _on_layer(self, index: int) -> None:
        layer = self.layers.itemData(index)
        if layer is not None:
            try:
                self.offer(layer)
            except UserError as error:
                self._session.report(error)

    def _on_axes(self, index: int) -> None:
        current = self._session.current
        if current is not None:
            axes = self.axes.itemData(index)
            self._emit(ImageChoice(current.layer, axes, default_channels(current.layer, axes)))

    def _show_details(self, choice: ImageChoice | None) -> None:
        choices = axes_choices(choice.layer) if choice is not None else ()
        self.axes.clear()
        for axes in choices:
            self.axes.addItem(", ".join(AXIS_NAMES[axis] for axis in axes), axes)
        if choice is not None:
            self.axes.setCurrentIndex(self.axes.findData(choice.axes))
        self._form.setRowVisible(self.axes, len(choices) > 1)
        self._show_channels(choice)

    def _show_channels(self, choice: ImageChoice | None) -> None:
        names = self._channel_names(choice) if choice is not None else []
        self._form.setRowVisible(self.channels, len(names) > 1)
        if choice is None or len(names) < 2:
            return
        menu = QMenu(self.channels)
        picked = _picked(choice, len(names))
        if choice.layer.rgb:
            action = menu.addAction("Brightness only (grey)")
            action.setCheckable(True)
            action.setChecked(choice.channels == "grey")
            action.triggered.connect(lambda: self._pick("grey"))
        for index, name in enumerate(names):
            action = menu.addAction(name)
            action.setCheckable(True)
            action.setChecked(index in picked)
            action.triggered.connect(lambda on, i=index: self._toggle(i, on))
        self.channels.setMenu(menu)
        shown = [names[i] for i in picked]
        text = "brightness" if choice.channels == "grey" and choice.layer.rgb else ", ".join(shown)
        self.channels.setText(text if len(text) < 34 else f"{len(shown)} of {len(names)}")

    def _channel_names(self, choice: ImageChoice) -> list[str]:
        layer, axes = choice.layer, choice.axes
        if layer.rgb:
            return ["red", "green", "blue"]
        if "c" in axes:
            shape = layer.data[0].shape if layer.multiscale else layer.data.shape
            return [f"channel {i}" for i in range(shape[axes.index("c")])]
        return [layer.name, *(other.name for other in self._fellows(choice))]

    def _fellows(self, choice: ImageChoice) -> list[Any]:
        """Return the layers that could be further channels: others of the same shape."""
        layer = choice.layer
        if layer.multiscale:
            return []
        return [
            other
            for other in image_layers(self._session.viewer)
            if other is not layer
            and not other.rgb
            and not other.multiscale
            and tuple(other.data.shape) == tuple(layer.data.shape)
        ]

    def _pick(self, channels: str) -> None:
        current = self._session.current
        if current is not None:
            choice = current.choice
            self._emit(ImageChoice(choice.layer, choice.axes, channels, choice.others))

    def _toggle(self, index: int, on: bool) -> None:
        current = self._session.current
        if current is None:
            return
        choice = current.choice
        names = self._channel_names(choice)
        picked = set(_picked(choice, len(names)))
        picked = picked | {index} if on else picked - {index}
        if not picked:
            self._session.report(UserError("At least one channel is needed; choose another first."))
            self.refresh()
            return
        if "c" in choice.axes:
            channels = "all" if len(picked) == len(names) else tuple(sorted(picked))
            self._emit(ImageChoice(choice.layer, choice.axes, channels))
            return
        fellows = self._fellows(choice)
        others = tuple(fellows[i - 1] for i in sorted(picked - {0}))
        self._emit(ImageChoice(choice.layer, choice.axes, "all" if others else "grey", others))


def _picked(choice: ImageChoice, n_names: int) -> tuple[int, ...]:
    """Return the channels in use; where layers are channels, the layer itself is number 0."""
    if "c" not in choice.axes:
        return tuple(range(1 + len(choice.others)))
    if choice.channels == "all":
        return tuple(range(n_names))
    return () if isinstance(choice.channels, str) else tuple(choice.channels)


def _wide(box: QComboBox) -> QComboBox:
    """Let a box take the room there is, and no more, however long its entries are."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box
