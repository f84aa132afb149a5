"""The runs in a folder, each in one line."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError
from napari_cellda.core.jobs import Run

if TYPE_CHECKING:
    from pathlib import Path

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
    """The best value of each score it was chosen or watched by."""
    begun: datetime
    """In local time."""
    text: str = ""
    """What is wrong with it; empty when nothing is."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def has_model(self) -> bool:
        """Whether there is a model to apply or export."""
        return (self.folder / "model" / "rdf.yaml").is_file()


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
    """Sum up one run.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    run = Run(folder)
    scores: dict[str, float] = {}
    for line in run.events("Score"):
        name, value = line["name"], float(line["value"])
        scores[name] = max(value, scores.get(name, value))
    begun = datetime.fromtimestamp((folder / "run.yaml").stat().st_mtime, UTC).astimezone()
    return RunLine(folder, run.record.method, run.state, scores, begun)


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

    model = folder / "model"
    if not (model / "rdf.yaml").is_file():
        raise UserError(f"The run '{folder.name}' has no model yet.")
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
