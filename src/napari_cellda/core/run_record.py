"""What a run was asked to do: its method, settings, inputs with their hashes, seed, versions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
LITTER = ("thumbs.db", "desktop.ini")


class RunInput(BaseParams):
    """One file or folder that a run reads."""

    role: str
    """What it is for, e.g. "images"."""
    path: str
    """Relative to the run's folder when inside it, else absolute."""
    hash: str
    """Of the content and the names of the files below it."""


class RunRecord(BaseParams):
    """What ``run.yaml`` says."""

    format: int = FORMAT
    method: str
    """Its name on the command line, e.g. "enhancer train"."""
    params: dict[str, Any]
    """The method's settings, complete."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Choices of this run beside the method's settings, e.g. which channels."""
    inputs: tuple[RunInput, ...]
    seed: int
    versions: dict[str, str]
    """Of this package and the libraries that decide the result."""
    command: str = ""
    """The command that does it all again."""


def hash_input(path: Path) -> str:
    """Hash a file, or a folder's files with their names below it.

    Raises
    ------
    UserError
        If there is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return _digest([(path.name, path)])
    if not path.is_dir():
        raise UserError(f"There is no file or folder '{path}'.")
    return _digest((p.relative_to(path).as_posix(), p) for p in _files_below(path))


def newest_file(path: Path) -> str:
    """Return words that name the file of a folder that changed last, the likeliest to differ."""
    files = _files_below(path)
    if not files:
        return ""
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return f" (its newest file is '{newest.relative_to(path).as_posix()}')"


def _files_below(path: Path) -> list[Path]:
    """Return the files in a folder; what systems put there when somebody looks does not count."""
    return sorted(
        p
        for p in path.rglob("*")
        if p.is_file() and not p.name.startswith(".") and p.name.lower() not in LITTER
    )


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, path in files:
        digest.update(name.encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        digest.update(b"\0")
    return digest.hexdigest()


def portable_path(path: Path, folder: Path) -> str:
    """Return a path relative to the run when it lies inside, else absolute."""
    path, folder = Path(path).resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def installed_versions() -> dict[str, str]:
    """Return the versions that decide the result of a run."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("napari-cellda", "numpy", "torch", "scikit-learn", "bioimage-cpp"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
