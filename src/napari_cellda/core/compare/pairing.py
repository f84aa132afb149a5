"""Which files of a prediction belong to which of the truth."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import OWN_SUFFIXES, find_images, stem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cellda.core.compare.reading import Kind, ReferenceType

PREDICTED = {"semantic": "_mask", "instances": "_instances", "boundary": "_probability"}
"""The suffix that each kind of comparison reads; files without a suffix of ours serve, too."""
OVERLAY = "_overlay"
OBJECTS = ("_instances", "_mask", "_boundary")
CLASSES = ("_mask", "_instances", "_boundary")


@dataclass(frozen=True)
class FilePair:
    """One image's prediction and truth."""

    name: str
    """Of the image that they belong to."""
    predicted: Path
    truth: Path
    objects: Path | None = None
    """Table with the scores of the objects."""


def pair_folders(
    prediction: Path, reference: Path, kind: Kind, reference_type: ReferenceType | None = None
) -> list[FilePair]:
    """Pair the files of two folders by their stems, without the suffixes of our own outputs.

    Parameters
    ----------
    prediction, reference : Path
        Folders, or single files.
    kind : {"semantic", "instances", "boundary"}
        Decides which of our own outputs count.
    reference_type : {"classes", "instances", "binary"}, optional
        Decides, where the reference holds several outputs of ours, which are the truth.

    Returns
    -------
    list of FilePair
        In the order of their names.

    Raises
    ------
    UserError
        If a folder holds no such file, two files of one folder claim the same name, or names
        stay alone; all of them are listed.
    """
    of_objects = reference_type == "instances" or (reference_type is None and kind != "semantic")
    predicted = _by_name(prediction, (PREDICTED[kind],))
    truth = _by_name(reference, OBJECTS if of_objects else CLASSES)
    # A truth that is called like the image, though the name ends like an output of ours.
    truth |= {stem(path): path for path in truth.values() if stem(path) in predicted}
    claimed = {truth[name] for name in predicted if name in truth}
    lonely = [name for name in predicted if name not in truth]
    missed = [stem(path) for path in dict.fromkeys(truth.values()) if path not in claimed]
    _complain_of_lonely(prediction, reference, lonely, missed)
    return [
        FilePair(name, path, truth[name], objects_beside(path)) for name, path in predicted.items()
    ]


def read_scores(path: Path) -> dict[int, float]:
    """Read the columns label and score of a table of objects.

    Raises
    ------
    UserError
        If a column is missing or a value is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {int(float(row["label"])): float(row["score"]) for row in rows}
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        raise UserError(
            f"'{path}' is not a table of objects ({error}); expected the columns label and score."
        ) from error


def _by_name(source: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """List a folder's files by the name of their image; of several the first suffix counts."""
    found: dict[str, Path] = {}
    for suffix in (*suffixes, ""):
        of_suffix = _with_suffix(find_images(source), suffix)
        found = of_suffix | found
    if not found:
        raise UserError(
            f"The folder '{source}' holds no file of the kind *{suffixes[0]} and none without a "
            "suffix of ours."
        )
    return dict(sorted(found.items()))


def _with_suffix(paths: Iterable[Path], suffix: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if _own_suffix(path) != suffix:
            continue
        name = stem(path).removesuffix(suffix)
        if name in found:
            raise UserError(f"'{found[name]}' and '{path}' have the same name; keep one of them.")
        found[name] = path
    return found


def _own_suffix(path: Path) -> str:
    """Return which of our outputs a file is called like; "" when like none."""
    name = stem(path)
    endings = (s for s in (*OWN_SUFFIXES, OVERLAY) if name.endswith(s) and name != s)
    return next(endings, "")


def _complain_of_lonely(
    prediction: Path, reference: Path, lonely: list[str], missed: list[str]
) -> None:
    parts = [
        f"'{folder}' has none for {', '.join(names)}"
        for folder, names in ((reference, lonely), (prediction, missed))
        if names
    ]
    if parts:
        raise UserError(
            f"Predictions and truth pair by name, and {' and '.join(parts)}; "
            "expected one file each."
        )


def objects_beside(path: Path) -> Path | None:
    """Return the table of the objects in a file of labels, ``*_objects.csv``, if it is there."""
    name = stem(path).removesuffix(PREDICTED["instances"])
    table = path.with_name(f"{name}_objects.csv")
    return table if table.is_file() else None


def name_predictions(given: Iterable[str]) -> dict[str, Path]:
    """Read predictions as ``NAME=DIR`` or ``DIR``, which is then called like its folder.

    Raises
    ------
    UserError
        If two have the same name, a name cannot be that of a folder, or none is given.
    """
    named: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        if not equals or Path(item).exists():
            name, folder = Path(item).resolve().name, item
        if not name or not folder:
            raise UserError(f"--prediction is '{item}'; expected DIR or NAME=DIR.")
        if Path(name).name != name or name == "..":
            raise UserError(f"A prediction is called '{name}'; expected a name without slashes.")
        if name in named:
            raise UserError(
                f"Two predictions are called '{name}': '{named[name]}' and '{folder}'; "
                "name them with NAME=DIR."
            )
        named[name] = Path(folder)
    if not named:
        raise UserError("No prediction is given; expected --prediction DIR or NAME=DIR.")
    return named
