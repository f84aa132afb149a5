"""TIFF for ImageJ and as OME-TIFF, written region by region."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.atomic import reserve, write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.images.units import METRES, SYMBOLS, extents
from napari_cellda.core.mapped import MappedArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike

TiffKind = Literal["auto", "imagej", "ome"]
IMAGEJ_ORDER = "tzcyx"
IMAGEJ_TYPES = ("uint8", "uint16", "float32")
IMAGEJ_BYTES = 2**32 - 2**20
"""ImageJ's own format cannot be larger."""
RESOLVED = (1e-6, 1e6)
"""Sizes of a pixel whose resolution is kept to a millionth of a millionth."""
STORED = {"bool": "uint8", "float16": "float32", "int64": "int32", "uint64": "uint32"}
"""What stands in for types that OME-TIFF does not know."""


class RegionWriter:
    """Takes an array region by region.

    Parameters
    ----------
    array : array
        Where the regions go.
    name : str
        What messages call the file.
    """

    def __init__(self, array: Any, name: str) -> None:
        self.array = array
        self.name = name

    def write(self, index: tuple[slice | int, ...], block: np.ndarray) -> None:
        """Write one region.

        Parameters
        ----------
        index : tuple of slice or int
            One per axis of the array; axes left out at the end are taken whole.
        block : ndarray
            Of the region's shape.

        Raises
        ------
        UserError
            If whole numbers do not fit the type of the file.
        """
        self.array[index] = fit_type(np.asarray(block), self.array.dtype, self.name)


def fit_type(block: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    """Cast a block, but never wrap whole numbers around."""
    if np.can_cast(block.dtype, dtype) or dtype.kind not in "ui" or not block.size:
        return block.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    for value in (block.min(), block.max()):
        if not limits.min <= value <= limits.max:
            raise UserError(f"'{name}' cannot hold the value {value} as {dtype}.")
    return block.astype(dtype)


def stored_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the type in which a file keeps values of `dtype`."""
    dtype = np.dtype(dtype)
    return np.dtype(STORED.get(dtype.name, dtype.name))


@contextmanager
def open_tiff_writer(
    path: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    kind: TiffKind = "auto",
) -> Iterator[RegionWriter]:
    """Write a TIFF of any size region by region, uncompressed, so that it can be memory-mapped.

    Parameters
    ----------
    path : str or Path
    shape : sequence of int
    axes : str
        Out of "tczyx", one letter per axis, kept in this order. A last "c" means RGB colours.
    dtype : dtype
        Booleans are kept as uint8, float16 as float32, 64 bit integers as 32 bit.
    pixel_size : sequence of float, optional
        Extent of a pixel along the last of (z, y, x), in `unit`.
    unit : str
        As OME-Zarr spells it; with "pixel" no size is written.
    kind : {"auto", "imagej", "ome"}
        "auto" is ImageJ's format where it can hold the array, but OME for names in `.ome.tif`.

    Yields
    ------
    RegionWriter
        What is not written stays 0.

    Raises
    ------
    UserError
        If the disk is full or ImageJ's format is asked for and cannot hold the array.
    """
    dtype, shape = stored_type(dtype), tuple(int(size) for size in shape)
    if axes.endswith("c") and shape[-1] not in (3, 4):
        raise UserError(f"'{path}' has {shape[-1]} values per pixel; colours are 3 or 4.")
    kind = choose_kind(str(path), shape, axes, dtype, kind)
    sizes = extents(pixel_size)
    options = imagej_options if kind == "imagej" else ome_options
    with write_atomically(path) as aside:
        array = create_mapped(aside, shape, dtype, axes, options(axes, sizes, unit))
        writer = RegionWriter(array, str(path))
        yield writer
        # No `array.flush()`: the file is flushed next, and waiting twice is half of a small image's
        # time. Windows moves no file that is still mapped.
        del writer.array, array


def choose_kind(
    name: str, shape: tuple[int, ...], axes: str, dtype: np.dtype[Any], kind: TiffKind
) -> TiffKind:
    """Decide between ImageJ's format and OME."""
    order = [IMAGEJ_ORDER.index(axis) for axis in axes.removesuffix("c")]
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fits = dtype.name in IMAGEJ_TYPES and order == sorted(order) and size <= IMAGEJ_BYTES
    if kind == "imagej" and not fits:
        raise UserError(
            f"'{name}' cannot be written for ImageJ: {dtype} with the axes '{axes}' and {size} "
            "bytes; its format takes uint8, uint16 and float32, the order tzcyx and 4 GB."
        )
    if kind == "auto":
        is_ome = ".ome." in name.lower()
        return "imagej" if fits and not is_ome else "ome"
    return kind


def imagej_options(axes: str, sizes: Sequence[float], unit: str) -> dict[str, Any]:
    """Return what tifffile needs to write ImageJ's metadata, which is ASCII."""
    metadata: dict[str, Any] = {"axes": letters(axes)}
    given, unit = unit, fitting_unit(sizes[1:], unit)
    if unit == "pixel":
        return {"imagej": True, "metadata": metadata}
    z, y, x = (size * METRES[given] / METRES[unit] for size in sizes)
    symbol = SYMBOLS[unit].replace("µ", "u")
    metadata["unit"] = symbol if symbol.isascii() else unit
    if "z" in axes:
        metadata["spacing"] = z
    return {"imagej": True, "metadata": metadata, "resolution": (1 / x, 1 / y)}


def fitting_unit(sizes: Sequence[float], unit: str) -> str:
    """Return the unit, or another in which TIFF can hold the sizes; "pixel" if there is none.

    A resolution, 1 / size, is a fraction of two numbers of 32 bits.
    """
    for other in (unit, *METRES) if unit in METRES else ():
        scaled = [size * METRES[unit] / METRES[other] for size in sizes]
        if RESOLVED[0] <= min(scaled) and max(scaled) <= RESOLVED[1]:
            return other
    return "pixel"


def ome_options(axes: str, sizes: Sequence[float], unit: str) -> dict[str, Any]:
    """Return what tifffile needs to write OME metadata."""
    metadata: dict[str, Any] = {"axes": letters(axes)}
    if unit != "pixel":
        for axis, size in zip("zyx", sizes, strict=True):
            if axis in axes:
                metadata[f"PhysicalSize{axis.upper()}"] = size
                metadata[f"PhysicalSize{axis.upper()}Unit"] = SYMBOLS[unit]
    return {"ome": True, "metadata": metadata}


def letters(axes: str) -> str:
    """Return tifffile's spelling of the axes, where colours at the end are S."""
    return axes.removesuffix("c").upper() + ("S" if axes.endswith("c") else "")


def create_mapped(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], axes: str, options: dict[str, Any]
) -> Any:
    """Create a TIFF of zeros and map its pixels into memory."""
    import tifffile

    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    found = tifffile.imwrite(
        path,
        shape=shape,
        dtype=dtype,
        photometric="rgb" if axes.endswith("c") else "minisblack",
        align=tifffile.TIFF.ALLOCATIONGRANULARITY,
        returnoffset=True,
        bigtiff=None if options.get("imagej") else size > IMAGEJ_BYTES,
        **options,
    )
    assert found is not None  # plain contiguous pixels always have an offset
    with path.open("rb+") as file:
        reserve(file, path.stat().st_size)
    return MappedArray(path, dtype, "r+", found[0], shape)
