"""Save a session's project: with the forest of its latest strokes, beside the window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QEventLoop, QObject, QTimer, Signal

from napari_cellda.core.errors import UserError
from napari_cellda.core.paths import safe_stem
from napari_cellda.core.project import fingerprint
from napari_cellda.ui.axes import read_layer
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.project_images import layer_arrays
from napari_cellda.ui.projects import ENDING, SessionProject
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

POLL_MS = 50
CLOSING_SECONDS = 60
"""How long a closing window waits for its project to be written."""


class ProjectSaver(QObject):
    """Saves one project at a time.

    Signals
    -------
    ended(bool)
        Whether it was written; an error went to `session.report`.
    """

    ended = Signal(bool)

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._path: Path | None = None
        self._timer = QTimer(self, interval=POLL_MS)
        self._timer.timeout.connect(self._write_when_trained)

    @property
    def busy(self) -> bool:
        """Whether a project is being saved."""
        return self._path is not None

    def save(self, path: Path, *, with_images: bool = False) -> None:
        """Save to `path`, an older file there is replaced.

        Parameters
        ----------
        path : Path
            Gets the ending `.cellda` if it has another.
        with_images : bool
            Write the images that were never on disk beside it first.
        """
        if self.busy:
            return
        self._path = path = path if path.suffix == ENDING else path.with_name(path.name + ENDING)
        self._session.say(f"Saving {path.name}\u2026")
        painter = self._session.parts.get("live")
        if isinstance(painter, LivePainter) and not painter.up_to_date:
            painter.train()
        if not with_images:
            self._timer.start()
            return
        project = SessionProject.of(self._session)
        images = project.not_on_disk()

        def keep(places: dict[PaintedImage, Path]) -> None:
            project.places.update(places)
            self._timer.start()

        run_task(
            lambda stop: copy_images(images, path),
            session=self._session,
            title="save images",
            on_result=keep,
            on_error=self._fail,
        )

    def save_and_wait(self, path: Path, *, with_images: bool = False) -> bool:
        """Save while the window waits; True when it is done."""
        loop, done = QEventLoop(), [False]

        def end(ok: bool) -> None:
            done[0] = ok
            loop.quit()

        self.ended.connect(end)
        QTimer.singleShot(CLOSING_SECONDS * 1000, loop.quit)
        self.save(path, with_images=with_images)
        loop.exec()
        self.ended.disconnect(end)
        return done[0]

    def _write_when_trained(self) -> None:
        painter = self._session.parts.get("live")
        waits = isinstance(painter, LivePainter) and not (painter.up_to_date or painter.settled)
        if waits or self._path is None:
            return
        self._timer.stop()
        path, project = self._path, SessionProject.of(self._session)
        write, state = project.freeze(), project.state()

        def done(nothing: None) -> None:
            self._path = None
            project.note_saved(path, state)
            self._session.say(f"Saved {path.name}.")
            self.ended.emit(True)

        # Not the session's task: it ends its work even when the window is gone.
        run_task(
            lambda stop: write(path), title="save project", on_result=done, on_error=self._fail
        )

    def _fail(self, error: Exception) -> None:
        self._path = None
        self._session.say("")
        self._session.report(error)
        self.ended.emit(False)


def copy_images(images: Sequence[PaintedImage], project: Path) -> dict[PaintedImage, Path]:
    """Write images that were never on disk into a folder beside a project.

    Returns
    -------
    dict of PaintedImage to Path

    Raises
    ------
    UserError
        If one cannot be written so that it comes back with the same pixels.
    """
    from napari_cellda.core.atomic import make_folder

    folder = project.with_name(f"{project.stem}_images")
    make_folder(folder)
    places: dict[PaintedImage, Path] = {}
    for painted in images:
        if painted.choice.others:
            raise UserError(
                f"'{painted.name}' takes its channels from several layers that are not all on "
                "disk; save them with napari and open the files."
            )
        places[painted] = _copy(painted, folder, taken=places.values())
    return places


def _copy(painted: PaintedImage, folder: Path, taken: Sequence[Path] | object) -> Path:
    from napari_cellda.core.export import write_ome_zarr, write_tiff

    image = read_layer(replace(painted.choice, channels="all"))
    axes, (array, *_) = layer_arrays(image, painted.choice.axes)
    name = safe_stem(painted.name)
    ending = ".tif" if image.rgb else ".ome.zarr"
    path, number = folder / f"{name}{ending}", 1
    while path in taken:  # type: ignore[operator]
        number += 1
        path = folder / f"{name} {number}{ending}"
    write: Callable[..., None] = write_tiff if image.rgb else write_ome_zarr
    write(path, array, axes, pixel_size=image.pixel_size, unit=image.unit)
    _check_copy(painted, path)
    return path


def _check_copy(painted: PaintedImage, path: Path) -> None:
    from napari_cellda.core.images import image_from_array, open_image

    copy = open_image(path, channels="all")
    axes, (array, *_) = layer_arrays(copy, painted.choice.axes)
    again = image_from_array(array, axes, name=painted.name, rgb=copy.rgb)
    if fingerprint(again.select(painted.choice.channels)) != fingerprint(painted.image):
        raise UserError(
            f"'{painted.name}' holds {painted.image.data.dtype} values that no image file keeps as "
            "they are; turn it into another type first."
        )
