"""The models at hand: listed, shown, checked and imported."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.bundled import bundled_folder, list_bundled
from napari_cellda.core.modelzoo.places import models_folder
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.modelzoo.source import find_package, imported_folder

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.card import ModelCard


def list_models() -> list[dict[str, Any]]:
    """List the bundled and imported models, one row each."""
    imported = models_folder()
    names = sorted(path.parent.name for path in imported.glob("*/rdf.yaml"))
    found = [("bundled", name) for name in list_bundled()]
    found += [("imported", name) for name in names if name not in list_bundled()]
    return [_row(origin, name) for origin, name in found]


def _row(origin: str, name: str) -> dict[str, Any]:
    card = read_card(find_package(name))
    diameter = "" if card.object_diameter is None else f"{card.object_diameter:.0f} px"
    return {
        "id": name,
        "from": origin,
        "structure": card.structure,
        "object size": diameter,
        "licence": card.licence,
        "description": card.description,
    }


def describe_model(source: str) -> dict[str, Any]:
    """Return a model's card as plain values.

    Raises
    ------
    UserError
        If there is no such model, or its description cannot be read.
    """
    return asdict(read_card(find_package(source)))


def import_model(source: str) -> str:
    """Copy a package into this user's models and return the id that finds it.

    Importing runs nothing: TorchScript weights still need the user's yes when they are opened.

    Raises
    ------
    UserError
        If the package is not sound, or its id is that of a bundled model.
    """
    folder = find_package(source)
    card = read_card(folder)
    name = _plain_id(card)
    if bundled_folder(name) is not None:
        raise UserError(f"'{name}' is the id of a bundled model; change the id in its rdf.yaml.")
    if imported_folder(name) == folder:
        return name
    with write_atomically(models_folder() / name, replace_folder=True) as aside:
        shutil.copytree(folder, aside, symlinks=False)
    return name


def _plain_id(card: ModelCard) -> str:
    """Return an id that is a file name everywhere: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", card.id).strip(".-") or "model"
