"""The project of a session: what goes into its file, where that is, whether all is saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_cellda.core.project import (
    ClassStyle,
    EnhancerReference,
    ImageReference,
    Project,
    fingerprint,
    relative_to_project,
    save_project,
)
from napari_cellda.ui.autosave import painted_pixels
from napari_cellda.ui.axes import path_of
from napari_cellda.ui.exporting import plain_options
from napari_cellda.ui.panel_states import PanelStates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

ENDING = ".cellda"


@dataclass(frozen=True, eq=False)
class LeftOut:
    """An image that was not found when the project was opened; kept for the next save."""

    reference: ImageReference
    strokes: Any
    """Int array of its `label_shape`; None without strokes."""


@dataclass
class SessionProject:
    """Where a session's project is, and what of it is not in the session.

    Signals
    -------
    changed
        The path is another, or there may be something new to save.
    opened
        A project was opened; all of it is in the session, save an enhancer that still loads.
    """

    session: Session
    path: Path | None = None
    """None: never saved."""
    left_out: list[LeftOut] = field(default_factory=list)
    places: WeakKeyDictionary[PaintedImage, Path] = field(default_factory=WeakKeyDictionary)
    """Files of images whose layer does not tell one."""
    waiting_enhancer: EnhancerReference | None = None
    """The project's, while it is not loaded, or when it cannot be; kept for the next save."""
    _saved: Any = None

    changed = Signal()
    opened = Signal()

    def __post_init__(self) -> None:
        session = self.session
        for signal in (
            session.strokes_changed,
            session.classes_changed,
            session.settings_changed,
            session.enhancer_changed,
            session.image_changed,
            session.objects_changed,
        ):
            signal.connect(self._tell)

    @classmethod
    def of(cls, session: Session) -> SessionProject:
        """Return the session's project, made on the first call."""
        return session.part("project", cls)

    def _tell(self) -> None:
        self.changed.emit()

    @property
    def name(self) -> str:
        """Name of the file; "" before it was ever saved."""
        return "" if self.path is None else self.path.name

    @property
    def unsaved(self) -> bool:
        """Whether closing would lose something."""
        if self.path is None:
            return any(has_strokes(painted) for painted in self.session.images)
        return self.state() != self._saved

    def note_saved(self, path: Path, state: Any = None) -> None:
        """Note that the session as it was at `state` (None: as it is now) is in the file."""
        self.path, self._saved = path, self.state() if state is None else state
        self.changed.emit()

    def forget(self) -> None:
        """Begin anew, without a file."""
        self.path, self._saved, self.waiting_enhancer = None, None, None
        self.left_out.clear()
        self.places.clear()
        self.changed.emit()

    def state(self) -> Any:
        """Return a value that is equal as long as there is nothing new to save."""
        session = self.session
        strokes = [
            (
                painted.key,
                painted.choice.channels,
                painted.index and [tile.digest for tile in painted.index.snapshot()],
            )
            for painted in session.images
            if has_strokes(painted)
        ]
        settings = (
            session.spec,
            session.normalisation,
            session.forest_params,
            session.instance_params,
        )
        return strokes, session.classes, settings, session.enhancer, session.enhancer_options

    def file_of(self, painted: PaintedImage) -> Path | None:
        """Return where the image is on disk; None if it, or a layer of its channels, never was."""
        if any(path_of(other) is None for other in painted.choice.others):
            return None
        return painted.image.path or self.places.get(painted)

    def images(self) -> list[PaintedImage]:
        """Return the images that belong to the project: with strokes, and the current one."""
        session = self.session
        return [p for p in session.images if p is session.current or has_strokes(p)]

    def not_on_disk(self) -> list[PaintedImage]:
        """Return the images that could not be opened again."""
        return [painted for painted in self.images() if self.file_of(painted) is None]

    def freeze(self, *, objects: bool = True) -> Callable[[Path], None]:
        """Return what writes the project as it is now to a path, to be called from any thread.

        Parameters
        ----------
        objects : bool
            False: whoever runs it shall make no objects.
        """
        session, left_out = self.session, list(self.left_out)
        # What is not read yet is read when it is written: large strokes take a while.
        images = [
            (p, self.file_of(p), p.norm, painted_pixels(p) if p.index is not None else None)
            for p in self.images()
        ]
        classifier = session.classifier
        enhancer = _enhancer_reference(session) or self.waiting_enhancer
        settings = {
            "classes": tuple(ClassStyle(name=c.name, color=c.color) for c in session.classes),
            "channels": images[0][0].choice.channels if images else "grey",
            "features": session.spec,
            "normalisation": session.normalisation,
            "training": session.forest_params,
            "instances": session.instance_params if objects else None,
            "panel": _panel_state(session, [painted for painted, *_ in images]),
        }

        def write(path: Path) -> None:
            references = [
                _reference(painted, file, path, norm or _measure(painted, settings))
                for painted, file, norm, _ in images
            ]
            strokes: dict[int, Any] = {
                i: pixels or painted_pixels(painted)
                for i, (painted, *_, pixels) in enumerate(images)
            }
            strokes = {i: pixels for i, pixels in strokes.items() if len(pixels.ids)}
            for gone in left_out:
                if gone.strokes is not None:
                    strokes[len(references)] = gone.strokes
                references.append(gone.reference)
            project = Project(images=tuple(references), enhancer=enhancer, **settings)
            forest = None if classifier is None else classifier.forest
            save_project(path, project, strokes, forest)

        return write


def has_strokes(painted: PaintedImage) -> bool:
    """Whether anything is painted on an image; there may be, as long as strokes are being read."""
    if painted.index is None:
        return painted.strokes_array is not None
    return bool(painted.index.snapshot())


def _measure(painted: PaintedImage, settings: dict[str, Any]) -> Any:
    from napari_cellda.core.images.normalisation import measure_normalisation

    return measure_normalisation(painted.image, settings["normalisation"])


def _reference(
    painted: PaintedImage, file: Path | None, project: Path, norm: Any
) -> ImageReference:
    choice, source = painted.choice, getattr(painted.layer, "source", None)
    from_layer = file is not None and file == painted.image.path
    others = [path_of(other) for other in choice.others]
    return ImageReference(
        name=painted.name,
        path=None if file is None else relative_to_project(file, project),
        axes=choice.axes,
        fingerprint=fingerprint(painted.image),
        normalisation=norm,
        channels=choice.channels,
        others=tuple(relative_to_project(other, project) for other in others if other),
        reader=source.reader_plugin if source is not None and from_layer else None,
    )


def _enhancer_reference(session: Session) -> EnhancerReference | None:
    enhancer = session.enhancer
    if enhancer is None:
        return None
    return EnhancerReference(
        source=session.enhancer_source or enhancer.card.id,
        sha256=enhancer.model.sha256,
        options=plain_options(session),
    )


def _panel_state(session: Session, images: list[PaintedImage]) -> dict[str, Any]:
    """Return what the window looks like; a version that does not know an entry ignores it."""
    current = session.current
    return {
        "live": session.live,
        "live_enhancer": session.enhancer_options.live,
        "opacity": session.opacity,
        "keys": [item.key for item in session.classes],
        "current": images.index(current) if current in images else 0,
        "layers": [_looks(painted.layer) for painted in images],
        **PanelStates.of(session).collect(),
    }


def _looks(layer: Any) -> dict[str, Any]:
    looks: dict[str, Any] = {
        "scale": [float(value) for value in layer.scale],
        "visible": bool(layer.visible),
    }
    if not layer.rgb:
        looks["contrast_limits"] = [float(value) for value in layer.contrast_limits]
        looks["colormap"] = layer.colormap.name
    return looks
