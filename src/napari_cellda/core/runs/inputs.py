"""What a run reads of its inputs: this is hashed and bundled, and nothing that lies beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import files_below, find_images, find_maps, find_tables, is_litter
from napari_cellda.core.run_record import digest_of
from napari_cellda.core.runs.folder import MODEL, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.core.run_record import RunInput

IMAGES = ("images", "target_images", "source_images", "nuclei_images")
LABELS = ("masks", "source_masks", "target_masks", "target_strokes", "validation_masks")
READ: dict[str, Callable[[Path], list[Path]]] = {
    **dict.fromkeys(IMAGES, find_originals),
    **dict.fromkeys(LABELS, find_images),
    "pseudo_labels": find_maps,
    "points": find_tables,
}
"""By role, what is read of a folder; of other roles it is all."""


def files_read(role: str, path: Path, *, hidden: bool = False) -> list[tuple[str, Path]]:
    """List the files that a run reads of an input.

    Parameters
    ----------
    role : str
        What the input is for.
    path : Path
        A file or a folder. Of another run only the model is read.
    hidden : bool
        See `files_below`.

    Returns
    -------
    list of (name, path)
        Names are relative to the folder, with slashes; of a file it is its own.

    Raises
    ------
    UserError
        If there is nothing at `path`, or nothing of this kind.
    """
    if not path.exists():
        raise UserError(f"There is no file or folder '{path}'.")
    if role == "pretrained" and (path / RECORD).is_file():
        path = path / MODEL
    root = path if path.is_dir() else path.parent
    items = READ[role](path) if role in READ else [path]
    files = (file for item in items for file in files_below(item, hidden=hidden))
    named = ((file.relative_to(root).as_posix(), file) for file in files)
    return sorted(named, key=lambda pair: pair[0].split("/"))  # as on every system


def hash_read(role: str, path: Path) -> str:
    """Hash what a run reads of an input; see `files_read`."""
    return digest_of(files_read(role, path))


def is_unchanged(item: RunInput, path: Path) -> bool:
    """Whether what lies at a path is what a run was begun with."""
    try:
        files = files_read(item.role, path)
    except UserError:  # nothing that could be read as this input
        files = []
    if digest_of(files) == item.hash:
        return True
    before = _files_before(path)
    return before != files and digest_of(before) == item.hash


def _files_before(path: Path) -> list[tuple[str, Path]]:
    """List what was hashed of an input at first: all there is, in the order of the system."""
    if not path.is_dir():
        return [(path.name, path)]
    found = sorted(
        item
        for item in path.rglob("*")
        if item.is_file() and not (item.name.startswith(".") or is_litter(item.name))
    )
    return [(item.relative_to(path).as_posix(), item) for item in found]


def newest_file(role: str, path: Path) -> str:
    """Return words that name what changed last of an input's folder, the likeliest to differ."""
    if not path.is_dir():
        return ""
    try:
        files = files_read(role, path)
    except UserError:
        return ""
    name, _ = max(files, key=lambda file: file[1].stat().st_mtime, default=("", path))
    return f" (its newest file is '{name}')" if name else ""
