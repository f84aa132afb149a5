"""What a run was asked to do: its method, settings, inputs with their hashes, seed, versions."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import files_below

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1


class RunInput(BaseParams):
    """One file or folder that a run reads."""

    role: str
    """What it is for, e.g. "images"."""
    path: str
    """Relative to the run's folder when inside it, else absolute."""
    hash: str
    """Of the names and the content of what is read of it; see `runs.inputs`."""


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
    """Hash a file, or a zarr folder's files with their names below it.

    Raises
    ------
    UserError
        If there is nothing at `path`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"There is no file or folder '{path}'.")
    root = path if path.is_dir() else path.parent
    return digest_of((file.relative_to(root).as_posix(), file) for file in files_below(path))


def digest_of(files: Iterable[tuple[str, Path]]) -> str:
    """Hash files with the names that they go by, in this order."""
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
    path, folder = absolute(path), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def absolute(path: Path) -> Path:
    """Return where a path leads, but a link as itself: its name is that of the image or project."""
    path = Path(path)
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def recorded_name(path: str) -> str:
    """Return the name of a recorded file or folder, from whichever system the record comes."""
    on_windows = PureWindowsPath(path)
    return (on_windows if on_windows.drive else PurePosixPath(path)).name


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
