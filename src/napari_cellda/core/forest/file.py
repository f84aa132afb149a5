"""Forests as npz files: no pickle, and nothing is believed that was not checked."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.forest.trees import ARRAYS, Forest

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "napari-cellda forest"
VERSION = 1
MAX_BYTES = 2**30
"""A larger file is no forest: 1000 deep trees take a tenth of it."""

Target = str | os.PathLike[str] | BinaryIO


def save_forest(forest: Forest, target: Target) -> None:
    """Write a forest to a path, whole or not at all, or to an open file; see `Forest.save`."""
    if not isinstance(target, (str, os.PathLike)):
        _write(forest, target)
        return
    with write_atomically(Path(target)) as aside, aside.open("wb") as file:
        _write(forest, file)


def _write(forest: Forest, file: BinaryIO) -> None:
    about = {
        "format": FORMAT,
        "version": VERSION,
        "n_features": forest.n_features,
        "feature_names": forest.feature_names,
        "oob_score": forest.oob_score,
    }
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    arrays: dict[str, Any] = {name: getattr(forest, name) for name in ARRAYS}
    np.savez_compressed(file, allow_pickle=False, about=text, **arrays)


def load_forest(source: Target) -> Forest:
    """Read a forest and check it; see `Forest.load`."""
    named = isinstance(source, (str, os.PathLike))
    name = f"'{source}'" if named else "The forest in the project"
    try:
        about, arrays = _read(source)
    except FileNotFoundError:
        raise UserError(f"{name} is not there; expected a saved forest.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None
    except Exception as error:
        # A damaged or foreign file fails in any way that zip, npz and json can.
        raise UserError(
            f"{name} cannot be read; expected a forest saved by napari-cellda ({error})."
        ) from error
    if about["version"] > VERSION:
        raise UserError(
            f"{name} has forest format {about['version']}; this napari-cellda reads up to "
            f"{VERSION}: please update it."
        )
    try:
        return Forest(
            **arrays,
            n_features=about["n_features"],
            feature_names=tuple(about["feature_names"]),
            oob_score=about["oob_score"],
        )
    except UserError as error:
        raise UserError(f"{name} cannot be used. {error}") from None


def _read(source: Target) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with zipfile.ZipFile(source) as file:
        members = {item.filename: item.file_size for item in file.infolist()}
        if members.keys() != {f"{name}.npy" for name in ("about", *ARRAYS)}:
            raise ValueError(f"it holds {', '.join(sorted(members)[:9]) or 'nothing'}")
        if sum(members.values()) > MAX_BYTES:
            raise ValueError(f"it unpacks to {sum(members.values())} bytes")
        arrays = {}
        for name in ("about", *ARRAYS):
            with file.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    about = json.loads(arrays.pop("about").tobytes())
    known = {
        "version": int,
        "n_features": int,
        "feature_names": list,
        "oob_score": (float, int, type(None)),
    }
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']!r}")
    for key, kind in known.items():
        if not isinstance(about[key], kind):  # type: ignore[arg-type]
            raise ValueError(f"its {key} is {about[key]!r}")
    if not all(isinstance(name, str) for name in about["feature_names"]):
        raise ValueError("its feature names are not all text")
    return about, arrays
