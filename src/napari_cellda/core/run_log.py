"""The log of a run, ``events.jsonl``: one JSON object per line, readable while it is written."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from napari_cellda.core.atomic import plain_disk_errors
from napari_cellda.core.events import Event, Note, Score, Stage, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

TAIL_BYTES = 4096
"""More than the last line of any log."""


class LogWriter:
    """Appends to a log; as a context manager.

    Every line also gets ``seconds``, those since it was opened. A line that does not fit on the
    disk is taken back, so that the log stays whole.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()
        self._file: BinaryIO | None = None

    def __enter__(self) -> LogWriter:
        with plain_disk_errors(self._path):
            self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line.

        Raises
        ------
        UserError
            If the disk is full.
        """
        assert self._file is not None, "it is open"
        seconds = round(time.monotonic() - self._started, 3)
        content = json.dumps({**line, "seconds": seconds}).encode() + b"\n"
        with plain_disk_errors(self._path):
            before = self._path.stat().st_size
        try:
            with plain_disk_errors(self._path):
                if self._file.write(content) != len(content):
                    raise OSError(28, "No space left on device")
        except BaseException:
            with suppress(OSError):
                self._file.truncate(before)
            raise


def log_size(path: Path) -> int:
    """Return how many bytes a log has; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def sync_log(path: Path) -> int:
    """Make sure that a log has reached the disk, and return how many bytes it has."""
    if path.exists():
        with plain_disk_errors(path), path.open("rb+") as log:
            os.fsync(log.fileno())
    return log_size(path)


def cut_log(path: Path, size: int) -> None:
    """Forget what came after the first `size` bytes."""
    if path.exists():
        with path.open("r+b") as log:
            log.truncate(min(log_size(path), size))


def parse_log(content: bytes) -> list[dict[str, Any]]:
    """Read whole lines; what a crash cut off is left out."""
    *lines, _ = content.split(b"\n")
    return list(_parsed(lines))


def last_line(path: Path) -> dict[str, Any] | None:
    """Return a log's last whole line without reading the rest; None if it has none."""
    if not path.is_file():
        return None
    with path.open("rb") as log:
        log.seek(max(0, log_size(path) - TAIL_BYTES))
        lines = parse_log(log.read())
    return lines[-1] if lines else None


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):
            read = json.loads(line)
            if isinstance(read, dict) and isinstance(read.get("type"), str):
                yield read


def event_from_line(line: Mapping[str, Any]) -> Event | None:
    """Turn a line of the log back into an event; None for "End" and previews."""
    kinds: dict[str, type[Stage | Step | Score | Note]] = {
        "Stage": Stage,
        "Step": Step,
        "Score": Score,
        "Note": Note,
    }
    kind = kinds.get(line["type"])
    if kind is None:
        return None
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in line.items() if key in names})
