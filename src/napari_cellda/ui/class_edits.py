"""Change the classes of a session, strokes included, and take changes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.images.label_arrays import read_region, write_region

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.live.stroke_index import TileStrokes
    from napari_cellda.ui.classes import ClassList
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

MAX_STEPS = 50


@dataclass(frozen=True)
class _Step:
    title: str
    classes: ClassList
    """As they were before."""
    restore: Callable[[], None]
    """Brings the strokes back."""


class ClassEditor:
    """Adds, renames, recolours and removes classes; each change can be undone.

    Removing a class erases its strokes in all images and moves later ids down; undoing brings
    them back, except where something else was painted meanwhile.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._steps: list[_Step] = []

    @classmethod
    def of(cls, session: Session) -> ClassEditor:
        """Return the session's editor, made on the first call."""
        return session.part("class_edits", cls)

    @property
    def undo_title(self) -> str | None:
        """What `undo` would take back; None if nothing."""
        return self._steps[-1].title if self._steps else None

    def add(self, name: str | None = None) -> int:
        """Add a class and return its index."""
        classes = self._session.classes.add(name)
        index = len(classes) - 1
        self._remember(f"add {classes[index].name}", lambda: self._erase(index))
        self._session.set_classes(classes)
        return index

    def rename(self, index: int, name: str) -> None:
        """Give class `index` another name."""
        old = self._session.classes[index].name
        classes = self._session.classes.rename(index, name)
        if classes != self._session.classes:
            self._remember(f"rename {old}", _nothing)
            self._session.set_classes(classes)

    def recolor(self, index: int, color: str) -> None:
        """Give class `index` another colour."""
        classes = self._session.classes.recolor(index, color)
        if classes != self._session.classes:
            self._remember(f"colour of {classes[index].name}", _nothing)
            self._session.set_classes(classes)

    def remove(self, index: int) -> None:
        """Remove class `index` with its strokes."""
        classes = self._session.classes.remove(index)
        name = self._session.classes[index].name
        before = [(painted, painted.tiles()) for painted in self._session.images]

        def restore() -> None:
            for painted, tiles in before:
                self._bring_back(painted, tiles, index)

        self._remember(f"remove {name}", restore)
        self._erase(index)
        self._session.set_classes(classes)

    def undo(self) -> str | None:
        """Take the latest change back; returns what it was, None if there was none."""
        if not self._steps:
            return None
        step = self._steps.pop()
        step.restore()
        self._session.set_classes(step.classes)
        return step.title

    def forget(self) -> None:
        """Forget all steps: the classes are those of other work now."""
        self._steps.clear()

    def _remember(self, title: str, restore: Callable[[], None]) -> None:
        self._steps.append(_Step(title, self._session.classes, restore))
        del self._steps[:-MAX_STEPS]

    def _erase(self, index: int) -> None:
        table = np.arange(256, dtype=np.uint8)
        table[index + 1] = 0
        table[index + 2 :] -= 1
        for painted in self._session.images:
            _remap(painted, painted.tiles(), table)

    def _bring_back(
        self, painted: PaintedImage, before: tuple[TileStrokes, ...], index: int
    ) -> None:
        if painted not in self._session.images or painted.strokes_array is None:
            return
        table = np.arange(256, dtype=np.uint8)
        table[index + 1 : -1] += 1
        _remap(painted, painted.tiles(), table)
        for tile in before:
            erased = tile.flat[tile.ids == index + 1]
            block = np.ascontiguousarray(
                read_region(painted.image, painted.strokes_array, tile.tile)
            )
            flat = block.reshape(-1)
            flat[erased] = np.where(flat[erased] == 0, index + 1, flat[erased])
            write_region(painted.image, painted.strokes_array, tile.tile, block)
        _show(painted, before)


def _nothing() -> None:
    """Restore nothing: names and colours do not touch the strokes."""


def _remap(painted: PaintedImage, tiles: tuple[TileStrokes, ...], table: np.ndarray) -> None:
    """Replace stroke ids by those of a table, in the tiles that hold strokes."""
    for tile in tiles:
        block = read_region(painted.image, painted.strokes_array, tile.tile)
        write_region(painted.image, painted.strokes_array, tile.tile, table[block.clip(0, 255)])
    if painted.strokes is not None and painted.strokes.selected_label:
        # The brush keeps its class; that of a class that is gone paints background.
        painted.strokes.selected_label = int(table[painted.strokes.selected_label]) or 1
    _show(painted, tiles)


def _show(painted: PaintedImage, tiles: tuple[TileStrokes, ...]) -> None:
    if painted.index is not None:
        painted.index.update(painted.strokes_array, [tile.tile for tile in tiles])
    if painted.strokes is not None:
        # Setting the data anew forgets napari's undo steps: they hold ids that changed meaning.
        painted.strokes.data = painted.strokes.data
