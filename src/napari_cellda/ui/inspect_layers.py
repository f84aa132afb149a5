"""Layers that can be compared, and the one plane of them that is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.axes import data_of
from napari_cellda.ui.layers import TAG, keep_selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

INSPECTION = "inspection"
"""Role of the layers that inspecting adds; they cannot be compared themselves."""


def comparable_layers(session: Session) -> list[Any]:
    """Return the layers that hold a map, a mask or objects: ours first, then the others."""
    from napari.layers import Image, Labels

    found = [
        layer
        for layer in session.viewer.layers
        if isinstance(layer, (Image, Labels)) and not getattr(layer, "rgb", False)
    ]
    roles = {id(layer): (layer.metadata.get(TAG) or {}).get("role") for layer in found}
    usable = [one for one in found if roles[id(one)] not in (INSPECTION, "strokes", "ring")]
    return sorted(usable, key=lambda layer: roles[id(layer)] is None)


def is_probable_map(layer: Any) -> bool:
    """Tell whether an Image layer looks like probabilities, by its type and contrast alone."""
    if np.dtype(layer.dtype).kind == "b":
        return True
    limits = getattr(layer, "contrast_limits", (0, 255))
    return np.dtype(layer.dtype).kind == "f" and limits[0] >= 0 and limits[1] <= 1


def plane_of(session: Session, layer: Any) -> tuple[int, ...]:
    """Return the indices of the plane of a layer that the sliders point at, without y and x."""
    shape = data_of(layer).shape
    world = np.asarray(session.viewer.dims.point)[-layer.ndim :]
    here = layer.world_to_data(np.pad(world, (layer.ndim - len(world), 0)))
    indices = [round(float(value)) for value in here[:-2]]
    return tuple(
        int(np.clip(index, 0, size - 1)) for index, size in zip(indices, shape, strict=False)
    )


def read_plane(layer: Any, plane: tuple[int, ...]) -> np.ndarray:
    """Read one (Y, X) plane of a layer, of an array of any kind."""
    return np.asarray(data_of(layer)[plane])


def planes_of(layer: Any) -> list[tuple[int, ...]]:
    """Return the indices of all planes of a layer."""
    return [tuple(int(i) for i in index) for index in np.ndindex(*data_of(layer).shape[:-2])]


def z_step(layer: Any) -> float:
    """Return the distance of two planes of a layer, in pixels of the plane."""
    return float(layer.scale[-3] / layer.scale[-2]) if layer.ndim > 2 else 1.0


def placement(layer: Any) -> dict[str, Any]:
    """Return scale, translation, units... for a layer that lies on another one."""
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(layer, name) for name in names}


class ShownPlane:
    """An array of any number of axes of which one (Y, X) plane is there; the others are 0.

    A viewer shows one plane at a time, so the result of a stack never exists as a whole.

    Parameters
    ----------
    shape : sequence of int
    dtype : dtype
    """

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self.index: tuple[int, ...] | None = None
        self.plane: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of values that it seems to have."""
        return int(np.prod(self.shape, dtype=np.int64))

    def show(self, index: tuple[int, ...], plane: np.ndarray) -> None:
        """Take the place of the plane that was there."""
        self.index, self.plane = index, plane

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read; planes that are not there are 0."""
        key = key if isinstance(key, tuple) else (key,)
        key = key + (slice(None),) * (self.ndim - len(key))
        lead, rest = key[: self.ndim - 2], key[self.ndim - 2 :]
        if all(not isinstance(part, slice) for part in lead):
            if self.plane is not None and tuple(int(i) for i in lead) == self.index:
                return self.plane[rest]
            return np.zeros(self.shape[-2:], self.dtype)[rest]
        # Several planes are asked for at once only by 3D views and thumbnails.
        sizes = [
            len(range(*p.indices(n)))
            for p, n in zip(key, self.shape, strict=True)
            if isinstance(p, slice)
        ]
        return np.zeros(sizes, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return zeros with the plane in its place."""
        full = np.zeros(self.shape, self.dtype)
        if self.index is not None and self.plane is not None:
            full[self.index] = self.plane
        return full if dtype is None else full.astype(dtype)


def show_layer(session: Session, layer: Any) -> None:
    """Add a layer of ours on top, leaving what was selected selected."""
    layer.metadata[TAG] = {"role": INSPECTION}
    with keep_selection(session.viewer):
        session.viewer.add_layer(layer)


def go_to(session: Session, layer: Any, plane: tuple[int, ...], y: float, x: float) -> None:
    """Move the sliders to a plane of a layer, and the camera to a pixel if it is not in view."""
    from napari_cellda.ui.view import camera_of

    viewer = session.viewer
    world = np.asarray(layer.data_to_world((*plane, y, x)))
    first = len(viewer.dims.point) - len(world)
    for axis, value in enumerate(world[:-2], first):
        viewer.dims.set_point(axis, value)
    low, high = np.asarray(layer.corner_pixels)[:, -2:]
    if (low <= (y, x)).all() and ((y, x) < high).all():
        return
    camera = camera_of(viewer)
    centre = np.array(camera.center, float)
    centre[-2:] = world[-2:]
    camera.center = tuple(centre)


def painted_of(session: Session, layer: Any) -> PaintedImage | None:
    """Return the image that a layer belongs to or lies on; None if there is none of its size."""
    own = session.find(layer)
    if own is not None:
        return own
    shape = tuple(data_of(layer).shape)
    current = session.current
    fitting = [p for p in session.images if tuple(p.image.label_shape) == shape]
    return current if current in fitting else next(iter(fitting), None)
