"""Choose an input of a run: one or several layers of the viewer, or a folder."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton, QSizePolicy

from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inputs import Picked
from napari_cellda.ui.layers import TAG

if TYPE_CHECKING:
    from napari_cellda.ui.inputs import Kind
    from napari_cellda.ui.state import Session

PROMPT = "Choose\u2026"
FITTING = {"labels": ("strokes", "mask", "instances"), "points": ("found points",)}
"""Of our own layers, those that may be an input, by their roles."""


class InputPicker(QPushButton):
    """A button whose menu lists the layers that fit, and a folder to be chosen.

    Parameters
    ----------
    session : Session
    kind : {"image", "labels", "points"}
    tip : str
        What the input is for.
    file_filter : str
        Where a single file is wanted instead of a folder, which files.

    Signals
    -------
    changed
    """

    changed = Signal()

    def __init__(
        self, session: Session, kind: Kind | None, tip: str, *, file_filter: str = ""
    ) -> None:
        super().__init__()
        self._session, self.kind, self._filter = session, kind, file_filter
        self._path: Path | None = None
        self._layers: list[weakref.ref[Any]] = []
        self._names: list[str] = []
        """Of the layers that are chosen, as they were shown last."""
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        menu = QMenu(self)
        menu.aboutToShow.connect(self._fill)
        self.setMenu(menu)
        layers = session.viewer.layers.events
        for signal in (layers.removed, layers.renamed):
            connect_while_alive(self, signal, self._on_layers)
        self._show()

    @property
    def picked(self) -> Picked:
        """What is chosen now; layers in the order in which they were chosen."""
        if self._path is not None:
            return Picked(path=self._path)
        return Picked(layers=tuple(self._present()))

    def choose_path(self, path: Path | None) -> None:
        """Take a folder or file; None chooses nothing."""
        self._path, self._layers = path, []
        self._show()
        self.changed.emit()

    def choose_layers(self, layers: list[Any]) -> None:
        """Take layers of the viewer."""
        self._path, self._layers = None, [weakref.ref(layer) for layer in layers]
        self._show()
        self.changed.emit()

    def _present(self) -> list[Any]:
        found = [reference() for reference in self._layers]
        viewer = self._session.viewer
        return [item for item in found if item is not None and item in viewer.layers]

    def _fitting(self) -> list[Any]:
        return [layer for layer in reversed(self._session.viewer.layers) if self._fits(layer)]

    def _fits(self, layer: Any) -> bool:
        role = layer.metadata.get(TAG, {}).get("role")
        if layer._type_string != self.kind:
            return False
        return role is None or role in FITTING.get(self.kind or "", ())

    def _fill(self) -> None:
        menu = self.menu()
        menu.clear()
        chosen = self._present()
        fitting = self._fitting() if self.kind is not None else []
        for layer in fitting:
            action = menu.addAction(layer.name)
            action.setCheckable(True)
            action.setChecked(layer in chosen)
            action.toggled.connect(lambda on, one=layer: self._toggle(one, on))
        if len(fitting) > 1:
            # From the bottom up: in the order in which they were opened.
            menu.addAction("All of these", lambda: self.choose_layers(fitting[::-1]))
        if not menu.isEmpty():
            menu.addSeparator()
        menu.addAction("File\u2026" if self._filter else "Folder\u2026", self._ask)
        if self.picked:
            menu.addAction("Nothing", lambda: self.choose_path(None))

    def _toggle(self, layer: Any, on: bool) -> None:
        rest = [other for other in self._present() if other is not layer]
        self.choose_layers([*rest, layer] if on else rest)

    def _ask(self) -> None:
        title = self.toolTip().split(".")[0]
        if self._filter:
            chosen = QFileDialog.getOpenFileName(self, title, "", self._filter)[0]
        else:
            chosen = QFileDialog.getExistingDirectory(self, title)
        if chosen:
            self.choose_path(Path(chosen))

    def _on_layers(self, event: Any = None) -> None:
        before = self._names
        self._show()
        if self._names != before:
            self.changed.emit()

    def _show(self) -> None:
        picked = self.picked
        names = self._names = [layer.name for layer in picked.layers]
        if picked.path is not None:
            text = f"{picked.path.parent.name}/{picked.path.name}"
        else:
            text = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if names[2:] else "")
        self.setText(self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, 190))
        if not text:
            self.setText(PROMPT)
