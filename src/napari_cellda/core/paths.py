"""Image files on disk: which can be opened, what they are called and which belong together."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
BITMAP_SUFFIXES = (".png", ".jpg", ".jpeg")
ZARR_SUFFIXES = (".zarr",)
KINDS = "TIFF, PNG, JPEG or OME-Zarr"
OTHER_SUFFIXES = (
    *(".bmp", ".gif", ".webp", ".jp2", ".heic", ".pgm", ".ppm"),
    *(".czi", ".lif", ".nd2", ".lsm", ".oib", ".oif", ".vsi", ".ims", ".stk", ".dv"),
    *(".svs", ".ndpi", ".scn", ".mrc", ".dcm", ".nii", ".nrrd", ".h5", ".hdf5", ".npy"),
)
"""Images of other kinds, of which a folder's reader would wonder why they are missing."""
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
LITTER = (".ds_store", "thumbs.db", "desktop.ini")
"""What systems put into a folder when somebody looks at it, in small letters."""
NO_FILE_NAME = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
"""Letters that one system or another takes in no name of a file."""
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever the ending."""
LONGEST_STEM = 150
"""Bytes: file systems take 255, and endings are added."""


def exists(path: Path) -> bool:
    """Whether there is something at a path, as far as it may be seen."""
    try:
        return path.exists()
    except OSError:  # no permission, or a name that is too long
        return False


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any(exists(path / name) for name in ("zarr.json", ".zgroup", ".zarray"))


def is_litter(name: str) -> bool:
    """Whether a file is none of the user's."""
    return name.lower() in LITTER


def files_below(path: Path, *, hidden: bool = False) -> Iterator[Path]:
    """List a file, or all files in a folder and in those below it.

    Links are followed, but none in circles. Litter is left out.

    Parameters
    ----------
    path : Path
    hidden : bool
        Whether names that begin with a dot count, also of folders: zarr 2 has such files.

    Yields
    ------
    Path
        In the order of the names on the way there, which is the same on every system.
    """
    if path.is_dir():
        yield from _walk(path, hidden, frozenset())
    elif path.is_file():
        yield path


def _walk(folder: Path, hidden: bool, above: frozenset[str]) -> Iterator[Path]:
    here = os.path.realpath(folder)
    if here in above:
        return
    for item in sorted(_items(folder), key=lambda item: item.name):
        if is_litter(item.name) or (item.name.startswith(".") and not hidden):
            continue
        if item.is_dir():
            yield from _walk(item, hidden, above | {here})
        elif item.is_file():
            yield item


def stem(path: str | Path) -> str:
    """Return a file's name without its ending, where `.ome.tif` and the like are one ending."""
    name = Path(path).name
    known = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES, *ZARR_SUFFIXES)
    for ending in (*(".ome" + suffix for suffix in known), *known):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return Path(name).stem


def same_stem(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """Return the first two paths with one stem, which no result could tell apart; None without.

    The disks of Windows and macOS take IMG and img for one name, so this does everywhere.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        name = stem(path).casefold()
        if name in seen:
            return seen[name], path
        seen[name] = path
    return None


def safe_stem(name: str) -> str:
    """Turn a name, such as a layer's, into the stem of a file that any disk takes.

    Two names may give the same stem.
    """
    short = name.encode(errors="replace")[:LONGEST_STEM].decode(errors="ignore")
    found = NO_FILE_NAME.sub("_", short).strip(". ")
    return f"{found}_" if DEVICES.match(found) else found or "image"


def package_id(name: str, otherwise: str) -> str:
    """Turn a name, such as a folder's, into an id that bioimage.io allows, or `otherwise`."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or otherwise


def pairing_stem(path: str | Path) -> str:
    """Return `stem` without the suffix of our own outputs, such as `_mask`."""
    name = stem(path)
    for suffix in OWN_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def is_image_path(path: Path) -> bool:
    """Whether a path looks like an image that can be opened.

    A link to nothing does, too, if it is called so: that it is missing is told when it is opened.
    """
    if path.name.startswith("."):
        return False
    kinds = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES)
    if not exists(path):
        return os.path.islink(path) and path.suffix.lower() in (*kinds, *ZARR_SUFFIXES)
    if path.is_dir():
        return is_zarr(path)
    return path.suffix.lower() in kinds


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
        if not exists(path):
            raise UserError(f"'{path}' does not exist.")
        if path.is_dir() and not is_zarr(path):
            inside = sorted(item for item in _items(path) if is_image_path(item))
            if not inside:
                deeper = any(map(is_image_path, files_below(path)))
                hint = ", but folders inside do: name those" if deeper else ""
                raise UserError(f"The folder '{path}' holds no image{hint}; expected {KINDS}.")
            found += inside
        elif is_image_path(path):
            found.append(path)
        else:
            raise UserError(f"'{path}' has the ending '{path.suffix}'; expected {KINDS}.")
    return found


def find_maps(path: Path) -> list[Path]:
    """List the maps in a folder of results, where masks lie beside them; else as `find_images`."""
    found = find_images(path)
    return [image for image in found if stem(image).endswith("_probability")] or found


def find_tables(path: Path) -> list[Path]:
    """List a CSV file, or those in a folder."""
    if not path.is_dir():
        return [path]
    tables = (item for item in _items(path) if item.suffix.lower() == ".csv")
    return sorted(item for item in tables if not item.name.startswith("."))


def folders_of(paths: Iterable[Path | None]) -> str:
    """Name the folders that files lie in; None is no file."""
    return " and ".join(sorted({f"'{path.parent}'" for path in paths if path is not None}))


def tell_left_out(paths: Iterable[Path]) -> str:
    """Say in one sentence which images `find_images` leaves out of folders; "" for none."""
    found = [
        item
        for path in paths
        if path.is_dir() and not is_zarr(path)
        for item in sorted(_items(path))
        if item.suffix.lower() in OTHER_SUFFIXES and not item.name.startswith(".")
    ]
    if not found:
        return ""
    such = f"'{found[0]}' is" if len(found) == 1 else f"{len(found)} files such as '{found[0]}' are"
    return f"{such} left out; expected {KINDS}."


def _items(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder '{folder}' cannot be read: {error.strerror}.") from error


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
            raise UserError(
                f"'{other}' has no image of the same name among {len(paths)} image(s); "
                f"expected a name such as '{next(iter(by_stem), '')}'."
            )
        if image in taken:
            raise UserError(f"'{taken[image]}' and '{other}' both belong to '{image}'.")
        taken[image] = other
    return [(image, taken[image]) for image in paths if image in taken]
