"""Watch whether the enhanced map can be trusted, and measure object sizes, beside the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.ui.connect import connect_while_alive, when_deleted
from napari_cellda.ui.view import visible_region
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle


class TrustWatch(QObject):
    """Checks the visible part of the current image whenever the maps have come to rest.

    Parameters
    ----------
    session : Session
    on_doubts : callable of list of str
        Called with plain sentences after each check; an empty list is good news.

    Signals
    -------
    measured(float)
        Typical diameter of the objects in the forest's map, in pixels; answers `measure`, unless
        there are none.
    """

    measured = Signal(float)

    def __init__(
        self, session: Session, on_doubts: Callable[[list[str]], None], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._on_doubts = on_doubts
        self._task: TaskHandle | None = None
        self._measuring: TaskHandle | None = None
        connect_while_alive(self, session.rested, self.check)
        when_deleted(self, self._abandon)

    def check(self) -> None:
        """Compare the enhanced map with the forest's, in the background; the latest check wins."""
        from napari_cellda.core.enhancer.trust import check_trust

        session = self._session
        enhancer, options = session.enhancer, session.enhancer_options
        maps = self._visible_maps(f"forest:{options.class_index}", "enhanced")
        if enhancer is None or maps is None:
            return
        card, name = enhancer.card, session.classes[options.class_index].name
        self.cancel()
        self._task = run_task(
            lambda stop: check_trust(card, *maps, rescale=options.rescale, class_name=name),
            session=session,
            title="compare enhancer and forest",
            on_result=self._on_doubts,
        )

    def cancel(self) -> None:
        """Forget the check that runs."""
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _abandon(self) -> None:
        self.cancel()
        if self._measuring is not None:
            self._measuring.abandon()

    def measure(self) -> None:
        """Measure the objects in the visible part of the forest's map, in the background."""
        from napari_cellda.core.enhancer.trust import object_diameter

        maps = self._visible_maps(f"forest:{self._session.enhancer_options.class_index}")
        if maps is None:
            self._session.say("There is no forest's map to measure on; paint two classes first.")
            return
        self._measuring = run_task(
            lambda stop: object_diameter(maps[0]),
            session=self._session,
            title="measure objects",
            on_result=self._on_measured,
        )

    def _on_measured(self, found: tuple[float, int]) -> None:
        diameter, n_objects = found
        if n_objects:
            self.measured.emit(diameter)
        else:
            self._session.say("The forest's map shows no objects to measure here.")

    def _visible_maps(self, *roles: str) -> list[Any] | None:
        """Copy the visible (Z, Y, X) parts of some result arrays; None if one is not there."""
        painted = self._session.current
        if painted is None or any(role not in painted.arrays for role in roles):
            return None
        region = visible_region(self._session.viewer, painted)
        return [np.array(read_region(painted.image, painted.arrays[r], region)) for r in roles]
