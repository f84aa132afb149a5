"""Did it help? A run's model on an image of the viewer, beside what there was without it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.ui.compare_layers import NEXT_KEY, CompareLayers
from napari_cellda.ui.model_loading import agreed, ask_consent
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.parts import row_of
from napari_cellda.ui.worker import TaskHandle, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np

    from napari_cellda.core.images import Image
    from napari_cellda.core.pipeline import Pipeline
    from napari_cellda.core.runs.table import RunLine
    from napari_cellda.core.runs.verdict import MapFigures
    from napari_cellda.ui.runs import RunWatch
    from napari_cellda.ui.state import Session

ENHANCER = "enhancer train"


class Verdict(QWidget):
    """Hidden until it is given a run with a model, see `show_run`.

    Signals
    -------
    discarded
        The user deletes the run.
    """

    discarded = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.run: RunWatch | None = None
        self.task: TaskHandle | None = None
        self.layers: CompareLayers | None = None
        self.figures: list[MapFigures] = []
        self._stage = Stage("")
        self._make_widgets()
        self._lay_out()
        self.compare.clicked.connect(self._on_compare)
        self.apart.toggled.connect(self._on_apart)
        self.folder.clicked.connect(self._choose_folder)
        self.keep.clicked.connect(self._keep)
        self.discard.clicked.connect(self._discard)
        self.destroyed.connect(lambda: self._abandon())
        self.hide()

    def _make_widgets(self) -> None:
        self.title = QLabel("<b>Did it help?</b>")
        self.image = QComboBox()
        self.image.setToolTip("The image to look at; all its planes are computed")
        self.other = QComboBox()
        self.other.setToolTip("Another run to compare with, e.g. one trained on the source alone")
        self.truth = QComboBox()
        self.truth.setToolTip("A mask of this image, for scores; 0 is background")
        self.compare = QPushButton("Compare")
        self.compare.setToolTip(f"Show the maps; {NEXT_KEY} goes from one to the next")
        self.apart = QCheckBox("Side by side")
        self.table = QLabel()
        self.table.setWordWrap(True)
        self.message = Banner()
        self.folder = QPushButton("Apply to a folder\u2026")
        self.folder.setToolTip("Write maps and masks of all images of a folder")
        self.instances = QCheckBox("with objects")
        self.keep = QPushButton("Keep")
        self.discard = QPushButton("Discard\u2026")
        self.discard.setToolTip("Delete the run, with its model")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(self.title)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for title, box in (("On", self.image), ("Beside", self.other), ("Truth", self.truth)):
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(10)
            form.addRow(title, box)
        layout.addLayout(form)
        layout.addLayout(row_of(self.compare, self.apart))
        layout.addWidget(self.table)
        layout.addWidget(self.message)
        layout.addLayout(row_of(self.folder, self.instances))
        layout.addLayout(row_of(self.keep, self.discard))

    # -- which run ------------------------------------------------------------------------------

    def show_run(self, run: RunWatch | None) -> None:
        """Show it when the run has ended with a model to judge; else hide."""
        ready = run is not None and not run.alive and _has_model(run.folder)
        if ready and (run is not self.run or self.isHidden()):
            self.run = run
            self.figures = []
            self.table.clear()
            self.message.clear()
            self.fill()
            self.show()
        elif not ready:
            self.run = None
            self.hide()

    def fill(self) -> None:
        """List the images, masks and other runs that there are, the runs a moment later."""
        from napari_cellda.ui.images import image_layers

        layers = image_layers(self.session.viewer)
        self.image.clear()
        for layer in layers:
            self.image.addItem(layer.name, layer)
        self.truth.clear()
        self.truth.addItem("none", None)
        for layer in self.session.viewer.layers:
            if layer._type_string == "labels":
                self.truth.addItem(layer.name, layer)
        self.compare.setEnabled(bool(layers))
        self._show_others([])
        assert self.run is not None, "there is a run to judge"
        folder = self.run.folder

        def read(stop: Callable[[], bool]) -> list[RunLine]:
            from napari_cellda.core.runs.table import list_runs

            return list_runs(folder.parent)

        def show(lines: list[RunLine]) -> None:
            if self.run is not None and self.run.folder == folder:
                self._show_others([line for line in lines if line.folder.resolve() != folder])

        run_task(read, session=self.session, owner=self, title="list runs", on_result=show)

    def _show_others(self, lines: list[RunLine]) -> None:
        self.other.clear()
        self.other.addItem("no other run", None)
        for line in lines:
            if line.has_model and line.method != ENHANCER:
                self.other.addItem(line.name, line)

    # -- comparing ------------------------------------------------------------------------------

    def _on_compare(self) -> None:
        if self.task is not None:
            self.task.stop()
            return
        try:
            layer, image = self._chosen_image()
            truth = self._chosen_truth(image)
        except UserError as error:
            self.message.tell(str(error), "error")
            return
        assert self.run is not None, "there is a run to judge"
        self.message.clear()
        if self.layers is not None:
            self.layers.clear()
        self.layers = CompareLayers(self.session, layer)
        self.compare.setText("Cancel")
        pipeline, folder = self._session_pipeline(), self.run.folder
        line, name = self.other.currentData(), self.run.name
        others = [] if line is None else [(_other_name(line), line.folder)]
        models, trusted = [*others, (name, folder)], frozenset(self.session.trusted)
        self.task = run_task(
            lambda stop: compute(pipeline, models, image, truth, trusted, stop),
            session=self.session,
            title="compare",
            on_event=self._on_event,
            on_result=self._on_maps,
            on_error=partial(self._on_error, self._on_compare),
            on_finished=self._on_finished,
        )

    def _chosen_image(self) -> tuple[Any, Image]:
        from napari_cellda.ui.axes import read_layer
        from napari_cellda.ui.images import default_choice

        layer = self.image.currentData()
        if layer is None or layer not in self.session.viewer.layers:
            raise UserError("No image is chosen; open one in this viewer.")
        choice = default_choice(layer)
        image = read_layer(replace(choice, channels="all" if "c" in choice.axes else "grey"))
        return layer, image

    def _chosen_truth(self, image: Image) -> np.ndarray | None:
        layer = self.truth.currentData()
        if layer is None or layer not in self.session.viewer.layers:
            return None
        if tuple(layer.data.shape) != image.label_shape:
            raise UserError(
                f"The mask '{layer.name}' has shape {tuple(layer.data.shape)}, but '{image.name}' "
                f"needs {image.label_shape}."
            )
        truth: np.ndarray = layer.data
        return truth

    def _session_pipeline(self) -> Pipeline | None:
        from napari_cellda.ui.exporting import session_pipeline

        return session_pipeline(self.session) if self.session.classifier is not None else None

    def _on_event(self, event: Any) -> None:
        if isinstance(event, Stage):
            self._stage = event
            self.table.setText(f"{event.title}\u2026")
        elif isinstance(event, Step) and self._stage.total:
            self.table.setText(f"{self._stage.title}: {event.index} of {self._stage.total}")

    def _on_maps(self, result: tuple[dict[str, np.ndarray], list[MapFigures]]) -> None:
        maps, self.figures = result
        self.table.setText(figures_text(self.figures))
        if self.layers is not None and maps:
            self.layers.show(maps)
            self.layers.set_apart(self.apart.isChecked())

    def _on_apart(self, on: bool) -> None:
        if self.layers is not None:
            self.layers.set_apart(on)

    def _on_error(self, again: Callable[[], None], error: Exception) -> None:
        if agreed(self.session, error, partial(ask_consent, self)):
            self._abandon()
            again()
        else:
            self.message.tell(str(error) or repr(error), "error")

    def _on_finished(self) -> None:
        self.task = None
        self.compare.setText("Compare")
        if not self.figures:
            self.table.clear()

    def _abandon(self) -> None:
        if self.task is not None:
            self.task.abandon()
            self.task = None

    # -- applying, keeping, discarding ----------------------------------------------------------

    def _choose_folder(self) -> None:
        source = QFileDialog.getExistingDirectory(self, "The folder of images")
        target = source and QFileDialog.getExistingDirectory(self, "The folder for the results")
        if source and target:
            self.apply(Path(source), Path(target))

    def apply(self, images: Path, target: Path) -> None:
        """Write maps and masks of all images of a folder."""
        if self.run is None or self.task is not None:
            return
        model, instances = str(self.run.folder), self.instances.isChecked()
        trusted = tuple(self.session.trusted)

        def work(stop: Callable[[], bool]) -> Any:
            from napari_cellda.core.batch import BatchOptions, insist, predict_batch

            options = BatchOptions(trusted=trusted)
            return insist(
                predict_batch(
                    model, [images], target, instances=instances, options=options, stop=stop
                )
            )

        self.compare.setText("Cancel")
        self.task = run_task(
            work,
            session=self.session,
            title="apply to folder",
            on_event=self._on_event,
            on_result=lambda paths: self.message.tell(
                f"Wrote {len(paths)} files to {target}.", "success"
            ),
            on_error=partial(self._on_error, partial(self.apply, images, target)),
            on_finished=self._on_finished,
        )

    def _keep(self) -> None:
        if self.run is not None:
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
        if self.layers is not None:
            self.layers.clear()
        SessionRuns.of(self.session).forget(run.folder)
        run_task(lambda stop: delete_run(run.folder), session=self.session, title="delete run")
        self.run = None
        self.hide()
        self.discarded.emit()


def compute(
    pipeline: Pipeline | None,
    models: list[tuple[str, Path]],
    image: Image,
    truth: Any,
    trusted: Collection[str],
    stop: Callable[[], bool],
) -> Any:
    """Compute all maps and their figures, in the background; the last model is the judged one."""
    import numpy as np

    from napari_cellda.core.batch import open_map_maker
    from napari_cellda.core.runs.verdict import foreground_maps, judge

    makers: list[Any] = []
    if pipeline is not None:
        makers.append(("enhanced" if pipeline.enhancer is not None else "forest", pipeline))
    makers += [(name, open_map_maker(str(folder), trusted=trusted)[0]) for name, folder in models]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        maps = yield from foreground_maps(makers, image, Path(scratch), stop)
    judged = models[-1][0]
    if judged not in maps:
        return {}, []
    mask = None if truth is None else np.asarray(truth) > 0
    return maps, judge(maps, judged, mask)


def figures_text(figures: list[MapFigures]) -> str:
    """Return the figures as a small table of rich text."""
    if not figures:
        return ""
    scored = figures[0].dice is not None
    head = ["", "covers", "sure", "agrees", *(["Dice", "IoU"] if scored else [])]
    rows = [head]
    for one in figures:
        shares = (f"{one.foreground:.0%}", f"{one.sure:.0%}", f"{one.agreement:.2f}")
        line = [escape(one.name), *shares]
        if one.dice is not None and one.iou is not None:
            line += [f"{one.dice:.3f}", f"{one.iou:.3f}"]
        rows.append(line)
    cells = "".join(
        "<tr>" + "".join(f"<td style='padding-right:8px'>{cell}</td>" for cell in line) + "</tr>"
        for line in rows
    )
    note = "" if scored else "<br>Agreement is with the new map: it tells how alike, not how right."
    return f"<table>{cells}</table>{note}"


def _has_model(folder: Path) -> bool:
    """Whether there is a model that takes images; an enhancer takes maps."""
    from napari_cellda.core.jobs import Run

    if not (folder / "model" / "rdf.yaml").is_file():
        return False
    return Run(folder).record.method != ENHANCER


def _other_name(line: Any) -> str:
    return "source-only" if line.method == "supervised" else str(line.name)
