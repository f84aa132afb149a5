"""Strokes are saved every few seconds, so that a crash costs at most those; offered back later."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stop, never
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.project import PaintedPixels
from napari_cellda.ui.axes import ImageChoice, read_layer
from napari_cellda.ui.class_edits import ClassEditor
from napari_cellda.ui.classes import ClassList, class_list
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.images import Image
    from napari_cellda.core.live.stroke_index import TileStrokes
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

SAVE_MS = 1500
"""Changed strokes are saved this often; with the time to write them, even on a machine that is
busy with other things, 5 seconds are lost at most."""
FOLDER_VARIABLE = "NAPARI_CELLDA_AUTOSAVE"
"""Names another folder for the files."""
KEEP = 200
"""So many files are kept; the oldest go."""
FORMAT = 1
SPOT = 32
"""An image is known by nine squares of so many pixels; reading them is quick on any image."""


@dataclass(frozen=True, eq=False)
class SavedStrokes:
    """Strokes that were saved for an image."""

    path: Path
    saved: datetime
    classes: ClassList
    indices: np.ndarray
    """(N,) int64: positions in an array of the image's `label_shape`, in C order."""
    ids: np.ndarray
    """(N,) uint8: stroke ids."""


def autosave_folder() -> Path:
    """Return the folder of the files: in the user's data folder unless the variable says other."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-cellda", appauthor=False)) / "autosave"


def autosave_path(choice: ImageChoice) -> Path:
    """Return where the strokes of an image are saved: known by its pixels, not by its name."""
    # All channels count here, so that strokes are found again whatever channels are in use.
    image = read_layer(replace(choice, channels="all", others=()))
    digest = hashlib.sha256(f"{image.data.shape} {image.data.dtype.str[1:]}".encode())
    middle, plane = (slice(n // 2, n // 2 + 1) for n in (image.n_times, image.limits[0]))
    for y in _spots(image.limits[1]):
        for x in _spots(image.limits[2]):
            block = image.load((middle, slice(None), plane, y, x))
            digest.update(np.ascontiguousarray(block, block.dtype.newbyteorder("<")).tobytes())
    return autosave_folder() / f"{digest.hexdigest()[:32]}.npz"


def _spots(length: int) -> list[slice]:
    """Return three short stretches of an axis."""
    starts = {0, max(0, length // 2 - SPOT // 2), max(0, length - SPOT)}
    return [slice(start, min(length, start + SPOT)) for start in sorted(starts)]


def save_strokes(
    path: Path, image: Image, tiles: Sequence[TileStrokes], classes: ClassList
) -> None:
    """Write strokes to a file, whole or not at all.

    Parameters
    ----------
    path : Path
    image : Image
    tiles : sequence of TileStrokes
        From `StrokeIndex.snapshot`.
    classes : ClassList
    """
    about = {
        "format": FORMAT,
        "image": image.name,
        "shape": list(image.label_shape),
        "saved": datetime.now().isoformat(timespec="seconds"),
        "names": classes.names,
        "colors": classes.colors,
    }
    indices = [np.zeros(0, np.int64), *(flat_indices(tile, image) for tile in tiles)]
    ids = [np.zeros(0, np.uint8), *(tile.ids for tile in tiles)]
    with write_atomically(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            indices=np.concatenate(indices),
            ids=np.concatenate(ids),
        )
    _forget_oldest(path.parent)


def flat_indices(tile: TileStrokes, image: Image) -> np.ndarray:
    """Return where a tile's strokes are in an array of the image's `label_shape`, in C order."""
    nz, ny, nx = image.limits
    z, y, x = np.unravel_index(tile.flat, tile.tile.shape)
    plane = tile.tile.t * nz + z + tile.tile.z.start
    flat: np.ndarray = (plane * ny + y + tile.tile.y.start) * nx + x + tile.tile.x.start
    return flat.astype(np.int64)


def painted_pixels(painted: PaintedImage) -> PaintedPixels:
    """Return the strokes of an image as they are now."""
    tiles = painted.tiles()
    indices = [np.zeros(0, np.int64), *(flat_indices(tile, painted.image) for tile in tiles)]
    ids = [np.zeros(0, np.uint8), *(tile.ids for tile in tiles)]
    shape = painted.image.label_shape
    return PaintedPixels(shape, np.concatenate(indices), np.concatenate(ids))


def load_strokes(path: Path, image: Image) -> SavedStrokes | None:
    """Read strokes back; None if there are none for this image.

    Raises
    ------
    UserError
        If the file is damaged or does not fit the image.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(bytes(arrays["about"]))
            indices, ids = arrays["indices"], arrays["ids"]
        fits = about["format"] == FORMAT and tuple(about["shape"]) == image.label_shape
        size = int(np.prod(image.label_shape, dtype=np.int64))
        whole = indices.shape == ids.shape and indices.ndim == 1 and ids.dtype == np.uint8
        if not (fits and whole) or (
            len(indices) and not 0 <= indices.min() <= indices.max() < size
        ):
            raise ValueError("they do not fit the image")
        classes = class_list(about["names"], about["colors"])
        saved = datetime.fromisoformat(about["saved"])
    except FileNotFoundError:
        return None
    except Exception as error:
        raise UserError(f"Strokes saved for '{image.name}' cannot be read ({error}).") from error
    return SavedStrokes(path, saved, classes, indices, ids) if len(indices) else None


def put_back(painted: PaintedImage, saved: SavedStrokes, *, replace_all: bool = False) -> None:
    """Write saved strokes into the image's strokes array; strokes that are there stay, or go."""
    if replace_all and painted.index is not None:
        for tile in painted.index.snapshot():
            nothing = np.zeros(tile.tile.shape, np.uint8)
            write_region(painted.image, painted.strokes_array, tile.tile, nothing)
    array, shape = painted.strokes_array, painted.image.label_shape
    plane = int(np.prod(shape[-2:]))
    for number in np.unique(saved.indices // plane):
        chosen = saved.indices // plane == number
        where = np.unravel_index(int(number), shape[:-2]) if len(shape) > 2 else ()
        block = np.ascontiguousarray(array[where])
        flat = block.reshape(-1)
        inside = saved.indices[chosen] - number * plane
        flat[inside] = np.where(flat[inside] == 0, saved.ids[chosen], flat[inside])
        array[where] = block
    painted.strokes.data = painted.strokes.data


def _as_pairs(strokes: SavedStrokes | PaintedPixels) -> tuple[bytes, bytes]:
    """Return where which stroke is, alike for the same strokes in any order."""
    order = np.argsort(strokes.indices)
    return strokes.indices[order].tobytes(), strokes.ids[order].tobytes()


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    for file in files[:-KEEP]:
        file.unlink(missing_ok=True)


class Autosave(QObject):
    """Saves the strokes of a session's images while they change."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._paths: WeakKeyDictionary[PaintedImage, Path] = WeakKeyDictionary()
        self._saved: WeakKeyDictionary[PaintedImage, tuple[bytes, ...]] = WeakKeyDictionary()
        self._writing: TaskHandle | None = None
        self._timer = QTimer(self, interval=SAVE_MS)
        self._timer.timeout.connect(self.save)
        self._timer.start()
        session.leaving.connect(self._save_now)
        session.closed.connect(self._on_closed)

    @classmethod
    def of(cls, session: Session) -> Autosave:
        """Return the session's autosave, started on the first call."""
        return session.part("autosave", cls)

    def path_of(self, painted: PaintedImage) -> Path:
        """Return the image's file; its pixels are looked at on the first call."""
        if painted not in self._paths:
            self._paths[painted] = autosave_path(painted.choice)
        return self._paths[painted]

    def find(self, painted: PaintedImage) -> SavedStrokes | None:
        """Return strokes saved for this image earlier; None if there are none.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        return load_strokes(self.path_of(painted), painted.image)

    def find_newer(self, painted: PaintedImage, file: Path) -> SavedStrokes | None:
        """Return strokes that were saved after `file` was written and are others than now.

        That is what a crash left of the work on an opened project.
        """
        path = self.path_of(painted)
        with suppress(OSError, UserError):
            if path.stat().st_mtime > file.stat().st_mtime:
                saved, now = load_strokes(path, painted.image), painted_pixels(painted)
                if saved is not None and _as_pairs(saved) != _as_pairs(now):
                    return saved
        return None

    def restore(
        self, painted: PaintedImage, saved: SavedStrokes, *, replace_all: bool = False
    ) -> None:
        """Bring saved strokes and their classes back."""
        ClassEditor.of(self._session).forget()
        if len(saved.classes) >= len(self._session.classes):
            self._session.set_classes(saved.classes)
        put_back(painted, saved, replace_all=replace_all)

    def discard(self, saved: SavedStrokes) -> None:
        """Delete a file."""
        saved.path.unlink(missing_ok=True)

    def save(self) -> None:
        """Save what changed since the last time, in the background."""
        if self._writing is None or not self._writing.running:
            self._write(self._session.images)

    def _save_now(self, painted: PaintedImage) -> None:
        """Save strokes whose layer is going, whether by mistake or with the window."""
        self._write([painted])

    def _on_closed(self) -> None:
        with suppress(RuntimeError):  # at the end of the program Qt may have deleted it already
            self._timer.stop()
        self._write(self._session.images)

    def _write(self, images: Sequence[PaintedImage]) -> None:
        changed = [one for one in map(self._changed, images) if one is not None]
        classes, before = self._session.classes, self._writing
        if not changed:
            return

        def write(stop: Stop) -> None:
            if before is not None:
                before.wait(60)  # an older state must not be written over a newer one
            for painted, tiles in changed:
                save_strokes(self.path_of(painted), painted.image, tiles, classes)

        # Not the session's task: it ends its work even when the window is gone.
        try:
            self._writing = run_task(write, title="autosave", on_error=self._session.report)
        except RuntimeError:  # the program is ending, and no thread can be started any more
            write(never)

    def _changed(
        self, painted: PaintedImage
    ) -> tuple[PaintedImage, tuple[TileStrokes, ...]] | None:
        if painted.index is None:
            return None
        tiles = painted.index.snapshot()
        state = tuple(tile.digest for tile in tiles)
        if state == self._saved.get(painted, ()):
            return None
        self._saved[painted] = state
        return painted, tiles


def age(saved: SavedStrokes, now: datetime | None = None) -> str:
    """Say when strokes were saved, e.g. "today 14:02" or "3 May 14:02"."""
    now = now or datetime.now()
    clock = f"{saved.saved:%H:%M}"
    if saved.saved.date() == now.date():
        return f"today {clock}"
    return f"{saved.saved.day} {saved.saved:%B} {clock}"
