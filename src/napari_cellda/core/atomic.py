"""Writing without ever leaving half a file: aside first, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a free path beside `path`; what is written there takes its place when all went well.

    Parameters
    ----------
    path : path
        A file or a folder; its own folder exists. What stood there stays until the last moment.

    Yields
    ------
    Path
        To be made into a file or a folder by the block; it has the same ending as `path`.

    Raises
    ------
    UserError
        If the system refuses to write, with its reason, such as a full disk. Nothing is left over
        then, and after any other error, and the old content is as it was.
    """
    path = Path(path)
    try:
        workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield workplace / path.name
        _put_in_place(workplace / path.name, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Say in one sentence why a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"The disk is full: '{path}' was not written.")
    return UserError(f"Cannot write '{path}': {error.strerror or error}.")


def _put_in_place(new: Path, path: Path) -> None:
    for file in [new] if new.is_file() else new.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    if path.is_dir():  # a folder cannot be renamed onto another one
        os.replace(path, new.parent / "old")
    os.replace(new, path)
