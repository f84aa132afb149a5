"""Files of images, strokes and masks: what can be opened, found and paired."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
BITMAP_SUFFIXES = (".png", ".jpg", ".jpeg")
ZARR_SUFFIXES = (".zarr",)
KINDS = "TIFF, PNG, JPEG or OME-Zarr"
OWN_SUFFIXES = (
    "_probability",
    "_mask",
    "_instances",
    "_objects",
    "_forest",
    "_boundary",
    "_strokes",
)
"""What our own outputs add to the stem of their image."""
UNITS = {
    "angstrom": ("angstrom", "å", "a"),
    "nanometer": ("nanometer", "nanometre", "nm"),
    "micrometer": ("micrometer", "micrometre", "micron", "microns", "um", "µm", "μm", "\\u00b5m"),
    "millimeter": ("millimeter", "millimetre", "mm"),
    "centimeter": ("centimeter", "centimetre", "cm"),
    "meter": ("meter", "metre", "m"),
    "inch": ("inch", "in"),
}
"""Lengths as OME-Zarr spells them, with other spellings."""
METRES = dict(zip(UNITS, (1e-10, 1e-9, 1e-6, 1e-3, 1e-2, 1.0, 0.0254), strict=True))
"""What each unit measures in metres."""


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


def standard_unit(unit: str | None) -> str:
    """Return the OME-Zarr spelling of a unit of length; "pixel" when there is none."""
    wanted = (unit or "").strip().lower()
    for name, spellings in UNITS.items():
        if wanted in spellings:
            return name
    return "pixel"


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any(
        (path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")
    )


def read_file(path: Path) -> Found:
    """Open a file by its kind, lazily where the format allows it.

    Raises
    ------
    UserError
        If it is missing, truncated or not an image.
    """
    if not path.exists():
        raise UserError(f"'{path}' does not exist.")
    suffix = path.suffix.lower()
    if path.is_dir():
        if not is_zarr(path):
            raise UserError(f"'{path}' is a folder without an image; expected {KINDS}.")
        from napari_cellda.core.readers_zarr import read_zarr

        return read_zarr(path)
    if not path.stat().st_size:
        raise UserError(f"'{path}' is empty (0 bytes); expected {KINDS}.")
    if suffix in TIFF_SUFFIXES:
        from napari_cellda.core.readers_tiff import read_tiff

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
    import imageio.v3 as imageio
    from PIL import Image as Pillow

    try:
        with Pillow.open(path) as header:
            mode = header.mode
        if is_deep_colour_png(path):
            array = read_deep_png(path)  # Pillow would cut it to 8 bits
        else:
            wanted = "P" if palette_indices and mode == "P" else None
            wanted = {"CMYK": "RGB", "YCbCr": "RGB"}.get(mode, wanted)
            array = np.asarray(imageio.imread(path, index=0, plugin="pillow", mode=wanted))
    except Pillow.DecompressionBombError as error:
        raise UserError(f"'{path}' is too large to be read whole; save it as TIFF.") from error
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise UserError(f"'{path}' is damaged or not a PNG or JPEG image ({error}).") from error
    if array.ndim == 2:
        return Found(array, "yx")
    n_colours = array.shape[2] - (array.shape[2] in (2, 4))  # the last of 2 or 4 is alpha
    array = array[..., :n_colours]
    return Found(array, "yxc", rgb=True) if n_colours == 3 else Found(array[..., 0], "yx")


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
        TIFF, PNG or OME-Zarr (a labels image, or an image with one labels image in it). Whole
        numbers or booleans; colours are taken only where red, green and blue are the same.

    Returns
    -------
    ndarray of integer
        With the image's axes without channel, in the order t, z, y, x. Booleans become uint8.

    Raises
    ------
    UserError
        If the file cannot be read or does not hold whole numbers.
    """
    path = Path(path)
    is_bitmap = path.is_file() and path.suffix.lower() in BITMAP_SUFFIXES
    found = read_bitmap(path, palette_indices=True) if is_bitmap else read_file(path)
    axes = found.axes.replace("c", "z") if found.planar else found.axes
    array = np.asarray(found.array[...])
    if "c" in axes:
        array = single_channel(array, axes.index("c"), path)
        axes = axes.replace("c", "")
    array = array.transpose([axes.index(axis) for axis in "tzyx" if axis in axes])
    return as_integers(array, path)


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


def stem(path: str | Path) -> str:
    """Return a file's name without its ending, where `.ome.tif` and the like are one ending."""
    name = Path(path).name
    known = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES, *ZARR_SUFFIXES)
    for ending in (*(".ome" + suffix for suffix in known), *known):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return Path(name).stem


def pairing_stem(path: str | Path) -> str:
    """Return `stem` without the suffix of our own outputs, such as `_mask`."""
    name = stem(path)
    for suffix in OWN_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def is_image_path(path: Path) -> bool:
    """Whether a path looks like an image that can be opened."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return is_zarr(path)
    return path.suffix.lower() in (*TIFF_SUFFIXES, *BITMAP_SUFFIXES)


def find_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """List image files.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, zarr groups, and folders whose images are taken in the order of their names (not
        those of folders inside).

    Returns
    -------
    list of Path

    Raises
    ------
    UserError
        If a path does not exist, a folder holds no image, or a file is of another kind.
    """
    found: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, str | Path) else map(Path, paths):
        if not path.exists():
            raise UserError(f"'{path}' does not exist.")
        if path.is_dir() and not is_zarr(path):
            inside = sorted(item for item in path.iterdir() if is_image_path(item))
            if not inside:
                raise UserError(f"The folder '{path}' holds no image; expected {KINDS}.")
            found += inside
        elif is_image_path(path):
            found.append(path)
        else:
            raise UserError(f"'{path}' has the ending '{path.suffix}'; expected {KINDS}.")
    return found


def pair_by_stem(
    images: Sequence[str | Path], others: Sequence[str | Path]
) -> list[tuple[Path, Path]]:
    """Pair images with their strokes, masks or other companions.

    Parameters
    ----------
    images, others : sequences of paths
        The stem of each other is looked up among the stems of the images, first as it is, then
        without our own suffix. If no stem fits and there are as many, they pair in order.

    Returns
    -------
    list of (image, other)
        In the order of the images; images without a companion are left out.

    Raises
    ------
    UserError
        If another has no image, or two claim the same one.
    """
    paths = [Path(image) for image in images]
    by_stem = {stem(image): image for image in paths}
    by_stem = {pairing_stem(image): image for image in paths} | by_stem
    partners = {
        Path(other): by_stem.get(stem(other)) or by_stem.get(pairing_stem(other))
        for other in others
    }
    if others and not any(partners.values()) and len(paths) == len(others):
        return list(zip(paths, map(Path, others), strict=True))
    taken: dict[Path, Path] = {}
    for other, image in partners.items():
        if image is None:
            raise UserError(f"'{other}' has no image of the same name among {len(paths)} image(s).")
        if image in taken:
            raise UserError(f"'{taken[image]}' and '{other}' both belong to '{image}'.")
        taken[image] = other
    return [(image, taken[image]) for image in paths if image in taken]
