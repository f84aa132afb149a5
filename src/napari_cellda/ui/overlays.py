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
from napari_cellda.core.inspect.objects import match_stack
from napari_cellda.ui.axes import data_of
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_layers import (
    ShownPlane,
    go_to,
    placement,
    plane_of,
    read_plane,
    show_layer,
)
from napari_cellda.ui.ring import hide_ring, show_ring

if TYPE_CHECKING:
    from napari_cellda.core.compare import Matches
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.inspect.comparison import PlaneComparison
    from napari_cellda.core.inspect.objects import ObjectComparison, PlaneError
    from napari_cellda.ui.state import Session

NAME = "Right and wrong"
OPACITY = 0.7
MOST_PIXELS = 2**26
"""Larger planes would take gigabytes to compare."""
FOLLOW_MS = 60
"""A moved slider is followed after so long without another move."""


class OverlayView(QObject):
    """Shows where a result is right and wrong beside a reference, as one Labels layer.

    Only the plane in view is read, compared and kept; another plane is compared when the sliders
    go there. Another IoU needs no comparison. Objects that go through the planes of a stack are
    matched beside that, plane by plane; until that is done, those of the plane alone are shown.

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

    Attributes
    ----------
    matching : BackgroundWork
        Matches the objects of the stack.
    """

    compared = Signal()
    clicked = Signal(str)
    stepped = Signal(int)
    failed = Signal(str)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self.settings = Comparing()
        self.through = True
        self.result: Any = None
        self.reference: Any = None
        self.layer: Any = None
        self.comparison: PlaneComparison | None = None
        self.plane: tuple[int, ...] = ()
        self.index = -1
        self._array: ShownPlane | None = None
        self._errors: list[PlaneError] | None = None
        self._stack: ObjectComparison | None = None
        self._group: tuple[int, ...] = ()
        self._stale = False
        self._comparing = BackgroundWork(session, self)
        self.matching = BackgroundWork(session, self)
        for work in (self._comparing, self.matching):
            work.failed.connect(self.failed)
        self._timer = QTimer(self, singleShot=True, interval=FOLLOW_MS)
        self._timer.timeout.connect(self._follow)
        dims = session.viewer.dims.events
        connect_while_alive(self, dims.current_step, self._on_moved)
        connect_while_alive(self, session.results_changed, self._on_results)
        connect_while_alive(self, session.viewer.layers.events.removed, self._on_removed)

    # -- what is compared -----------------------------------------------------------------------

    def compare(self, result: Any, reference: Any, settings: Comparing, *, through: bool) -> None:
        """Compare two layers, beginning with the plane in view.

        Parameters
        ----------
        result, reference : napari layers
        settings : Comparing
        through : bool
            Whether an object of a stack goes through its planes, or is another one in each.

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
        self.result, self.reference = result, reference
        self.settings, self.through = settings, through
        self.comparison = None
        hide_ring(self._session)  # it was around an error of the comparison before
        self._match_stack()
        self.refresh()

    def refresh(self) -> None:
        """Compare the plane in view anew, in the background; the latest wish wins."""
        if self.result is None:
            return
        plane = plane_of(self._session, self.result)
        layers, settings, stack = (self.result, self.reference), self.settings, self._stack

        def work(stop: Stop) -> PlaneComparison:
            found = compare_layers(layers, plane, settings, stack)
            found.overlay(settings.iou)
            found.errors(settings.iou)  # so that stepping through them does not wait
            return found

        self._comparing.begin(work, "compare", lambda found: self._take(plane, found))

    def set_iou(self, iou: float) -> None:
        """Repaint at another IoU; nothing is computed again."""
        self.settings = replace(self.settings, iou=iou)
        if self.comparison is not None:
            self._paint()

    @property
    def busy(self) -> bool:
        """Whether a plane is being compared or about to be."""
        return self._timer.isActive() or self._comparing.running

    @property
    def matches(self) -> Matches | None:
        """What matches at the present IoU; None unless objects are compared."""
        return None if self.comparison is None else self.comparison.at(self.settings.iou)

    def close(self) -> None:
        """Take the overlay away."""
        self._forget()
        hide_ring(self._session)
        if self.layer is not None and self.layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(self.layer)

    def _forget(self) -> None:
        self._comparing.cancel()
        self.matching.cancel()
        self.result = self.reference = self.comparison = self._stack = None

    # -- objects that go through the planes -----------------------------------------------------

    def _match_stack(self) -> None:
        """Match the objects of the stack in view, plane by plane in the background."""
        self._stack, self._stale = None, False
        self._group = plane_of(self._session, self.result)[:-1]
        self.matching.cancel()
        layers, settings, group = (self.result, self.reference), self.settings, self._group
        if not (self.through and may_go_through(layers, settings)):
            return
        depth = data_of(self.result).shape[-3]

        def work(stop: Stop) -> Task[ObjectComparison | None]:
            found = (compare_layers(layers, (*group, z), settings) for z in range(depth))
            return match_stack((plane.overlaps for plane in found), depth, stop=stop)

        self.matching.begin(work, "match objects", self._take_stack)

    def _take_stack(self, found: ObjectComparison | None) -> None:
        self._stack = found
        if found is not None:
            self.index = -1
            self.refresh()

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
        """The error that was gone to last; None while its plane is not in view."""
        if not 0 <= self.index < len(self.errors):
            return None
        error = self.errors[self.index]
        return error if error.plane in (None, *self.plane[-1:]) else None

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
        plane = self.plane if error.plane is None else (*self.plane[:-1], error.plane)
        go_to(self._session, self.layer, plane, error.y, error.x)
        size = max(30.0, 2.5 * float(np.sqrt(error.area)))
        spot = (*plane, error.y, error.x)
        show_ring(self._session, spot, placement(self.layer), diameter=size)
        if plane == self.plane:
            self.stepped.emit(self.index)

    # -- the layer ------------------------------------------------------------------------------

    def _take(self, plane: tuple[int, ...], found: PlaneComparison) -> None:
        in_stack = found.objects is not None and found.objects.is_stack
        self.plane, self.comparison = plane, found
        if not in_stack:
            self.index = -1
        self._paint()
        if self.error is not None:
            self.stepped.emit(self.index)

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
            self._stale = True
            self._timer.start()

    def _follow(self) -> None:
        if self._session.is_closed or self.result is None:
            return
        if self._stale or plane_of(self._session, self.result)[:-1] != self._group:
            self._match_stack()
        self.refresh()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = self._array = None
            self._forget()
            self.compared.emit()
        elif event.value is self.result or event.value is self.reference:
            self.close()


def compare_layers(
    layers: tuple[Any, Any],
    plane: tuple[int, ...],
    settings: Comparing,
    stack: ObjectComparison | None = None,
) -> PlaneComparison:
    """Read and compare one plane of two layers; see `compare_planes`."""
    result, reference = (read_plane(layer, plane) for layer in layers)
    names = layers[0].name, layers[1].name
    return compare_planes(result, reference, settings, names, stack)


def may_go_through(layers: tuple[Any, Any], settings: Comparing) -> bool:
    """Whether objects may go through planes: stacks of numbered objects on both sides."""
    if settings.kind != "objects" or settings.classes:
        return False
    arrays = [data_of(layer) for layer in layers]
    return all(len(a.shape) > 2 and np.dtype(a.dtype).kind in "ui" for a in arrays)
