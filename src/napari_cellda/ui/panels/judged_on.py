"""What a run is judged on: an image of the viewer, another run beside it, a truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import safe_stem, stem
from napari_cellda.core.runs.commands import ENHANCER
from napari_cellda.ui.axes import image_name
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.layers import TAG, labels_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.images import Image
    from napari_cellda.core.runs.table import RunLine
    from napari_cellda.ui.axes import ImageChoice
    from napari_cellda.ui.state import Session


class JudgedOn(QWidget):
    """Three lists; those of layers follow the viewer and keep what is chosen."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.image = QComboBox()
        self.image.setToolTip("The image to look at; all its planes are computed")
        self.other = QComboBox()
        self.other.setToolTip("Another run to compare with, e.g. one trained on the source alone")
        self.truth = QComboBox()
        self.truth.setToolTip(
            "A mask of this image, for scores; 0 is background, the numbers are classes or objects "
            "as the run gives them"
        )
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for title, box in (("On", self.image), ("Beside", self.other), ("Truth", self.truth)):
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(10)
            form.addRow(title, box)
        # Later, since several layers come and go at once.
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self.fill)
        layers = session.viewer.layers.events
        for signal in (layers.inserted, layers.removed, layers.renamed):
            connect_while_alive(self, signal, self._later)
        self.show_runs([])
        self.fill()

    def _later(self, event: Any = None) -> None:
        self._timer.start()

    def fill(self) -> None:
        """List the images and masks that are there, keeping the choice where it still is."""
        from napari_cellda.ui.images import image_layers

        viewer = self._session.viewer
        if self._session.is_closed or viewer is None:
            return
        masks = [layer for layer in viewer.layers if _may_be_truth(layer)]
        _refill(self.image, [(layer.name, layer) for layer in image_layers(viewer)])
        _refill(self.truth, [("none", None), *((layer.name, layer) for layer in masks)])

    def propose(self, run: Path) -> None:
        """Choose an image that a run was made for, unless one of them is chosen already."""
        layers = [self.image.itemData(number) for number in range(self.image.count())]
        own = [layers.index(layer) for layer in _images_of(run, layers)]
        if own and self.image.currentIndex() not in own:
            self.image.setCurrentIndex(own[0])

    def show_runs(self, lines: Sequence[RunLine]) -> None:
        """List other runs that can be looked at, keeping the choice where it still is."""
        chosen = self.other.currentData()
        kept = chosen.folder if chosen is not None else None
        usable = [line for line in lines if line.has_model and line.method != ENHANCER]
        self.other.clear()
        self.other.addItem("no other run", None)
        for line in usable:
            bound = f" ({line.bound})" if line.bound else ""
            self.other.addItem(f"{line.name}{bound}", line)
            if line.folder == kept:
                self.other.setCurrentIndex(self.other.count() - 1)

    def read(self, *, grey: bool) -> tuple[ImageChoice, Image]:
        """Return the image that is chosen, with all its channels, and how it is read.

        Parameters
        ----------
        grey : bool
            Whether one channel is wanted: then what may be channels or planes is taken as planes.

        Raises
        ------
        UserError
            If none is chosen, or its axes cannot be told.
        """
        from napari_cellda.ui.axes import ImageChoice, default_channels, read_layer

        layer = self.image.currentData()
        if layer is None or layer not in self._session.viewer.layers:
            raise UserError("No image is chosen; open one in this viewer.")
        axes = self._axes(layer, grey)
        choice = ImageChoice(layer, axes, default_channels(layer, axes))
        return choice, read_layer(choice)

    def _axes(self, layer: Any, grey: bool) -> str:
        """Return the axes that the user has chosen for a layer elsewhere, or the likeliest."""
        from napari_cellda.ui.axes import CHOSEN_AXES, axes_choices, axes_of

        painted = any(one.layer is layer for one in self._session.images)
        if not grey or painted or CHOSEN_AXES in layer.metadata:
            return axes_of(layer)
        flat = (axes for axes in axes_choices(layer) if "c" not in axes)
        return next(flat, axes_of(layer))

    def read_truth(self, choice: ImageChoice, image: Image) -> Image | None:
        """Return the truth that is chosen for what `read` returned; None when there is none.

        Raises
        ------
        UserError
            If it has another shape.
        """
        from napari_cellda.core.images import image_from_array

        layer = self.truth.currentData()
        if layer is None or layer not in self._session.viewer.layers:
            return None
        data = labels_on(choice, layer)
        if tuple(data.shape) != image.label_shape:
            raise UserError(
                f"The mask '{layer.name}' has shape {tuple(data.shape)}, but '{image.name}' "
                f"needs {image.label_shape}."
            )
        return image_from_array(
            data, image.label_axes, name=layer.name, pixel_size=image.pixel_size, unit=image.unit
        )


def _images_of(run: Path, layers: Sequence[Any]) -> list[Any]:
    """Return those layers that are a run's target images: by their files, else by their names."""
    from napari_cellda.core.jobs import Run

    try:
        files = find_originals(Run(run).input_path("target_images"))
    except (UserError, OSError):  # moved since, or not there to be read
        return []
    return layers_of(files, layers)


def layers_of(files: Sequence[Path], layers: Sequence[Any]) -> list[Any]:
    """Return those layers that show one of some files, or are called like one."""
    names, places = {stem(file) for file in files}, {file.resolve() for file in files}
    opened = [layer for layer in layers if layer.source.path]
    return (
        [layer for layer in opened if Path(layer.source.path).resolve() in places]
        or [layer for layer in layers if safe_stem(layer.name) in names]
        or [layer for layer in opened if image_name(layer) in names]
    )


def _may_be_truth(layer: Any) -> bool:
    """Whether a layer is a mask, and no picture of a run or of a comparison."""
    role = str((layer.metadata.get(TAG) or {}).get("role"))
    return layer._type_string == "labels" and not role.startswith(("preview:", "compare:"))


def _refill(box: QComboBox, entries: Sequence[tuple[str, Any]]) -> None:
    """Replace the entries of a list; what was chosen stays so by what it stands for."""
    chosen = box.currentData()
    box.clear()
    for number, (name, layer) in enumerate(entries):
        box.addItem(name, layer)
        if layer is not None and layer is chosen:
            box.setCurrentIndex(number)
