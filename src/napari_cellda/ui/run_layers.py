"""The pictures of a run as layers with a time axis, updated in place, never in the user's way."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.axes import data_of
from napari_cellda.ui.frames import FrameStack, PointStack
from napari_cellda.ui.layers import TAG, fade_in, keep_selection
from napari_cellda.ui.view import camera_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cellda.core.events import Preview
    from napari_cellda.ui.runs import RunWatch

MAP_COLOR = "#e69f00"
POINTS: dict[str, Any] = {"size": 5, "border_color": "white", "face_color": MAP_COLOR}
GAP = 4
"""Pixels between the channels of a picture, which stand side by side."""


@dataclass(frozen=True)
class Place:
    """Where the first pixel of a run's pictures lies, and how large their pixels are.

    Both are in the viewer's units, of (Y, X) or more of the last axes.
    """

    scale: tuple[float, ...] = (1.0, 1.0)
    translate: tuple[float, ...] = (0.0, 0.0)
    between: tuple[int, ...] = ()
    """Lengths along those before Y and X: 1 where the pictures are of one plane only. Along axes
    that are not among them, pictures are the same everywhere."""
    shows: str = ""
    """What the pictures are of, in a few words; empty if that is not known."""


class RunLayers:
    """Shows what a run has taken pictures of, one layer a name; at first only the first one.

    Parameters
    ----------
    watch : RunWatch
    place : Place, optional

    Attributes
    ----------
    place : Place or None
        Where the pictures belong; None: beside all that is there.
    """

    def __init__(self, watch: RunWatch, place: Place | None = None) -> None:
        self._watch = watch
        self.place = place
        self._shown_at: Place | None = None
        self._stacks: dict[str, FrameStack | PointStack] = {}
        self._layers: dict[str, weakref.ref[Any]] = {}

    def show(self, *frames: Preview) -> None:
        """Show pictures, oldest first; a layer that the user deleted stays away."""
        viewer = self._watch.session.viewer
        if viewer is None or not frames:
            return
        place = self._shown_at = self._shown_at or self.place or beside(viewer)  # one for all
        at_end = self._at_end(viewer)
        for name in dict.fromkeys([self._add(viewer, place, frame) for frame in frames]):
            if name not in self._layers:
                self._make(viewer, place, name, self._stacks[name])
            else:
                self._update(viewer, name, self._stacks[name])
        if at_end:
            self._go_to_end(viewer)

    def forget_deleted(self) -> None:
        """Let layers that the user has deleted come back with their next picture."""
        viewer = self._watch.session.viewer
        self._layers = {
            name: one for name, one in self._layers.items() if self._layer(viewer, name)
        }
        if not self._layers:
            self._stacks, self._shown_at = {}, None

    def _add(self, viewer: Any, place: Place, frame: Preview) -> str:
        """Add a picture to those of its name, and return that."""
        stack = self._stacks.get(frame.name)
        picture = frame.array if frame.kind == "points" else side_by_side(frame.array)
        if stack is None or not stack.fits(picture):
            lengths = _between(viewer)
            shared = max(0, len(lengths) - len(place.between))
            between = (*lengths[:shared], *place.between)
            start = self._start(frame.index)
            stack = (
                PointStack(between, start)
                if frame.kind == "points"
                else FrameStack(picture.shape, picture.dtype, between, start)
            )
            self._stacks[frame.name] = stack
        stack.append(frame.index, picture)
        return frame.name

    def _end(self) -> int:
        """Return the length of the time axis that all pictures share."""
        return max((stack.start + len(stack.indices) for stack in self._stacks.values()), default=0)

    def _start(self, index: int) -> int:
        """Return where on that axis a name begins whose first picture is of this step.

        Some names come later than others; what was taken at the same step shows at once.
        """
        latest = max((stack.indices[-1] for stack in self._stacks.values()), default=index)
        return max(0, self._end() - (1 if latest >= index else 0))

    def _at_end(self, viewer: Any) -> bool:
        """Whether the user looks at the latest picture, and so wants to see the next one."""
        axis = self._axis(viewer)
        return axis is None or bool(viewer.dims.current_step[axis] >= self._end() - 1)

    def _go_to_end(self, viewer: Any) -> None:
        axis = self._axis(viewer)
        if axis is not None:
            viewer.dims.set_current_step(axis, self._end() - 1)

    def _axis(self, viewer: Any) -> int | None:
        """Return the viewer's axis of the pictures; None when it shows none."""
        layers = (self._layer(viewer, name) for name in self._layers)
        return next((viewer.dims.ndim - one.ndim for one in layers if one is not None), None)

    def _layer(self, viewer: Any, name: str) -> Any:
        reference = self._layers.get(name)
        layer = reference() if reference is not None else None
        there = layer is not None and viewer is not None and layer in viewer.layers
        return layer if there else None

    def _make(self, viewer: Any, place: Place, name: str, stack: FrameStack | PointStack) -> None:
        shared = stack.ndim - 1 - len(place.scale)
        deep = _deepest(viewer)
        steps, starts = (deep.scale[:shared], deep.translate[:shared]) if shared else ((), ())
        # The list of layers cuts names in the middle: which picture it is comes first.
        title = f"{name} on {place.shows}" if place.shows else name
        layer = _layer_of(
            stack,
            name=f"{title} · {self._watch.name}",
            scale=(1.0, *steps, *place.scale),
            translate=(float(stack.start), *starts, *place.translate),
            axis_labels=("picture", *_axis_names(viewer, stack.ndim - 1)),
            visible=not self._layers,
            metadata={TAG: {"role": f"preview:{name}", "run": str(self._watch.folder)}},
        )
        self._layers[name] = weakref.ref(layer)
        with keep_selection(viewer), keep_camera(viewer):
            viewer.add_layer(layer)

    def _update(self, viewer: Any, name: str, stack: FrameStack | PointStack) -> None:
        layer = self._layer(viewer, name)
        if layer is None:
            return
        if isinstance(stack, PointStack):
            layer.data, layer.features = stack.places, {"score": stack.scores}
        else:
            layer.data = stack


def remove_pictures(viewer: Any, folder: Path) -> None:
    """Take the pictures of a run out of the viewer, whichever panel showed them."""
    if viewer is None:
        return
    with keep_camera(viewer):
        for layer in list(viewer.layers):
            if layer.metadata.get(TAG, {}).get("run") == str(folder):
                viewer.layers.remove(layer)


def _layer_of(stack: FrameStack | PointStack, **settings: Any) -> Any:
    """Return the layer that shows pictures as maps or labels, or as points with a score."""
    from napari.layers import Image, Labels, Points

    if isinstance(stack, PointStack):
        features = {"score": stack.scores}
        return Points(stack.places, features=features, ndim=stack.ndim, **POINTS, **settings)
    if stack.dtype.kind in "iub":
        return Labels(stack, opacity=0.5, **settings)
    return Image(stack, **_looks(stack), **settings)


def beside(viewer: Any) -> Place:
    """Return a place where pictures cover nothing: to the right of all that is there."""
    if not viewer.layers:
        return Place()
    (top, _), (_, right) = viewer.layers.extent.world[:, -2:]
    step = tuple(float(one) for one in viewer.layers.extent.step[-2:])
    return Place(step, (float(top), float(right) + GAP * step[1]))


@contextmanager
def keep_camera(viewer: Any) -> Iterator[None]:
    """Add a layer without moving the view: napari resets it when the layers get more axes."""
    camera, empty = camera_of(viewer), not viewer.layers
    before = {name: getattr(camera, name) for name in ("center", "zoom", "angles")}
    yield
    if empty:
        return
    for name, value in before.items():
        if getattr(camera, name) != value:  # setting the angles loads a library, in flat views too
            setattr(camera, name, value)


def side_by_side(array: np.ndarray) -> np.ndarray:
    """Return a (C, Y, X) picture as one plane, its channels beside each other."""
    if array.ndim == 2:
        return array
    gap = np.zeros((array.shape[1], GAP), array.dtype)
    parts = [part for channel in array for part in (gap, channel)]
    return np.hstack(parts[1:])


def _looks(stack: FrameStack) -> dict[str, Any]:
    """Let maps in [0, 1] fade in over the image; other pictures cover it, in grey."""
    first = np.asarray(stack[0])
    low, high = float(first.min()), float(first.max())
    if low >= 0 and high <= 1:
        return {"contrast_limits": (0, 1), "colormap": fade_in(MAP_COLOR), "opacity": 0.8}
    return {"contrast_limits": (low, high), "colormap": "gray"}


def _between(viewer: Any) -> tuple[int, ...]:
    """Return the lengths of the viewer's axes before Y and X, those of earlier pictures apart."""
    deep = _deepest(viewer)
    return () if deep is None else tuple(int(n) for n in data_of(deep).shape[: deep.ndim - 2])


def _axis_names(viewer: Any, ndim: int) -> list[str]:
    """Name a picture's axes as the user has: the sliders are called after the layer of the most."""
    names = [*(f"axis {i}" for i in range(1, ndim - 1)), "y", "x"]
    deep = _deepest(viewer)
    for back in range(1, 1 + (min(deep.ndim, ndim) if deep is not None else 0)):
        name = deep.axis_labels[-back]
        if not name.removeprefix("axis ").startswith("-"):  # else it has none: "-1", in napari
            names[-back] = name
    return names


def _deepest(viewer: Any) -> Any:
    """Return the first layer of the most axes, pictures apart; None when there are but those."""
    others = [layer for layer in viewer.layers if "run" not in layer.metadata.get(TAG, {})]
    return max(others, key=lambda layer: layer.ndim, default=None)
