"""The runs in a folder, each in one line."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError
from napari_cellda.core.jobs import Run
from napari_cellda.core.runs.folder import has_model
from napari_cellda.core.runs.presence import process_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from napari_cellda.core.jobs import State

RUNS_VARIABLE = "NAPARI_CELLDA_RUNS"
"""Environment variable: where new runs go, and where the window looks for them."""


@dataclass(frozen=True)
class RunLine:
    """One run."""

    folder: Path
    method: str
    state: State
    scores: dict[str, float]
    """Each score at the step that was chosen; the latest where none was chosen by a score."""
    begun: datetime
    """In local time."""
    text: str = ""
    """What is wrong with it; empty when nothing is."""
    chosen_by: str = ""
    """Name of the score that chose the checkpoint; empty when no score does, or none has yet."""
    step: int | None = None
    """The step that it chose."""
    bound: str = ""
    """Which bound a supervised run is, see `bound_of`; empty for other methods."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def has_model(self) -> bool:
        """Whether there is a model to apply or export."""
        return has_model(self.folder)


def list_runs(folder: Path) -> list[RunLine]:
    """List the runs in a folder, the latest first; what cannot be read is left out."""
    if not folder.is_dir():
        return []
    lines = []
    for path in folder.iterdir():
        with suppress(UserError, OSError):
            if (path / "run.yaml").is_file():
                lines.append(run_line(path))
    return sorted(lines, key=lambda line: line.begun, reverse=True)


def run_line(folder: Path) -> RunLine:
    """Sum up one run; what it was is remembered until its files or its process are others.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    stamps = _stamp(folder / "run.yaml"), _stamp(folder / "events.jsonl")
    return _run_line(folder, process_of(folder) is not None, stamps)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1024)  # a window asks every few seconds, and reading takes some milliseconds
def _run_line(folder: Path, is_alive: bool, stamps: tuple[tuple[int, int], ...]) -> RunLine:
    run = Run(folder)
    lines = run.events("Score")
    chosen_by, step = _choice(lines)
    begun = datetime.fromtimestamp((folder / "run.yaml").stat().st_mtime, UTC).astimezone()
    return RunLine(
        folder,
        run.record.method,
        run.state,
        _scores_at(lines, step),
        begun,
        chosen_by=chosen_by,
        step=step,
        bound=bound_of(run.record.method, {item.role for item in run.record.inputs}),
    )


def _choice(lines: Iterable[Mapping[str, Any]]) -> tuple[str, int | None]:
    """Return the score that chooses the checkpoint, and the first step of its highest value."""
    name, best, step = "", -math.inf, None
    for line in lines:
        value = float(line["value"])
        if line.get("selects") and math.isfinite(value) and value > best:
            name, best, step = str(line["name"]), value, int(line["index"])
    return name, step


def _scores_at(lines: Iterable[Mapping[str, Any]], step: int | None) -> dict[str, float]:
    """Return each score's latest value up to a step, or its latest if it has none until then."""
    latest: dict[str, float] = {}
    until: dict[str, float] = {}
    for line in lines:
        name, value = str(line["name"]), float(line["value"])
        latest[name] = value
        if step is not None and int(line["index"]) <= step:
            until[name] = value
    return latest | until


def bound_of(method: str, roles: Collection[str]) -> str:
    """Return which bound a run is to others: ``source-only``, ``target-only`` or ``fine-tuned``.

    Parameters
    ----------
    method : str
    roles : collection of str
        Of its inputs, such as ``source_masks``.

    Returns
    -------
    str
        Empty unless the run is a supervised one.
    """
    if method != "supervised":
        return ""
    source = "source_masks" in roles
    target = bool({"target_masks", "target_strokes"} & set(roles))
    if "pretrained" in roles or source == target:
        return "fine-tuned"
    return "source-only" if source else "target-only"


def new_run_folder(root: Path, method: str) -> Path:
    """Return a name for a new run that is not taken, such as ``culpico-2026-05-01-3``."""
    day = datetime.now().astimezone().date().isoformat()
    stem = f"{method.replace(' ', '-')}-{day}"
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"


def export_model(folder: Path, target: Path) -> Path:
    """Copy a run's model: as a zip if the target's name ends in .zip, else as a folder.

    Raises
    ------
    UserError
        If there is no model, or the target cannot be written.
    """
    from napari_cellda.core.atomic import write_atomically

    model = Run(folder).finished_model()
    with write_atomically(target) as aside:
        if target.suffix == ".zip":
            shutil.make_archive(str(aside.with_suffix("")), "zip", model)
        else:
            shutil.copytree(model, aside)
    return target


def delete_run(folder: Path) -> None:
    """Delete a run with all that is in it.

    Raises
    ------
    UserError
        If it is at work, no run, or cannot be deleted.
    """
    run = Run(folder)
    if run.process is not None:
        raise UserError(f"The run '{folder.name}' is at work; stop or cancel it first.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be deleted: {error.strerror}.") from error
