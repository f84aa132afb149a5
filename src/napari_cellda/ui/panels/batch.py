"""The panel Batch: many files through one model, with progress, cancel and a list of failures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_cellda.core.batch.files import SKIPPED
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note
from napari_cellda.ui.batching import BatchJob, BatchProgress, run_job
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.model_loading import agreed, ask_consent
from napari_cellda.ui.panel_states import PanelStates
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.parts import ResultsFolder, check_box, choices, form_in, names, row_of
from napari_cellda.ui.panels.scrolling import fill_panel
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.task_foot import TaskFoot
from napari_cellda.ui.projects import ENDING, SessionProject
from napari_cellda.ui.state import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_cellda.core.batch import BatchReport
    from napari_cellda.core.events import Event
    from napari_cellda.ui.worker import TaskHandle

SESSION, PROJECT, RUN, PACKAGE = "session", "project", "run", "package"
MODELS = (
    (SESSION, "This session", "The forest and the enhancer as they are now"),
    (PROJECT, "A project\u2026", "Forest and enhancer of a .cellda file"),
    (RUN, "A run\u2026", "The network that a run has trained"),
    (PACKAGE, "A model package\u2026", "A bioimage.io package that takes images"),
)
FORMATS = (("tif", "TIFF", "One file per result"), ("ome-zarr", "OME-Zarr", "For large images"))
KINDS = "Images (*.tif *.tiff *.png *.jpg *.jpeg);;All files (*)"


class BatchPanel(QWidget):
    """Run one model over a folder of images.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Batch")
        self._images: list[Path] = []
        self._source = ""
        self._output = Path()
        self._progress = BatchProgress()
        self._make_widgets()
        self._lay_out()
        self._connect()
        PanelStates.of(self.session).join(self, "batch", self.state, self.restore)
        self._refresh()

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self.add_folder = QPushButton("Folder\u2026")
        self.add_folder.setToolTip("All images of a folder, not those of folders inside")
        self.add_files = QPushButton("Files\u2026")
        self.images_label = QLabel()
        self.images_label.setWordWrap(True)
        self.model = choices(MODELS)
        self.model_label = QLabel()
        self.model_label.setWordWrap(True)
        self.instances = check_box(
            "Objects and their table",
            "One number per object; a saved project that makes objects makes them anyway",
            on=True,
        )
        self.file_format = choices(FORMATS)
        self.results = ResultsFolder("Made if it is not there")
        self.folder = self.results.field
        self.processes = QSpinBox()
        self.processes.setRange(0, 64)
        self.processes.setSpecialValueText("as many as pay")
        self.processes.setToolTip("Each takes one image at a time; 1 works inside napari")
        self.again = check_box(
            "Do again what is done", "Else only images without results are done", on=False
        )
        self.failures = QListWidget()
        self.failures.setToolTip("Images without results, and why")
        self.failures.setWordWrap(True)
        self.failures.setMaximumHeight(140)
        self.failures.hide()
        self.overall, self.single = QProgressBar(), QProgressBar()
        self.overall.setFormat("%v of %m images")
        self.single.setFormat("this image: %p %")
        bars = (self.overall, self.single)
        self.foot = TaskFoot(self.session, "Run", bars, lambda: self._output, self.failures)
        self.start, self.cancel = self.foot.start, self.foot.cancel
        self.message = self.foot.message

    def _lay_out(self) -> None:
        what, model, where = Section("Images"), Section("Model"), Section("Results")
        what.body.addLayout(row_of(self.add_folder, self.add_files))
        what.body.addWidget(self.images_label)
        model.body.addWidget(self.model)
        model.body.addWidget(self.model_label)
        form = form_in(where)
        form.addRow(self.instances)
        form.addRow("Format", self.file_format)
        form.addRow("Folder", self.results)
        form.addRow("Processes", self.processes)
        form.addRow(self.again)
        fill_panel(self, (what, model, where), self.foot)

    def _connect(self) -> None:
        self.add_folder.clicked.connect(lambda: self._choose_folder_of_images())
        self.add_files.clicked.connect(lambda: self._choose_images())
        self.model.activated.connect(self._on_model)
        self.start.clicked.connect(lambda: self.run())
        for signal in (self.session.classifier_changed, self.session.enhancer_changed):
            connect_while_alive(self, signal, self._refresh)

    # -- what is chosen -------------------------------------------------------------------------

    def set_images(self, paths: Sequence[Path]) -> None:
        """Take files and folders."""
        self._images = list(paths)
        self._refresh()

    def set_model(self, kind: str, source: str = "") -> None:
        """Choose the session, or the path of a project, a run or a package."""
        self.model.setCurrentIndex(self.model.findData(kind))
        self._source = source
        self._refresh()

    def job(self) -> BatchJob:
        """Return what the widgets say.

        Raises
        ------
        UserError
            If something is missing.
        """
        from napari_cellda.core.batch import BatchOptions

        if not self._images:
            raise UserError("No images are chosen; choose a folder or some files.")
        folder = self.results.path()
        model: Any = self._source
        if self.model.currentData() == SESSION:
            self.session.require_classifier()
            project = SessionProject.of(self.session)
            model = project.freeze(objects=self.instances.isChecked())
        elif not model:
            raise UserError("No model is chosen; choose one from the list.")
        options = BatchOptions(
            workers=self.processes.value() or None,
            overwrite=self.again.isChecked(),
            trusted=tuple(self.session.trusted),
        )
        objects, file_format = self.instances.isChecked(), self.file_format.currentData()
        return BatchJob(model, self._images, folder, objects, file_format, options)

    def state(self) -> dict[str, Any]:
        """Return what a project keeps of this panel."""
        return {
            "folder": self.folder.text(),
            "format": self.file_format.currentData(),
            "objects": self.instances.isChecked(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a project back."""
        self.folder.setText(str(state["folder"]))
        self.file_format.setCurrentIndex(max(0, self.file_format.findData(state["format"])))
        self.instances.setChecked(bool(state["objects"]))

    # -- running --------------------------------------------------------------------------------

    @property
    def task(self) -> TaskHandle | None:
        """The work that runs."""
        return self.foot.task

    def run(self) -> None:
        """Begin; the window stays usable."""
        self.foot.clear()
        self.failures.clear()
        self.failures.hide()
        try:
            job = self.job()
        except UserError as error:
            self.foot.fail(error)
            return
        self._output, self._progress = job.output, BatchProgress()
        self._show_progress()
        self.foot.run(
            lambda stop: run_job(job, stop),
            on_event=self._on_event,
            on_result=self._on_result,
            on_error=self._on_error,
        )

    def _on_error(self, error: Exception) -> None:
        if agreed(self.session, error, partial(ask_consent, self)):
            self.run()
        else:
            self.foot.fail(error)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Note):
            if event.text.startswith(SKIPPED):
                self.failures.addItem(event.text.removeprefix(SKIPPED))
                self.failures.show()
            return
        self._progress.take(event)
        self._show_progress()

    def _show_progress(self) -> None:
        progress = self._progress
        if not self.foot.stopping:
            self.foot.status.setText(progress.title or "Getting ready\u2026")
        self.overall.setRange(0, progress.total)
        self.overall.setValue(progress.done)
        self.single.setRange(0, progress.steps)
        self.single.setValue(progress.step)

    def _on_result(self, report: BatchReport) -> None:
        stopped = self.foot.stopping
        self.failures.clear()
        self.failures.addItems([str(failure) for failure in report.failures])
        self.failures.setVisible(bool(report.failures))
        parts = [f"{len(report.done)} done"]
        parts += [f"{len(report.kept)} were done before"] if report.kept else []
        parts += [f"{len(report.failures)} failed"] if report.failures else []
        told = f"{'Cancelled: ' if stopped else ''}{', '.join(parts)}, in {self._output}."
        self.message.tell(told, "warning" if stopped or report.failures else "success")
        self.foot.open_folder.setVisible(bool(report.done or report.kept))

    # -- widgets --------------------------------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        self.images_label.setText(self._describe_images())
        self.model_label.setText(self._describe_model())

    def _describe_images(self) -> str:
        from napari_cellda.core.paths import find_images

        if not self._images:
            return "None chosen yet."
        try:
            found = find_images(self._images)
        except UserError as error:
            return str(error)
        folder = f" in {found[0].parent}" if len({path.parent for path in found}) == 1 else ""
        return f"{len(found)} images{folder}: {names(found, 3)}"

    def _describe_model(self) -> str:
        if self.model.currentData() != SESSION:
            return Path(self._source).name
        session = self.session
        if session.classifier is None:
            return "No forest is trained yet: paint two classes first."
        return f"Forest and {session.enhancer.card.name}" if session.enhancer else "The forest"

    def _on_model(self, index: int) -> None:
        kind = self.model.itemData(index)
        source = ""
        if kind == PROJECT:
            source, _ = QFileDialog.getOpenFileName(self, "A project", "", f"Projects (*{ENDING})")
        elif kind == RUN:
            source = QFileDialog.getExistingDirectory(self, "The folder of a run")
        elif kind == PACKAGE:
            title, kinds = "A model package", "Model packages (*.zip *.yaml *.yml);;All files (*)"
            source, _ = QFileDialog.getOpenFileName(self, title, "", kinds)
        self.set_model(kind if source else SESSION, source)

    def _choose_folder_of_images(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A folder of images")
        if chosen:
            self.set_images([Path(chosen)])

    def _choose_images(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Images", "", KINDS)
        if chosen:
            self.set_images([Path(name) for name in chosen])
