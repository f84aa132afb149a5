"""The models at hand: listed, shown, checked and imported, as the command line offers it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.bundled import bundled_folder, list_bundled
from napari_cellda.core.modelzoo.places import models_folder
from napari_cellda.core.modelzoo.rdf import find_rdf, read_card
from napari_cellda.core.modelzoo.rdf_files import named_files
from napari_cellda.core.modelzoo.source import find_package

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.card import ModelCard


def list_imported() -> list[str]:
    """Return the ids of the models that this user imported, sorted."""
    return sorted(path.parent.name for path in models_folder().glob("*/rdf.yaml"))


def list_models() -> list[dict[str, str]]:
    """Describe every bundled and imported model in one row.

    Returns
    -------
    list of dict
        Keys ``id``, ``name``, ``made for``, ``dimensions``, ``outputs``, ``licence`` and ``from``.
        A model that cannot be read is listed with the reason as its name.
    """
    places = [(name, bundled_folder(name), "bundled") for name in list_bundled()]
    places += [(name, models_folder() / name, "imported") for name in list_imported()]
    return [_row(name, folder, origin) for name, folder, origin in places if folder]


def describe_model(source: str | Path) -> dict[str, Any]:
    """Return a model's card as plain values, without loading its weights."""
    card = read_card(find_package(source))
    plain: dict[str, Any] = {
        "id": card.id,
        "name": card.name,
        "description": card.description,
        "made for": _made_for(card),
        "input axes": card.input_axes,
        "channels": card.n_inputs,
        "outputs": list(card.output_names),
        "smallest input": list(card.min_shape),
        "step": list(card.step),
        "halo": list(card.halo),
        "preprocessing": [step["name"] for step in card.preprocessing],
        "weights": {entry.format: entry.architecture or entry.source for entry in card.weights},
        "feature sets": list(card.feature_sets),
        "authors": list(card.authors),
        "licence": card.licence,
        "cite": card.attribution.splitlines(),
        "format": card.format_version,
        "training": card.training,
        "folder": str(card.folder),
    }
    return plain


def import_model(source: str | Path) -> str:
    """Copy a package into this user's models, so that its id finds it.

    Only the description and the files that it names: it may lie in a folder with much else.

    Parameters
    ----------
    source : str or Path
        Whatever `find_package` finds.

    Returns
    -------
    str
        The id; an imported model of the same id is replaced.

    Raises
    ------
    UserError
        If the package cannot be read or copied, or its id is that of a bundled model.
    """
    folder = find_package(source)
    card = read_card(folder)
    name = re.sub(r"[^\w.-]+", "-", card.id).strip("-.") or "model"
    if name in list_bundled():
        raise UserError(f"'{name}' is the id of a bundled model, and was not imported.")
    home = models_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".importing-") as scratch:
            copy = Path(scratch) / "package"
            _copy_package(folder, copy)
            if (home / name).exists():
                os.replace(home / name, Path(scratch) / "old")
            os.replace(copy, home / name)
    except OSError as error:
        raise UserError(f"'{name}' could not be copied to '{home}': {error.strerror}.") from error
    return name


def _copy_package(folder: Path, target: Path) -> None:
    target.mkdir()
    shutil.copyfile(find_rdf(folder), target / "rdf.yaml")
    for name in named_files(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / name)


def _row(name: str, folder: Path, origin: str) -> dict[str, str]:
    try:
        card = read_card(folder)
    except UserError as error:
        return {"id": name, "name": str(error), "from": origin}
    return {
        "id": name,
        "name": card.name,
        "made for": _made_for(card),
        "dimensions": f"{card.ndim}D",
        "outputs": ", ".join(card.output_names),
        "licence": card.licence,
        "from": origin,
    }


def _made_for(card: ModelCard) -> str:
    size = f"{card.object_diameter:.0f} px across" if card.object_diameter else ""
    return ", ".join(filter(None, [card.structure, size]))
