"""From whatever names a model to the folder that holds it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.bundled import bundled_folder, list_bundled
from napari_cellda.core.modelzoo.places import models_folder
from napari_cellda.core.modelzoo.rdf import find_rdf, is_rdf_name
from napari_cellda.core.paths import exists

HOW = "a bundled or bioimage.io id, or the path of a folder, a zip file or an rdf.yaml"


def find_package(source: str | Path) -> Path:
    """Return the folder of a model package, unpacking or downloading it when that is needed.

    Parameters
    ----------
    source : str or Path
        The id of a bundled or imported model; a folder, a zip file or an rdf.yaml; a bioimage.io
        id, nickname, DOI or address. Looked up in this order, files that exist before ids.

    Returns
    -------
    Path
        Holds rdf.yaml and the files it names.

    Raises
    ------
    UserError
        If nothing of that name is found, or it is no proper package.
    """
    text = str(source).strip()
    if not text:
        raise UserError(f"No model was named; {HOW} is expected.")
    known = bundled_folder(text) or imported_folder(text)
    if known is not None:
        return known
    path = Path(text).expanduser()
    if exists(path):
        return _local(path)
    from napari_cellda.core.modelzoo.download import fetch, looks_remote

    if isinstance(source, str) and looks_remote(text):
        return fetch(text)
    bundled = ", ".join(list_bundled()) or "none"
    raise UserError(f"There is no model '{text}': {HOW} is expected (bundled: {bundled}).")


def imported_folder(name: str) -> Path | None:
    """Return the folder of a model that this user imported; None when there is none."""
    folder = models_folder() / name
    is_plain = Path(name).name == name and name not in (".", "..")
    return folder if is_plain and exists(folder / "rdf.yaml") else None


def _local(path: Path) -> Path:
    if path.is_dir():
        return path
    if is_rdf_name(path.name):
        found = find_rdf(path.parent)
        if found.name != path.name:
            raise UserError(
                f"There are two models in one folder: beside {path.name} lies {found.name}; move "
                "one of them to a folder of its own, with its files."
            )
        return path.parent
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        from napari_cellda.core.modelzoo.archive import unpack

        return unpack(path)
    raise UserError(f"{path.name} is no model package: {HOW} is expected.")
