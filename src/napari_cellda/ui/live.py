"""Live painting in the window: one background thread follows strokes, view and settings."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QApplication

from napari_cellda.core.live.snapshot import Done, Trained, Waiting
from napari_cellda.ui.latest import LatestWins
from napari_cellda.ui.layers import (
    drop_results,
    follow_geometry,
    make_strokes,
    refresh_layers,
    stroke_colormap,
)
from napari_cellda.ui.live_work import LiveWork, Loaded, OutOfBag, Question, Written
from napari_cellda.ui.results import drop_stale, follow_classes, show_forest_again, show_next
from napari_cellda.ui.snapshots import chosen_enhancement, make_snapshot, painted_images
from napari_cellda.ui.strokes import StrokeWatcher
from napari_cellda.ui.view import camera_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.live.snapshot import Answer, PaintedSnapshot
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

VIEW_MS = 120
"""How long the view must rest before what it shows is computed."""
REDRAW_MS = 40
"""Layers are redrawn at most this often while tiles arrive."""
LAYER_MS = 100
"""New layers are made one by one, so far apart."""
SCORE_MS = 1500
"""How long painting must rest before the forest is trained once more for its accuracy."""


class LivePainter(QObject):
    """Follows one session: whatever changes, the maps follow.

    Get it with ``LivePainter.of(session)``. It makes strokes layers, hands frozen snapshots to the
    one background thread, and shows what comes back.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.work = LiveWork(session.scratch)
        self._watchers: dict[int, StrokeWatcher] = {}
        self._trained_on: tuple[PaintedSnapshot, ...] = ()
        self._trained_key: Any = None
        self._dirty: dict[PaintedImage, set[str]] = {}
        self._ndim = session.spec.ndim
        self.loaded = False
        self.left = 0
        self._thread = LatestWins(self.work.answer, self._on_answer, self._on_error, self._on_idle)
        self._view_timer = self._timer(VIEW_MS, self.update_view)
        self._redraw_timer = self._timer(REDRAW_MS, self._redraw)
        self._layer_timer = self._timer(LAYER_MS, self._make_layers)
        self._score_timer = self._timer(SCORE_MS, self._ask_score)
        self._connect()
        self._thread.submit(Question())

    @classmethod
    def of(cls, session: Session) -> LivePainter:
        """Return the session's painter, made (and its libraries loaded) on the first call."""
        return session.part("live", cls)

    def _timer(self, milliseconds: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self, singleShot=True, interval=milliseconds)
        timer.timeout.connect(slot)
        return timer

    def _connect(self) -> None:
        session = self._session
        session.strokes_changed.connect(self._on_strokes)
        session.settings_changed.connect(self._on_settings)
        session.classes_changed.connect(self._on_classes)
        session.enhancer_changed.connect(self._on_enhancer)
        session.image_changed.connect(self._on_image)
        session.live_changed.connect(self._on_live)
        session.leaving.connect(self._on_leaving)
        session.closed.connect(self._close)
        viewer = session.viewer
        camera_of(viewer).events.connect(self._on_view)
        viewer.dims.events.connect(self._on_view)

    @property
    def busy(self) -> bool:
        """Whether the thread is working (or loading)."""
        return self._thread.busy

    @property
    def settled(self) -> bool:
        """Whether all strokes are read and answered, and all answers shown."""
        timers = (self._view_timer, self._redraw_timer, self._layer_timer)
        pending = [*self._watchers.values(), *timers]
        return not self.busy and not any(
            one.pending if isinstance(one, StrokeWatcher) else one.isActive() for one in pending
        )

    @property
    def up_to_date(self) -> bool:
        """Whether the session's forest is the one that its strokes and settings give."""
        from napari_cellda.core.live.engine import training_key

        unread = (p.index is None and p.strokes is not None for p in self._session.images)
        if any(unread) or any(watcher.pending for watcher in self._watchers.values()):
            return False
        if self._session.current is None or self._session.current.index is None:
            return True
        snapshot = make_snapshot(self._session, painted_images(self._session))
        return bool(self._trained_key == training_key(snapshot))

    # -- what happened -------------------------------------------------------------------------

    def _on_strokes(self) -> None:
        if self._session.live:
            self.train()

    def _on_settings(self) -> None:
        if self._session.spec.ndim != self._ndim:  # tiles have another size
            self._ndim = self._session.spec.ndim
            for painted in self._session.images:
                painted.index = None
            self._read_strokes()
        self._on_strokes()

    def _on_classes(self) -> None:
        for painted in self._session.images:
            drop_stale(self._session, painted)
            follow_classes(self._session, painted)
            if painted.strokes is not None:
                painted.strokes.colormap = stroke_colormap(self._session)
        self._read_strokes()
        self._on_strokes()

    def _on_enhancer(self) -> None:
        enhances = chosen_enhancement(self._session) is not None
        for painted in self._session.images:
            if not enhances:
                show_forest_again(self._session, painted)
            follow_classes(self._session, painted)  # another class may be the enhanced one
        self.update_view()

    def _on_image(self) -> None:
        for painted in self._session.images:
            watcher = self._watchers.get(painted.key)
            if painted.strokes is not None and watcher is None:
                self._watch(painted)
        alive = {p.key for p in self._session.images if p.strokes is not None}
        for key in self._watchers.keys() - alive:
            watcher = self._watchers.pop(key)
            watcher.disconnect_layer()
            watcher.deleteLater()
        self._on_strokes()

    def _on_leaving(self, painted: PaintedImage) -> None:
        """Take the results of a deleted image away, once napari is done with deleting it."""

        def drop() -> None:
            if painted not in self._session.images and not self._session.is_closed:
                drop_results(self._session, painted, list(painted.results))

        QTimer.singleShot(0, drop)

    def _watch(self, painted: PaintedImage) -> None:
        watcher = self._watchers[painted.key] = StrokeWatcher(self._session, painted, self)
        follow_geometry(painted)
        watcher.read()

    def _on_live(self, live: bool) -> None:
        if live:
            self.train()

    def _on_view(self, event: Any = None) -> None:
        self._view_timer.start()

    # -- what is asked -------------------------------------------------------------------------

    def start_strokes(self, painted: PaintedImage) -> Any:
        """Return the strokes layer of an image, made if it has none, and select it."""
        if painted.strokes is None:
            make_strokes(self._session, painted)
            self._watch(painted)
            self._session.image_changed.emit()
        return painted.strokes

    def train(self) -> None:
        """Train on the strokes as they are now, and show the maps."""
        self._read_strokes(only_pending=True)
        self._trained_on = painted_images(self._session)
        self._ask()

    def adopt(self, classifier: PixelClassifier) -> None:
        """Take over a forest that was trained on the strokes as they are, and show its maps."""
        session = self._session
        self._trained_on = painted_images(session)
        snapshot = make_snapshot(session, self._trained_on)
        measured: dict[Hashable, Normalisation] = {
            painted.key: painted.norm for painted in session.images if painted.norm
        }
        self.work.adopt(snapshot, classifier, measured)
        session.set_classifier(classifier)
        self._ask()

    def update_view(self) -> None:
        """Show maps for what is visible now, from the forest that is there."""
        if self._session.live:
            self._trained_on = painted_images(self._session)
        self._ask()

    def _read_strokes(self, *, only_pending: bool = False) -> None:
        for watcher in list(self._watchers.values()):
            if not only_pending or watcher.pending:
                watcher.read()

    def _ask(self) -> None:
        painted = self._session.current
        if self._session.is_closed:
            return
        if self._session.live and not any(p.index for p in self._session.images):
            self._session.set_classifier(None)
        if painted is None or painted.index is None:
            return
        self._score_timer.stop()
        self._thread.submit(Question(make_snapshot(self._session, self._trained_on), painted))

    def _ask_score(self) -> None:
        painted = self._session.current
        if painted is not None and painted.index is not None and not self._thread.busy:
            self._thread.submit(
                Question(make_snapshot(self._session, self._trained_on), painted, score_only=True)
            )

    # -- what came back ------------------------------------------------------------------------

    def _on_answer(self, question: Question, answer: Answer | Loaded | OutOfBag | Written) -> None:
        session, painted = self._session, question.painted
        if isinstance(answer, Loaded):
            self.loaded = True
            session.loaded.emit()
            self.update_view()
        elif isinstance(answer, Written) and painted in session.images:
            self.left = answer.left
            self._dirty.setdefault(painted, set()).update(answer.roles)
            if not self._redraw_timer.isActive():
                self._redraw_timer.start()
        elif isinstance(answer, Trained):
            if painted is not None:
                painted.norm = self.work.normalisation_of(painted.key)
            session.flat_images = answer.flat_images
            if answer.final:
                self._note_trained(question)
                session.set_classifier(answer.classifier)
        elif isinstance(answer, Done) and session.classifier and session.score is None:
            self._score_timer.start()
        elif isinstance(answer, OutOfBag):
            session.set_score(answer.score)
        elif isinstance(answer, Waiting):
            self._note_trained(question)
            session.set_classifier(None)

    def _note_trained(self, question: Question) -> None:
        from napari_cellda.core.live.engine import training_key

        if question.snapshot is not None:
            self._trained_key = training_key(question.snapshot)

    def _redraw(self, *, thumbnails: bool = False) -> None:
        dirty, self._dirty = self._dirty, {}
        for painted, roles in dirty.items():
            if painted in self._session.images:
                drop_stale(self._session, painted)  # an answer may be older than the classes
                refresh_layers(painted, roles, thumbnails=thumbnails)
                self._session.results_changed.emit(painted)
        if not self._layer_timer.isActive():
            self._layer_timer.start()

    def _make_layers(self) -> None:
        """Add one layer that is still lacking, but never while the brush is down."""
        painted = self._session.current
        if painted is None or self._session.is_closed:
            return
        if QApplication.mouseButtons() or show_next(self._session, painted):
            self._layer_timer.start()
        self._session.results_changed.emit(painted)

    def _on_error(self, error: Exception) -> None:
        self._session.report(error)

    def _on_idle(self) -> None:
        self._redraw()
        current = self._session.current
        if current is not None:
            refresh_layers(current, list(current.results), thumbnails=True)
        self._session.rested.emit()

    def _close(self) -> None:
        for timer in (self._view_timer, self._redraw_timer, self._layer_timer, self._score_timer):
            with suppress(RuntimeError):  # at the end of the program Qt may have deleted it
                timer.stop()
        for watcher in self._watchers.values():
            watcher.disconnect_layer()
        self._thread.abandon()
        self.work.close()
        self._trained_on = ()
        self._dirty.clear()

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended after the session closed; True when it has."""
        return self._thread.wait(seconds)
