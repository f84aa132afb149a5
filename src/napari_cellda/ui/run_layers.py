"""The pictures of a run as layers with a time axis, updated in place, never in the user's way."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.layers import TAG, fade_in, keep_selection
from napari_cellda.ui.view import camera_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_cellda.core.runs.follow import Frame
    from napari_cellda.ui.runs import RunWatch

MOST_BYTES = 256 << 20
"""Beyond that every second of the earlier pictures of a layer is dropped."""
MAP_COLOR = "#e69f00"
GAP = 4
"""Pixels between the channels of a picture, which stand side by side."""


class FrameStack:
    """Pictures of one shape, seen as an array with a time axis; grows without copying.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of a picture.
    dtype : dtype
    between : tuple of int
        Lengths of axes between time and Y along which all is the same, so that the pictures line
        up with stacks in the viewer.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, between: tuple[int, ...] = (), start: int = 0
    ) -> None:
        self._frames: list[np.ndarray] = []
        self.indices: list[int] = []
        """The step of each picture."""
        self.start = start
        """Where it begins on a time axis that it shares with others."""
        self._plane, self._between = shape, between
        self.dtype = np.dtype(dtype)
        self.ndim = 1 + len(between) + len(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, ..., Y, X)."""
        return (len(self._frames), *self._between, *self._plane)

    @property
    def size(self) -> int:
        """Number of values that it seems to have."""
        return int(np.prod(self.shape, dtype=np.int64))

    def append(self, index: int, picture: np.ndarray) -> None:
        """Add the latest picture; one of the same step is replaced."""
        if index in self.indices:
            self._frames[self.indices.index(index)] = picture
            return
        self._frames.append(picture)
        self.indices.append(index)
        if len(self._frames) * picture.nbytes > MOST_BYTES:
            del self._frames[1:-1:2], self.indices[1:-1:2]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read like an array."""
        key = key if isinstance(key, tuple) else (key,)
        first, *rest = key
        if first is Ellipsis:
            return np.asarray(self)[key]
        picked = self._frames[first]
        if isinstance(first, slice):
            planes = np.stack(picked) if picked else np.zeros((0, *self._plane), self.dtype)
            return self._spread(planes)[(slice(None), *rest)]
        return self._spread(picked[None])[(0, *rest)]

    def _spread(self, planes: np.ndarray) -> np.ndarray:
        middle = (1,) * len(self._between)
        spread = planes.reshape(len(planes), *middle, *self._plane)
        return np.broadcast_to(spread, (len(planes), *self._between, *self._plane))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[:], dtype=dtype)


class RunLayers:
    """Shows what a run has taken pictures of, one layer a name; at first only the first one.

    Parameters
    ----------
    watch : RunWatch
    place : mapping, optional
        Where a picture's first pixel lies and how large its pixels are: ``translate`` and
        ``scale`` of (Y, X), in the viewer's units.
    """

    def __init__(self, watch: RunWatch, place: Mapping[str, Sequence[float]] | None = None) -> None:
        self._watch = watch
        self._place = dict(place or {})
        self._stacks: dict[str, FrameStack] = {}
        self._layers: dict[str, weakref.ref[Any]] = {}

    def show(self, *frames: Frame) -> None:
        """Show pictures, oldest first; a layer that the user deleted stays away."""
        viewer = self._watch.session.viewer
        if viewer is None:
            return
        at_end = self._at_end(viewer)
        for name in dict.fromkeys([self._add(viewer, frame) for frame in frames]):
            if name not in self._layers:
                self._make(viewer, name, self._stacks[name])
            else:
                self._update(viewer, name, self._stacks[name])
        if at_end:
            self._go_to_end(viewer)

    def _add(self, viewer: Any, frame: Frame) -> str:
        """Add a picture to those of its name, and return that."""
        picture = side_by_side(frame.array)
        stack = self._stacks.get(frame.name)
        if stack is None or stack.shape[-2:] != picture.shape:
            between = tuple(int(n) for n in _between(viewer))
            stack = FrameStack(picture.shape, picture.dtype, between, self._start(frame.index))
            self._stacks[frame.name] = stack
        stack.append(frame.index, picture)
        return frame.name

    def _end(self) -> int:
        """Return the length of the time axis that all pictures share."""
        return max((stack.start + stack.shape[0] for stack in self._stacks.values()), default=0)

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
        return layer if layer is not None and layer in viewer.layers else None

    def _make(self, viewer: Any, name: str, stack: FrameStack) -> None:
        from napari.layers import Image, Labels

        labels = stack.dtype.kind in "iub"
        settings: dict[str, Any] = {"opacity": 0.5} if labels else _looks(stack)
        extra = (1.0,) * (stack.ndim - 2)
        self._place = self._place or dict(beside(viewer))  # all pictures lie on one another
        scale, translate = self._place["scale"], self._place["translate"]
        layer = (Labels if labels else Image)(
            stack,
            name=f"{self._watch.name} · {name}",
            scale=(*extra, *scale),
            translate=(float(stack.start), *(0.0,) * (len(extra) - 1), *translate),
            axis_labels=("picture", *(f"axis {i}" for i in range(1, len(extra))), "y", "x"),
            visible=not self._layers,
            metadata={TAG: {"role": f"preview:{name}", "run": str(self._watch.folder)}},
            **settings,
        )
        self._layers[name] = weakref.ref(layer)
        with keep_selection(viewer), keep_camera(viewer):
            viewer.add_layer(layer)

    def _update(self, viewer: Any, name: str, stack: FrameStack) -> None:
        layer = self._layer(viewer, name)
        if layer is not None:
            layer.data = stack


def beside(viewer: Any) -> dict[str, tuple[float, float]]:
    """Return a place where pictures cover nothing: to the right of all that is there."""
    if not viewer.layers:
        return {"scale": (1.0, 1.0), "translate": (0.0, 0.0)}
    (top, _), (_, right) = viewer.layers.extent.world[:, -2:]
    step = tuple(float(one) for one in viewer.layers.extent.step[-2:])
    return {"scale": step, "translate": (float(top), float(right) + GAP * step[1])}  # type: ignore[dict-item]


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
    others = [layer for layer in viewer.layers if "run" not in layer.metadata.get(TAG, {})]
    ndim = max((layer.ndim for layer in others), default=2)
    deep = next((layer for layer in others if layer.ndim == ndim), None)
    if deep is None or ndim == 2:
        return ()
    shape = (deep.data[0] if deep.multiscale else deep.data).shape
    return tuple(shape[: ndim - 2])
