"""Where to paint next in a whole stack: looked for in the background, visited one by one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cellda.core.classifier import Normalised
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Step
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.inspect.guidance import (
    forest_uncertainty,
    search_stack,
    spread_planes,
    z_step,
)
from napari_cellda.ui.axes import data_of
from napari_cellda.ui.uncertain import go_to_place, painted_mask, stroke_tiles
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.events import Event
    from napari_cellda.core.inspect.guidance import ReadSignals, Signals
    from napari_cellda.core.inspect.places import Place
    from napari_cellda.core.tiles import Region
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

COUNT = 10


class Guide:
    """The list of places to paint next, one for each session.

    Signals
    -------
    changed
        Other places, or another one is visited.

    Attributes
    ----------
    places : list of Place
        Best first.
    index : int
        The one that is visited; -1 before the first.
    contradiction : bool
        Whether the enhancer's contradictions speak for a place, too; slower.
    layers : (layer, layer) or None
        Two maps of the image whose disagreement speaks for a place, too.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self.places: list[Place] = []
        self.index = -1
        self.contradiction = False
        self.layers: tuple[Any, Any] | None = None
        self._painted: PaintedImage | None = None
        self._task: TaskHandle | None = None

    @classmethod
    def of(cls, session: Session) -> Guide:
        """Return the session's guide, made on the first call."""
        return session.part("guide", cls)

    @property
    def searching(self) -> bool:
        """Whether places are being looked for."""
        return self._task is not None

    def next(self, step: int = 1) -> None:
        """Go to the next place that is not painted yet; look for new ones after the last."""
        session = self._require_session()
        painted = session.require_current()
        if painted is not self._painted:
            self.places, self.index = [], -1
        index = self.index + step
        while 0 <= index < len(self.places) and self._is_painted(painted, self.places[index]):
            index += step
        if 0 <= index < len(self.places):
            self.visit(index)
        elif not self.searching:
            self.search()

    def visit(self, index: int) -> None:
        """Go to one of the places."""
        session = self._require_session()
        painted = session.require_current()
        if painted is not self._painted:
            raise UserError("These places are of another image; look for places again.")
        self.index = index
        place = self.places[index]
        go_to_place(session, painted, place)
        session.say(
            f"Place {index + 1} of {len(self.places)}: {place.reason}; paint what is in the ring."
        )
        self.changed.emit()

    def search(self) -> None:
        """Look for places in the background, then go to the best one.

        Raises
        ------
        UserError
            If there is no forest or no map yet, or the chosen layers do not fit the image.
        """
        session = self._require_session()
        painted = session.require_current()
        read_signals = self._readers(session, painted)
        tiles = stroke_tiles(painted)
        seen = self.places if painted is self._painted else []
        planes = spread_planes(painted.image)

        def make(stop: Callable[[], bool]) -> Any:
            read = read_signals(stop)
            mask = lambda plane: painted_mask(tiles, plane)  # noqa: E731
            step = z_step(painted.image)
            return search_stack(read, planes, mask, count=COUNT, z_step=step, seen=seen, stop=stop)

        def on_event(event: Event) -> None:
            if isinstance(event, Step):
                session.say(f"Looking for places to paint, plane {event.index} of {len(planes)}...")

        self.stop()
        self._task = run_task(
            make,
            session=session,
            title="places to paint",
            on_event=on_event,
            on_result=lambda places: self._take(painted, places),
            on_finished=self._on_finished,
        )
        self.changed.emit()

    def stop(self) -> None:
        """End a search; nothing is shown."""
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _on_finished(self) -> None:
        self._task = None
        self.changed.emit()

    def _take(self, painted: PaintedImage, places: list[Place]) -> None:
        session = self._require_session()
        self._painted, self.places, self.index = painted, places, -1
        if not places:
            session.say("No unpainted place is left in this stack.")
        elif painted is session.current:
            self.visit(0)

    def _readers(
        self, session: Session, painted: PaintedImage
    ) -> Callable[[Callable[[], bool]], ReadSignals]:
        """Return what makes the reader of all that speaks for a place, given `stop`."""
        classifier = session.require_classifier()
        if painted.norm is None:
            raise UserError("The map of this image is not there yet; wait or paint a stroke.")
        source = Normalised(painted.image, painted.norm)
        enhancer, options = session.enhancer, session.enhancer_options
        contradiction = self.contradiction
        if contradiction and enhancer is None:
            raise UserError("No enhancer is switched on that could contradict the forest.")
        arrays = None if self.layers is None else [data_of(layer) for layer in self.layers]
        for layer, array in zip(self.layers or (), arrays or (), strict=True):
            if tuple(array.shape) != tuple(painted.image.label_shape):
                raise UserError(
                    f"The layer '{layer.name}' has shape {tuple(array.shape)}, but "
                    f"'{painted.name}' has {tuple(painted.image.label_shape)}."
                )

        def make(stop: Callable[[], bool]) -> ReadSignals:
            read_forest = forest_uncertainty(classifier, source, stop)

            def read(plane: Region) -> Signals:
                signals = dict(read_forest(plane))
                if contradiction and enhancer is not None:
                    found = classifier.predict(source, plane, stop=stop)[options.class_index, 0]
                    signals["contradiction"] = np.abs(enhancer.enhance(found)[0] - found)
                if arrays is not None:
                    a, b = (read_region(painted.image, array, plane)[0] for array in arrays)
                    signals["discrepancy"] = np.clip(np.abs(a.astype(np.float32) - b), 0, 1)
                return signals

            return read

        return make

    def _is_painted(self, painted: PaintedImage, place: Place) -> bool:
        near = place.box(9, painted.image.limits)
        return bool(painted_mask(stroke_tiles(painted), near).any())

    def _require_session(self) -> Session:
        session = self._session()
        assert session is not None, "a guide lives in its session"
        return session
