"""The figures as files: JSON as it is printed, CSV with a row for every image and slice."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.compare.scoring import KEYS
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cellda.core.compare.evaluate import Evaluation

ENDINGS = (".json", ".csv")


def check_table_path(path: Path) -> None:
    """Raise a UserError unless the ending says which table to write."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"'{path}' has the ending '{path.suffix}'; expected .json or .csv.")


def write_table(path: Path, evaluation: Evaluation) -> None:
    """Write the result as JSON or CSV, by the ending of `path`.

    Raises
    ------
    UserError
        If the ending is another one, or the file cannot be written.
    """
    check_table_path(path)
    with write_atomically(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".json":
            json.dump(evaluation.as_json(), file, indent=1)
            file.write("\n")
        else:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["model", "image", "slice", "unit", *KEYS])
            rows.writerows(_rows(evaluation))


def _rows(evaluation: Evaluation) -> Iterator[list[Any]]:
    for model in evaluation.models.values():
        for image in model.images:
            for index, figures in [("", image.figures), *enumerate(image.slices)]:
                values = [figures[key] if np.isfinite(figures[key]) else "" for key in KEYS]
                yield [model.name, image.name, index, image.unit, *values]
