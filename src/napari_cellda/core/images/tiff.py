"""TIFF in its dialects: plain, ImageJ, OME, pyramidal; memory-mapped or tile by tile."""

from __future__ import annotations

import struct
import weakref
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.readers import Found
from napari_cellda.core.images.tiff_scale import pixel_size
from napari_cellda.core.mapped import MappedArray

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

    damage = (
        tifffile.TiffFileError,
        OSError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        struct.error,
    )
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
    check_chain(tif, path)
    stack = equal_series(tif)
    for series in stack:
        check_complete(series, path)
    first, letters = stack[0], stack[0].get_axes(True)
    if len(stack) > 1:
        arrays, letters = [stack_series(tif, stack, keeper)], "I" + letters
    else:
        arrays = open_series(tif, first, keeper)
    colour = Colour.of(first)
    if colour is Colour.GUESSED:
        letters = letters.replace("S", "I")
    size, unit = pixel_size(tif)
    return Found(
        arrays[0],
        name_axes(letters, path),
        size,
        unit,
        tuple(arrays[1:]),
        rgb=colour in (Colour.RGB, Colour.PLANAR),
        alpha=colour is Colour.GREY_ALPHA,
        planar=colour is Colour.PLANAR,
        others=sum(s not in stack and not s.keyframe.is_reduced for s in own_series(tif)),
    )


class Colour(Enum):
    """What the samples of a pixel are."""

    NONE = 0
    RGB = 1
    PLANAR = 2
    """RGB, plane after plane: possibly a guess of the writer."""
    GREY_ALPHA = 3
    GUESSED = 4
    """Plane after plane of a type that colours do not have: a stack taken for RGB."""

    @classmethod
    def of(cls, series: TiffPageSeries) -> Colour:
        """Tell from a series' metadata."""
        letters, page = series.get_axes(True), series.keyframe
        samples = dict(zip(letters, series.get_shape(True), strict=True)).get("S", 1)
        if int(page.photometric) in COLOUR and samples in (3, 4):
            if letters.index("S") > letters.index("Y"):
                return cls.RGB
            return cls.PLANAR if series.dtype.name in ("uint8", "uint16") else cls.GUESSED
        extras = [int(extra) for extra in page.extrasamples]
        return cls.GREY_ALPHA if samples == 2 and extras and extras[-1] in ALPHA else cls.NONE


def own_series(tif: TiffFile) -> list[TiffPageSeries]:
    """Return the series that begin in this file: each file of an OME set lists those of all."""
    own = [s for s in tif.series if s.pages[0] is not None and s.pages[0].parent is tif]
    return own or list(tif.series)


def equal_series(tif: TiffFile) -> list[TiffPageSeries]:
    """Return the first series, or all if they are like planes that were written one by one."""
    first, *others = own_series(tif)
    plain = first.kind in ("shaped", "generic", "uniform") and first.get_axes(True) == "YX"
    same = all(s.shape == first.shape and s.dtype == first.dtype for s in others)
    return [first, *others] if plain and same else [first]


def check_chain(tif: TiffFile, path: Path) -> None:
    """Raise a UserError if the directory of a further page lies beyond the end of the file.

    tifffile would leave out that page and all after it.
    """
    form, file = tif.tiff, tif.filehandle
    last = tif.pages[len(tif.pages) - 1].offset
    file.seek(last)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(last + form.tagnosize + n_tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if following >= file.size:
        raise UserError(
            f"'{path}' is truncated: it has {file.size} bytes, but goes on at {following}."
        )


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
        mapped = MappedArray(tif.filehandle.path, dtype, "r", series.dataoffset, shape)
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
