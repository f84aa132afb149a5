"""The panel Enhance: choose an enhancer, see what it is for, use it, know when to doubt it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.model_loading import ModelLoader, ask_consent, listed_models
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.docks import settle_in_dock
from napari_cellda.ui.panels.model_card import ModelCardView
from napari_cellda.ui.panels.model_picker import ModelPicker
from napari_cellda.ui.panels.model_report import ModelReport
from napari_cellda.ui.panels.object_size import ObjectSize
from napari_cellda.ui.panels.parts import check_box, form_in, row_of
from napari_cellda.ui.panels.scrolling import fill_panel
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.state import Session
from napari_cellda.ui.trust import TrustWatch

if TYPE_CHECKING:
    import napari

    from napari_cellda.core.enhancer import Enhancer


class EnhancePanel(QWidget):
    """Repair the forest's map with a pretrained network.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Its session is shared with the other panels.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        settle_in_dock(self, "Enhance")
        self.enhancer: Enhancer | None = None
        """The open model; the session has it only while `switch` is on."""
        self._source = ""
        self._seam = 0.0
        self._make_widgets()
        self._lay_out()
        self.loader = ModelLoader(
            self.session,
            lambda refused: ask_consent(self, refused),
            self._on_loaded,
            self._on_load_error,
            owner=self,
        )
        self.trust = TrustWatch(self.session, self._show_doubts, parent=self)
        self._connect()
        self.picker.fill(listed_models())
        self._refresh_classes()
        self._take_over()

    # -- construction ---------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        self.picker = ModelPicker()
        self.card = ModelCardView()
        self.check = QPushButton("Check\u2026")
        self.check.setToolTip("Validate the package as bioimage.io does, and run its own test")
        self.check.setEnabled(False)
        tip = "Show the enhanced map, and use it for masks and export"
        self.switch = check_box("Enhance", tip, on=False)
        tip = "Enhance anew after every stroke, the visible area first"
        self.live = check_box("Follow the strokes", tip, on=False)
        self.target = QComboBox()
        self.target.setToolTip(
            "The class whose map is enhanced; the other classes share what it leaves"
        )
        self.size = ObjectSize()
        self.stretch = check_box(
            "Stretch the map to 0-1 first",
            "What published enhancers call scale_range. They were trained without it, and on an "
            "image without objects it turns noise into objects: leave it off unless it helps",
            on=False,
        )
        self.stretch_note = QLabel(
            "While you paint, it is stretched by the range of each plane; in the export, by that "
            "of the whole stack. The two may differ a little."
        )
        self.stretch_note.setWordWrap(True)
        tip = "The layer Enhanced minus forest: red where it added, blue where it removed"
        self.difference = check_box("Show what it changed", tip, on=False)
        self.doubts = Banner()
        self.message = Banner()
        self.status = QLabel("Choose an enhancer to begin.")
        self.status.setWordWrap(True)

    def _lay_out(self) -> None:
        model = Section("Model")
        choosing = row_of(self.picker, self.check)
        choosing.setStretch(0, 1)
        model.body.addLayout(choosing)
        model.body.addWidget(self.card)
        self.use = Section("Use")
        form = form_in(self.use)
        form.addRow(self.switch)
        form.addRow(self.live)
        form.addRow("Class", self.target)
        form.addRow("Objects here", self.size)
        form.addRow(self.size.switch)
        form.addRow(self.stretch)
        form.addRow(self.stretch_note)
        form.addRow(self.difference)
        self.use.setEnabled(False)
        foot = QWidget()
        rows = QVBoxLayout(foot)
        rows.setContentsMargins(10, 4, 10, 6)
        for widget in (self.doubts, self.message, self.status):
            rows.addWidget(widget)
        fill_panel(self, (model, self.use), foot)

    def _connect(self) -> None:
        self.picker.chosen.connect(self.open)
        self.check.clicked.connect(self._check)
        self.switch.toggled.connect(self._apply_switch)
        self.live.toggled.connect(lambda on: self.session.set_enhancer_options(live=on))
        self.target.activated.connect(
            lambda index: self.session.set_enhancer_options(class_index=index + 1)
        )
        self.stretch.toggled.connect(lambda on: self.session.set_enhancer_options(scale_range=on))
        self.size.zoom_changed.connect(lambda z: self.session.set_enhancer_options(rescale=z))
        self.size.measure_wanted.connect(self.trust.measure)
        self.trust.measured.connect(self.size.set_diameter)
        self.difference.toggled.connect(self._show_difference)
        session = self.session
        for signal, slot in (
            (session.classes_changed, self._refresh_classes),
            (session.enhancer_changed, self._take_over),
            (session.image_changed, self._show_stretch_note),
            (session.settings_changed, self._warn),
            (session.status_changed, self._say),
            (session.results_changed, self._on_results),
            (session.failed, self._on_failure),
        ):
            connect_while_alive(self, signal, slot)

    # -- choosing a model -----------------------------------------------------------------------

    def open(self, source: str) -> None:
        """Open a model (bundled id, path or bioimage.io id) and switch it on."""
        self.picker.select(source)
        self.message.clear()
        self.card.show_card(None)
        self.use.setEnabled(False)
        self.check.setEnabled(True)
        self.status.setText("Opening the model\u2026")
        self._source = source
        self.loader.load(source)

    def _check(self) -> None:
        self.status.setText("Checking the package\u2026")
        self.loader.check(self._source, self._show_report)

    def _show_report(self, text: str) -> None:
        self.status.setText("The package was checked.")
        self.report = ModelReport(self, f"Report on {self._source}", text)
        self.report.show()

    def _on_loaded(self, enhancer: Enhancer, seam: float) -> None:
        self.enhancer, self._seam = enhancer, seam
        self._show_model(enhancer)
        if self.switch.isChecked():
            self._apply_switch(True)
        else:
            self.switch.setChecked(True)

    def _show_model(self, enhancer: Enhancer) -> None:
        card = enhancer.card
        self.card.show_card(card)
        self.size.set_trained(card.object_diameter)
        self.use.setEnabled(True)
        self._warn()
        self.status.setText(f"{card.name} is ready.")

    def _warn(self) -> None:
        """Show what speaks against this model before it has done anything."""
        if self.enhancer is None:
            return
        card, features = self.enhancer.card, self.session.spec.name
        sentences = list(card.warnings)
        if card.feature_sets and features not in card.feature_sets:
            trained = " and ".join(card.feature_sets)
            sentences.append(
                f"It was trained on maps of forests with {trained} features, and yours has "
                f"{features} features; choose {card.feature_sets[0]} in Paint for best results."
            )
        if self._seam:
            sentences.append(
                "It normalises every tile on its own, so tiles may differ by up to "
                f"{self._seam:.2f} where they meet; images of up to one tile have no seam."
            )
        self.message.tell(" ".join(sentences), "warning")

    def _on_load_error(self, error: Exception) -> None:
        self.enhancer = None
        self.session.set_enhancer(None)
        self.message.tell(str(error) or type(error).__name__, "error")
        self.status.setText("The model could not be opened.")

    def _take_over(self) -> None:
        """Show the session's enhancer and options, whoever set them (a project, a script)."""
        enhancer, options = self.session.enhancer, self.session.enhancer_options
        if enhancer is not None and enhancer is not self.enhancer:
            self.enhancer, self._seam = enhancer, 0.0
            self._source = self.session.enhancer_source or enhancer.card.id
            self.picker.select(self._source)
            self._show_model(enhancer)
        for box, value in (
            (self.switch, enhancer is not None),
            (self.live, options.live),
            (self.stretch, options.scale_range),
        ):
            box.blockSignals(True)
            box.setChecked(value)
            box.blockSignals(False)
        self.target.setCurrentIndex(options.class_index - 1)
        self._show_stretch_note()

    def _show_stretch_note(self) -> None:
        """Say where the window and the export differ: on stacks that are stretched."""
        current = self.session.current
        is_stack = current is not None and current.image.limits[0] * current.image.n_times > 1
        self.stretch_note.setVisible(is_stack and self.session.enhancer_options.scale_range)

    # -- use ------------------------------------------------------------------------------------

    def _apply_switch(self, on: bool) -> None:
        self.session.set_enhancer(self.enhancer if on else None, self._source if on else "")
        if on and self.session.classifier is None:
            self.status.setText("Ready; paint two classes to see the enhanced map.")
        elif not on:
            self.trust.cancel()
            self.doubts.clear()
            self.status.setText("Off: the forest's map is shown and exported.")

    def _refresh_classes(self) -> None:
        self.target.clear()
        self.target.addItems(self.session.classes.names[1:])
        self.target.setCurrentIndex(self.session.enhancer_options.class_index - 1)

    def _show_difference(self, on: bool) -> None:
        for painted in self.session.images:
            layer = painted.results.get("difference")
            if layer is not None:
                layer.visible = on
                layer.refresh()

    def _on_results(self, painted: Any) -> None:
        if self.session.enhancer is None:
            return
        self.status.setText(f"{self.session.enhancer.card.name} follows the forest.")
        if self.difference.isChecked():
            self._show_difference(True)

    def _show_doubts(self, doubts: list[str]) -> None:
        self.doubts.tell("\n".join(doubts), "warning")

    def _on_failure(self, error: Exception) -> None:
        self.message.tell(str(error) or type(error).__name__, "error")

    def _say(self, text: str) -> None:
        self.status.setText(text)
