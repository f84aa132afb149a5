"""The enhancers that come with the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import napari_cellda


@cache
def bundled_root() -> Path | None:
    """Return the folder of the bundled models; None when this copy has none.

    An installed wheel carries it inside the package; a checkout has it beside ``src``.
    """
    package = Path(napari_cellda.__file__).parent
    for folder in (package / "models", package.parents[1] / "models"):
        if folder.is_dir():
            return folder
    return None


def list_bundled() -> list[str]:
    """Return the ids of the bundled models, sorted; [] when there are none."""
    root = bundled_root()
    return [] if root is None else sorted(path.parent.name for path in root.glob("*/rdf.yaml"))


def bundled_folder(name: str) -> Path | None:
    """Return the folder of one bundled model; None when no bundled model has that id."""
    root = bundled_root()
    return root / name if root is not None and name in list_bundled() else None
