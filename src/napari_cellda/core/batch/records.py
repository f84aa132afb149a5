"""What a batch has done: one small record per image, so that a rerun does only what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from napari_cellda.core.atomic import plain_disk_errors, write_atomically
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import stem
from napari_cellda.core.run_record import hash_input

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".cellda-batch"
"""Inside the results' folder. One file per image: processes and machines never share one."""


class Record(BaseParams):
    """Written last, when all files of an image are in place."""

    format: Literal[1] = 1
    content: str
    """Hash of the image's file or folder."""
    made_with: str
    """Hash of all that decides the results: forest, enhancer, settings, formats."""
    files: dict[str, int]
    """The results by name, with their size in bytes."""


def record_path(output: Path, image: Path) -> Path:
    """Return where the record of an image is."""
    return output / FOLDER / f"{stem(image)}.json"


def is_done(output: Path, image: Path, made_with: str) -> bool:
    """Whether all results of an image are there, whole, from this content and these settings.

    Sizes are compared and not times: results may be copied, and a mask that somebody corrected by
    hand is kept.
    """
    try:
        record = Record.model_validate_json(record_path(output, image).read_bytes())
    except (OSError, ValidationError):
        return False
    return (
        record.made_with == made_with
        and all(bytes_of(output / name) == size for name, size in record.files.items())
        and record.content == hash_input(image)
    )


def keep_record(output: Path, image: Path, content: str, made_with: str, files: list[Path]) -> None:
    """Note that an image is done."""
    sizes = {path.name: bytes_of(path) for path in files}
    record = Record(content=content, made_with=made_with, files=sizes)
    with write_atomically(record_path(output, image)) as aside:
        aside.write_text(record.model_dump_json(indent=1), encoding="utf-8")


def drop_record(output: Path, image: Path) -> None:
    """Forget an image before its results are replaced: half of them may be new after a crash."""
    path = record_path(output, image)
    with plain_disk_errors(output):
        path.unlink(missing_ok=True)


def bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder; -1 if there is nothing."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else -1
