"""A run's folder before and after a process has died in it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from napari_cellda.core.atomic import LEFTOVER, remove, remove_leftovers
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

EARLY = ("inputs", "output.txt")
"""What may lie in the folder before a run begins: bundled inputs, and what its process prints."""
CHECKPOINTS = "checkpoints"
MODEL = "model"


def check_new_folder(folder: Path) -> None:
    """Make sure that a run can begin in a folder.

    Raises
    ------
    UserError
        If it holds anything but `EARLY` and what a process that was killed left half written.
    """
    if folder.is_dir():
        names = [item.name for item in folder.iterdir()]
        if all(name in EARLY or LEFTOVER.fullmatch(name) for name in names):
            return
    if folder.exists():
        raise UserError(
            f"'{folder}' is not empty: choose a new folder, or resume the run that is in it."
        )


def tidy(folder: Path) -> None:
    """Remove what a process that was killed left half written; to be called by its successor."""
    remove_leftovers(folder, ["run"])
    remove_leftovers(folder / CHECKPOINTS, ["last", "best"])
    for path in folder.glob(f".{MODEL}-*"):
        remove(path)


def copy_into(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all below it, over what is there already.

    Raises
    ------
    OSError
        Such as for a full disk; with its number, which `shutil.copytree` keeps to itself.
    """
    files = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
    for path in files:
        to = target / path.relative_to(source) if source.is_dir() else target
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
