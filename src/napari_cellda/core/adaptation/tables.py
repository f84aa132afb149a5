"""CSV tables that come with images: points, and which classes an image shows."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import find_tables, stem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.images import Image

MAX_BYTES = 200_000_000


def read_points(source: Path | None, images: Sequence[Image]) -> dict[str, NDArray[np.float64]]:
    """Read one point per cell of every image that has a table.

    Parameters
    ----------
    source : Path or None
        A folder of ``<stem>.csv``, or one file when there is one image. Columns ``row`` and
        ``col`` in pixels; ``z`` and ``t`` for stacks; others are ignored.
    images : sequence of Image

    Returns
    -------
    dict of image name to (n, 4) ndarray
        t, z, row, column.

    Raises
    ------
    UserError
        If a table has no such columns or no image, or a point lies outside its image.
    """
    if source is None:
        return {}
    by_name = {image.name: image for image in images}
    files = find_tables(source)
    if not files:
        raise UserError(f"'{source}' holds no table of points; expected one CSV file per image.")
    found = {}
    for path in files:
        name = stem(path) if path.suffix.lower() != ".csv" else path.name[: -len(".csv")]
        name = name if name in by_name else name.removesuffix("_points")
        if name not in by_name and not source.is_dir() and len(images) == 1:
            name = images[0].name
        if name not in by_name:
            raise UserError(f"'{path}' has no target image of the same name.")
        found[name] = _points_of(path, by_name[name])
    return found


def _points_of(path: Path, image: Image) -> NDArray[np.float64]:
    header, rows = _read(path)
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    if not {"row", "col"} <= set(columns):
        raise UserError(
            f"'{path}' has the columns {', '.join(header) or 'none'}; expected 'row' and 'col'."
        )
    sizes = (image.n_times, *image.limits)
    points = np.zeros((len(rows), 4))
    for k, name in enumerate(("t", "z", "row", "col")):
        if name in columns:
            points[:, k] = [_number(row, columns[name], line, path) for line, row in rows]
        elif sizes[k] > 1:
            raise UserError(f"'{path}' has no column '{name}', but '{image.name}' is a stack.")
    outside = ~((points > -0.5) & (points < np.array(sizes) - 0.5)).all(axis=1)
    if outside.any():
        row, column = points[outside][0, 2:]
        raise UserError(
            f"'{path}' has {int(outside.sum())} point(s) outside its image, such as row {row:g}, "
            f"col {column:g}; the image has {sizes[2]} x {sizes[3]} pixels."
        )
    return points


def read_image_labels(
    path: Path | None, names: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, tuple[bool, ...]]]:
    """Read which foreground classes each image shows.

    Parameters
    ----------
    path : Path or None
        CSV: ``image,<class>,...`` with 0 or 1, classes in the order of their ids from 1.
    names : sequence of str
        Of the images; a table may leave some out.

    Returns
    -------
    classes : tuple of str
    present : dict of image name to tuple of bool

    Raises
    ------
    UserError
        If the table is no such table or names unknown images.
    """
    if path is None:
        return (), {}
    header, rows = _read(path)
    if len(header) < 2 or header[0].strip().lower() != "image":
        raise UserError(f"'{path}' begins with '{','.join(header)}'; expected 'image,<class>,...'.")
    classes = tuple(name.strip() for name in header[1:])
    twice = [name for name in classes if classes.count(name) > 1]
    if twice:
        raise UserError(f"'{path}' has two columns '{twice[0]}'; expected one per class.")
    present: dict[str, tuple[bool, ...]] = {}
    unknown = []
    for line, row in rows:
        name = row[0].strip()
        name = name if name in names else stem(name)
        if name not in names:
            unknown.append(row[0])
            continue
        if name in present:
            raise UserError(f"'{path}' names '{row[0]}' again in line {line}; expected it once.")
        values = [_number(row, i, line, path) for i in range(1, len(header))]
        for value, label in zip(values, classes, strict=True):
            if value not in (0.0, 1.0):
                raise UserError(
                    f"'{path}' has {value:g} for the class '{label}' in line {line}; expected 0 "
                    "or 1."
                )
        present[name] = tuple(value > 0 for value in values)
    if unknown:
        raise UserError(
            f"'{path}' names {len(unknown)} image(s) that are not there: {', '.join(unknown[:5])}."
        )
    return classes, present


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the other rows with the numbers of their lines."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"'{path}' is larger than any table of this kind, and was not read.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read as a CSV table ({error}).") from error
    return (rows[0][1], rows[1:]) if rows else ([], [])


def _number(row: list[str], column: int, line: int, path: Path) -> float:
    found = f"'{row[column]}'" if column < len(row) else "nothing"
    try:
        value = float(row[column])
    except (ValueError, IndexError):
        value = np.nan
    if not np.isfinite(value):
        raise UserError(
            f"'{path}' has {found} in line {line}, column {column + 1}; expected a number."
        )
    return value
