"""Files of images, strokes and masks."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.memory import available_memory
from napari_cellda.core.paths import (
    BITMAP_SUFFIXES,
    KINDS,
    TIFF_SUFFIXES,
    exists,
    find_images,
    is_zarr,
    pair_by_stem,
    pairing_stem,
    stem,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Found",
    "as_int32",
    "find_images",
    "pair_by_stem",
    "pairing_stem",
    "read_file",
    "read_labels",
    "stem",
]


@dataclass(frozen=True)
class Found:
    """What a file holds, before its axes are put in order."""

    array: Any
    """Numpy, memory-mapped or zarr array."""
    axes: str
    """Out of "tczyx", in the order of the array."""
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    levels: tuple[Any, ...] = ()
    rgb: bool = False
    """Whether the channels are red, green, blue and possibly alpha."""
    alpha: bool = False
    """Whether the last channel of an image that is not RGB is alpha."""
    planar: bool = False
    """Whether the colour axis comes first, which some writers guess for stacks of 3 or 4 planes."""
    others: int = 0
    """Further images in the file, which are not read."""


def read_file(path: Path) -> Found:
    """Open a file by its kind, lazily where the format allows it.

    Raises
    ------
    UserError
        If it is missing, truncated or not an image.
    """
    if not exists(path):
        raise UserError(f"'{path}' does not exist.")
    suffix = path.suffix.lower()
    if path.is_dir():
        if not is_zarr(path):
            raise UserError(f"'{path}' is a folder without an image; expected {KINDS}.")
        from napari_cellda.core.images.ome_zarr import read_zarr

        return read_zarr(path)
    if not path.stat().st_size:
        raise UserError(f"'{path}' is empty (0 bytes); expected {KINDS}.")
    if suffix in TIFF_SUFFIXES:
        from napari_cellda.core.images.tiff import read_tiff

        return read_tiff(path)
    if suffix in BITMAP_SUFFIXES:
        return read_bitmap(path)
    raise UserError(f"'{path}' has the ending '{suffix}'; expected {KINDS}.")


def read_bitmap(path: Path, *, palette_indices: bool = False) -> Found:
    """Read a PNG or JPEG file, whole: neither can be read in parts.

    Parameters
    ----------
    path : Path
    palette_indices : bool
        Give the indices of a palette image, as masks need them, not its colours.
    """
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():  # of large images: they are refused only when too large
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            array = decode_bitmap(path, palette_indices=palette_indices)
    except Pillow.DecompressionBombError as error:
        raise UserError(f"'{path}' is too large to be read whole; save it as TIFF.") from error
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise UserError(f"'{path}' is damaged or not a PNG or JPEG image ({error}).") from error
    if array.ndim == 2:
        return Found(array, "yx")
    n_colours = array.shape[2] - (array.shape[2] in (2, 4))  # the last of 2 or 4 is alpha
    array = array[..., :n_colours]
    return Found(array, "yxc", rgb=True) if n_colours == 3 else Found(array[..., 0], "yx")


def decode_bitmap(path: Path, *, palette_indices: bool) -> np.ndarray:
    """Return the (Y, X) or (Y, X, C) pixels of a PNG or JPEG file."""
    import imageio.v3 as imageio
    from PIL import Image as Pillow

    with Pillow.open(path) as header:
        mode = header.mode
    if is_deep_colour_png(path):
        return read_deep_png(path)  # Pillow would cut it to 8 bits
    wanted = "P" if palette_indices and mode == "P" else None
    wanted = {"CMYK": "RGB", "YCbCr": "RGB"}.get(mode, wanted)
    return np.asarray(imageio.imread(path, index=0, plugin="pillow", mode=wanted))


def is_deep_colour_png(path: Path) -> bool:
    """Whether a file is a PNG with 16 bits per colour (its header says so in bytes 24 and 25)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def read_deep_png(path: Path) -> np.ndarray:
    """Read a PNG with 16 bits per colour."""
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def read_labels(path: str | Path) -> np.ndarray:
    """Read strokes, a mask or instance labels.

    Parameters
    ----------
    path : str or Path
        TIFF, PNG or OME-Zarr (a label image, or an image that holds just one). Whole numbers
        or booleans; colours are taken only where red, green and blue are the same.

    Returns
    -------
    ndarray of integer
        With the image's axes without channel, in the order t, z, y, x. Booleans become uint8.

    Raises
    ------
    UserError
        If the file cannot be read, does not fit into memory or does not hold whole numbers.
    """
    path = Path(path)
    if is_zarr(path):
        from napari_cellda.core.images.ome_zarr import find_labels

        path = find_labels(path)
    is_bitmap = path.is_file() and path.suffix.lower() in BITMAP_SUFFIXES
    found = read_bitmap(path, palette_indices=True) if is_bitmap else read_file(path)
    axes = found.axes.replace("c", "z") if found.planar else found.axes
    array = load_whole(found, path)
    if "c" in axes:
        array = single_channel(array, axes.index("c"), path)
        axes = axes.replace("c", "")
    array = array.transpose([axes.index(axis) for axis in "tzyx" if axis in axes])
    return as_integers(array, path)


def load_whole(found: Found, path: Path) -> np.ndarray:
    """Return all of a file's array, which stays on disk if it is memory-mapped.

    Raises
    ------
    UserError
        If there is no room for it: a file may claim any size.
    """
    size = math.prod(found.array.shape) * np.dtype(found.array.dtype).itemsize
    room = available_memory()
    if size > room and not isinstance(found.array, np.ndarray):
        shape = " x ".join(map(str, found.array.shape))
        raise UserError(
            f"'{path}' has {shape} pixels, which take {size / 2**30:.1f} GB of memory; "
            f"{room / 2**30:.1f} GB are free."
        )
    return np.asarray(found.array[...])


def single_channel(array: np.ndarray, axis: int, path: Path) -> np.ndarray:
    """Drop a channel axis along which all values are the same."""
    first = array.take([0], axis=axis)
    if not (array == first).all():
        raise UserError(
            f"'{path}' has {array.shape[axis]} different channels; expected one with label numbers."
        )
    return first.squeeze(axis)


def as_integers(array: np.ndarray, path: Path) -> np.ndarray:
    """Turn booleans and whole floats into native integers."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        whole = np.nan_to_num(array)
        if not (whole == array).all() or not (np.rint(whole) == whole).all():
            raise UserError(f"'{path}' holds fractions or NaN; expected whole label numbers.")
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_int32(labels: np.ndarray) -> NDArray[np.int32]:
    """Turn label numbers into int32, each object into one number of its own.

    Numbers that fit are kept. Larger ones, as electron microscopy has them, become the largest
    that fit, in their own order; far below 0 they become the smallest that fits.
    """
    limits = np.iinfo(np.int32)
    if not labels.size or limits.min <= labels.min() <= labels.max() <= limits.max:
        return labels.astype(np.int32, copy=False)
    numbers, which = np.unique(labels, return_inverse=True)
    largest = np.arange(limits.max - len(numbers) + 1, limits.max + 1)
    fits = numbers <= largest  # by np.minimum, unsigned and signed numbers would meet as floats
    largest[fits] = numbers[fits]
    small = np.maximum(largest, limits.min).astype(np.int32)
    return small[which].reshape(labels.shape)
