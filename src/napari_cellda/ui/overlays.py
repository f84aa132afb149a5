"""The overlay of two layers: the plane that is looked at, compared in the background."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_cellda.core.compare import OVERLAY_COLORS, OVERLAY_VALUES
from napari_cellda.core.errors import UserError
from napari_cellda.core.inspect.comparison import Comparing, compare_planes
from napari_cellda.core.inspect.maps import check_shapes
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_layers import (
    ShownPlane,
    data_of,
    go_to,
    placement,
    plane_of,
    read_plane,
    show_layer,
)
from napari_cellda.ui.ring import show_ring
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.compare import Matches
    from napari_cellda.core.inspect.comparison import PlaneComparison, PlaneError
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

NAME = "Right and wrong"
OPACITY = 0.7
MOST_PIXELS = 2**26
"""Larger planes would take gigabytes to compare."""
FOLLOW_MS = 60
"""A moved slider is followed after so long without another move."""


class OverlayView(QObject):
    """Shows where a result is right and wrong beside a reference, as one Labels layer.

    Only the plane in view is read, compared and kept; another plane is compared when the sliders
    go there. Another IoU needs no comparison.

    Signals
    -------
    compared
        `comparison` is another, or was repainted at another IoU.
    clicked(str)
        What is at the pixel that was clicked, in one line.
    stepped(int)
        The error of this index is in view.
    failed(str)
        Why there is nothing to see, in one sentence.
    """

    compared = Signal()
    clicked = Signal(str)
    stepped = Signal(int)
    failed = Signal(str)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self.settings = Comparing()
        self.result: Any = None
        self.reference: Any = None
        self.layer: Any = None
        self.comparison: PlaneComparison | None = None
        self.plane: tuple[int, ...] = ()
        self.index = -1
        self._array: ShownPlane | None = None
        self._errors: list[PlaneError] | None = None
        self._task: TaskHandle | None = None
        self._timer = QTimer(self, singleShot=True, interval=FOLLOW_MS)
        self._timer.timeout.connect(self._follow)
        dims = session.viewer.dims.events
        connect_while_alive(self, dims.current_step, self._on_moved)
        connect_while_alive(self, session.results_changed, self._on_results)
        connect_while_alive(self, session.viewer.layers.events.removed, self._on_removed)
        self.destroyed.connect(lambda: self._abandon())

    # -- what is compared -----------------------------------------------------------------------

    def compare(self, result: Any, reference: Any, settings: Comparing) -> None:
        """Compare two layers, beginning with the plane in view.

        Raises
        ------
        UserError
            If they are the same layer, their shapes differ, or a plane is too large.
        """
        if result is reference:
            raise UserError(f"'{result.name}' cannot be compared with itself; choose another one.")
        check_shapes(data_of(result), data_of(reference), (result.name, reference.name))
        height, width = data_of(result).shape[-2:]
        if height * width > MOST_PIXELS:
            raise UserError(
                f"A plane of '{result.name}' has {height} x {width} pixels; up to {MOST_PIXELS:,} "
                "can be compared at once, so crop the layers, or use evaluate on their files."
            )
        self.result, self.reference, self.settings = result, reference, settings
        self.comparison = None
        self.refresh()

    def refresh(self) -> None:
        """Compare the plane in view anew, in the background; the latest wish wins."""
        if self.result is None:
            return
        plane = plane_of(self._session, self.result)
        result, reference, settings = self.result, self.reference, self.settings

        def work(stop: Callable[[], bool]) -> PlaneComparison:
            pair = read_plane(result, plane), read_plane(reference, plane)
            found = compare_planes(*pair, settings, (result.name, reference.name))
            found.overlay(settings.iou)
            found.errors(settings.iou)  # so that stepping through them does not wait
            return found

        self._abandon()
        self._task = run_task(
            work,
            session=self._session,
            title="compare",
            on_result=lambda found: self._take(plane, found),
            on_error=self._fail,
        )

    def set_iou(self, iou: float) -> None:
        """Repaint at another IoU; nothing is computed again."""
        self.settings = replace(self.settings, iou=iou)
        if self.comparison is not None:
            self._paint()

    @property
    def busy(self) -> bool:
        """Whether a plane is being compared or about to be."""
        return self._timer.isActive() or (self._task is not None and self._task.running)

    @property
    def matches(self) -> Matches | None:
        """What matches at the present IoU; None unless objects are compared."""
        return None if self.comparison is None else self.comparison.at(self.settings.iou)

    def close(self) -> None:
        """Take the overlay away."""
        self._abandon()
        self.result = self.reference = self.comparison = None
        if self.layer is not None and self.layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(self.layer)

    # -- errors ---------------------------------------------------------------------------------

    @property
    def errors(self) -> list[PlaneError]:
        """What is wrong in the plane in view, the worst first."""
        if self.comparison is None:
            return []
        if self._errors is None:
            self._errors = self.comparison.errors(self.settings.iou)
        return self._errors

    @property
    def error(self) -> PlaneError | None:
        """The error that was gone to last."""
        return self.errors[self.index] if 0 <= self.index < len(self.errors) else None

    def step(self, by: int = 1) -> None:
        """Go to the next error (or one of the others), beginning with the worst; rings it.

        Raises
        ------
        UserError
            If nothing was compared yet.
        """
        if self.comparison is None:
            raise UserError("Nothing is compared yet; choose two layers in the panel Inspect.")
        if not self.errors:
            self._session.say("There is nothing wrong in this plane.")
            return
        self.index = (self.index + by) % len(self.errors) if self.index >= 0 else 0
        error = self.errors[self.index]
        go_to(self._session, self.layer, self.plane, error.y, error.x)
        size = max(30.0, 2.5 * float(np.sqrt(error.pixels)))
        spot = (*self.plane, error.y, error.x)
        show_ring(self._session, spot, placement(self.layer), diameter=size)
        self.stepped.emit(self.index)

    # -- the layer ------------------------------------------------------------------------------

    def _take(self, plane: tuple[int, ...], found: PlaneComparison) -> None:
        self.plane, self.comparison = plane, found
        self.index = -1
        self._paint()

    def _paint(self) -> None:
        assert self.comparison is not None
        self._errors = None
        picture = self.comparison.overlay(self.settings.iou)
        shape = tuple(data_of(self.result).shape)
        if self._array is None or self._array.shape != shape or self.layer is None:
            self._make_layer(shape)
        assert self._array is not None
        self._array.show(self.plane, picture)
        self.layer.refresh(extent=False, thumbnail=False)
        self.compared.emit()

    def _make_layer(self, shape: tuple[int, ...]) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        if self.layer is not None and self.layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(self.layer)
        self._array = ShownPlane(shape, np.uint8)
        colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
        colors |= {OVERLAY_VALUES[name]: color for name, color in OVERLAY_COLORS.items()}
        names = list(OVERLAY_VALUES)
        self.layer = Labels(
            self._array,
            name=NAME,
            opacity=OPACITY,
            colormap=DirectLabelColormap(color_dict=colors),
            features={"index": list(range(len(names))), "name": names},
            **placement(self.result),
        )
        self.layer.editable = False
        self.layer.mouse_drag_callbacks.append(self._on_click)
        show_layer(self._session, self.layer)

    def _on_click(self, layer: Any, event: Any) -> Any:
        """Tell what is at a pixel; dragging still moves the camera."""
        start = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - start).max() > 3 or self.comparison is None:
            return
        y, x = (round(float(v)) for v in layer.world_to_data(event.position)[-2:])
        height, width = self.comparison.result.shape
        if 0 <= y < height and 0 <= x < width:
            self.clicked.emit(self.comparison.describe(y, x, self.settings.iou))

    # -- what happens elsewhere -----------------------------------------------------------------

    def _on_moved(self, event: Any = None) -> None:
        if self.result is not None and plane_of(self._session, self.result) != self.plane:
            self._timer.start()

    def _on_results(self, painted: Any) -> None:
        if any(layer in painted.results.values() for layer in (self.result, self.reference)):
            self._timer.start()

    def _follow(self) -> None:
        if not self._session.is_closed and self.result is not None:
            self.refresh()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = self._array = None
            self.result = self.reference = self.comparison = None
            self.compared.emit()
        elif event.value is self.result or event.value is self.reference:
            self.close()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.failed.emit(str(error))
        else:
            self._session.report(error)

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None
