"""Quality without truth: what speaks for and against the maps of the session, checked beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.inspect.quality import (
    check_agreement,
    check_enhancer,
    self_agreement,
)
from napari_cellda.ui.axes import read_layer
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.view import visible_region

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtpy.QtCore import QObject

    from napari_cellda.core.events import Stop
    from napari_cellda.core.inspect.quality import Verdict
    from napari_cellda.ui.state import Session


class Trust(BackgroundWork):
    """Runs the checks on what is in view; `changed` says that `verdicts` may be others."""

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(session, parent)
        self.verdicts: list[Verdict] = []
        self.subject = ""

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

        def work(stop: Stop) -> list[Verdict]:
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
        # With all its channels: the network may take others than the forest.
        image = read_layer(replace(painted.choice, channels="all"))
        trusted = self._session.trusted

        def work(stop: Stop) -> list[Verdict]:
            from napari_cellda.core.inspect.trained import check_run

            return check_run(source, image, region, frozenset(trusted))

        self._run(work, f"{source.name} on '{painted.name}'")

    def _run(self, work: Callable[[Stop], list[Verdict]], subject: str) -> None:
        self.subject, self.verdicts = subject, []
        self.begin(work, "checks", self._take)

    def _take(self, verdicts: list[Verdict]) -> None:
        self.verdicts = verdicts
