"""Objects while their settings are tried out: what is visible first, then the whole plane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_cellda.core.events import run_quietly
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.instances import InstanceParams
from napari_cellda.ui.connect import connect_while_alive, when_deleted
from napari_cellda.ui.latest import LatestWins
from napari_cellda.ui.layers import TAG, drop_results, ensure_layer, refresh_layers
from napari_cellda.ui.results import coarser_shapes, write_result
from napari_cellda.ui.view import visible_region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cellda.core.events import Stop
    from napari_cellda.core.tiles import Region
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

ROLE = "preview"
WAIT_MS = 150
"""Settings must rest so long before objects are made."""
HALO = (0, 128, 128)
"""Around what is visible, so that objects at its edge are whole."""
AT_ONCE = 2**21
"""Pixels of a plane that is done as a whole without doing the visible part first."""
LARGEST_PLANE = 2**26
"""Pixels of a plane beyond which only what is visible is done."""
CONTOUR = 2
HUES = 12


@dataclass(frozen=True)
class _Question:
    painted: PaintedImage
    params: InstanceParams
    view: Region
    enhanced_class: int | None
    of_membranes: bool
    arrays: dict[str, Any] = field(compare=False)
    """The maps, taken at once: the window may drop some meanwhile."""


@dataclass(frozen=True)
class _Counted:
    count: int
    whole_plane: bool


class ObjectPreview(QObject):
    """Keeps a layer of outlines up to date with the maps and the session's `instance_params`.

    Signals
    -------
    counted(str)
        How many objects there are, in words; "" while nobody knows.
    failed(object)
        Why there are none, e.g. a method that lacks its map.
    """

    counted = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._on = False
        self._done: Any = None
        self._timer = QTimer(self, singleShot=True, interval=WAIT_MS)
        self._timer.timeout.connect(self._ask)
        self._thread = LatestWins(_work, self._on_answer, self._on_error, lambda: None)
        connect_while_alive(self, session.rested, self.update)
        connect_while_alive(self, session.objects_changed, self.update)
        connect_while_alive(self, session.image_changed, self.update)
        connect_while_alive(self, session.closed, self._thread.abandon)
        when_deleted(self, self._thread.abandon)

    @property
    def busy(self) -> bool:
        """Whether objects are still to come."""
        return self._thread.busy or bool(self._timer.isActive())

    def switch(self, on: bool) -> None:
        """Show objects, or take their layer away."""
        self._on, self._done = on, None
        if on:
            for painted in self._session.images:
                painted.unwanted.discard(ROLE)
            self.update()
        else:
            self._timer.stop()
            for painted in self._session.images:
                drop_results(self._session, painted, [ROLE])
            self.counted.emit("")

    def update(self) -> None:
        """Make objects anew, soon."""
        if self._on:
            self._timer.start()

    def _ask(self) -> None:
        session, painted = self._session, self._session.current
        if session.is_closed or painted is None or "forest:0" not in painted.arrays:
            return
        if session.classifier is None:
            return
        question = self._question(painted)
        # Without the view: once the plane is done, another part of it needs nothing.
        plane = replace(question, view=_plane(question), arrays={})
        key = (plane, id(session.classifier), session.enhancer)
        if key == self._done:
            return
        self._key = key
        if ROLE not in painted.arrays:
            shape = painted.image.label_shape
            painted.levels[ROLE] = [
                session.scratch.zeros(level, np.uint32) for level in coarser_shapes(shape)
            ]
            painted.arrays[ROLE] = session.scratch.zeros(shape, np.uint32)
        self.counted.emit("Looking for objects\u2026")
        self._thread.submit(question)

    def _question(self, painted: PaintedImage) -> _Question:
        session = self._session
        enhancer = session.enhancer if "enhanced" in painted.arrays else None
        return _Question(
            painted,
            session.instance_params or InstanceParams(),
            visible_region(session.viewer, painted),
            None if enhancer is None else session.enhancer_options.class_index,
            enhancer is not None and _is_of_membranes(enhancer.card.structure),
            dict(painted.arrays),
        )

    def _on_answer(self, question: _Question, found: _Counted) -> None:
        painted, session = question.painted, self._session
        if not self._on or painted not in session.images or ROLE not in painted.arrays:
            return
        layer = ensure_layer(
            session, painted, ROLE, painted.arrays[ROLE], name="Objects preview", kind="labels"
        )
        if layer is not None:
            _draw_outlines(layer)
        refresh_layers(painted, [ROLE])
        if found.whole_plane:
            self._done = self._key
        self.counted.emit(_in_words(found, painted))

    def _on_error(self, error: Exception) -> None:
        self.counted.emit("")
        self.failed.emit(error)

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended after the session closed; True when it has."""
        return self._thread.wait(seconds)


def _draw_outlines(layer: Any) -> None:
    """Show a new layer as outlines, in colours that are bright on any image."""
    from colorsys import hsv_to_rgb

    from napari.utils.colormaps import CyclicLabelColormap

    if layer.metadata[TAG].get("outlined"):
        return  # from now on it is the user's
    layer.metadata[TAG]["outlined"] = True
    colors = [(*hsv_to_rgb(7 * k % HUES / HUES, 0.85, 1), 1) for k in range(HUES)]
    layer.colormap = CyclicLabelColormap(colors=[(0, 0, 0, 0), *colors])
    layer.contour, layer.opacity = CONTOUR, 1.0


def _in_words(found: _Counted, painted: PaintedImage) -> str:
    one = found.count == 1
    where = "in view"
    if found.whole_plane:
        where = "in this plane" if painted.image.limits[0] > 1 else "in the image"
    text = f"{found.count:,} object{'' if one else 's'} {where}"
    if painted.image.limits[0] > 1:
        text += "; the export joins them through z"
    return text


def _is_of_membranes(structure: str | None) -> bool:
    from napari_cellda.core.modelzoo.structures import known_structure

    return known_structure(structure or "") == "boundaries"


# -- in the background thread ------------------------------------------------------------------


def _work(question: _Question, superseded: Stop, stop: Stop) -> Iterator[_Counted]:
    plane = _plane(question)
    n_pixels = plane.shape[1] * plane.shape[2]
    n_visible = question.view.shape[1] * question.view.shape[2]
    if n_pixels > AT_ONCE and n_visible < n_pixels / 2:
        yield _Counted(_label_view(question), whole_plane=False)
    if n_pixels > LARGEST_PLANE or superseded() or stop():
        return
    count = _label_plane(question, plane, lambda: superseded() or stop())
    if count is not None:
        yield _Counted(count, whole_plane=True)


def _plane(question: _Question) -> Region:
    _, ny, nx = question.painted.image.limits
    return replace(question.view, y=slice(0, ny), x=slice(0, nx))


def _label_view(question: _Question) -> int:
    from napari_cellda.core.instances import instances_from_maps

    limits, view = question.painted.image.limits, question.view
    outer = view.grow(HALO, limits)
    params = question.params.model_copy(update={"remove_border": False})
    foreground, boundary = _read_maps(question, outer)
    labels = instances_from_maps(foreground, boundary, params, spacing=_spacing(question))
    if question.params.remove_border:
        labels = _without_border(labels, outer, limits)
    seen = labels[view.inside(outer)]
    write_result(question.painted, ROLE, view, seen)
    return int(np.count_nonzero(np.unique(seen)))


def _without_border(labels: np.ndarray, outer: Region, limits: tuple[int, int, int]) -> np.ndarray:
    """Drop what touches the border of the image, but not what touches the border of the view."""
    touching = [
        labels.take(index, axis)
        for axis, part in ((1, outer.y), (2, outer.x))
        for index, at_border in ((0, part.start == 0), (-1, part.stop == limits[axis]))
        if at_border
    ]
    gone = [number for edge in touching for number in np.unique(edge)]
    return np.where(np.isin(labels, gone), 0, labels)


def _label_plane(question: _Question, plane: Region, outdated: Stop) -> int | None:
    """Separate the objects of a plane as the export does, tile by tile; None if outdated."""
    from napari_cellda.core.instances.tiled import label_tiles

    labels = np.zeros(plane.shape, np.uint32)

    def write(region: Region, block: np.ndarray) -> None:
        labels[region.slices] = block

    task = label_tiles(
        lambda region: _read_maps(question, replace(region, z=plane.z)),
        lambda region: labels[region.slices],
        write,
        plane.shape,
        question.params,
        spacing=_spacing(question),
        stop=outdated,
    )
    free = run_quietly(task)
    if outdated():
        return None
    write_result(question.painted, ROLE, plane, labels)
    return free - 1


def _spacing(question: _Question) -> tuple[float, ...]:
    sizes = question.painted.image.pixel_size
    return tuple(size / sizes[-1] for size in sizes)


def _read_maps(question: _Question, region: Region) -> Any:
    """Return the maps that the export would make objects from; 0 where nothing is computed yet."""
    from napari_cellda.core.enhancer import merge_enhanced
    from napari_cellda.core.instances.whole_image import object_maps

    painted, arrays = question.painted, question.arrays
    region = replace(region, t=question.view.t)
    n_classes = sum(role.startswith("forest:") for role in arrays)
    forest = [read_region(painted.image, arrays[f"forest:{k}"], region) for k in range(n_classes)]
    probability, boundary = np.stack(forest), None
    open_mask = ~probability.any(axis=0)
    if question.enhanced_class is not None:
        enhanced = read_region(painted.image, arrays["enhanced"], region)
        probability = merge_enhanced(probability, enhanced, question.enhanced_class)
        if "boundary" in arrays:
            boundary = read_region(painted.image, arrays["boundary"], region)
    probability[0][open_mask] = 1
    return object_maps(probability, boundary, question.params, of_membranes=question.of_membranes)
