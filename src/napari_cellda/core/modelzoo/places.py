"""Where models are kept: in the cache, and in the user's own folder."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

CACHE_VARIABLE = "NAPARI_CELLDA_CACHE"
DATA_VARIABLE = "NAPARI_CELLDA_DATA"


def cache_folder() -> Path:
    """Return where unpacked and downloaded packages lie; may be deleted at any time.

    The environment variable ``NAPARI_CELLDA_CACHE`` names another place.
    """
    return _folder(CACHE_VARIABLE, "XDG_CACHE_HOME", ".cache", "Caches")


def models_folder() -> Path:
    """Return where imported models lie.

    The environment variable ``NAPARI_CELLDA_DATA`` names another place for the folder above it.
    """
    return _folder(DATA_VARIABLE, "XDG_DATA_HOME", ".local/share", "Application Support") / "models"


def _folder(own: str, xdg: str, unix: str, mac: str) -> Path:
    if own in os.environ:
        return Path(os.environ[own]).expanduser()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / mac
    else:
        root = Path(os.environ.get(xdg) or Path.home() / unix)
    return root / "napari-cellda"


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
