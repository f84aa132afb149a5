"""The files that a description names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.modelzoo.rdf import find_rdf, load_rdf, package_file

if TYPE_CHECKING:
    from collections.abc import Iterator


def file_fields(rdf: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield (holder, key) of every file that is needed here: weights, test arrays, texts, cover.

    Whatever is no file name where one is expected is passed over, and so are Python files.
    """
    for key in ("documentation", "covers", "test_inputs", "test_outputs"):
        yield from _fields(rdf, key)
    for side in ("inputs", "outputs"):
        for tensor in rdf.get(side) or ():
            yield from _fields(tensor, "test_tensor")
    for entry in filter(None, (rdf.get("weights") or {}).values()):
        yield from _fields(entry, "source")
        yield from _fields(entry, "external_data")


def _fields(holder: Any, key: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the file names at one place: a name, a mapping with a ``source``, or a list of them."""
    if isinstance(holder, dict) and key not in holder:
        return
    value = holder[key]
    if isinstance(value, str):
        yield holder, key
    elif isinstance(value, dict):
        yield from _fields(value, "source")
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from _fields(value, i)


def named_files(folder: Path) -> set[Path]:
    """Return the files that belong to a package, relative to its folder, its description apart.

    Names and links that lead out of the folder are left out, and so are Python files: they are
    never run.
    """
    rdf = load_rdf(find_rdf(folder))
    attached = rdf.get("attachments")
    if isinstance(attached, dict):  # format 0.4
        attached = attached.get("files")
    fields = [*file_fields(rdf), *_fields({"attachments": attached}, "attachments")]
    names = {Path(os.path.normpath(holder[key])) for holder, key in fields}
    return {name for name in names if name.suffix != ".py" and _is_inside(folder, name)}


def _is_inside(folder: Path, name: Path) -> bool:
    is_plain = not name.is_absolute() and ".." not in name.parts
    return is_plain and package_file(folder, str(name)) is not None
