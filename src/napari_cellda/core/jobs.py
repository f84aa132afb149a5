"""A run is a folder: what was asked, what happened, checkpoints and the model.

``run.yaml`` holds the method, its settings, the inputs with their hashes, the seed and the
versions; ``events.jsonl`` one event per line; ``checkpoints/`` what a resume needs;
``previews.zarr`` the pictures; ``model/`` the package when the run is done. Anyone who has the
folder (and the inputs) has the whole run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import yaml
from pydantic import ValidationError

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Preview, Score, Stage, Step, Task
from napari_cellda.core.run_record import (
    FORMAT,
    RunInput,
    RunRecord,
    hash_input,
    installed_versions,
    portable_path,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.params import BaseParams

T = TypeVar("T")
State = Literal["running", "done", "stopped", "failed"]


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
        path = self.folder / "run.yaml"
        if not path.is_file():
            raise UserError(f"There is no run in '{folder}': it has no run.yaml.")
        try:
            self.record = RunRecord.model_validate(yaml.safe_load(path.read_text("utf-8")))
        except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
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
            Files or folders; hashed here.
        seed : int
        options : dict, optional
        command : str

        Raises
        ------
        UserError
            If the folder holds anything already, or an input is missing.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"'{folder}' is not empty: choose a new folder, or resume the run that is in it."
            )
        record = RunRecord(
            method=method,
            params=params.model_dump(mode="json"),
            options=dict(options or {}),
            inputs=tuple(
                RunInput(role=role, path=portable_path(path, folder), hash=hash_input(path))
                for role, path in inputs.items()
            ),
            seed=seed,
            versions=installed_versions(),
            command=command,
        )
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with write_atomically(folder / "run.yaml") as aside:
            aside.write_text(text, encoding="utf-8")
        return cls(folder)

    @property
    def events_path(self) -> Path:
        """One JSON object per line."""
        return self.folder / "events.jsonl"

    @property
    def model_folder(self) -> Path:
        """Where the finished model lies as a package."""
        return self.folder / "model"

    def input_path(self, role: str) -> Path:
        """Return where an input lies now.

        Raises
        ------
        UserError
            If the run has no such input.
        """
        for item in self.record.inputs:
            if item.role == role:
                return (self.folder / item.path).resolve()
        raise UserError(f"The run in '{self.folder}' has no input '{role}'.")

    def check_inputs(self) -> None:
        """Make sure that every input is what it was when the run began.

        Raises
        ------
        UserError
            If one is missing or has changed.
        """
        for item in self.record.inputs:
            path = self.input_path(item.role)
            if hash_input(path) != item.hash:
                raise UserError(
                    f"'{path}' ({item.role}) has changed since the run began, so the run cannot "
                    "go on with it: put the old files back, or begin a new run."
                )

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint aside, sync it, and put it in place of an earlier one.

        The present length of the log goes with it, so that a resume can cut the log back.
        """
        import torch

        # By way of memory, so that a full disk is an OSError instead of torch's RuntimeError.
        content = BytesIO()
        torch.save({**state, "log_bytes": self._log_bytes()}, content)
        with write_atomically(self.folder / "checkpoints" / f"{name}.pt") as aside:
            aside.write_bytes(content.getbuffer())

    def load(self, name: str) -> dict[str, Any] | None:
        """Read a checkpoint; None when there is none.

        Raises
        ------
        UserError
            If the file is damaged or no checkpoint of ours.
        """
        import torch

        path = self.folder / "checkpoints" / f"{name}.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not {"step", "parts", "log_bytes"} <= set(state):
                raise ValueError("it lacks what a checkpoint holds")
        except Exception as error:  # whatever torch meets in a foreign or cut-off file
            raise UserError(f"The checkpoint '{path}' cannot be read: {_short(error)}") from error
        return dict(state)

    def drive(self, task: Task[T]) -> Task[T]:
        """Run a task, logging every event before passing it on, and the way it ended.

        An earlier log is first cut back to the last checkpoint: what came after it will come again.
        """
        self._cut_log_back()
        started = time.monotonic()
        with self.events_path.open("a", encoding="utf-8") as log:

            def write(line: dict[str, Any]) -> None:
                log.write(json.dumps({**line, "seconds": round(time.monotonic() - started, 3)}))
                log.write("\n")
                log.flush()

            try:
                while True:
                    try:
                        event = next(task)
                    except StopIteration as end:
                        write({"type": "End", "state": "done", "text": ""})
                        result: T = end.value
                        return result
                    write(self._line(event))
                    yield event
            except GeneratorExit:
                task.close()
                write({"type": "End", "state": "stopped", "text": ""})
                raise
            except BaseException as error:
                write({"type": "End", "state": "failed", "text": _short(error)})
                raise

    def events(self) -> list[dict[str, Any]]:
        """Read the log; a last line that was cut off by a crash is left out."""
        if not self.events_path.is_file():
            return []
        lines = self.events_path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    @property
    def state(self) -> State:
        """How the run stands by its log; "running" also for one that was killed."""
        events = self.events()
        if events and events[-1]["type"] == "End":
            state: State = events[-1]["state"]
            return state
        return "running"

    def previews(self) -> dict[str, list[int]]:
        """Return the steps at which each preview was taken, by its name."""
        root = self.folder / "previews.zarr"
        if not root.is_dir():
            return {}
        return {
            name.name: sorted(int(item.name) for item in name.iterdir() if item.name.isdigit())
            for name in root.iterdir()
            if name.is_dir()
        }

    def preview(self, name: str, index: int) -> np.ndarray:
        """Read one preview."""
        import zarr

        return np.asarray(zarr.open_array(self.folder / "previews.zarr" / name / str(index)))

    def _line(self, event: Event) -> dict[str, Any]:
        """One event as JSON; a preview's picture goes to ``previews.zarr``."""
        if isinstance(event, Preview):
            where = self.folder / "previews.zarr" / event.name / str(event.index)
            _save_array(where, event.array)
            return {"type": "Preview", "name": event.name, "index": event.index}
        return {"type": type(event).__name__, **dataclasses.asdict(event)}

    def _log_bytes(self) -> int:
        return self.events_path.stat().st_size if self.events_path.exists() else 0

    def _cut_log_back(self) -> None:
        if self.events_path.exists():
            last = self.load("last")
            with self.events_path.open("r+b") as log:
                log.truncate(min(self._log_bytes(), int(last["log_bytes"])) if last else 0)


def _save_array(where: Path, array: np.ndarray) -> None:
    import zarr

    stored = zarr.create_array(where, shape=array.shape, dtype=array.dtype, overwrite=True)
    stored[...] = array


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


def _short(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(f"{error}".split())[:300] or type(error).__name__
