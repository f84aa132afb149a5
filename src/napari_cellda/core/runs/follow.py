"""Follow a run by its folder while it goes on, whoever started it and whenever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.atomic import is_full
from napari_cellda.core.jobs import Run
from napari_cellda.core.run_log import parse_log
from napari_cellda.core.runs.history import History, RunView
from napari_cellda.core.runs.launch import last_words
from napari_cellda.core.runs.presence import process_of
from napari_cellda.core.runs.turn import WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_cellda.core.events import Preview
    from napari_cellda.core.jobs import State
    from napari_cellda.core.runs.launch import Launched
    from napari_cellda.core.runs.presence import RunProcess

LOOK_SECONDS = 0.3
MOST_FRAMES = 100
"""Pictures of one name that are read when a run is opened again."""
REMEMBERED = 500
"""Bytes: a few lines, whose times no other lines have."""


def follow_run(
    folder: Path,
    stop: Callable[[], bool],
    launched: Launched | None = None,
) -> Generator[RunView | Preview, None, RunView]:
    """Tell what a run does, from its beginning until it has ended.

    Parameters
    ----------
    folder : Path
        The run's; may lack its ``run.yaml`` while its process starts.
    stop : callable
        Ends the following; the run goes on.
    launched : Launched, optional
        Its process, if it was started here: known before the run's folder tells of it.

    Yields
    ------
    RunView
        After every look at the folder; the one that tells of the end comes last of all.
    Preview
        Each picture once, oldest first.

    Returns
    -------
    RunView
        The last.
    """
    reader = _Reader(Path(folder), launched)
    while True:
        # First who works on it, then what is written: the End of a dead process is in the log.
        process, starts = process_of(reader.folder), launched is not None and launched.alive
        lines = reader.read()
        view = reader.look(process, starts=starts)
        if view.alive:
            yield view
        for frame in reader.frames(lines):
            if stop():
                return view
            yield frame
        if not view.alive:
            yield view
            return view
        if stop():
            return view
        time.sleep(LOOK_SECONDS)


class _Reader:
    """Reads what is new in a run's folder."""

    def __init__(self, folder: Path, launched: Launched | None) -> None:
        self.folder, self._launched = folder, launched
        self._log = folder / "events.jsonl"
        self._history = History()
        self._read = 0
        self._latest = b""
        self._seen = False

    def read(self) -> list[dict[str, Any]]:
        """Read the lines that were added since the last time."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as log:
            log.seek(max(0, self._read - len(self._latest)))
            # A resume cuts the log back and goes on: what was read last may be another by now.
            if log.read(len(self._latest)) != self._latest:
                log.seek(0)
                self._read, self._latest, self._history = 0, b"", History()
            content = log.read()
        content = content[: content.rfind(b"\n") + 1]
        if not content:
            return []
        self._read += len(content)
        self._latest = content[-REMEMBERED:]
        lines = parse_log(content)
        self._history.add(lines)
        return lines

    def look(self, process: RunProcess | None, *, starts: bool) -> RunView:
        """Sum up how the run stands."""
        state = self._state(process, starts=starts)
        text = ""
        if state == "failed":
            end = self._history.end
            told = end is not None and end["state"] == "failed"
            text = str(end["text"]) if end and told else last_words(self.folder)
            had_begun = self._seen and not (self.folder / "run.yaml").exists()
            # A process whose folder is taken away may make parts of it again before it dies.
            if not text and (had_begun or not self.folder.exists()):
                text = f"The run's folder '{self.folder}' is gone."
        elif state == "killed":
            text = self._obituary()
        return self._history.view(state, text, process)

    def _state(self, process: RunProcess | None, *, starts: bool) -> State | None:
        end = self._history.end
        if process is not None:
            self._seen = True
            return "waiting" if self._history.stage == WAITING else "running"
        if starts and not (self._seen and end):  # an End may be of earlier days
            return None
        if self._launched is not None and self._launched.complained:
            return "failed"  # perhaps before it came to the run, which then tells of earlier days
        if end is not None:
            state: State = end["state"]
            return state
        if (self.folder / "run.yaml").is_file():
            return "killed"
        # Before there is a run to write it down in, only who has ended it knows.
        return "cancelled" if self._launched is not None and self._launched.cancelled else "failed"

    def _obituary(self) -> str:
        if is_full(self.folder):
            return (
                f"The disk of '{self.folder}' is full, so the run could not go on: make room, then "
                "resume it."
            )
        return (
            f"The run's process was ended from outside during '{self._history.stage}', step "
            f"{self._history.step}, perhaps because memory ran out; Resume goes on from its last "
            "checkpoint."
        )

    def frames(self, lines: list[dict[str, Any]]) -> Generator[Preview, None, None]:
        """Read the pictures that lines tell of, the latest `MOST_FRAMES` of each name."""
        told: dict[str, list[int]] = {}
        for line in lines:
            if line["type"] == "Preview":
                told.setdefault(str(line["name"]), []).append(int(line["index"]))
        if not told:
            return
        run = Run(self.folder)
        for name, indices in told.items():
            for index in indices[-MOST_FRAMES:]:
                try:
                    yield run.preview(name, index)
                except (OSError, ValueError, KeyError):
                    continue  # taken away meanwhile
