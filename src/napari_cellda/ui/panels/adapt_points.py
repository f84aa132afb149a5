"""Points found in a nuclei channel, as layers to be corrected by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_cellda.core.errors import UserError
from napari_cellda.ui.layers import TAG, last_axes
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

    Parameters
    ----------
    session : Session
    nuclei : callable () -> sequence of napari Image layers
    diameter : callable () -> float or None
        Of a typical cell, in pixels.

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
        diameter: Callable[[], float | None],
    ) -> None:
        super().__init__(TITLE)
        self._session, self._nuclei, self._diameter = session, nuclei, diameter
        self.task: TaskHandle | None = None
        self.setToolTip(
            "Find the nuclei now, as a layer of points: add what was missed, delete what is wrong"
        )
        self.clicked.connect(self._find)

    def refresh(self) -> None:
        """Offer it when there are nuclei to look at."""
        self.setEnabled(self.task is None and bool(self._nuclei()))

    def _find(self) -> None:
        layers, diameter = list(self._nuclei()), self._diameter()
        self.setText("Finding points\u2026")

        def find(stop: Callable[[], bool]) -> list[NDArray[np.float64]]:
            return [nuclei_points(layer, diameter) for layer in layers if not stop()]

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
            made.append(
                Points(
                    found,
                    name=f"{layer.name} points",
                    size=SIZE * (self._diameter() or 20),
                    face_color="#e69f00",
                    border_color="black",
                    metadata={TAG: {"role": "found points"}},
                    **last_axes(layer, found.shape[1]),
                )
            )
            self._session.viewer.add_layer(made[-1])
        self.found.emit(made)


def nuclei_points(layer: Any, diameter: float | None) -> NDArray[np.float64]:
    """Find the nuclei of a layer, plane by plane.

    Parameters
    ----------
    layer : napari Image layer
        Grey or RGB; of several scales the finest counts.
    diameter : float, optional
        Of a typical cell, in pixels.

    Returns
    -------
    (n, ndim) ndarray
        In pixels of the layer.

    Raises
    ------
    UserError
        If there are none.
    """
    from napari_cellda.core.points import find_blobs

    data = layer.data[0] if layer.multiscale else layer.data
    shape = data.shape[:-1] if layer.rgb else data.shape
    found = []
    for index in np.ndindex(shape[:-2]):
        plane = np.asarray(data[index], np.float32)
        plane = plane[..., :3].mean(axis=-1) if layer.rgb else plane
        points = find_blobs(plane, diameter).points
        found.append(np.hstack([np.tile(np.asarray(index, np.float64), (len(points), 1)), points]))
    points = np.concatenate(found)
    if not len(points):
        raise UserError(
            f"No nuclei were found in '{layer.name}'; expected bright ones on a dark ground, of "
            "about the diameter below."
        )
    return points
