"""Unpacking a model package from a zip file that may come from anyone."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.places import cache_folder, file_sha256
from napari_cellda.core.modelzoo.rdf import find_rdf, is_rdf_name

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MEMBERS = 1000
MAX_BYTES = 4 * 2**30
MAX_RATIO = 200
"""What grows more than this on unpacking, and to more than `HARMLESS_BYTES`, is a bomb."""
HARMLESS_BYTES = 64 * 2**20
PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill")


def unpack(path: Path) -> Path:
    """Unpack a zip file into the cache, once per content, after checking every member.

    Parameters
    ----------
    path : Path
        A zip file.

    Returns
    -------
    Path
        The folder that holds the package's rdf.yaml.

    Raises
    ------
    UserError
        If the file is damaged, is no model package, or holds anything that should not be
        unpacked. Nothing of it is left on disk then.
    """
    target = cache_folder() / "packages" / file_sha256(path)[:32]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpacking-"))
        try:
            _unpack_into(path, scratch)
            _package_root(scratch, path.name)
            _put_in_place(scratch, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise UserError(f"{path.name} is a damaged zip file and was not unpacked.") from error
        except OSError as error:
            raise UserError(f"{path.name} could not be unpacked: {error.strerror}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return _package_root(target, path.name)


def _unpack_into(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_members(members, path.name)
        for member in members:
            target = folder / PurePosixPath(member.filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile never writes more than the size that was checked, and compares the checksum.
            with archive.open(member) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def check_members(members: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Refuse a zip file with a member that should not be unpacked.

    Parameters
    ----------
    members : sequence of ZipInfo
    name : str
        The zip file's name, for the message.

    Raises
    ------
    UserError
        For paths that are absolute, climb out, name a drive or repeat one another; links and
        devices; encrypted members; pickles; too many members, or too large ones.
    """
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{name} holds {len(members)} files; at most {MAX_MEMBERS} are unpacked.")
    seen: set[str] = set()
    for member in members:
        if problem := _problem(member):
            raise UserError(f"{name} was not unpacked: its member '{member.filename}' {problem}.")
        key = member.filename.rstrip("/").casefold()
        if key in seen:
            raise UserError(f"{name} was not unpacked: it holds '{member.filename}' twice.")
        seen.add(key)
    total = sum(member.file_size for member in members)
    if explodes(total, sum(member.compress_size for member in members)):
        raise UserError(f"{name} was not unpacked: it is a zip bomb of {total / 2**20:.0f} MB.")
    if total > MAX_BYTES:
        raise UserError(
            f"{name} was not unpacked: it would grow to {total / 2**30:.1f} GB, "
            f"and {MAX_BYTES / 2**30:.0f} GB is the limit."
        )


def _problem(member: zipfile.ZipInfo) -> str:
    """Say what is wrong with one member; "" when nothing is."""
    # `filename` has its separators replaced on Windows only; the original name tells the same tale
    # everywhere.
    name = member.orig_filename
    parts = re.split(r"[\\/]", name)
    if not name.strip("/\\. ") or "\0" in name:
        return "has no proper name"
    if parts[0] == "" or re.match(r"^[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts:
        return "has a path that climbs out of the package"
    if "\\" in name:
        return "has a backslash in its path"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if name.lower().endswith(PICKLE_SUFFIXES):
        return "is a pickle, which could run code when opened"
    if explodes(member.file_size, member.compress_size):
        return f"would grow {member.file_size // max(1, member.compress_size)} times: a zip bomb"
    return ""


def explodes(size: int, compressed: int) -> bool:
    """Whether what takes so many compressed bytes grows more on unpacking than honest data does."""
    return size > max(HARMLESS_BYTES, MAX_RATIO * compressed)


def _package_root(folder: Path, name: str) -> Path:
    """Return the folder with the rdf.yaml: the top one, or the only one in it."""
    inner = [path for path in folder.iterdir() if path.is_dir() and path.name != "__MACOSX"]
    for place in (folder, *inner[:1]):
        if any(is_rdf_name(path.name) for path in place.iterdir()):
            return find_rdf(place).parent
    raise UserError(f"{name} is no model package: it holds no rdf.yaml.")


def _put_in_place(scratch: Path, target: Path) -> None:
    """Rename a finished folder; when another process was faster, its copy is as good."""
    try:
        os.replace(scratch, target)
    except OSError:
        if not target.exists():
            raise
