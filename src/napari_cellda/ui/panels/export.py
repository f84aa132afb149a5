"""The panel Export: what, in which format, to which folder; with progress and cancel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QProgressBar, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.exporting import export_images, session_pipeline, show_objects
from napari_cellda.ui.panel_states import PanelStates
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.object_settings import ObjectSettings
from napari_cellda.ui.panels.parts import ResultsFolder, check_box, choices, form_in, names
from napari_cellda.ui.panels.scrolling import fill_panel
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.task_foot import TaskFoot
from napari_cellda.ui.state import Session

if TYPE_CHECKING:
    import napari

    from napari_cellda.core.events import Event
    from napari_cellda.core.export.image import ExportChoice, Exported
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.ui.exporting import OpenSource
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.worker import TaskHandle

T = TypeVar("T")

FORMATS = (
    ("imagej", "TIFF (ImageJ)", "Opens everywhere; the pixel size is kept"),
    ("ome-tiff", "OME-TIFF", "TIFF with OME metadata"),
    ("png", "PNG", "Single planes; masks and objects only, without pixel size"),
    ("ome-zarr", "OME-Zarr", "A multiscale group per result, for large images"),
    ("ome-zarr-image", "OME-Zarr with the image", "One group: the image and its labels"),
)
BOXES = ("mask", "instances", "table", "probabilities", "add_layer")
SCOPES = ("This image", "All images in the list", "Files on disk\u2026")


class ExportPanel(QWidget):
    """Write masks, objects and probabilities of whole images to files.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Export")
        self._output = Path()
        self._files: list[Path] = []
        self._exported_from: list[PaintedImage] = []
        self._make_widgets()
        self._lay_out()
        self._connect()
        PanelStates.of(self.session).join(self, "export", self.state, self.restore)
        self._refresh()

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self.scope = QComboBox()
        self.scope.addItems(SCOPES)
        self.scope.setToolTip("Every plane and time point is exported, not only what is visible")
        self.files_label = QLabel()
        self.files_label.setWordWrap(True)
        self.source_label = QLabel()
        self.source_label.setWordWrap(True)
        self.mask = check_box("Mask", "Class of every pixel, 0 = background", on=True)
        self.instances = check_box("Objects", "One number per object", on=True)
        self.table = check_box("Table of objects", "CSV: label, class, area, place, score", on=True)
        self.probabilities = check_box("Probabilities", "One channel per class", on=False)
        self.objects = ObjectSettings(self.session)
        self.method, self.min_size = self.objects.method, self.objects.min_size
        self.add_layer = check_box(
            "Show the objects as a layer", "With the table as features", on=True
        )
        self.file_format = choices(FORMATS)
        self.results = ResultsFolder("Made if it is not there; files of the same name are replaced")
        self.folder = self.results.field
        self.progress = QProgressBar()
        self.foot = TaskFoot(self.session, "Export", [self.progress], lambda: self._output)
        self.start, self.cancel = self.foot.start, self.foot.cancel
        self.message, self.status = self.foot.message, self.foot.status
        self.open_folder = self.foot.open_folder

    def _lay_out(self) -> None:
        what, where = Section("What"), Section("Where")
        form = form_in(what)
        form.addRow("Images", self.scope)
        form.addRow(self.files_label)
        form.addRow("From", self.source_label)
        for box in (self.mask, self.probabilities, self.instances, self.table):
            form.addRow(box)
        self.objects_section = Section("Objects")
        self.objects_section.body.addWidget(self.objects)
        self.objects_section.body.addWidget(self.add_layer)
        form = form_in(where)
        form.addRow("Format", self.file_format)
        form.addRow("Folder", self.results)
        fill_panel(self, (what, self.objects_section, where), self.foot)

    def _connect(self) -> None:
        self.scope.activated.connect(self._on_scope)
        self.instances.toggled.connect(self._refresh)
        self.table.toggled.connect(self._refresh)
        self.file_format.currentIndexChanged.connect(self._refresh)
        self.start.clicked.connect(lambda: self.export())
        for signal in ("image_changed", "classifier_changed", "enhancer_changed"):
            connect_while_alive(self, getattr(self.session, signal), self._refresh)

    # -- what is chosen -------------------------------------------------------------------------

    def choice(self) -> ExportChoice:
        """Return what the widgets say."""
        from napari_cellda.core.export.image import ExportChoice

        folder = self.results.path()
        self._check_method()
        return ExportChoice(
            folder=folder,
            mask=self.mask.isChecked(),
            instances=self.instances.isChecked(),
            probabilities=self.probabilities.isChecked() and self.probabilities.isEnabled(),
            table=self.table.isChecked(),
            file_format=self.file_format.currentData(),
            instance_params=self.objects.value(),
        )

    def _check_method(self) -> None:
        """Refuse at once what would fail after all maps are computed."""
        enhancer = self.session.enhancer
        has_boundary = enhancer is not None and enhancer.card.n_outputs > 1
        if (
            self.method.isEnabled()
            and self.method.currentData() == "watershed"
            and not has_boundary
        ):
            raise UserError(
                "Separating by watershed needs an enhancer that gives a boundary map; choose "
                "automatic or distance."
            )

    def _sources(self) -> list[OpenSource]:
        """Return what opens the images to export, to be called in the background."""
        self._exported_from = []
        if self.scope.currentIndex() == 2:
            channels = self.session.require_classifier().channels
            return [partial(_open_file, path, channels) for path in self._files]
        current = self.session.require_current()
        self._exported_from = [current] if self.scope.currentIndex() == 0 else self.session.images
        self._exported_from = list(self._exported_from)
        return [partial(_same, (p.image, p.norm)) for p in self._exported_from]

    def state(self) -> dict[str, Any]:
        """Return what a project keeps of this panel."""
        boxes = {name: getattr(self, name).isChecked() for name in BOXES}
        return {
            "folder": self.folder.text(),
            "format": self.file_format.currentData(),
            **boxes,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a project back."""
        self.folder.setText(str(state["folder"]))
        self.file_format.setCurrentIndex(max(0, self.file_format.findData(state["format"])))
        for name in BOXES:
            getattr(self, name).setChecked(bool(state[name]))

    # -- running --------------------------------------------------------------------------------

    @property
    def task(self) -> TaskHandle | None:
        """The work that runs."""
        return self.foot.task

    def export(self) -> None:
        """Begin; the window stays usable."""
        self.foot.clear()
        try:
            pipeline = session_pipeline(self.session)
            sources, choice = self._sources(), self.choice()
            if choice.instances:
                self.session.set_instance_params(choice.instance_params)
        except UserError as error:
            self.foot.fail(error)
            return
        self._output = choice.folder
        self.foot.run(
            lambda stop: export_images(pipeline, sources, choice, stop),
            on_event=self._on_event,
            on_result=self._on_result,
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.status.setText(event.title)
            self.progress.setRange(0, event.total or 0)
            self.progress.setValue(0)
        elif isinstance(event, Step):
            self.progress.setValue(event.index)
        elif isinstance(event, Note):
            self.message.tell(event.text, "warning")

    def _on_result(self, done: list[Exported]) -> None:
        stopped = self.foot.stopping
        paths = [path for exported in done for path in exported.paths]
        if self.add_layer.isChecked():
            for painted in self._exported_from:
                for exported in done:
                    if exported.image is painted.image and painted in self.session.images:
                        show_objects(self.session, painted, exported)
                        self.objects.show_preview.setChecked(False)
        told = "Cancelled. " if stopped else ""
        told += _written(paths) if paths else "Nothing was written."
        self.message.tell(told, "warning" if stopped or not paths else "success")
        self.open_folder.setVisible(bool(paths))

    # -- widgets --------------------------------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        enhancer = self.session.enhancer
        name = enhancer.card.name if enhancer else None
        self.source_label.setText(f"forest and {name}" if name else "the forest's map")
        has_objects = self.instances.isChecked() or self.table.isChecked()
        self.objects.setEnabled(has_objects)
        self.add_layer.setEnabled(has_objects)
        self.probabilities.setEnabled(self.file_format.currentData() != "png")
        self.files_label.setVisible(self.scope.currentIndex() == 2)

    def _on_scope(self, index: int) -> None:
        if index == 2:
            title, kinds = "Images to export", "Images (*.tif *.tiff *.png *.jpg *.jpeg);;All (*)"
            names, _ = QFileDialog.getOpenFileNames(self, title, "", kinds)
            self.set_files([Path(name) for name in names])
        self._refresh()

    def set_files(self, files: list[Path]) -> None:
        """Export files on disk instead of images in the viewer; none returns to this image."""
        self._files = files
        self.scope.setCurrentIndex(2 if files else 0)
        self.files_label.setText(names(files))
        self._refresh()


def _open_file(path: Path, channels: Channels) -> tuple[Image, None]:
    from napari_cellda.core.images import open_image

    return open_image(path, channels=channels), None


def _same(value: T) -> T:
    return value


def _written(paths: list[Path]) -> str:
    return f"Wrote {names(paths)} to {paths[0].parent}."
