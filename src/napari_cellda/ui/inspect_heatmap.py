"""Discrepancy heatmaps: of two layers, over a run's epochs, and their most disputed regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.inspect.discrepancy import (
    discrepancy_map,
    discrepancy_over_epochs,
    disputed_places,
    lazy_discrepancy,
)
from napari_cellda.core.inspect.maps import as_map
from napari_cellda.ui.axes import data_of
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_layers import (
    go_to,
    placement,
    plane_of,
    planes_of,
    read_plane,
    show_layer,
    z_step,
)
from napari_cellda.ui.ring import show_ring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtpy.QtCore import QObject

    from napari_cellda.core.events import Stop
    from napari_cellda.core.inspect.places import Place
    from napari_cellda.ui.state import Session

COLORMAP = "inferno"
BOX = 64
"""Pixels: side of a disputed region."""
COUNT = 10


class Heatmap(BackgroundWork):
    """A discrepancy layer with fixed contrast [0, 1], and what is most disputed in it.

    `changed` says that the layer, its curve or its places may be others.
    """

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(session, parent)
        self.layer: Any = None
        self.sources: tuple[Any, ...] = ()
        self.steps: list[int] = []
        self.means = np.zeros(0)
        self.places: list[Place] = []
        connect_while_alive(self, session.results_changed, self._on_results)
        connect_while_alive(self, session.viewer.layers.events.removed, self._on_removed)

    # -- layers ---------------------------------------------------------------------------------

    def show_pair(self, a: Any, b: Any) -> None:
        """Show |a - b| of two layers; nothing but the plane in view is read.

        Raises
        ------
        UserError
            If their shapes differ, or the plane in view of one is no probability map.
        """
        names = (a.name, b.name)
        self._abandon()
        lazy = lazy_discrepancy(data_of(a), data_of(b), names)
        for layer in (a, b):
            as_map(read_plane(layer, plane_of(self._session, layer)), layer.name)
        self.steps, self.means = [], np.zeros(0)
        self._show(lazy, f"Discrepancy {a.name} · {b.name}", placement(a))
        self.sources = (a, b)
        self.changed.emit()

    def show_run(self, folder: Path, names: list[str]) -> None:
        """Show how the discrepancy of two of a run's pictures (or one that it kept) went on.

        They are read in the background; `failed` tells if there is no such run or pictures.
        """

        def read(stop: Stop) -> tuple[list[int], np.ndarray, np.ndarray]:
            from napari_cellda.core.jobs import Run

            return discrepancy_over_epochs(Run(folder), names)

        def take(found: tuple[list[int], np.ndarray, np.ndarray]) -> None:
            self.steps, stack, self.means = found
            self._show(stack, f"Discrepancy over steps · {folder.name}", {})
            self.sources = ()
            self._session.viewer.dims.set_current_step(self._first_axis, 0)

        self.begin(read, "discrepancy over steps", take)

    def show_step(self, index: int) -> None:
        """Move the slider to one of the run's steps."""
        if self.layer is not None and 0 <= index < len(self.steps):
            self._session.viewer.dims.set_current_step(self._first_axis, index)

    @property
    def step(self) -> int:
        """Index of the run's step that the slider points at."""
        return int(self._session.viewer.dims.current_step[self._first_axis])

    @property
    def _first_axis(self) -> int:
        return int(self._session.viewer.dims.ndim - self.layer.ndim)

    def _show(self, data: Any, name: str, place: dict[str, Any]) -> None:
        from napari.layers import Image

        self.places = []
        if self.layer is not None and self.layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(self.layer)
        self.layer = Image(
            data,
            name=name,
            colormap=COLORMAP,
            contrast_limits=(0, 1),
            multiscale=False,
            opacity=0.8,
            **place,
        )
        self.layer.contrast_limits_range = (0, 1)
        show_layer(self._session, self.layer)

    # -- disputed regions -----------------------------------------------------------------------

    def find_disputed(self) -> None:
        """Look for the most disputed regions of all planes, in the background.

        Raises
        ------
        UserError
            If no heatmap is shown.
        """
        layer = self._require_layer()
        planes = planes_of(layer)
        over_steps = bool(self.steps)
        if over_steps:
            planes = [plane_of(self._session, layer)]
        step = z_step(layer)
        sources = [data_of(one) for one in self.sources]
        names = tuple(one.name for one in self.sources)

        def read() -> Iterator[tuple[int, int, np.ndarray]]:
            for plane in planes:
                t, z = (0, 0, *plane)[-2:]
                if sources:
                    a, b = (np.asarray(data[plane]) for data in sources)
                    yield t, z, discrepancy_map(a, b, (names[0], names[1]))
                else:
                    yield t, z, read_plane(layer, plane)

        self.begin(
            lambda stop: disputed_places(read(), COUNT, size=BOX, z_step=step, stop=stop),
            "disputed regions",
            self._take,
            total=len(planes),
        )

    def visit(self, index: int) -> None:
        """Go to one of the disputed regions and ring it."""
        layer, place = self._require_layer(), self.places[index]
        spot = self._spot(place)
        go_to(self._session, layer, spot[:-2], place.y, place.x)
        show_ring(self._session, spot, placement(layer), diameter=BOX)

    def add_boxes(self) -> Any:
        """Show the disputed regions as a Shapes layer of boxes to annotate; returns it.

        Raises
        ------
        UserError
            If none were found.
        """
        from napari.layers import Shapes

        layer = self._require_layer()
        if not self.places:
            raise UserError("There are no disputed regions to box; look for them first.")
        height, width = data_of(layer).shape[-2:]
        boxes = []
        for place in self.places:
            lead, region = self._spot(place)[:-2], place.box(BOX, (1, height, width))
            y0, y1, x0, x1 = region.y.start, region.y.stop, region.x.start, region.x.stop
            corners = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
            boxes.append(np.array([(*lead, *corner) for corner in corners], float) - 0.5)
            boxes[-1][:, : len(lead)] += 0.5
        shapes = Shapes(
            boxes,
            shape_type="rectangle",
            name="Annotate here",
            edge_color="#f0e442",
            edge_width=2,
            face_color="transparent",
            features={"discrepancy": [round(place.score, 3) for place in self.places]},
            **placement(layer),
        )
        show_layer(self._session, shapes)
        return shapes

    def _spot(self, place: Place) -> tuple[int, ...]:
        """Return a place in the data of the layer."""
        lead = (place.t, place.z)[2 - (self.layer.ndim - 2) :]
        return (*lead, place.y, place.x)

    def _take(self, places: list[Place]) -> None:
        self.places = places
        if not places:
            self._session.say("The two maps agree: there is no disputed region.")

    def _require_layer(self) -> Any:
        if self.layer is None:
            raise UserError("No discrepancy is shown yet; choose two maps, or a run.")
        return self.layer

    def _on_results(self, painted: Any) -> None:
        shown = self.layer is not None and self.layer.visible
        if shown and any(one in painted.results.values() for one in self.sources):
            self.layer.refresh(extent=False, thumbnail=False)

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self._abandon()
            self.layer, self.sources, self.places, self.steps = None, (), [], []
            self.means = np.zeros(0)
            self.changed.emit()


def run_pictures(folder: Path) -> list[str]:
    """Return the names of the pictures that a run kept.

    Raises
    ------
    UserError
        If there is no run in the folder, or it kept none.
    """
    from napari_cellda.core.jobs import Run
    from napari_cellda.core.runs.previews import list_pictures

    names = list_pictures(Run(folder).folder)
    if not names:
        raise UserError(f"The run in '{folder}' kept no pictures of its way.")
    return names
