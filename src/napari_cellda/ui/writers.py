"""napari's own Save for labels and maps: with pixel size, whole files or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_cellda.core.errors import UserError

AXES = {2: "yx", 3: "zyx", 4: "tzyx", 5: "tczyx"}
"""Axes of a layer that does not name its own."""


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer.

    Parameters
    ----------
    path : str
        Its ending decides: `.zarr` OME-Zarr 0.5, `.png`, `.ome.tif` OME-TIFF, else TIFF for
        ImageJ where that holds it.
    data : array of int or bool, numpy, dask or zarr
        Of a multiscale layer the finest level.
    meta : dict
        The layer's attributes; scale and units become the pixel size.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    UserError
        If the format cannot hold the data, or the disk is full.
    """
    return _write(path, data, meta, labels=True)


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an Image layer, such as a probability map; see `write_labels`."""
    return _write(path, data, meta, labels=False)


def _write(path: str, data: Any, meta: dict[str, Any], *, labels: bool) -> list[str]:
    from napari_cellda.core.export import write_ome_zarr, write_png, write_tiff

    array = data[0] if meta.get("multiscale") or isinstance(data, list | tuple) else data
    axes = layer_axes(array, meta)
    pixel_size, unit = layer_pixel_size(axes, meta)
    ending = Path(path).suffix.lower()
    if ending == ".zarr":
        write_ome_zarr(path, array, axes, pixel_size=pixel_size, unit=unit, labels=labels)
    elif ending == ".png":
        write_png(path, np.asarray(array))
    else:
        write_tiff(path, array, axes, pixel_size=pixel_size, unit=unit)
    return [path]


def layer_axes(array: Any, meta: dict[str, Any]) -> str:
    """Return the axes of a layer's data: those it names if they are ours, else by their number.

    Parameters
    ----------
    array : array
    meta : dict
        The layer's attributes: `rgb` and `axis_labels` are read.

    Returns
    -------
    str
        Out of "tczyx"; an RGB layer's colours are a last "c".
    """
    colours = "c" if meta.get("rgb") else ""
    ndim = array.ndim - len(colours)
    named = "".join(str(label).strip().lower()[:1] for label in meta.get("axis_labels") or ())
    is_ours = len(named) == ndim == len(set(named)) and set(named) <= set("tczyx")
    if not is_ours and ndim not in AXES:
        raise UserError(f"The layer '{meta.get('name', '')}' has {ndim} axes; 2 to 5 are expected.")
    return (named if is_ours else AXES[ndim]) + colours


def layer_pixel_size(axes: str, meta: dict[str, Any]) -> tuple[tuple[float, float, float], str]:
    """Return the extent of a pixel along (z, y, x) and its unit ("pixel" when not known)."""
    from napari_cellda.core.images.units import standard_unit

    spatial = axes.removesuffix("c") if meta.get("rgb") else axes
    scale = meta.get("scale")
    sizes = dict(zip(spatial, scale if scale is not None else (), strict=False))
    units = [str(unit) for unit in meta.get("units") or ()]
    unit = standard_unit(units[-1] if units else None)
    return tuple(float(sizes.get(axis, 1.0)) for axis in "zyx"), unit  # type: ignore[return-value]
