"""The log of a run, ``events.jsonl``: one JSON object per line, readable while it is written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from napari_cellda.core.atomic import plain_disk_errors
from napari_cellda.core.events import Event, Note, Score, Stage, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

TAIL_BYTES = 4096
"""More than the last line of any log."""
ENDS = ("done", "stopped", "cancelled", "failed")
"""States in which a run ends, as its log tells."""


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
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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
        with plain_disk_errors(path), path.open("r+b") as log:
            log.truncate(min(log_size(path), size))


def parse_log(content: bytes, kind: str | None = None) -> list[dict[str, Any]]:
    """Read whole lines; what a crash cut off is left out, and so is what lacks its fields.

    Parameters
    ----------
    content : bytes
    kind : str, optional
        Only lines of this type; the others are not even parsed.
    """
    *lines, _ = content.split(b"\n")
    if kind is not None:
        word = json.dumps(kind).encode()
        lines = [line for line in lines if word in line]
    return [line for line in _parsed(lines) if kind in (None, line["type"])]


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
        with suppress(ValueError, RecursionError):
            read = json.loads(line)
            if isinstance(read, dict) and _is_sound(read):
                yield read


def _is_sound(line: dict[str, Any]) -> bool:
    """Whether a line has what is read of its type; other types are let through."""
    kind = line.get("type")
    if not isinstance(kind, str) or not _is_number(line.get("seconds", 0)):
        return False
    fields = _FIELDS.get(kind, {}).items()
    return all(name in line and is_right(line[name]) for name, is_right in fields)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "Stage": {"title": _is_text, "total": lambda value: value is None or _is_step(value)},
    "Step": {
        "index": _is_step,
        "losses": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    },
    "Score": {"name": _is_text, "value": _is_number, "index": _is_step},
    "Preview": {"name": _is_text, "index": _is_step},
    "Note": {"text": _is_text},
    "End": {"state": lambda value: value in ENDS, "text": _is_text},
}


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
