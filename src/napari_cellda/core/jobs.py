"""A run is a folder: what was asked, what happened, checkpoints and the model.

``run.yaml`` holds the method, its settings, the inputs with their hashes, the seed and the
versions; ``events.jsonl`` one event per line; ``checkpoints/`` what a resume needs;
``previews.zarr`` the pictures; ``model/`` the package when the run is done. Anyone who has the
folder (and the inputs) has the whole run.

While a process works on it, ``.lock`` is locked and ``process.json`` tells which one. A file called
``stop`` asks it to end with what it has, whoever put it there; the process takes it away.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml

from napari_cellda.core.atomic import plain_disk_errors, write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Preview, Stop, Task, never
from napari_cellda.core.plain_yaml import parse_yaml
from napari_cellda.core.processes import rank
from napari_cellda.core.run_log import (
    LogWriter,
    cut_log,
    event_from_line,
    last_line,
    parse_log,
    sync_log,
)
from napari_cellda.core.run_record import (
    FORMAT,
    RunInput,
    RunRecord,
    absolute,
    installed_versions,
    portable_path,
)
from napari_cellda.core.runs.folder import CHECKPOINTS, MODEL, check_new_folder, has_model, tidy
from napari_cellda.core.runs.inputs import hash_read, is_unchanged, newest_file
from napari_cellda.core.runs.presence import (
    STARTED_VARIABLE,
    STOP,
    Presence,
    RunProcess,
    process_of,
)
from napari_cellda.core.runs.previews import list_previews, read_preview, write_preview
from napari_cellda.core.runs.turn import WAITING, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.params import BaseParams

__all__ = ["Run", "State", "event_from_line"]

T = TypeVar("T")
State = Literal["waiting", "running", "done", "stopped", "cancelled", "failed", "killed"]
"""waiting: for the runs before it; stopped: on request, with a partial model; cancelled: ended at
once on request; killed: its process ended without a word."""
STOP_LOOK_SECONDS = 0.2
_imported = time.time()


class Run:
    """A run's folder.

    Parameters
    ----------
    folder : Path
        Holds ``run.yaml``.

    Raises
    ------
    UserError
        If there is no readable run in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._stop_asked = False
        path = self.folder / "run.yaml"
        if not path.is_file():
            raise UserError(f"There is no run in '{folder}': it has no run.yaml.")
        try:
            self.record = RunRecord.model_validate(parse_yaml(path.read_text("utf-8")))
        except ValueError as error:
            raise UserError(
                f"'{path}' is damaged or of another version: {_short(error)}"
            ) from error
        if self.record.format > FORMAT:
            raise UserError(
                f"'{path}' has format {self.record.format}; this version reads up to {FORMAT}."
            )

    @classmethod
    def create(
        cls,
        folder: Path,
        method: str,
        params: BaseParams,
        inputs: Mapping[str, Path],
        *,
        seed: int,
        options: Mapping[str, Any] | None = None,
        command: str = "",
    ) -> Run:
        """Begin a run in a new or empty folder.

        Parameters
        ----------
        folder : Path
        method : str
        params : BaseParams
        inputs : dict of role to Path
            Files or folders; what is read of them is hashed here.
        seed : int
        options : dict, optional
        command : str

        Raises
        ------
        UserError
            If the folder holds anything already (see `check_new_folder`), or an input is missing.
        """
        folder = Path(folder)
        check_new_folder(folder)
        record = RunRecord(
            method=method,
            params=params.model_dump(mode="json"),
            options=dict(options or {}),
            inputs=tuple(
                RunInput(role=role, path=portable_path(path, folder), hash=hash_read(role, path))
                for role, path in inputs.items()
            ),
            seed=seed,
            versions=installed_versions(),
            command=command,
        )
        cls._write_record(folder, record)
        return cls(folder)

    @staticmethod
    def _write_record(folder: Path, record: RunRecord) -> None:
        text = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with write_atomically(folder / "run.yaml") as aside:
            aside.write_text(text, encoding="utf-8")

    @property
    def events_path(self) -> Path:
        """One JSON object per line."""
        return self.folder / "events.jsonl"

    @property
    def model_folder(self) -> Path:
        """Where the finished model lies as a package."""
        return self.folder / MODEL

    def input_path(self, role: str) -> Path:
        """Return where an input lies now.

        Raises
        ------
        UserError
            If the run has no such input.
        """
        for item in self.record.inputs:
            if item.role == role:
                return absolute(self.folder / item.path)
        raise UserError(f"The run in '{self.folder}' has no input '{role}'.")

    def move_inputs(self, moved: Mapping[str, Path]) -> None:
        """Write down where inputs lie now; see `portable_path`."""
        places = {role: portable_path(path, self.folder) for role, path in moved.items()}
        items = tuple(
            item.model_copy(update={"path": places.get(item.role, item.path)})
            for item in self.record.inputs
        )
        self.record = self.record.model_copy(update={"inputs": items})
        self._write_record(self.folder, self.record)

    def check_present(self, advice: str = "then resume the run") -> None:
        """Make sure that every input is where it was; a drive may have been unplugged.

        Raises
        ------
        UserError
            If one is missing; ends with an advice what to do once it is back.
        """
        for item in self.record.inputs:
            path = self.input_path(item.role)
            if not path.exists():
                raise UserError(
                    f"'{path}' ({item.role.replace('_', ' ')}) is not there any more: connect its "
                    f"drive or put it back, {advice}."
                )

    def finished_model(self) -> Path:
        """Return the package that it has written.

        Raises
        ------
        UserError
            If there is none yet.
        """
        if not has_model(self.folder):
            raise UserError(f"The run '{self.folder}' has no model: it {_STANDING[self.state]}.")
        return self.model_folder

    def check_inputs(self, advice: str = "then resume the run") -> None:
        """Make sure that every input is what it was when the run began.

        Raises
        ------
        UserError
            If one is missing or has changed.
        """
        self.check_present(advice)
        for item in self.record.inputs:
            path = self.input_path(item.role)
            if not is_unchanged(item, path):
                raise UserError(
                    f"'{path}' ({item.role.replace('_', ' ')}) has changed since the run began"
                    f"{newest_file(item.role, path)}, so the run cannot go on with it: put the old "
                    "files back, or begin a new run."
                )

    def checkpoint_path(self, name: str) -> Path:
        """Return where a checkpoint lies, or will."""
        return self.folder / CHECKPOINTS / f"{name}.pt"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint aside, sync it, and put it in place of an earlier one.

        The present length of the log goes with it, so that a resume can cut the log back.
        """
        if rank():
            return
        import torch

        # By way of memory, so that a full disk is an OSError instead of torch's RuntimeError.
        content = BytesIO()
        torch.save({**state, "log_bytes": sync_log(self.events_path)}, content)
        with write_atomically(self.checkpoint_path(name)) as aside:
            aside.write_bytes(content.getbuffer())

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a checkpoint; None when there is none.

        Raises
        ------
        UserError
            If the file is damaged or no checkpoint of ours.
        """
        path = self.checkpoint_path(name)
        if not path.is_file():
            return None
        import torch

        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not {"step", "parts", "log_bytes"} <= set(state):
                raise ValueError("it lacks what a checkpoint holds")
        except pickle.UnpicklingError as error:
            raise UserError(
                f"The checkpoint '{path}' is refused: it is damaged, or a pickle that would run "
                "code when loaded."
            ) from error
        except Exception as error:  # whatever torch meets in a foreign or cut-off file
            raise UserError(f"The checkpoint '{path}' cannot be read: {_short(error)}") from error
        return dict(state)

    def stopper(self, stop: Stop = never) -> Stop:
        """Return what a task shall ask: true once `stop()` is, or the run's folder says so.

        That it was true is remembered, so that the log tells a stopped run from a finished one.
        """
        file = self.folder / STOP
        looked = 0.0

        def asked() -> bool:
            nonlocal looked
            if not self._stop_asked and time.monotonic() - looked > STOP_LOOK_SECONDS:
                looked = time.monotonic()
                self._stop_asked = file.exists()
            self._stop_asked = self._stop_asked or stop()
            return self._stop_asked

        return asked

    def ask_to_stop(self) -> None:
        """Ask the process that works on it to end with what it has, wherever it runs."""
        with plain_disk_errors(self.folder):
            (self.folder / STOP).touch()

    def drive(self, task: Task[T]) -> Task[T]:
        """Run a task, logging every event before passing it on, and the way it ended.

        An earlier log is first cut back to the last checkpoint: what came after it will come again.
        In a queue (see `core.runs.turn`) the task begins when the runs before it are over.

        Raises
        ------
        UserError
            If another process works on this run, or the disk is full; and what the task raises.
        """
        if rank():  # of several processes that train together only the first one writes
            return (yield from task)
        with Presence(self.folder):
            self._forget_old_stop()
            tidy(self.folder)
            self._cut_log_back()
            turn = Turn()
            try:
                with LogWriter(self.events_path) as log:
                    return (yield from self._drive(task, turn, log))
            finally:
                turn.release()

    def _drive(self, task: Task[T], turn: Turn, log: LogWriter) -> Task[T]:
        def tell(event: Event) -> Event:
            log.write(self._line(event))
            return event

        def end(state: State, text: str = "") -> None:
            log.write({"type": "End", "state": state, "text": text})

        try:
            for event in turn.wait(self.stopper()):
                yield tell(event)
            while True:
                try:
                    event = next(task)
                except StopIteration as last:
                    end("stopped" if self._stop_asked else "done")
                    result: T = last.value
                    return result
                yield tell(event)
        except GeneratorExit:
            task.close()
            end("stopped")
            raise
        except BaseException as error:
            told = self._explained(error)
            with suppress(UserError):  # the disk may be full: the first error counts
                if isinstance(error, KeyboardInterrupt):
                    end("cancelled")
                else:
                    wished = self._stop_asked and isinstance(told, UserError)
                    end("stopped" if wished else "failed", _short(told))
            if told is error:
                raise
            raise told from error

    def _explained(self, error: BaseException) -> BaseException:
        """Return what to tell instead of an error that came of an input that went away."""
        if isinstance(error, Exception) and not isinstance(error, UserError):
            try:
                self.check_present()
            except UserError as missing:
                return missing
        return error

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Read the log, or only its lines of one type; what cannot be read is left out."""
        path = self.events_path
        return parse_log(path.read_bytes(), kind) if path.is_file() else []

    @property
    def process(self) -> RunProcess | None:
        """The process that works on it now; None when none does."""
        return process_of(self.folder)

    @property
    def state(self) -> State:
        """How the run stands, by its log and by whether a process works on it."""
        alive = self.process is not None
        last = last_line(self.events_path)
        if last is not None and last["type"] == "End" and not alive:
            ended: State = last["state"]
            return ended
        if not alive:
            return "killed"
        return "waiting" if last is not None and last.get("title") == WAITING else "running"

    def previews(self) -> dict[str, list[int]]:
        """Return the steps at which each preview was taken, by its name."""
        return list_previews(self.folder)

    def preview(self, name: str, index: int) -> Preview:
        """Read one preview."""
        return read_preview(self.folder, name, index)

    def _line(self, event: Event) -> dict[str, Any]:
        """One event as JSON; a preview's picture goes to a file of its own."""
        if isinstance(event, Preview):
            write_preview(self.folder, event)
            return {"type": "Preview", "name": event.name, "index": event.index}
        return {"type": type(event).__name__, **dataclasses.asdict(event)}

    def _forget_old_stop(self) -> None:
        """Take away a wish to stop that an earlier process did not live to see."""
        if STARTED_VARIABLE in os.environ:
            return  # that is done, and one that is there now may have come before this import
        file = self.folder / STOP
        with suppress(OSError):
            if file.stat().st_mtime < _imported:
                file.unlink()

    def _cut_log_back(self) -> None:
        last = self.load("last")
        cut_log(self.events_path, int(last["log_bytes"]) if last else 0)


_STANDING: dict[State, str] = {
    "waiting": "waits for the runs before it",
    "running": "is still at work",
    "done": "is done, but its package was taken away",
    "stopped": "was stopped too early; resume it first",
    "cancelled": "was cancelled; resume it first",
    "failed": "failed; resume it first, or begin a new one",
    "killed": "was ended from outside; resume it first",
}


def _short(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(f"{error}".split())[:300] or type(error).__name__
