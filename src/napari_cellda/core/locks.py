"""Locks between processes that the system itself lets go of when their holder dies."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Lock:
    """A locked file; free again after `release`, or when this process ends, however it ends.

    Get one with `Lock.take`.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> Lock | None:
        """Lock a file, made if absent; None when somebody holds it.

        Any number may share a lock that nobody holds alone (on Windows, nobody shares).

        Raises
        ------
        OSError
            If the file cannot be made, or its file system knows no locks.
        """
        handle = path.open("a+b")  # NFS shares no lock of a file that is open for writing only
        try:
            _lock(handle, shared)
        except (BlockingIOError, PermissionError):
            handle.close()
            return None
        except OSError:
            handle.close()
            raise
        return cls(handle)

    def release(self) -> None:
        """Let go; the file stays. A second call does nothing."""
        self._handle.close()


def is_held(path: Path) -> bool | None:
    """Tell whether somebody holds the lock of a file alone; None where that cannot be known."""
    if not path.is_file():
        return False
    try:
        lock = Lock.take(path, shared=True)  # so that several may look at once
    except OSError:
        return None
    if lock is None:
        return True
    lock.release()
    return False


if sys.platform == "win32":

    def _lock(handle: IO[bytes], shared: bool) -> None:
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def _lock(handle: IO[bytes], shared: bool) -> None:
        import fcntl

        # Of the open file and not of the process, so that it holds within one process, too.
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
