"""OME-Zarr 0.4 and 0.5 (and plain zarr arrays): axes, scales and all levels, lazily."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.readers import Found
from napari_cellda.core.images.units import METRES, standard_unit

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

DEFAULT_AXES = "tczyx"
PLAIN_AXES = {2: "yx", 3: "zyx", 4: "tzyx", 5: "tczyx"}
"""How a zarr array without metadata is understood, by its number of axes."""


def read_zarr(path: Path) -> Found:
    """Open an OME-Zarr image or a plain zarr array.

    Parameters
    ----------
    path : Path
        The folder of the group or array.

    Returns
    -------
    Found

    Raises
    ------
    UserError
        If it is a plate, a well, a group of labels, or no image at all.
    """
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not a readable zarr image ({error}).") from error
    if isinstance(node, zarr.Array):
        return plain_array(node, path)
    metadata = ome_metadata(node)
    if "bioformats2raw.layout" in metadata and "0" in node:
        others = sum(name.isdecimal() for name in node) - 1
        return replace(read_zarr(path / "0"), others=others)
    refuse_collections(metadata, path)
    try:
        return multiscale(node, metadata["multiscales"][0], path)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise UserError(f"'{path}' is a damaged OME-Zarr image ({error!r}).") from error


def find_labels(path: Path) -> Path:
    """Return the label image that a zarr folder stands for: the only one in it, or itself."""
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
        inside = node.get("labels") if isinstance(node, zarr.Group) else None
        names = ome_metadata(inside).get("labels", []) if isinstance(inside, zarr.Group) else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not a readable zarr image ({error}).") from error
    if len(names) > 1:
        raise UserError(f"'{path}' holds the label images {', '.join(names)}; name one of them.")
    return path / "labels" / str(names[0]) if names else path


def ome_metadata(group: zarr.Group) -> dict[str, Any]:
    """Return the OME metadata, which version 0.5 keeps under "ome" and older ones do not."""
    attributes = dict(group.attrs)
    nested = attributes.get("ome")
    return dict(nested) if isinstance(nested, dict) else attributes


def refuse_collections(metadata: dict[str, Any], path: Path) -> None:
    """Raise a UserError for the groups that hold images but are none."""
    for key, what in (("plate", "a plate"), ("well", "a well"), ("labels", "a group of labels")):
        if key in metadata and "multiscales" not in metadata:
            raise UserError(f"'{path}' is {what}, not an image; open one of the images in it.")
    if not metadata.get("multiscales"):
        raise UserError(f"'{path}' is a zarr group without an OME-Zarr image.")


def multiscale(group: zarr.Group, image: dict[str, Any], path: Path) -> Found:
    """Read one multiscale image."""
    import zarr

    nodes = [group[dataset["path"]] for dataset in image["datasets"]]
    arrays = [node for node in nodes if isinstance(node, zarr.Array)]
    if len(arrays) < len(nodes):
        raise UserError(f"'{path}' names a resolution level that is not an array.")
    described = image.get("axes") or list(DEFAULT_AXES[-arrays[0].ndim :])
    described = [{"name": axis} if isinstance(axis, str) else axis for axis in described]
    axes = "".join(str(axis["name"])[:1].lower() for axis in described)
    if len(axes) != arrays[0].ndim:
        raise UserError(f"'{path}' describes {len(axes)} axes for {arrays[0].ndim} dimensions.")
    size, unit = pixel_size(image, described, axes)
    return Found(arrays[0], axes, size, unit, tuple(arrays[1:]))


def pixel_size(
    image: dict[str, Any], described: list[dict[str, Any]], axes: str
) -> tuple[tuple[float, float, float], str]:
    """Return the (z, y, x) size of a pixel of the finest level, in the unit of x."""
    scale = np.ones(len(axes))
    for transformations in (
        image["datasets"][0].get("coordinateTransformations", []),
        image.get("coordinateTransformations", []),
    ):
        for transformation in transformations:
            if transformation.get("type") == "scale" and "scale" in transformation:
                scale = scale * np.asarray(transformation["scale"], float)
    units = {
        axis: standard_unit(item.get("unit")) for axis, item in zip(axes, described, strict=True)
    }
    unit = units.get("x", "pixel")

    def size(axis: str) -> float:
        if axis not in axes:
            return 1.0
        own = METRES.get(units[axis], METRES.get(unit, 1.0))
        return float(scale[axes.index(axis)] * own / METRES.get(unit, own))

    return (size("z"), size("y"), size("x")), unit


def plain_array(array: zarr.Array[Any], path: Path) -> Found:
    """Read a zarr array without OME metadata; its dimension names count when they are axes."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    axes = "".join(str(name)[:1].lower() for name in names)
    if not set("yx") <= set(axes) <= set(DEFAULT_AXES) or len(axes) != array.ndim:
        axes = PLAIN_AXES.get(array.ndim, "")
    if not axes:
        raise UserError(f"'{path}' has {array.ndim} dimensions; expected 2 to 5.")
    return Found(array, axes)
