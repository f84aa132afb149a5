"""The pictures of a run: ``previews.zarr/<name>/<step>``, one array each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.atomic import plain_disk_errors
from napari_cellda.core.events import Preview

if TYPE_CHECKING:
    from pathlib import Path

PREVIEWS = "previews.zarr"


def write_preview(run: Path, preview: Preview) -> None:
    """Write one picture into a run's folder, in place of an earlier one of the same step.

    Raises
    ------
    UserError
        If the disk is full, or refuses.
    """
    import zarr

    path = _path(run, preview.name, preview.index)
    with plain_disk_errors(path.parent):
        stored = zarr.create_array(path, data=preview.array, overwrite=True)
        stored.attrs["kind"] = preview.kind


def list_previews(run: Path) -> dict[str, list[int]]:
    """Return the steps at which each preview was taken, by its name."""
    root = run / PREVIEWS
    if not root.is_dir():
        return {}
    return {
        name.name: sorted(int(item.name) for item in name.iterdir() if item.name.isdigit())
        for name in root.iterdir()
        if name.is_dir()
    }


def read_preview(run: Path, name: str, index: int) -> Preview:
    """Read one picture."""
    import zarr

    stored = zarr.open_array(_path(run, name, index), mode="r")
    return Preview(name, np.asarray(stored), index, _kind(stored))


def list_pictures(run: Path) -> list[str]:
    """Return the names of the previews that are pictures, sorted; nothing of them is read."""
    import zarr

    firsts = {name: steps[0] for name, steps in list_previews(run).items() if steps}
    return sorted(
        name
        for name, step in firsts.items()
        if _kind(zarr.open_array(_path(run, name, step), mode="r")) == "picture"
    )


def _kind(stored: Any) -> Literal["picture", "points"]:
    return "points" if stored.attrs.get("kind") == "points" else "picture"


def _path(run: Path, name: str, index: int) -> Path:
    return run / PREVIEWS / name / str(index)
