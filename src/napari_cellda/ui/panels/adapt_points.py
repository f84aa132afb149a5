"""Points found in a nuclei channel, as layers to be corrected by hand."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QMenu, QPushButton

from napari_cellda.core.errors import UserError
from napari_cellda.ui.axes import channel_count
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inputs import Picked, plane_shape
from napari_cellda.ui.layers import TAG, last_axes
from napari_cellda.ui.nuclei import choose_channel, nuclei_channel, nuclei_points, points_axes
from napari_cellda.ui.worker import TaskHandle, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_cellda.ui.state import Session

TITLE = "Find points to correct"
SIZE = 0.35
"""Diameter of a drawn point, as a share of a cell's."""


class FindPoints(QPushButton):
    """Adds one Points layer per nuclei layer; the user moves, adds and deletes points there.

    What was found before makes room: it is taken away, or hidden if the user has corrected it.
    Where the layers have several channels, a menu asks which one shows the nuclei.

    Parameters
    ----------
    session : Session
    nuclei : callable () -> sequence of napari Image layers
    diameter : callable (layer) -> float or None
        Of a typical cell, in pixels of a nuclei layer.

    Signals
    -------
    found(list)
        The new layers.
    failed(Exception)
    """

    found = Signal(object)
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        nuclei: Callable[[], Sequence[Any]],
        diameter: Callable[[Any], float | None],
    ) -> None:
        super().__init__(TITLE)
        self._session, self._nuclei, self._diameter = session, nuclei, diameter
        self.task: TaskHandle | None = None
        self._made: weakref.WeakKeyDictionary[Any, tuple[weakref.ref[Any], NDArray[np.float64]]] = (
            weakref.WeakKeyDictionary()
        )
        """The latest points of each nuclei layer, and what they were when they were found."""
        self.setToolTip(
            "Find the nuclei now, as a layer of points: add what was missed, delete what is wrong"
        )
        self.channels = QMenu(self)
        self.channels.aboutToShow.connect(self._offer_channels)
        self.clicked.connect(self._find)
        connect_while_alive(self, session.image_changed, self.refresh)  # perhaps by other axes

    def refresh(self) -> None:
        """Offer it when there are nuclei to look at."""
        self.setEnabled(self.task is None and bool(self._nuclei()))
        self.setMenu(self.channels if self._count() > 1 else None)

    def _count(self) -> int:
        """Return how many channels there are to choose from."""
        try:
            return max((channel_count(layer) for layer in self._nuclei()), default=1)
        except UserError:  # told when the points are looked for
            return 1

    def _offer_channels(self) -> None:
        self.channels.clear()
        for channel in range(self._count()):
            action = self.channels.addAction(f"Channel {channel}")
            action.triggered.connect(lambda _=False, one=channel: self._choose(one))

    def _choose(self, channel: int) -> None:
        choose_channel(self._nuclei(), channel)
        self._find()

    def _find(self) -> None:
        layers = list(self._nuclei())
        diameters = [self._diameter(layer) for layer in layers]
        try:
            channel = nuclei_channel(Picked(layers=tuple(layers)))
        except UserError as error:
            self.failed.emit(error)
            return
        self.setText("Finding points\u2026")

        def find(stop: Callable[[], bool]) -> list[NDArray[np.float64]]:
            each = zip(layers, diameters, strict=True)
            return [nuclei_points(*one, channel) for one in each if not stop()]

        self.task = run_task(
            find,
            session=self._session,
            owner=self,
            title="find points",
            on_result=lambda points: self._show(layers, points),
            on_error=self.failed.emit,
            on_finished=self._on_finished,
        )
        self.refresh()

    def _on_finished(self) -> None:
        self.task = None
        self.setText(TITLE)
        self.refresh()

    def _show(self, layers: Sequence[Any], points: Sequence[NDArray[np.float64]]) -> None:
        from napari.layers import Points

        made = []
        for layer, found in zip(layers, points, strict=True):
            self._make_room(layer)
            tag = {
                "role": "found points",
                "axes": points_axes(layer),
                "plane": plane_shape(layer),
            }
            made.append(
                Points(
                    found,
                    name=f"{layer.name} points",
                    size=SIZE * (self._diameter(layer) or 20),
                    face_color="#e69f00",
                    border_color="black",
                    metadata={TAG: tag},
                    **last_axes(layer, found.shape[1]),
                )
            )
            self._session.viewer.add_layer(made[-1])
            self._made[layer] = weakref.ref(made[-1]), found.copy()
        self.found.emit(made)

    def _make_room(self, layer: Any) -> None:
        """Take the points away that were found in a layer before; corrected ones are but hidden."""
        if layer not in self._made:
            return
        reference, found = self._made[layer]
        old, viewer = reference(), self._session.viewer
        if old is None or old not in viewer.layers:
            return
        if np.array_equal(old.data, found):
            viewer.layers.remove(old)
        else:
            old.visible = False
