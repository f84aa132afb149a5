"""Did it help? A run's model on an image of the viewer, beside what there was without it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.runs.commands import ENHANCER
from napari_cellda.core.runs.folder import has_model
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.compare_layers import NEXT_KEY, CompareLayers
from napari_cellda.ui.judging import (
    apply_run,
    compare_models,
    figures_text,
    insist_on_folder,
    makes_objects,
    other_name,
    own_name,
    run_card,
    show_applied,
    takes_grey,
)
from napari_cellda.ui.panel_words import error_words
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.judged_on import JudgedOn
from napari_cellda.ui.panels.parts import check_box, row_of
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.events import Stop
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.pipeline import Pipeline
    from napari_cellda.core.runs.apply import Applied
    from napari_cellda.core.runs.table import RunLine
    from napari_cellda.core.runs.verdict import MapFigures
    from napari_cellda.ui.axes import ImageChoice
    from napari_cellda.ui.judging import Comparison
    from napari_cellda.ui.runs import RunWatch
    from napari_cellda.ui.state import Session


class Verdict(QWidget):
    """Hidden until it is given a run with a model, see `show_run`.

    Signals
    -------
    discarded
        The user has deleted the run.
    """

    discarded = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.run: RunWatch | None = None
        self.layers: CompareLayers | None = None
        self.figures: list[MapFigures] = []
        self._card: ModelCard | None = None
        self.work = BackgroundWork(session, self)
        self._make_widgets()
        self._lay_out()
        self.work.changed.connect(self._show_state)
        self.work.progressed.connect(self._show_progress)
        self.work.noted.connect(lambda text: self.message.tell(text, "warning"))
        self.work.failed.connect(lambda text: self.message.tell(text, "error"))
        self.compare.clicked.connect(lambda: self.compare_maps())
        self.apart.toggled.connect(self._on_apart)
        self.stop.clicked.connect(lambda: self._ask_to_stop())
        self.layer.clicked.connect(lambda: self.apply_to_layer())
        self.folder.clicked.connect(lambda: self._choose_folder())
        self.keep.clicked.connect(lambda: self._keep())
        self.discard.clicked.connect(lambda: self._discard())
        self._show_state()
        self.hide()

    def _make_widgets(self) -> None:
        self.title = QLabel("<b>Did it help?</b>")
        self.on = JudgedOn(self.session)
        self.image, self.other, self.truth = self.on.image, self.on.other, self.on.truth
        self.compare = QPushButton("Compare")
        self.compare.setToolTip(f"Show the maps; {NEXT_KEY} goes from one to the next")
        self.apart = QCheckBox("Side by side")
        self.table = QLabel()
        self.table.setWordWrap(True)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.progress = QProgressBar()
        self.stop = QPushButton("Stop")
        self.stop.setToolTip("End the work; no layer is added and no file of the image in work")
        self.message = Banner()
        self.use = QLabel("<b>Apply it</b>")
        self.instances = check_box(
            "Objects, one number each", "Else the classes of the pixels, 0 = background", on=False
        )
        self.layer = QPushButton("Apply to this layer")
        self.layer.setToolTip(
            "Add a Labels layer for the image chosen above, with all its planes and time points; "
            "its maps come along, hidden"
        )
        self.folder = QPushButton("Apply to a folder\u2026")
        self.folder.setToolTip("Write maps and masks of all images of a folder")
        self.keep = QPushButton("Keep")
        self.keep.setToolTip("Tell where the model is")
        self.discard = QPushButton("Discard\u2026")
        self.discard.setToolTip("Delete the run, with its model")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(self.title)
        layout.addWidget(self.on)
        layout.addLayout(row_of(self.compare, self.apart))
        layout.addWidget(self.table)
        layout.addWidget(self.use)
        layout.addWidget(self.instances)
        layout.addLayout(row_of(self.layer, self.folder, stretch=1))
        layout.addWidget(self.status)
        layout.addLayout(row_of(self.progress, self.stop, stretch=(1, 0)))
        layout.addWidget(self.message)
        layout.addLayout(row_of(self.keep, self.discard))

    # -- which run ------------------------------------------------------------------------------

    def show_run(self, run: RunWatch | None) -> None:
        """Show it when the run has ended with a model to judge; else hide."""
        ready = run is not None and not run.alive and _has_model(run.folder)
        if run is not None and ready and (run is not self.run or self.isHidden()):
            self.run = run
            self.figures = []
            self.table.clear()
            self.message.clear()
            self._card = run_card(run.folder)
            self.instances.setChecked(makes_objects(self._card))
            self.on.fill()
            self.on.propose(run.folder)
            self.list_runs()
            self.show()
        elif not ready:
            self.run = None
            self.hide()
        if run is None and self.layers is not None:
            self.layers.clear()

    def list_runs(self) -> None:
        """List the other runs that there are, a moment later."""
        if self.run is None:
            return
        folder = self.run.folder

        def read(stop: Stop) -> list[RunLine]:
            from napari_cellda.core.runs.table import list_runs

            return list_runs(folder.parent)

        def show(lines: list[RunLine]) -> None:
            if self.run is not None and self.run.folder == folder:
                self.on.show_runs([line for line in lines if line.folder.resolve() != folder])

        run_task(read, session=self.session, owner=self, title="list runs", on_result=show)

    # -- work beside the window -----------------------------------------------------------------

    def _begin(self, title: str, task: Callable[[Stop], Any], take: Callable[[Any], None]) -> None:
        """Run a task with progress and a stop."""
        self.message.clear()
        self.status.setText("Getting ready\u2026")
        self.progress.setRange(0, 0)
        self.work.begin(task, title, take)

    def _show_state(self) -> None:
        """Show progress in the place of what begins other work, so that nothing moves."""
        working = self.work.running
        for widget in (self.status, self.progress, self.stop):
            widget.setVisible(working)
        for widget in (self.use, self.instances, self.layer, self.folder):
            widget.setVisible(not working)
        self.stop.setEnabled(working)
        for button in (self.compare, self.discard):
            button.setEnabled(not working)

    def _show_progress(self, done: int, total: int) -> None:
        if self.stop.isEnabled():
            self.status.setText(f"{self.work.stage}\u2026")
        self.progress.setRange(0, total)
        self.progress.setValue(done)

    def _ask_to_stop(self) -> None:
        self.work.stop()
        self.stop.setEnabled(False)
        self.status.setText("Stopping\u2026")

    # -- comparing ------------------------------------------------------------------------------

    def compare_maps(self) -> None:
        """Show what the session, another run and this one make of the image."""
        if self.run is None or self.work.running:
            return
        try:
            insist_on_folder(self.run.folder)
            choice, image = self.on.read(grey=takes_grey(self._card))
            truth = self.on.read_truth(choice, image)
        except UserError as error:
            self.complain(error)
            return
        if self.layers is not None:
            self.layers.clear()
        self.layers = CompareLayers(self.session, choice)
        self.figures = []
        self.table.clear()
        pipeline, name = self._session_pipeline(), own_name(self.run.name)
        line = self.other.currentData()
        others = [] if line is None else [(other_name(line, name), line.folder)]
        models, trusted = [*others, (name, self.run.folder)], self.session.trusted
        self._begin(
            "compare",
            lambda stop: compare_models(pipeline, models, image, truth, frozenset(trusted), stop),
            partial(self._on_compared, self.run),
        )

    def _session_pipeline(self) -> Pipeline | None:
        from napari_cellda.ui.exporting import session_pipeline

        return session_pipeline(self.session) if self.session.classifier is not None else None

    def _on_compared(self, run: RunWatch, found: Comparison) -> None:
        if run is not self.run:
            return  # another one is looked at by now
        self.figures = found.figures
        self.table.setText(figures_text(self.figures))
        if self.layers is not None and found.pictures:
            self.layers.show(found.pictures)
            self.layers.set_apart(self.apart.isChecked())

    def _on_apart(self, on: bool) -> None:
        if self.layers is not None:
            self.layers.set_apart(on)

    # -- applying -------------------------------------------------------------------------------

    def apply_to_layer(self) -> None:
        """Add what the run shows of the whole image as a Labels layer."""
        if self.run is None or self.work.running:
            return
        try:
            insist_on_folder(self.run.folder)
            choice, image = self.on.read(grey=takes_grey(self._card))
        except UserError as error:
            self.complain(error)
            return
        name, folder = self.run.name, self.run.folder
        objects, trusted = self.instances.isChecked(), self.session.trusted
        self._begin(
            "apply to layer",
            lambda stop: apply_run(folder, image, frozenset(trusted), objects, stop),
            partial(self._on_applied, choice, name),
        )

    def _on_applied(
        self, choice: ImageChoice, run: str, found: tuple[Applied, list[str]] | None
    ) -> None:
        if found is None:
            self.message.tell("Stopped; no layer was added.", "warning")
        elif choice.layer not in self.session.viewer.layers:
            told = f"'{choice.layer.name}' is not in the viewer any more; no layer was added."
            self.message.tell(told, "warning")
        else:
            layer = show_applied(self.session, choice, run, *found)
            table = found[0].table
            what = "classes" if table is None else f"objects, {len(table['label'])} in all"
            self.message.tell(f"The new layer '{layer.name}' shows the {what}.", "success")

    def _choose_folder(self) -> None:
        source = QFileDialog.getExistingDirectory(self, "The folder of images")
        target = source and QFileDialog.getExistingDirectory(self, "The folder for the results")
        if source and target:
            self.apply(Path(source), Path(target))

    def apply(self, images: Path, target: Path) -> None:
        """Write maps and masks of all images of a folder."""
        if self.run is None or self.work.running:
            return
        model, instances = str(self.run.folder), self.instances.isChecked()
        trusted = self.session.trusted

        def work(stop: Stop) -> Any:
            from napari_cellda.core.batch import BatchOptions, insist, predict_batch

            insist_on_folder(Path(model))
            options = BatchOptions(trusted=tuple(trusted))
            return insist(
                predict_batch(
                    model, [images], target, instances=instances, options=options, stop=stop
                )
            )

        self._begin(
            "apply to folder",
            work,
            lambda report: self.message.tell(
                f"Wrote {len(report.written)} files to {target}.", "success"
            ),
        )

    # -- keeping and discarding -----------------------------------------------------------------

    def _keep(self) -> None:
        if self.run is None:
            return
        try:
            insist_on_folder(self.run.folder)
        except UserError as error:
            self.complain(error)
            return
        self.message.tell(
            f"Kept: {self.run.folder / 'model'} is a bioimage.io package, and the panel Runs "
            "lists the run.",
            "success",
        )

    def _discard(self) -> None:
        if self.run is None:
            return
        question = f"Delete {self.run.name}, with its checkpoints, pictures and model?"
        if QMessageBox.question(self, "Discard", question) == QMessageBox.StandardButton.Yes:
            self.discard_run()

    def discard_run(self) -> None:
        """Delete the run without asking."""
        from napari_cellda.core.runs.table import delete_run
        from napari_cellda.ui.runs import SessionRuns

        run = self.run
        if run is None:
            return

        def forget(_: None) -> None:
            SessionRuns.of(self.session).forget(run.folder)
            if self.run is run:
                self.show_run(None)
            self.discarded.emit()

        self.message.clear()
        self.setEnabled(False)
        run_task(
            lambda stop: delete_run(run.folder),
            session=self.session,
            owner=self,
            title="delete run",
            on_result=forget,
            on_error=self.complain,
            on_finished=lambda: self.setEnabled(True),
        )

    def complain(self, error: Exception) -> None:
        """Say what went wrong."""
        self.message.tell(error_words(error), "error")


def _has_model(folder: Path) -> bool:
    """Whether there is a model that takes images; an enhancer takes maps."""
    from napari_cellda.core.jobs import Run

    try:
        return has_model(folder) and Run(folder).record.method != ENHANCER
    except UserError:  # it is told where the run is followed
        return False
