"""What a batch has done: one small record per image, so that a rerun does only what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from napari_cellda.core.atomic import plain_disk_errors, write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import files_below, find_images, pairing_stem, stem
from napari_cellda.core.run_record import hash_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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
    earlier: tuple[str, ...] = ()
    """Names of further results, which other settings made."""


def record_path(output: Path, image: Path) -> Path:
    """Return where the record of an image is."""
    return output / FOLDER / f"{stem(image)}.json"


def is_done(output: Path, image: Path, made_with: str) -> bool:
    """Whether all results of an image are there, whole, from this content and these settings.

    Sizes are compared and not times: results may be copied, and a mask that somebody corrected by
    hand is kept.
    """
    record = _read(record_path(output, image))
    return (
        record is not None
        and record.made_with == made_with
        and all(bytes_of(output / name) == size for name, size in record.files.items())
        and record.content == _content(image)
    )


def recorded_files(folder: Path) -> set[str]:
    """Return the names of all results that batches have written into a folder."""
    names: set[str] = set()
    for path in (folder / FOLDER).glob("*.json"):
        names |= _names(_read(path))
    return names


def find_originals(path: Path) -> list[Path]:
    """List images as `find_images` does, but no results that lie beside them in a folder.

    Raises
    ------
    UserError
        See `find_images`; if the folder holds nothing but such results.
    """
    found = find_images(path)
    results = results_among(path, found)
    if len(results) == len(found):
        raise UserError(
            f"The images in '{path}' are results of a batch; copy those to be taken as images "
            "into another folder."
        )
    return [image for image in found if image not in results]


def results_among(path: Path, found: Sequence[Path]) -> list[Path]:
    """Return the images of a folder that are results: of a batch, or named like those of others."""
    if path in found:  # named by itself
        return []
    recorded = recorded_files(path)
    names = {stem(image) for image in found}
    return [
        image
        for image in found
        if image.name in recorded or stem(image) != pairing_stem(image) in names
    ]


def tell_results(paths: Iterable[Path]) -> str:
    """Say in one sentence which images `find_originals` leaves out of folders; "" for none."""
    found = [image for path in paths for image in results_among(path, find_images(path))]
    if not found:
        return ""
    such = f"'{found[0]}' is" if len(found) == 1 else f"{len(found)} files such as '{found[0]}' are"
    return f"{such} left out, as results of another image beside."


def drop_record(output: Path, image: Path) -> None:
    """Forget how an image was done before its results are replaced: half may be new after a crash.

    That these files are results stays known.
    """
    path = record_path(output, image)
    record = _read(path)
    if record is not None:
        _write(path, record.model_copy(update={"made_with": "", "content": ""}))
    else:
        with plain_disk_errors(output):
            path.unlink(missing_ok=True)


def keep_record(output: Path, image: Path, content: str, made_with: str, files: list[Path]) -> None:
    """Note that an image is done."""
    path = record_path(output, image)
    sizes = {file.name: bytes_of(file) for file in files}
    earlier = tuple(sorted(_names(_read(path)) - set(sizes)))
    _write(path, Record(content=content, made_with=made_with, files=sizes, earlier=earlier))


def _names(record: Record | None) -> set[str]:
    return {*record.files, *record.earlier} if record else set()


def _read(path: Path) -> Record | None:
    """Read a record; None if there is none that can be read."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _content(image: Path) -> str | None:
    """Return the hash of an image; None if it cannot be read, as will be told when it is done."""
    try:
        return hash_input(image)
    except (OSError, UserError):
        return None


def _write(path: Path, record: Record) -> None:
    with write_atomically(path) as aside:
        aside.write_text(record.model_dump_json(indent=1), encoding="utf-8")


def bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder; -1 if there is nothing."""
    if not path.exists():
        return -1
    return sum(item.stat().st_size for item in files_below(path, hidden=True))
