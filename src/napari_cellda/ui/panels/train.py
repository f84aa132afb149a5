"""The panel Train enhancer: annotated images in, an enhancer of your own out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import checked
from napari_cellda.core.paths import package_id
from napari_cellda.core.runs.commands import command_words
from napari_cellda.core.runs.folder import has_model
from napari_cellda.ui.adapt_inputs import image_names, paired
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inputs import prepare
from napari_cellda.ui.panels.docks import open_panel, settle_in_dock
from napari_cellda.ui.panels.input_picker import InputPicker
from napari_cellda.ui.panels.run_starter import RunPlan, RunStarter
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.settings_box import SettingsBox
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from pathlib import Path

    import napari

MASKS_ARE = (
    ("instances", "numbered objects", "Every object has a number of its own"),
    ("foreground", "foreground", "Everything but 0 is the structure"),
    ("boundary", "membranes", "Everything but 0 is membrane"),
)
STRUCTURES = (
    (None, "what fits the masks", "Foreground, and boundaries of numbered objects"),
    ("foreground", "foreground", "Only the insides"),
    ("boundary", "boundaries", "Only the outlines"),
    ("both", "both", "One output each"),
)
CHANNELS = (("grey", "as grey", "Several channels are averaged"), ("all", "all", "Each on its own"))
NAMED = ("id", "shows")
"""Settings with a line of their own above the others."""


class TrainPanel(QWidget):
    """Train a Prediction Enhancer in a process of its own.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Train enhancer")
        self._make_widgets()
        self._lay_out()
        self.use.clicked.connect(self._use)
        self.starter.monitor.refreshed.connect(self._refresh)
        connect_while_alive(self, self.session.failed, self.starter.complain)
        self.setEnabled(False)
        # Its settings come with torch, which takes a while.
        run_task(
            _load_params,
            session=self.session,
            owner=self,
            on_result=self._on_loaded,
            on_error=self.starter.complain,
        )

    def _make_widgets(self) -> None:
        self.images = InputPicker(
            self.session, "image", "Annotated images. A folder, or layers of this viewer"
        )
        self.masks = InputPicker(
            self.session, "labels", "Their masks. Paired by name, else in the same order"
        )
        self.masks_are = _choices(MASKS_ARE)
        self.structure = _choices(STRUCTURES)
        self.channels = _choices(CHANNELS)
        self.shows = QLineEdit()
        self.shows.setPlaceholderText("e.g. nuclei")
        self.shows.setToolTip("What the masks show; enhancers warn when used on something else")
        self.settings = SettingsBox()
        self.starter = RunStarter(self.session, "enhancer", lambda: "enhancer", self.plan)
        self.use = QPushButton("Use it in Enhance")
        self.use.setToolTip("Open the new enhancer in the panel Enhance")
        self.use.hide()

    def _lay_out(self) -> None:
        scrolling = Scrolling()
        source, how, run = Section("Annotated images"), Section("How"), Section("Run")
        form = _form(source)
        form.addRow("Images", self.images)
        form.addRow("Masks", self.masks)
        form.addRow("Masks are", self.masks_are)
        form.addRow("Channels", self.channels)
        form.addRow("They show", self.shows)
        form.addRow("Learn", self.structure)
        how.body.addWidget(self.settings)
        run.body.addWidget(self.starter)
        run.body.addWidget(self.use)
        for section in (source, how, run):
            scrolling.body.addWidget(section)
        scrolling.body.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolling)

    def _on_loaded(self, make: Any) -> None:
        self.settings.set_kind(make, skip=NAMED)
        self.setEnabled(True)

    # -- starting -------------------------------------------------------------------------------

    def plan(self, folder: Path) -> RunPlan:
        """Return the run that the widgets describe.

        Raises
        ------
        UserError
            If an input is missing or does not fit, or a setting is refused.
        """
        images, masks = self.images.picked, self.masks.picked
        if not images or not masks:
            missing = "images" if not images else "masks"
            raise UserError(f"No {missing} are chosen; choose a folder, or layers of this viewer.")
        self.settings.insist()
        shows = self.shows.text().strip() or "structure"
        params = {**self.settings.value.model_dump(), "shows": shows}
        checked(type(self.settings.value), params, "Enhancer training")
        # Names are given, so that a single layer is copied with its mask, and pairs with it.
        names = image_names(images) if masks.layers else ()
        if len(names) != len(masks.layers):
            raise UserError(
                f"{len(masks.layers)} layers of masks are chosen for {len(names)} images; choose "
                "one per image."
            )
        given, partners = paired(self.session, masks.layers, images) if names else ((), ())
        image_folder = prepare(images, "image", folder / "inputs" / "images", names)
        mask_folder = prepare(masks, "labels", folder / "inputs" / "masks", given, partners)
        changes = {**self.settings.changes(), "shows": shows, "id": package_id(shows, "enhancer")}
        options = {
            "images": image_folder.path,
            "masks": mask_folder.path,
            "masks_are": self.masks_are.currentData(),
            "structure": self.structure.currentData(),
            "channels": self.channels.currentData(),
            "preset": self.settings.preset.currentData(),
        }
        forests = params["forests"] + params["validation_forests"]
        return RunPlan(
            words=command_words(("enhancer", "train"), options, changes),
            inputs=(image_folder, mask_folder),
            trial={"forests": 2, "validation_forests": 1, "steps": 12},
            lengths={3: forests, 12: params["steps"]},
            validations=max(1, params["steps"] // params["validate_every"]),
        )

    # -- afterwards -----------------------------------------------------------------------------

    def _refresh(self) -> None:
        run = self.starter.monitor.run
        self.use.setVisible(run is not None and not run.alive and has_model(run.folder))

    def _use(self) -> None:
        run = self.starter.monitor.run
        panel = open_panel(self.session.viewer, "Enhance")
        if run is not None and panel is not None:
            panel.open(str(run.folder / "model"))


def _load_params(stop: Any) -> Any:
    from napari_cellda.core.enhancer_training.params import enhancer_params

    return enhancer_params


def _choices(entries: tuple[tuple[str | None, str, str], ...]) -> QComboBox:
    combo = QComboBox()
    for index, (value, title, tip) in enumerate(entries):
        combo.addItem(title, value)
        combo.setItemData(index, tip, 3)
    return combo


def _form(section: Section) -> QFormLayout:
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    section.body.addLayout(form)
    return form
