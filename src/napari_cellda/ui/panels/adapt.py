"""The panel Adapt: choose a method and its inputs, train a network for these images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.runs.commands import command_words
from napari_cellda.ui.adapt_inputs import (
    CHANNELS,
    FILES,
    ROLES,
    AdaptPicks,
    check_strokes,
    image_names,
    prepare_all,
    preview_place,
)
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inputs import Picked
from napari_cellda.ui.model_loading import check_project, trust_words
from napari_cellda.ui.panels.adapt_points import FindPoints
from napari_cellda.ui.panels.diameter import Diameter
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.image_table import ImageTable
from napari_cellda.ui.panels.input_picker import InputPicker
from napari_cellda.ui.panels.method_cards import MethodCards
from napari_cellda.ui.panels.run_starter import RunPlan, RunStarter
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.settings_box import SettingsBox
from napari_cellda.ui.panels.verdict import Verdict
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import napari

    from napari_cellda.core.adaptation.method import Method

TRIAL_STEPS = 24
ALWAYS = ("target_images",)
OPTIONAL = ("validation_masks",)
MAPS = ("pseudo_labels", "project")
"""Either gives maps; those of this viewer take the place of both."""
SAME = (None, "the same")


class AdaptPanel(QWidget):
    """Adapt a network to the user's images, in a process of its own.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Adapt")
        self._make_widgets()
        self._lay_out()
        self._connect()
        self.setEnabled(False)
        # The methods come with torch, which takes a while.
        run_task(
            _load_methods,
            session=self.session,
            owner=self,
            on_result=self._on_methods,
            on_error=self.starter.complain,
            on_finished=self.loading.hide,
        )

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self.pickers = {
            role: InputPicker(self.session, kind, tip, file_filter=FILES.get(role, ""))
            for role, (_, kind, tip) in ROLES.items()
        }
        self.own_maps = QCheckBox("Take the maps of this viewer")
        self.own_maps.setToolTip("The forest's maps of your images, enhanced if Enhance is on")
        self.diameter = Diameter(self.session, lambda: self.pickers["target_images"].picked.layers)
        self.find_points = FindPoints(
            self.session,
            lambda: self.pickers["nuclei_images"].picked.layers,
            self.diameter.on,
        )
        self.classes = QLineEdit()
        self.classes.setPlaceholderText("told by the masks")
        self.classes.setToolTip("Names of the foreground classes, with commas, in order")
        self.channels = _channel_box(tuple(CHANNELS.items()))
        self.source_channels = _channel_box((SAME, *CHANNELS.items()))
        self.choose_by_masks = QCheckBox("Let these masks choose the checkpoint")
        self.choose_by_masks.setToolTip(
            "Otherwise no mask of your images is looked at while training, as a user without "
            "masks would have it"
        )
        self.fill_in = QCheckBox("Fill in which classes here")
        self.fill_in.setToolTip("A table of your images and the classes named above")
        self.image_table = ImageTable()
        self.cards = MethodCards()
        self.settings = SettingsBox()
        self.starter = RunStarter(self.session, "adapt", self._method_name, self.plan)
        self.verdict = Verdict(self.session)
        self.loading = QLabel("Loading the methods\u2026")

    def _lay_out(self) -> None:
        scrolling = Scrolling()
        images, method = Section("Your images"), Section("Method")
        self.inputs_section, run = Section("What it learns from"), Section("Run")
        first = _form(images)
        first.addRow(ROLES["target_images"][0], self.pickers["target_images"])
        first.addRow("Channels", self.channels)
        method.body.addWidget(self.loading)
        method.body.addWidget(self.cards)
        self._rows = _form(self.inputs_section)
        for role, (title, _, _) in ROLES.items():
            if role not in ALWAYS:
                self._rows.addRow(title, self.pickers[role])
            if role == "pseudo_labels":
                self._rows.addRow(self.own_maps)
            if role == "source_images":
                self._rows.addRow("Their channels", self.source_channels)
            if role == "nuclei_images":
                self._rows.addRow(self.find_points)
        self._rows.addRow(self.choose_by_masks)
        self._rows.addRow("Diameter", self.diameter)
        self._rows.addRow("Classes", self.classes)
        self._rows.addRow(self.fill_in)
        self._rows.addRow(self.image_table)
        run.body.addWidget(self.settings)
        run.body.addWidget(self.starter)
        run.body.addWidget(self.verdict)
        for section in (images, method, self.inputs_section, run):
            scrolling.body.addWidget(section)
        scrolling.body.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolling)
        self.inputs_section.hide()
        self.settings.hide()

    def _connect(self) -> None:
        for picker in self.pickers.values():
            picker.changed.connect(self._refresh)
        self.own_maps.toggled.connect(self._refresh)
        self.diameter.changed.connect(self._refresh)
        self.choose_by_masks.toggled.connect(self._refresh)
        self.fill_in.toggled.connect(self._refresh)
        self.classes.editingFinished.connect(self._refresh)
        self.cards.chosen.connect(self._on_method)
        self.find_points.found.connect(self._on_points)
        self.find_points.failed.connect(self.starter.complain)
        self.starter.monitor.refreshed.connect(self._on_run)
        connect_while_alive(self, self.session.classifier_changed, self._refresh)
        connect_while_alive(self, self.session.failed, self._on_failure)

    def _on_methods(self, methods: Sequence[Method]) -> None:
        self.cards.fill(methods)
        self.setEnabled(True)
        self._refresh()

    # -- what is chosen -------------------------------------------------------------------------

    @property
    def method(self) -> Method | None:
        """The method that is chosen."""
        return self.cards.method

    def _method_name(self) -> str:
        return self.method.name if self.method is not None else "run"

    def given(self) -> set[str]:
        """Return the names of the inputs that there are."""
        given = {role for role, picker in self.pickers.items() if picker.picked}
        if self.diameter.value is not None:
            given.add("diameter")
        if self._has_own_maps:
            given.add("pseudo_labels")
        return given

    def _wanted(self, method: Method) -> set[str]:
        return method.wanted | set(ALWAYS) | set(OPTIONAL)

    def _takes_own_maps(self, method: Method) -> bool:
        """Whether it learns from the maps of this viewer, whose classes have names."""
        return "pseudo_labels" in self._wanted(method) and self._has_own_maps

    @property
    def _has_own_maps(self) -> bool:
        """Whether maps of this viewer are asked for and there is a forest that makes them."""
        return self.own_maps.isChecked() and self.session.classifier is not None

    def _on_method(self, method: Method) -> None:
        wanted = self._wanted(method)
        shown = {role: role in wanted for role in ROLES if role not in ALWAYS}
        for role, on in shown.items():
            self._rows.setRowVisible(self.pickers[role], on)
        self._rows.setRowVisible(self.own_maps, "pseudo_labels" in wanted)
        self._rows.setRowVisible(self.find_points, "nuclei_images" in wanted)
        self._rows.setRowVisible(self.source_channels, "source_images" in wanted)
        self._rows.setRowVisible(self.diameter, "diameter" in wanted)
        self._rows.setRowVisible(self.classes, method.multiclass)
        self._rows.setRowVisible(self.fill_in, "image_labels" in wanted)
        self.inputs_section.show()
        self.settings.set_kind(partial(_settings_of, method))
        self.settings.show()
        self.starter.propose()
        self._refresh()

    def _on_points(self, layers: list[Any]) -> None:
        """Take the points that were found, as they will be when the run starts."""
        self.starter.message.clear()
        self.pickers["points"].choose_layers(layers)

    def _refresh(self, *_: Any) -> None:
        self.find_points.refresh()
        self.own_maps.setEnabled(self.session.classifier is not None)
        self.classes.setEnabled(self.method is None or not self._takes_own_maps(self.method))
        for role in MAPS:
            self.pickers[role].setEnabled(not self._has_own_maps)
        self.choose_by_masks.setEnabled(bool(self.pickers["validation_masks"].picked))
        self._show_table()
        self.cards.show_given(self.given())
        missing = ["a method"] if self.method is None else self.method.missing(self.given())
        self.starter.need(missing)

    def _show_table(self) -> None:
        """Show the table of classes if it is to be filled in."""
        wanted = self.method is not None and "image_labels" in self._wanted(self.method)
        on = wanted and self.fill_in.isChecked()
        self._rows.setRowVisible(self.image_table, on)
        if on:
            names = [name.strip() for name in self.classes.text().split(",") if name.strip()]
            try:
                images = image_names(self.pickers["target_images"].picked)
            except UserError:
                images = []
            self.image_table.show_axes(images, names)

    # -- starting -------------------------------------------------------------------------------

    def picks(self, method: Method) -> AdaptPicks:
        """Return what was picked and this method wants."""
        wanted = self._wanted(method)
        inputs = {role: picker.picked for role, picker in self.pickers.items() if role in wanted}
        if not self.choose_by_masks.isChecked():
            inputs["validation_masks"] = Picked()
        pipeline = None
        classes = self.classes.text().strip() or None if method.multiclass else None
        if self._takes_own_maps(method):
            from napari_cellda.ui.exporting import session_pipeline

            pipeline = session_pipeline(self.session)
            inputs.update(dict.fromkeys(MAPS, Picked()))
            # Commas part the names on the command line.
            names = (name.replace(",", " ") for name in pipeline.classifier.class_names[1:])
            classes = ",".join(" ".join(name.split()) for name in names)
        elif all(inputs.get(role) for role in MAPS):
            raise UserError("Maps and Project are both chosen; choose one of them.")
        options = {
            "diameter": self.diameter.value if "diameter" in wanted else None,
            "classes": classes,
            "channels": _channels(self.channels),
        }
        if "source_images" in wanted:
            options["source_channels"] = _channels(self.source_channels)
        table = ""
        if "image_labels" in wanted and self.fill_in.isChecked():
            if not self.image_table.columnCount():
                raise UserError("The table has no classes; name them under Classes, with commas.")
            table = self.image_table.as_csv()
            inputs["image_labels"] = Picked()
        return AdaptPicks(inputs, options, pipeline, table)

    def plan(self, folder: Path) -> RunPlan:
        """Return the run that the widgets describe.

        Raises
        ------
        UserError
            If an input is missing, they do not belong together, or a setting is refused.
        """
        method = self.method
        if method is None:
            raise UserError("No method is chosen; choose one of the cards.")
        missing = method.missing(self.given())
        if missing:
            raise UserError(f"{method.name} still needs {missing[0]}.")
        self.settings.insist()
        picks = self.picks(method)
        options, prepared = prepare_all(self.session, picks, folder)
        options["preset"] = self.settings.preset.currentData()
        settings = self.settings.value.model_dump()
        words = command_words(("adapt", method.name), options, self.settings.changes())
        checks: list[Callable[[], object]] = []
        if picks.inputs.get("target_strokes", Picked()).layers:
            checks.append(partial(check_strokes, picks))
        if options.get("project") is not None:
            trusted = frozenset(self.session.trusted)
            words += trust_words(trusted)
            checks.append(partial(check_project, options["project"], trusted))
        return RunPlan(
            words=words,
            inputs=prepared,
            trial={"steps": TRIAL_STEPS},
            ratio=settings["steps"] / TRIAL_STEPS,
            validations=max(1, settings["steps"] // settings["validate_every"]),
            place=preview_place(self.session, picks, method),
            check=partial(_check_all, checks) if checks else None,
        )

    # -- afterwards -----------------------------------------------------------------------------

    def _on_run(self) -> None:
        self.verdict.show_run(self.starter.monitor.run)

    def _on_failure(self, error: Exception) -> None:
        (self.starter if self.verdict.isHidden() else self.verdict).complain(error)


def _settings_of(method: Method, preset: Any) -> Any:
    return method.settings(preset)


def _check_all(checks: Sequence[Callable[[], object]]) -> None:
    for check in checks:
        check()


def _load_methods(stop: Callable[[], bool]) -> Sequence[Method]:
    from napari_cellda.methods import discover

    return discover()


def _channel_box(entries: Sequence[tuple[str | None, str]]) -> QComboBox:
    box = QComboBox()
    box.setEditable(True)
    box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    box.setToolTip("Choose, or type the numbers of channels, such as 0,2")
    for value, title in entries:
        box.addItem(title, value)
    return box


def _channels(box: QComboBox) -> str | None:
    """Return what was chosen or typed, as the command takes it.

    Raises
    ------
    UserError
        If something else was typed.
    """
    text = box.currentText().strip()
    for index in range(box.count()):
        if text.lower() in (box.itemText(index), box.itemData(index)):
            return cast("str | None", box.itemData(index))
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise UserError(
            f"The channels are '{text}'; expected one of the list, or numbers such as 0,2."
        )
    return text.replace(" ", "")


def _form(section: Section) -> QFormLayout:
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    section.body.addLayout(form)
    return form
