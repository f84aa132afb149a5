"""The panel Paint: choose an image, paint strokes, see what the forest makes of them."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.ui.advice import next_panel, next_step, painted_counts
from napari_cellda.ui.class_edits import ClassEditor
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.images import (
    choose_image,
    image_layers,
    leave_unpainted,
    mask_layers,
    take_over,
)
from napari_cellda.ui.keys import bind_keys, select_class
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.panel_words import error_words
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.panels.class_rows import ClassRows
from napari_cellda.ui.panels.docks import open_panel, settle_in_dock
from napari_cellda.ui.panels.feature_settings import FeatureSettings
from napari_cellda.ui.panels.image_picker import ImagePicker
from napari_cellda.ui.panels.parts import check_box, row_of
from napari_cellda.ui.panels.project_bar import ProjectBar
from napari_cellda.ui.panels.quality import Quality
from napari_cellda.ui.panels.restore_bar import RestoreBar
from napari_cellda.ui.panels.scrolling import Scrolling
from napari_cellda.ui.panels.section import Section
from napari_cellda.ui.panels.show_buttons import ShowButtons
from napari_cellda.ui.state import Session
from napari_cellda.ui.uncertain import hide_ring, jump_in_stack, jump_in_view

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

ADVICE_MS = 60
"""The advice, the counts and the buttons follow at most this often."""
ADVICE_STYLE = (
    "background: rgba(86, 180, 233, 45); border-left: 3px solid #56b4e9; border-radius: 3px;"
    " padding: 5px 7px; font-size: 13px;"
)


class PaintPanel(QWidget):
    """Everything about strokes and the forest, for one viewer."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self.painter = LivePainter.of(self.session)
        self._editor = ClassEditor.of(self.session)
        self._followed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._said = ""
        settle_in_dock(self, "Paint")
        self._make_widgets()
        self._lay_out()
        self._connect_widgets()
        self._connect_session()
        bind_keys(self.session)
        self._show_classes()
        self._refresh_soon()
        self._choose_soon()

    # -- widgets -------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        session = self.session
        self.project_bar = ProjectBar(session)
        self.picker = ImagePicker(session)
        self.restore_bar = RestoreBar(session)
        self.start = QPushButton("Start painting")
        self.rows = ClassRows()
        self.add_class = QPushButton("Add class")
        self.undo = QPushButton()
        self.undo.setToolTip("Only for changes of classes; Ctrl-Z over the image undoes strokes")
        self.take_over = QPushButton("Use mask")
        self.take_over.setToolTip("Take an existing mask or strokes layer over as strokes")
        self.take_over.setMenu(QMenu(self.take_over))
        tip = "Train the forest anew after every stroke"
        self.live = check_box("Follow strokes", tip, on=session.live)
        self.train = QPushButton("Train now")
        self.show_buttons = ShowButtons(session)
        self.uncertain = QPushButton("Unsure spot  U")
        self.uncertain.setToolTip("Ring the most uncertain unpainted spot in view (key U)")
        self.uncertain_stack = QPushButton("...in stack  \u21e7U")
        self.uncertain_stack.setToolTip("Look for it in all planes and go there (key Shift-U)")
        self.features = FeatureSettings(session)
        self.quality = Quality(session)
        self.banner = Banner()
        self.advice = QLabel()
        self.advice.setWordWrap(True)
        self.advice.setStyleSheet(ADVICE_STYLE)
        self.advice.setMinimumHeight(3 * self.advice.fontMetrics().lineSpacing() + 12)
        self.go_on = QPushButton()
        self.loading = QProgressBar()
        self.loading.setRange(0, 0)
        self.loading.setFixedHeight(4)
        self.loading.setTextVisible(False)

    def _lay_out(self) -> None:
        scrolling = Scrolling()
        body = scrolling.body
        body.addWidget(self.picker)
        body.addWidget(self.restore_bar)
        body.addWidget(self.start)
        classes = Section("Classes")
        classes.body.addWidget(self.rows)
        classes.body.addLayout(row_of(self.add_class, self.take_over))
        classes.body.addWidget(self.undo)
        body.addWidget(classes)
        forest = Section("Forest")
        forest.body.addLayout(row_of(self.live, self.train))
        forest.body.addWidget(self.show_buttons)
        forest.body.addLayout(row_of(self.uncertain, self.uncertain_stack))
        body.addWidget(forest)
        self.quality_section = Section("Quality", folded=True)
        self.quality_section.body.addWidget(self.quality)
        body.addWidget(self.quality_section)
        features = Section("Features and training", folded=True)
        features.body.addWidget(self.features)
        body.addWidget(features)
        body.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(self._make_head())
        layout.addWidget(scrolling, 1)

    def _make_head(self) -> QVBoxLayout:
        """Lay out what is always in sight: the project, what to do next, what went wrong."""
        head = QVBoxLayout()
        head.setContentsMargins(8, 6, 8, 2)
        head.setSpacing(6)
        for widget in (self.project_bar, self.advice, self.go_on, self.banner, self.loading):
            head.addWidget(widget)
        return head

    def _connect_widgets(self) -> None:
        trying = self._trying
        self.picker.chosen.connect(self._on_chosen)
        self.start.clicked.connect(lambda: trying(self._start))
        self.rows.picked.connect(lambda k: select_class(self.session, k))
        self.rows.renamed.connect(lambda k, name: trying(self._editor.rename, k, name))
        self.rows.recolored.connect(lambda k, color: trying(self._editor.recolor, k, color))
        self.rows.removed.connect(lambda k: trying(self._editor.remove, k))
        self.add_class.clicked.connect(lambda: trying(self._add_class))
        self.undo.clicked.connect(lambda: trying(self._editor.undo))
        self.take_over.menu().aboutToShow.connect(self._fill_masks)
        self.live.toggled.connect(self.session.set_live)
        self.train.clicked.connect(self.painter.train)
        self.uncertain.clicked.connect(lambda: trying(jump_in_view, self.session))
        self.uncertain_stack.clicked.connect(lambda: trying(jump_in_stack, self.session))
        self.quality_section.opened.connect(self.quality.show_plot)
        self.go_on.clicked.connect(lambda: trying(self._go_on))

    def _connect_session(self) -> None:
        session = self.session
        self._timer = QTimer(self, singleShot=True, interval=ADVICE_MS)
        self._timer.timeout.connect(self._refresh)
        self._choose_timer = QTimer(self, singleShot=True, interval=0)
        self._choose_timer.timeout.connect(self._choose_default)
        layers = session.viewer.layers.events
        for signal, slot in (
            (session.loaded, self._refresh_soon),
            (session.rested, self._refresh_soon),
            (session.results_changed, self._refresh_soon),
            (session.classifier_changed, self._refresh_soon),
            (session.score_changed, self._refresh_soon),
            (session.live_changed, self._on_live),
            (session.strokes_changed, self._on_strokes),
            (session.settings_changed, self.features.refresh),
            (session.classes_changed, self._show_classes),
            (session.image_changed, self._on_image),
            (session.failed, self._on_error),
            (session.status_changed, self._on_status),
            (layers.inserted, self._on_layers),
            (layers.removed, self._on_layers),
            (layers.renamed, self._on_layers),
        ):
            connect_while_alive(self, signal, slot)

    def _trying(self, action: Callable[..., Any], *args: Any) -> None:
        """Do something and show its error in the panel."""
        self.banner.clear()
        try:
            action(*args)
        except Exception as error:
            self.session.report(error)

    # -- what the user does --------------------------------------------------------------------

    def _on_chosen(self, choice: Any) -> None:
        self.banner.clear()
        before = self.session.current
        try:
            painted = choose_image(self.session, choice)
            leave_unpainted(self.session, before)
            if painted is not None and painted.strokes is None:
                self._start()
        except UserError as error:
            self.session.report(error)
        self.picker.refresh()

    def _start(self) -> None:
        self.painter.start_strokes(self.session.require_current())
        select_class(self.session, 0)
        self.restore_bar.look()

    def _add_class(self) -> None:
        index = self._editor.add()
        select_class(self.session, index)
        self.rows.rows[index].start_rename()

    def _fill_masks(self) -> None:
        menu = self.take_over.menu()
        menu.clear()
        for layer in mask_layers(self.session):
            menu.addAction(layer.name, partial(self._trying, take_over, self.session, layer))
        if menu.isEmpty():
            menu.addAction("There is no other Labels layer").setEnabled(False)

    def _go_on(self) -> None:
        name = next_panel(self.session)
        if name is not None:
            open_panel(self.session.viewer, name)

    # -- what happened -------------------------------------------------------------------------

    def _on_layers(self, event: Any = None) -> None:
        self._choose_soon()

    def _choose_soon(self) -> None:
        # Later, since other layers of the same file or sample are still being added.
        self._choose_timer.start()

    def _choose_default(self) -> None:
        """Take the top image if none is chosen, so that painting can begin at once."""
        session = self.session
        if session.is_closed or session.is_opening or session.viewer is None:
            return
        layers = image_layers(self.session.viewer)
        if self.session.current is None and layers:
            try:
                self.picker.offer(layers[0])
            except UserError as error:
                self.session.report(error)
        self.picker.refresh()

    def _on_image(self) -> None:
        self._follow_label()
        self.picker.refresh()
        self.features.refresh()
        self._refresh_soon()

    def _follow_label(self) -> None:
        """Light the row of the class that the brush paints, whoever chose it."""
        painted = self.session.current
        if painted is not None and painted.strokes is not None:
            if painted.strokes not in self._followed:
                self._followed.add(painted.strokes)
                label_changed = painted.strokes.events.selected_label
                connect_while_alive(self, label_changed, self._show_selected)
            self._show_selected()

    def _show_selected(self, event: Any = None) -> None:
        painted = self.session.current
        if painted is not None and painted.strokes is not None:
            self.rows.select(int(painted.strokes.selected_label) - 1)

    def _show_classes(self) -> None:
        self.rows.show_classes(self.session.classes)
        self._show_selected()
        self._refresh_soon()

    def _on_strokes(self) -> None:
        self.banner.clear()
        hide_ring(self.session)
        self.restore_bar.hide()
        self._said = ""
        self._refresh_soon()

    def _on_live(self, live: bool) -> None:
        self.live.setChecked(live)
        self._refresh_soon()

    def _on_status(self, text: str) -> None:
        self._said = text
        self._refresh_soon()

    def _on_error(self, error: Exception) -> None:
        text = error_words(error)
        if not isinstance(error, UserError) and text != self.banner.text:
            _notify(error)
        self.banner.tell(text, "error")
        self._refresh_soon()

    def _refresh_soon(self, *_: Any) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _refresh(self) -> None:
        session, painter = self.session, self.painter
        if session.is_closed:
            return
        painted = session.current
        has_strokes = painted is not None and painted.strokes is not None
        self.start.setVisible(painted is not None and not has_strokes)
        for widget in (self.rows, self.add_class, self.take_over, self.train):
            widget.setEnabled(has_strokes)
        is_stack = painted is not None and painted.image.limits[0] * painted.image.n_times > 1
        self.uncertain_stack.setVisible(is_stack)
        for widget in (self.uncertain, self.uncertain_stack):
            widget.setEnabled(session.classifier is not None)
        title = self._editor.undo_title
        self.undo.setVisible(title is not None)
        self.undo.setText(f"Undo: {title}")
        self.rows.show_counts(painted_counts(session))
        self.show_buttons.refresh()
        self.quality.refresh()
        self.loading.setVisible(not painter.loaded)
        busy = painter.busy and painter.loaded
        advice = next_step(session, loaded=painter.loaded, busy=busy, left=painter.left)
        self.advice.setText(self._said or advice)
        panel = None if busy else next_panel(session)
        self.go_on.setVisible(panel is not None)
        self.go_on.setText(f"Go on to {panel}")


def _notify(error: Exception) -> None:
    """Let napari show the error too, with its traceback."""
    from napari.utils.notifications import notification_manager

    notification_manager.receive_error(type(error), error, error.__traceback__)
