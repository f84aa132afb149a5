"""The panel Batch: many files through one model, with progress, cancel and a list of failures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note
from napari_cellda.ui.batching import BatchJob, BatchProgress, run_job
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.panel_states import PanelStates
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.parts import check_box, choices, form_in, names
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.projects import ENDING, SessionProject
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import TaskHandle, run_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_cellda.core.batch import BatchReport
    from napari_cellda.core.events import Event

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
        self.task: TaskHandle | None = None
        self._images: list[Path] = []
        self._source = ""
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
        self.folder = QLineEdit(str(Path.home() / "cellda"))
        self.folder.setToolTip("Made if it is not there")
        self.browse = QPushButton("Choose\u2026")
        self.processes = QSpinBox()
        self.processes.setRange(0, 64)
        self.processes.setSpecialValueText("as many as pay")
        self.processes.setToolTip("Each takes one image at a time; 1 works inside napari")
        self.again = check_box(
            "Do again what is done", "Else only images without results are done", on=False
        )
        self.message = Banner()
        self.failures = QListWidget()
        self.failures.setToolTip("Images without results, and why")
        self.failures.setWordWrap(True)
        self.failures.setMaximumHeight(140)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.overall, self.single = QProgressBar(), QProgressBar()
        self.overall.setFormat("%v of %m images")
        self.single.setFormat("this image: %p %")
        self.start, self.cancel = QPushButton("Run"), QPushButton("Cancel")
        self.open_folder = QPushButton("Open the folder")
        for widget in (self.failures, self.open_folder):
            widget.hide()

    def _lay_out(self) -> None:
        what, model, where = Section("Images"), Section("Model"), Section("Results")
        row = QHBoxLayout()
        row.addWidget(self.add_folder)
        row.addWidget(self.add_files)
        what.body.addLayout(row)
        what.body.addWidget(self.images_label)
        model.body.addWidget(self.model)
        model.body.addWidget(self.model_label)
        form = form_in(where)
        form.addRow(self.instances)
        form.addRow("Format", self.file_format)
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.browse)
        form.addRow("Folder", row)
        form.addRow("Processes", self.processes)
        form.addRow(self.again)
        scrolling = Scrolling()
        for section in (what, model, where):
            scrolling.body.addWidget(section)
        scrolling.body.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(scrolling, 1)
        layout.addLayout(self._make_foot())

    def _make_foot(self) -> QVBoxLayout:
        """Lay out what is always in sight: the buttons, how far it is, what failed."""
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)
        foot = QVBoxLayout()
        foot.setContentsMargins(10, 4, 10, 6)
        foot.setSpacing(6)
        for widget in (
            self.message,
            self.failures,
            self.open_folder,
            self.status,
            self.overall,
            self.single,
        ):
            foot.addWidget(widget)
        foot.addLayout(buttons)
        return foot

    def _connect(self) -> None:
        self.add_folder.clicked.connect(lambda: self._choose_folder_of_images())
        self.add_files.clicked.connect(lambda: self._choose_images())
        self.model.activated.connect(self._on_model)
        self.browse.clicked.connect(lambda: self._choose_output())
        self.start.clicked.connect(lambda: self.run())
        self.cancel.clicked.connect(lambda: self.stop())
        self.open_folder.clicked.connect(
            lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._output())))
        )
        for signal in (self.session.classifier_changed, self.session.enhancer_changed):
            connect_while_alive(self, signal, self._refresh)
        self.destroyed.connect(lambda: self._abandon())

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
        if not self.folder.text().strip():
            raise UserError("No folder is given; choose where the files shall go.")
        model: Any = self._source
        if self.model.currentData() == SESSION:
            self.session.require_classifier()
            project = SessionProject.of(self.session)
            model = project.freeze(objects=self.instances.isChecked())
        elif not model:
            raise UserError("No model is chosen; choose one from the list.")
        return BatchJob(
            model,
            self._images,
            self._output(),
            self.instances.isChecked(),
            self.file_format.currentData(),
            BatchOptions(workers=self.processes.value() or None, overwrite=self.again.isChecked()),
        )

    def _output(self) -> Path:
        return Path(self.folder.text().strip()).expanduser()

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

    def run(self) -> None:
        """Begin; the window stays usable."""
        self.message.clear()
        self.failures.clear()
        self.failures.hide()
        self.open_folder.hide()
        try:
            job = self.job()
        except UserError as error:
            self.message.tell(str(error), "error")
            return
        self._progress = BatchProgress()
        self._show_progress()
        self.task = run_task(
            lambda stop: run_job(job, stop),
            session=self.session,
            title="batch",
            on_event=self._on_event,
            on_result=self._on_result,
            on_error=lambda error: self.message.tell(str(error) or repr(error), "error"),
            on_finished=self._on_finished,
        )
        self._refresh()

    def stop(self) -> None:
        """Cancel; images that are done stay, the one in work is not written."""
        if self.task is not None:
            self.task.stop()
            self.status.setText("Stopping\u2026")

    def _abandon(self) -> None:
        """End the work of a panel that was closed: nobody could cancel it any more."""
        if self.task is not None:
            self.task.abandon()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Note):
            if event.text.startswith("Skipped "):
                self.failures.addItem(event.text.removeprefix("Skipped "))
                self.failures.show()
            return
        self._progress.take(event)
        self._show_progress()

    def _show_progress(self) -> None:
        progress = self._progress
        if self.task is None or not self.task.stopping:
            self.status.setText(progress.title or "Getting ready\u2026")
        self.overall.setRange(0, progress.total)
        self.overall.setValue(progress.done)
        self.single.setRange(0, progress.steps)
        self.single.setValue(progress.step)

    def _on_result(self, report: BatchReport) -> None:
        stopped = self.task is not None and self.task.stopping
        self.failures.clear()
        for failure in report.failures:
            self.failures.addItem(f"{failure.path.name}: {failure.sentence}")
        self.failures.setVisible(bool(report.failures))
        parts = [f"{len(report.done)} done"]
        parts += [f"{len(report.kept)} were done before"] if report.kept else []
        parts += [f"{len(report.failures)} failed"] if report.failures else []
        told = f"{'Cancelled: ' if stopped else ''}{', '.join(parts)}, in {self._output()}."
        self.message.tell(told, "warning" if stopped or report.failures else "success")
        self.open_folder.setVisible(bool(report.done or report.kept))

    def _on_finished(self) -> None:
        self.task = None
        self._refresh()

    # -- widgets --------------------------------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        running = self.task is not None
        self.images_label.setText(self._describe_images())
        self.model_label.setText(self._describe_model())
        self.start.setEnabled(not running)
        self.cancel.setEnabled(running)
        for widget in (self.status, self.overall, self.single):
            widget.setVisible(running)

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

    def _choose_output(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for the files", self.folder.text())
        if chosen:
            self.folder.setText(chosen)
