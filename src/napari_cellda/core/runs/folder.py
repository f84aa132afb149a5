"""A run's folder before and after a process has died in it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from napari_cellda.core.atomic import LEFTOVER, remove, remove_leftovers
from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import is_litter
from napari_cellda.core.run_log import parse_log
from napari_cellda.core.runs.presence import LOCK, SIGN, STOP, process_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EARLY = ("inputs", "output.txt", STOP)
"""What may lie in the folder before a run begins: bundled inputs, what its process prints, and a
wish that it ends."""
RECORD, EVENTS = "run.yaml", "events.jsonl"
BEGUN = (LOCK, SIGN, f".{SIGN}", EVENTS, RECORD)
CACHE = re.compile(r"cache( \d+)?")
"""These two: what a run makes of its own before its first step."""
CHECKPOINTS = "checkpoints"
MODEL = "model"


def check_new_folder(folder: Path) -> None:
    """Make sure that a run can begin in a folder.

    Raises
    ------
    UserError
        If it is a file, or holds anything but `EARLY`, litter, and what a process that was killed
        left half written.
    """
    if folder.is_file():
        raise UserError(f"'{folder}' is a file: choose a new folder.")
    if folder.is_dir() and all(_is_early(item.name) for item in folder.iterdir()):
        return
    if folder.exists():
        raise UserError(
            f"'{folder}' is not empty: choose a new folder, or resume the run that is in it."
        )


def _is_early(name: str) -> bool:
    return name in EARLY or is_litter(name) or LEFTOVER.fullmatch(name) is not None


def _is_begun(name: str) -> bool:
    return name in BEGUN or CACHE.fullmatch(name) is not None


def failed_before_first_step(folder: Path) -> bool:
    """Whether a run lies here that failed before its first step, and nothing else does.

    Nothing was learned in it that a resume could go on with, so another may begin in its place.
    """
    if not (folder / RECORD).is_file() or process_of(folder) is not None:
        return False
    if not all(_is_early(item.name) or _is_begun(item.name) for item in folder.iterdir()):
        return False
    events = folder / EVENTS
    lines = parse_log(events.read_bytes()) if events.is_file() else []
    failed = bool(lines) and lines[-1]["type"] == "End" and lines[-1]["state"] == "failed"
    return failed and not any(line.get("losses") for line in lines)


def clear_failed(folder: Path) -> None:
    """Remove what such a run made; inputs that were copied there stay."""
    for item in list(folder.iterdir()):
        if _is_begun(item.name):
            remove(item)


def has_model(folder: Path) -> bool:
    """Whether a run has written its model."""
    return (folder / MODEL / "rdf.yaml").is_file()


def drop_unbegun(folder: Path) -> None:
    """Remove the folder of a new run that was refused before it began, with the copied inputs."""
    if folder.is_dir() and all(_is_early(item.name) for item in folder.iterdir()):
        remove(folder)


def tidy(folder: Path) -> None:
    """Remove what a process that was killed left half written; to be called by its successor."""
    remove_leftovers(folder, ["run"])
    remove_leftovers(folder / CHECKPOINTS, ["last", "best"])
    for path in folder.glob(f".{MODEL}-*"):
        remove(path)


def copy_into(files: Iterable[tuple[str, Path]], target: Path) -> None:
    """Copy files under the names that they shall have in a folder, over what is there already.

    Raises
    ------
    OSError
        Such as for a full disk; with its number, which `shutil.copytree` keeps to itself.
    """
    for name, path in files:
        to = target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
