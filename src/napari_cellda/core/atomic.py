"""Files that appear whole or not at all, and scratch space for arrays larger than memory."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.mapped import MappedArray
from napari_cellda.core.paths import OWN_SUFFIXES, is_zarr

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import DTypeLike

SCRATCH_IN_MEMORY = 256 * 2**20
"""Scratch arrays up to this many bytes stay in memory, larger ones go to a file."""
ZEROS = 16 * 2**20
STEM = 100
"""Characters of a target's name that the name beside it keeps."""
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to remove a folder."""
HELD = PAUSES if os.name == "nt" else ()
"""Seconds between attempts to rename: on Windows a virus scanner holds new files for a moment."""
LEFTOVER = re.compile(r"\.(?P<name>.+)-[0-9a-f]{12}(-old)?(\.[^.]*)?")
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
NO_ROOM = 2**20
"""A disk with fewer free bytes is full."""
REFUSED = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EFBIG,
    errno.EIO,
    errno.ENAMETOOLONG,
)


@contextmanager
def write_atomically(path: str | Path, *, replace_folder: bool = False) -> Iterator[Path]:
    """Write a file or folder aside and put it in place when it is complete.

    Parameters
    ----------
    path : str or Path
        The target. Its folder is made if absent; a symbolic link is followed.
    replace_folder : bool
        Whether a folder that stands at the target may be replaced whatever is in it. Otherwise
        only a zarr group or an empty folder may.

    Yields
    ------
    Path
        A name beside the target with the same ending, to be written as a file or a folder. If the
        block succeeds, it is flushed to disk and takes the target's place. If not, it is removed
        and what stood at the target is untouched.

    Raises
    ------
    UserError
        If the disk is full, the place cannot be written to, or holds something else.
    """
    target = Path(os.path.realpath(path))
    check_target(target, replace_folder=replace_folder)
    aside = target.with_name(f".{target.stem[:STEM]}-{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        with plain_disk_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            flush(aside)
            put_in_place(aside, target, replace_folder=replace_folder)
    finally:
        remove(aside)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; a UserError if nothing can be written there."""
    with plain_disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def plain_disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into UserErrors that name `path`."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"'{path}' cannot be written: a file is in the way.") from error
    except OSError as error:
        # numpy's errors of a full disk have no number.
        if error.errno in FULL or (error.errno is None and is_full(Path(path))):
            raise UserError(f"'{path}' cannot be written: the disk is full.") from error
        if error.errno in REFUSED:
            raise UserError(f"'{path}' cannot be written: {error.strerror}.") from error
        raise


def is_full(path: Path) -> bool:
    """Whether the disk on which a path lies, or would lie, has no room."""
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    return there is not None and shutil.disk_usage(there).free < NO_ROOM


@contextmanager
def tell_full_disk(path: Path, inside: Path) -> Iterator[None]:
    """Turn whatever a library raises on a full disk into a UserError that names `path`.

    Parameters
    ----------
    path : Path
    inside : Path
        A folder on the same disk, in which what was half written still lies.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch and ONNX say "unexpected pos" and the like
        if is_full(inside):
            raise UserError(f"'{path}' cannot be written: the disk is full.") from error
        raise


def check_target(target: Path, *, replace_folder: bool = False) -> None:
    """Raise a UserError if a folder at the target holds what must not be replaced."""
    if target.is_dir() and not (replace_folder or is_zarr(target) or not any(target.iterdir())):
        raise UserError(f"'{target}' is a folder with other files; choose another name.")


def flush(path: Path) -> None:
    """Make sure that a file, or all files in a folder, reached the disk."""
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    for file in files:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def put_in_place(aside: Path, target: Path, *, replace_folder: bool = False) -> None:
    """Move a complete file or folder to its target, replacing what was there."""
    if target.is_file() and aside.is_dir():
        raise FileExistsError(errno.EEXIST, "a file is in the way", str(target))
    if not target.is_dir():
        move(aside, target)
        return
    # A folder cannot be replaced in one step: the old one steps aside and returns on failure.
    old = aside.with_name(f"{aside.stem}-old{aside.suffix}")
    move(target, old)
    try:
        move(aside, target)
    except OSError:
        move(old, target)
        raise
    remove(old)


def move(source: Path, target: Path) -> None:
    """Rename a file, over another one too, or a folder; see `HELD`."""
    for pause in HELD:
        try:
            os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    os.replace(source, target)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there, and if the system lets us."""
    if path.is_dir() and not path.is_symlink():
        # After a failure zarr's threads may still write other chunks, and make the folder anew.
        for pause in PAUSES:
            shutil.rmtree(path, ignore_errors=True)
            time.sleep(pause)
            if not path.exists():
                return
    else:
        with suppress(OSError):  # on Windows it may be mapped, by the traceback of an error, too
            path.unlink()


def remove_leftovers(folder: Path, stems: Collection[str], *, older_than: float = 0.0) -> None:
    """Remove what a killed process left half written of files in a folder.

    Parameters
    ----------
    folder : Path
    stems : collection of str
        Whose files are meant: ``<stem>`` and the results of an image of that name.
    older_than : float
        Seconds since they were last written to: younger ones may be another process's at work.
    """
    if not folder.is_dir():
        return
    endings = [f"{own}{ome}" for own in ("", *OWN_SUFFIXES) for ome in ("", ".ome")]
    wanted = {f"{stem}{ending}"[:STEM] for stem in stems for ending in endings}
    for item in folder.iterdir():
        found = LEFTOVER.fullmatch(item.name)
        if found is not None and found["name"] in wanted and _age(item) >= older_than:
            remove(item)


def _age(path: Path) -> float:
    """Seconds since a file, or any in a folder, was written to; 0 if it goes meanwhile."""
    try:
        latest = max(item.stat().st_mtime for item in (path, *path.rglob("*")))
    except OSError:
        return 0.0
    return max(0.0, time.time() - latest)  # a file server's clock may be ahead


def reserve(handle: Any, size: int) -> None:
    """Give an open file `size` bytes of real disk space.

    A sparse file would do until a memory map of it meets a full disk: the process then dies of a
    bus error instead of an exception.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle.fileno(), 0, size)
        return
    handle.seek(0, os.SEEK_END)
    while handle.tell() < size:
        handle.write(bytes(min(ZEROS, size - handle.tell())))
    handle.flush()


@contextmanager
def scratch_array(shape: tuple[int, ...], dtype: DTypeLike, folder: str | Path) -> Iterator[Any]:
    """Lend an array of zeros that may be larger than memory.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    folder : str or Path
        Where a large array is kept meanwhile, in a file without a name that vanishes with the
        process. Made if absent.

    Yields
    ------
    ndarray or MappedArray

    Raises
    ------
    UserError
        If the disk has no room for it.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= SCRATCH_IN_MEMORY:
        yield np.zeros(shape, dtype)
        return
    with plain_disk_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed below
    with file:
        with plain_disk_errors(folder):
            reserve(file, size)
        yield MappedArray(file, dtype, "r+", shape=shape)
