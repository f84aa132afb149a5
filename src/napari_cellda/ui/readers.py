"""napari's own Open, and drag and drop, for projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLUGIN, PANEL = "napari-cellda", "Paint"


def project_reader(path: str | Sequence[str]) -> Callable[[Any], list[tuple[None]]] | None:
    """Return what opens a project; None if the path is none."""
    paths = [path] if isinstance(path, str) else list(path)
    return _open_in_viewer if len(paths) == 1 and paths[0].endswith(".cellda") else None


def _open_in_viewer(path: str | Sequence[str]) -> list[tuple[None]]:
    """Open a project in the viewer that asks, with the panel Paint; its layers come by and by."""
    import napari
    from qtpy.QtCore import QTimer

    from napari_cellda.core.errors import UserError
    from napari_cellda.ui.project_desk import ProjectDesk
    from napari_cellda.ui.state import Session

    first = Path(path if isinstance(path, str) else path[0])
    viewer = napari.current_viewer()
    if viewer is None or not first.is_file():
        raise UserError(f"'{first}' is not there, or there is no window to open it in.")

    def open_it() -> None:
        viewer.window.add_plugin_dock_widget(PLUGIN, PANEL)
        ProjectDesk.of(Session.of(viewer)).open(first)

    # Later: layers that are added while napari reads a file would be taken for its content.
    QTimer.singleShot(0, open_it)
    return [(None,)]  # what napari understands as "read, and there are no layers"
