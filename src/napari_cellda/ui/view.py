"""What is visible of an image in the viewer, as a region of core's image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from napari_cellda.ui.painted import PaintedImage


def camera_of(viewer: Any) -> Any:
    """Return the viewer's camera; napari 0.9 moved it to the scene."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def shown_axes(painted: PaintedImage) -> str:
    """Return the axes of the layer's dimensions in the viewer (RGB colours are none)."""
    axes = painted.choice.axes
    return axes.removesuffix("c") if painted.layer.rgb else axes


def current_place(viewer: Any, painted: PaintedImage) -> dict[str, int]:
    """Return the index along each axis of the image that the sliders point at."""
    layer = painted.layer
    coordinates = layer.world_to_data(viewer.dims.point)
    sizes = _sizes(painted)
    return {
        axis: int(np.clip(round(float(value)), 0, sizes[axis] - 1))
        for axis, value in zip(shown_axes(painted), coordinates, strict=True)
        if axis != "c"
    }


def visible_region(viewer: Any, painted: PaintedImage) -> Region:
    """Return the part of one plane of the image that is visible.

    Parameters
    ----------
    viewer : napari.Viewer
    painted : PaintedImage

    Returns
    -------
    Region
        With a single z plane, where the sliders point. The whole plane in 3D views, when other
        axes than (y, x) are displayed, or when the image lies outside the canvas.
    """
    place = current_place(viewer, painted)
    t, z = place.get("t", 0), place.get("z", 0)
    sizes = _sizes(painted)
    rows, columns = slice(0, sizes["y"]), slice(0, sizes["x"])
    axes = shown_axes(painted)
    layer = painted.layer
    first = len(viewer.dims.order) - len(axes)
    displayed = [axes[d - first] for d in viewer.dims.displayed if d >= first]
    if viewer.dims.ndisplay == 2 and sorted(displayed) == ["x", "y"]:
        low, high = np.asarray(layer.corner_pixels)[:, [axes.index("y"), axes.index("x")]]
        zoom = layer.downsample_factors[layer.data_level] if layer.multiscale else None
        factor = 1 if zoom is None else np.asarray(zoom)[[axes.index("y"), axes.index("x")]]
        low, high = low * factor, (high + 1) * factor
        seen = [
            slice(int(max(0, a)), int(min(size, np.ceil(b))))
            for a, b, size in zip(low, high, (sizes["y"], sizes["x"]), strict=True)
        ]
        if all(part.stop - part.start > 1 for part in seen):
            rows, columns = seen
    return Region(t, slice(z, z + 1), rows, columns)


def centre_of(region: Region) -> tuple[float, float, float]:
    """Return the middle of a region, (z, y, x) in pixels."""
    z, y, x = ((part.start + part.stop) / 2 for part in region.slices)
    return z, y, x


def look_at(viewer: Any, painted: PaintedImage, spot: dict[str, int]) -> None:
    """Move the sliders to a pixel of the image, and the camera if it is not in view.

    Parameters
    ----------
    viewer : napari.Viewer
    painted : PaintedImage
    spot : dict of axis to index
        E.g. ``{"z": 3, "y": 120, "x": 44}``; axes left out stay where they are.
    """
    layer, axes = painted.layer, shown_axes(painted)
    here = list(layer.world_to_data(viewer.dims.point))
    for axis, value in spot.items():
        if axis in axes:
            here[axes.index(axis)] = value
    world = np.asarray(layer.data_to_world(here))
    first = len(viewer.dims.order) - len(axes)
    for number, value in enumerate(world, first):
        viewer.dims.set_point(number, value)
    region = visible_region(viewer, painted)
    y, x = spot.get("y", region.y.start), spot.get("x", region.x.start)
    if region.y.start <= y < region.y.stop and region.x.start <= x < region.x.stop:
        return
    shown = [world[d - first] for d in viewer.dims.displayed if d >= first]
    camera = camera_of(viewer)
    centre = np.array(camera.center, float)
    centre[-len(shown) :] = shown
    camera.center = tuple(centre)


def _sizes(painted: PaintedImage) -> dict[str, int]:
    image = painted.image
    return dict(zip("tzyx", (image.n_times, *image.limits), strict=True))
