"""Quality without truth: what speaks for and against the maps of the session, checked beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.inspect.quality import (
    check_agreement,
    check_enhancer,
    self_agreement,
)
from napari_cellda.ui.view import visible_region
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.core.inspect.quality import Verdict
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle


class Trust(QObject):
    """Runs the checks on what is in view.

    Signals
    -------
    changed
        A check began or ended; see `verdicts`.
    failed(str)
        Why nothing was checked, in one sentence.
    """

    changed = Signal()
    failed = Signal(str)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self.verdicts: list[Verdict] = []
        self.subject = ""
        self._task: TaskHandle | None = None
        self.destroyed.connect(lambda: self._abandon())

    @property
    def running(self) -> bool:
        """Whether checks are running."""
        return self._task is not None

    def check_enhancer(self) -> None:
        """Check the enhancer that is switched on, on the maps in view.

        Raises
        ------
        UserError
            If no enhancer is switched on, or its map is not there yet.
        """
        session = self._session
        enhancer, options = session.enhancer, session.enhancer_options
        painted = session.require_current()
        role = f"forest:{options.class_index}"
        if enhancer is None or "enhanced" not in painted.arrays:
            raise UserError("No enhanced map is there yet; switch an enhancer on in Enhance.")
        region = visible_region(session.viewer, painted)
        forest_map, enhanced_map = (
            np.array(read_region(painted.image, painted.arrays[name], region)[0])
            for name in (role, "enhanced")
        )

        def work(stop: Callable[[], bool]) -> list[Verdict]:
            from napari_cellda.core.inspect.trained import middle

            found = check_enhancer(enhancer.card, forest_map, enhanced_map, rescale=options.rescale)
            part = middle(forest_map)
            scores = self_agreement(lambda m: enhancer.enhance(m)[0], part, brightness=False)
            return [*found, check_agreement(scores)]

        self._run(work, f"{enhancer.card.name} on '{painted.name}'")

    def check_network(self, source: Path) -> None:
        """Check a run or a model package: its agreement with itself on what is in view.

        Raises
        ------
        UserError
            If no image is chosen.
        """
        painted = self._session.require_current()
        region = visible_region(self._session.viewer, painted)
        image = painted.image

        def work(stop: Callable[[], bool]) -> list[Verdict]:
            from napari_cellda.core.inspect.trained import check_run

            return check_run(source, image, region)

        self._run(work, f"{source.name} on '{painted.name}'")

    def _run(self, work: Callable[[Callable[[], bool]], list[Verdict]], subject: str) -> None:
        self._abandon()
        self.subject = subject
        self._task = run_task(
            work,
            session=self._session,
            title="checks",
            on_result=self._take,
            on_error=self._fail,
            on_finished=self._on_finished,
        )
        self.changed.emit()

    def _take(self, verdicts: list[Verdict]) -> None:
        self.verdicts = verdicts

    def _on_finished(self) -> None:
        self._task = None
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        self.verdicts = []
        if isinstance(error, UserError):
            self.failed.emit(str(error))
        else:
            self._session.report(error)

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None
