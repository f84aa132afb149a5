"""TIFF in its dialects: plain, ImageJ, OME, pyramidal; memory-mapped or tile by tile."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.readers import Found
from napari_cellda.core.units import METRES, standard_unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tifffile import TiffFile, TiffPageSeries

COLOUR = (2, 6)
"""TIFF's codes for the photometric interpretations RGB and YCbCr (decoded to RGB)."""
ALPHA = (1, 2)
"""TIFF's codes for extra samples that are alpha."""
NAMED_AXES = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x", "S": "c"}


def read_tiff(path: Path) -> Found:
    """Open a TIFF file: memory-mapped when it is stored plainly, else decoded tile by tile.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Found
        Axes without a name are z; then t; then c.

    Raises
    ------
    UserError
        If the file is truncated, is not a TIFF, or has axes that are not time, channel, z, y, x.
    """
    import tifffile

    damage = (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError)
    try:
        tif = tifffile.TiffFile(path)
    except damage as error:
        raise UserError(f"'{path}' is damaged or not a TIFF image ({error}).") from error
    keeper = Keeper(tif.close)
    try:
        if not tif.pages:
            raise ValueError("it holds no picture")
        return describe(tif, path, keeper)
    except damage as error:
        raise UserError(f"'{path}' is a damaged TIFF image ({error}).") from error


class Keeper:
    """Calls `close` once nothing refers to it any more: the arrays of one file share it."""

    def __init__(self, close: Callable[[], None]) -> None:
        weakref.finalize(self, close)


def describe(tif: TiffFile, path: Path, keeper: Keeper) -> Found:
    """Find the array, axes and pixel size of an open file."""
    stack = equal_series(tif)
    first = stack[0]
    for series in stack:
        check_complete(series, path)
    letters = first.get_axes(True)
    if len(stack) > 1:
        arrays, letters = [stack_series(tif, stack, keeper)], "I" + letters
    else:
        arrays = open_series(tif, first, keeper)
    axes = name_axes(letters, path)
    size, unit = pixel_size(tif)
    photometric, samples = int(first.keyframe.photometric), samples_in(first)
    extras = [int(extra) for extra in first.keyframe.extrasamples]
    return Found(
        arrays[0],
        axes,
        size,
        unit,
        tuple(arrays[1:]),
        rgb=photometric in COLOUR and samples in (3, 4),
        alpha=photometric not in COLOUR and samples == 2 and extras[-1:] in ([1], [2]),
        planar="S" in letters and letters.index("S") < letters.index("Y"),
    )


def samples_in(series: TiffPageSeries) -> int:
    """Return how many samples (colours and alpha) each pixel has."""
    sizes = dict(zip(series.get_axes(True), series.get_shape(True), strict=True))
    return int(sizes.get("S", 1))


def equal_series(tif: TiffFile) -> list[TiffPageSeries]:
    """Return the first series, or all if they are like planes that were written one by one."""
    first, *others = tif.series
    plain = first.kind in ("shaped", "generic", "uniform") and first.get_axes(True) == "YX"
    same = all(s.shape == first.shape and s.dtype == first.dtype for s in others)
    return [first, *others] if plain and same else [first]


def check_complete(series: TiffPageSeries, path: Path) -> None:
    """Raise a UserError if the pixels reach beyond the end of the file."""
    for level in series.levels:
        for page in (level.pages[0], level.pages[-1]):
            if page is None:
                raise UserError(f"'{path}' lacks planes: a file that belongs to it is missing.")
            ends = np.add(page.dataoffsets, page.databytecounts)
            size = page.parent.filehandle.size
            if len(ends) and ends.max() > size:
                raise UserError(
                    f"'{path}' is truncated: it has {size} bytes, its pixels need {ends.max()}."
                )


def open_series(tif: TiffFile, series: TiffPageSeries, keeper: Keeper) -> list[Any]:
    """Return the levels of a series, finest first, as memory maps or zarr arrays."""
    if series.dataoffset is not None and len(series.levels) == 1:
        dtype = np.dtype(tif.byteorder + series.dtype.char)
        shape = series.get_shape(False)
        mapped = np.memmap(tif.filehandle.path, dtype, "r", series.dataoffset, shape)
        return [mapped.reshape(series.get_shape(True))]
    import zarr

    store: Any = series.aszarr(squeeze=True)
    store.keeper = keeper  # the file stays open as long as its arrays are in use
    opened = zarr.open(store, mode="r")
    if isinstance(opened, zarr.Array):
        return [opened]
    return [opened[str(i)] for i in range(len(series.levels))]


def stack_series(tif: TiffFile, stack: list[TiffPageSeries], keeper: Keeper) -> Any:
    """Stack planes that were written one by one, lazily."""
    import dask.array as da

    planes = [open_series(tif, series, keeper)[0] for series in stack]
    # `name=False` gives a random name: dask would hash the whole content otherwise.
    return da.stack([da.from_array(plane, name=False) for plane in planes])


def name_axes(letters: str, path: Path) -> str:
    """Translate tifffile's axes into ours.

    Axes that the file does not name become z, or else t, or else c: a grey stack without metadata
    is a z stack.
    """
    named = [NAMED_AXES.get(letter) for letter in letters]
    unnamed = named.count(None)
    free = [axis for axis in "ztc" if axis not in named][:unnamed]
    spare = iter(sorted(free, key="tcz".index))
    axes = "".join(name or next(spare, "?") for name in named)
    if "?" in axes or len(set(axes)) != len(axes) or not set("yx") <= set(axes):
        raise UserError(
            f"'{path}' has the axes '{letters.lower()}'; expected time, channel, z, y, x at most."
        )
    return axes


def pixel_size(tif: TiffFile) -> tuple[tuple[float, float, float], str]:
    """Return the (z, y, x) pixel size and its unit; ones and "pixel" when the file tells none.

    The resolution tag alone is not believed: most writers leave the printer's 72 dots per inch.
    """
    if tif.is_ome and tif.ome_metadata:
        return ome_pixel_size(tif.ome_metadata)
    if tif.is_imagej and tif.imagej_metadata:
        return imagej_pixel_size(tif)
    return (1.0, 1.0, 1.0), "pixel"


def ome_pixel_size(xml: str) -> tuple[tuple[float, float, float], str]:
    """Read the physical sizes of the first image; y and z are converted to the unit of x."""
    import tifffile

    images = tifffile.xml2dict(xml).get("OME", {}).get("Image", {})
    pixels = (images[0] if isinstance(images, list) else images).get("Pixels", {})
    unit = standard_unit(pixels.get("PhysicalSizeXUnit", "µm"))
    if "PhysicalSizeX" not in pixels or unit == "pixel":
        return (1.0, 1.0, 1.0), "pixel"

    def size(axis: str) -> float:
        value = pixels.get(f"PhysicalSize{axis}", pixels["PhysicalSizeX"] if axis == "Y" else 1.0)
        own = standard_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        return sound(float(value) * METRES.get(own, METRES[unit]) / METRES[unit])

    return (size("Z"), size("Y"), size("X")), unit


def imagej_pixel_size(tif: TiffFile) -> tuple[tuple[float, float, float], str]:
    """Read ImageJ's unit, slice spacing and resolution (pixels per unit)."""
    metadata = tif.imagej_metadata or {}
    unit = standard_unit(str(metadata.get("unit", "")))
    if unit == "pixel":
        return (1.0, 1.0, 1.0), "pixel"

    tags = tif.pages.first.tags

    def size(axis: str) -> float:
        tag = tags.get(f"{axis}Resolution")
        count, length = tag.value if tag is not None else (1, 1)
        return sound(length / count if count else 1.0)

    return (sound(float(metadata.get("spacing", 1.0))), size("Y"), size("X")), unit


def sound(size: float) -> float:
    """Return a pixel size, or 1 where a file gives nonsense."""
    return abs(size) if math.isfinite(size) and size else 1.0
