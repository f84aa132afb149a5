"""Follow what is painted on a strokes layer: strokes, eraser, fill, undo, redo, scripts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_cellda.core.errors import UserError
from napari_cellda.core.live.stroke_index import StrokeIndex
from napari_cellda.core.tiles import Region
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from napari_cellda.core.events import Stop
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

READ_AFTER_MS = 40
"""Strokes are read again at most this often while the brush moves."""
SMALL = 2**22
"""Pixels up to which strokes are read as a whole, so that any change is noticed."""


class StrokeWatcher(QObject):
    """Keeps `painted.index` up to date and tells the session when painted pixels changed.

    napari says which pixels a brush touched, but not what an undo changed; strokes of up to 4
    million pixels are simply read again (2 ms), larger ones where napari's history says so.
    """

    def __init__(self, session: Session, painted: PaintedImage, parent: QObject) -> None:
        super().__init__(parent)
        self._session, self._painted = session, painted
        self._layer = painted.strokes
        self._regions: list[Region] = []
        self._all = painted.index is None
        self._reading: TaskHandle | None = None
        self._history = self._signature()
        self._timer = QTimer(self, singleShot=True, interval=READ_AFTER_MS)
        self._timer.timeout.connect(self.read)
        self._connections = {
            "paint": self._on_paint,
            "labels_update": self._on_brush,
            "set_data": self._on_set_data,
            "data": self._on_replaced,
        }
        for name, callback in self._connections.items():
            getattr(self._layer.events, name).connect(callback)

    def disconnect_layer(self) -> None:
        """Stop following; the layer may be gone already."""
        with suppress(RuntimeError):  # at the end of the program Qt may have deleted it
            self._timer.stop()
        for name, callback in self._connections.items():
            getattr(self._layer.events, name).disconnect(callback)

    @property
    def pending(self) -> bool:
        """Whether something was painted that is not read yet."""
        return self._reading is not None or bool(self._timer.isActive())

    def read(self) -> None:
        """Read what may have changed, now."""
        painted = self._painted
        if painted.strokes is not self._layer or painted.strokes_array is None:
            return
        self._timer.stop()
        if painted.index is None and not self._is_small:
            self._read_beside()
            return
        if painted.index is None:
            painted.index = StrokeIndex(painted.image, self._session.spec)
            self._all = True
        regions = None if self._all else self._regions
        self._regions, self._all = [], False
        try:
            changed = painted.index.update(painted.strokes_array, regions)
        except UserError as error:
            self._session.report(error)
            return
        if changed:
            self._session.strokes_changed.emit()

    def _read_beside(self) -> None:
        """Read all of a large array in the background; what is painted meanwhile is read after."""
        if self._reading is not None:
            return
        painted, array = self._painted, self._painted.strokes_array
        spec = self._session.spec
        self._all = False

        def read_all(stop: Stop) -> StrokeIndex:
            index = StrokeIndex(painted.image, spec)
            index.update(array)
            return index

        def take(index: StrokeIndex) -> None:
            self._reading = None
            if painted.strokes_array is array and self._session.spec.ndim == spec.ndim:
                painted.index = index
            self.read()  # what was painted meanwhile, or all of it if that was in vain
            self._session.strokes_changed.emit()

        def fail(error: Exception) -> None:
            self._reading = None
            self._session.report(error)

        self._reading = run_task(
            read_all,
            session=self._session,
            owner=self,
            title="read strokes",
            on_result=take,
            on_error=fail,
        )

    def touch_all(self) -> None:
        """Read everything soon."""
        self._all = True
        self._later()

    def _later(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    @property
    def _is_small(self) -> bool:
        array = self._painted.strokes_array
        return isinstance(array, np.ndarray) and array.size <= SMALL

    def _on_paint(self, event: Any) -> None:
        self._touch(event.value)

    def _on_brush(self, event: Any) -> None:
        """Mark what the brush touched since it was put down; napari commits only at the end."""
        if self._is_small:
            self.touch_all()
            return
        box = self._layer._updated_slice
        if box is not None:
            self._touch_box(tuple(slice(int(part.start), int(part.stop)) for part in box))

    def _on_set_data(self, event: Any = None) -> None:
        """Find out whether a redraw comes from an undo or redo (or from a moved slider)."""
        if self._is_small:
            self.touch_all()
            return
        before, self._history = self._history, self._signature()
        if before == self._history:
            return
        undone = self._layer._redo_history[-1] if self._layer._redo_history else ()
        redone = self._layer._undo_history[-1] if self._layer._undo_history else ()
        self._touch([*undone, *redone])

    def _on_replaced(self, event: Any = None) -> None:
        """Follow ``layer.data = ...`` by a script or by another plugin."""
        data = self._layer.data
        if hasattr(data, "base") and not isinstance(data, np.ndarray):
            data = data.base
        if data is not self._painted.strokes_array and not self._same_memory(data):
            self._painted.strokes_array = data
        self.touch_all()

    def _same_memory(self, data: Any) -> bool:
        mine = self._painted.strokes_array
        both = isinstance(data, np.ndarray) and isinstance(mine, np.ndarray)
        return both and np.shares_memory(data, mine)

    def _signature(self) -> tuple[int, ...]:
        """Return a value that differs after an undo or redo."""
        stacks = self._layer._undo_history, self._layer._redo_history
        return tuple(
            value for stack in stacks for value in (len(stack), id(stack[-1]) if stack else 0)
        )

    def _touch(self, atoms: Any) -> None:
        self._history = self._signature()
        for atom in atoms:
            key = getattr(atom, "slice_key", None)
            if key is None:  # napari's older form: one index array per axis
                key = tuple(
                    slice(int(np.min(i)), int(np.max(i)) + 1) if np.size(i) else slice(0, 0)
                    for i in atom[0]
                )
            self._touch_box(key)

    def _touch_box(self, key: tuple[slice, ...]) -> None:
        """Mark a box of the layer's data, whose axes may include one for channels."""
        painted = self._painted
        axes = painted.image.label_axes
        if len(key) > len(axes):
            shown = painted.choice.axes.rstrip("c") if painted.layer.rgb else painted.choice.axes
            key = tuple(part for part, axis in zip(key, shown, strict=True) if axis != "c")
        box = dict(zip(axes, key, strict=True))
        z = box.get("z", slice(0, 1))
        times = box.get("t", slice(0, 1))
        for t in range(times.start, times.stop):
            self._regions.append(Region(t, z, box["y"], box["x"]))
        self._later()
