"""Open a project in a viewer: its images, strokes, forest and settings, as they were."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.project import load_project
from napari_cellda.ui.autosave import Autosave
from napari_cellda.ui.axes import keep_axes, read_layer
from napari_cellda.ui.class_edits import ClassEditor
from napari_cellda.ui.classes import class_list
from napari_cellda.ui.images import follow_data
from napari_cellda.ui.layers import make_strokes
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.model_loading import ModelLoader
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.panel_states import PanelStates
from napari_cellda.ui.project_images import look_for, open_as_layer
from napari_cellda.ui.projects import LeftOut, SessionProject
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.events import Stop
    from napari_cellda.core.forest import Forest
    from napari_cellda.core.project import ImageReference, Project
    from napari_cellda.ui.axes import ImageChoice
    from napari_cellda.ui.state import Session

    AskForImage = Callable[[ImageReference, str], Path | None]


@dataclass(frozen=True, eq=False)
class _Contents:
    """A project as it was read, and where its images are."""

    path: Path
    project: Project
    strokes: dict[int, Any]
    forest: Forest | None
    candidates: list[list[Path]]
    """For each image, where it may be."""


@dataclass(eq=False)
class _Work:
    """What becomes of it in the session."""

    images: dict[int, PaintedImage] = field(default_factory=dict)
    """By their number in the project."""
    places: dict[PaintedImage, Path] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


class ProjectOpener:
    """Opens one project in one session, step by step, the slow ones beside the window.

    Parameters
    ----------
    session : Session
        What it works on is put away first, layers included; its strokes were autosaved.
    ask_for_image : callable of (ImageReference, str)
        Asked where a moved image is, with a sentence that says what is wrong; returns its path,
        or None to leave it out.
    ask_consent : callable of (ProgramRefused) -> bool
        See `ModelLoader`.
    """

    def __init__(
        self,
        session: Session,
        ask_for_image: AskForImage,
        ask_consent: Callable[[ProgramRefused], bool],
    ) -> None:
        self._session = session
        self._ask_for_image = ask_for_image
        self._ask_consent = ask_consent

    def open(self, path: Path) -> None:
        """Begin; errors go to `session.report`."""
        session = self._session
        session.is_opening = True
        session.say(f"Opening {path.name}\u2026")

        def read(stop: Stop) -> _Contents:
            project, strokes, forest = load_project(path, session.scratch.zeros)
            candidates = [look_for(reference, path) for reference in project.images]
            return _Contents(path, project, strokes, forest, candidates)

        run_task(
            read, session=session, title="open project", on_result=self._begin, on_error=self._fail
        )

    def _fail(self, error: Exception) -> None:
        self._session.is_opening = False
        self._session.say("")
        self._session.report(error)

    def _begin(self, contents: _Contents) -> None:
        """Open the images; strokes and what was autosaved since are read in the background."""
        try:
            close_work(self._session)
            work = self._open_images(contents)
        except Exception as error:
            self._fail(error)
            return
        spec = contents.project.features
        saver = Autosave.of(self._session)

        def index(stop: Stop) -> dict[int, Any]:
            from napari_cellda.core.live.stroke_index import StrokeIndex

            newer = {}
            for painted in work.images.values():
                painted.index = StrokeIndex(painted.image, spec)
                painted.index.update(painted.strokes_array)
                newer[painted.key] = saver.find_newer(painted, contents.path)
            return newer

        run_task(
            index,
            session=self._session,
            title="read strokes",
            on_result=lambda newer: self._finish(contents, work, newer),
            on_error=self._fail,
        )

    # -- images ---------------------------------------------------------------------------------

    def _open_images(self, contents: _Contents) -> _Work:
        work, session = _Work(), self._session
        for number, reference in enumerate(contents.project.images):
            strokes = contents.strokes.get(number)
            found = self._find(contents, number, reference)
            if found is None:
                work.left_out.append(LeftOut(reference, strokes))
                continue
            choice, place = found
            _take_looks(choice.layer, contents.project.panel.get("layers"), number)
            painted = PaintedImage(choice, read_layer(choice), data=choice.layer.data)
            keep_axes(choice.layer, choice.axes)
            if strokes is None:
                strokes = session.scratch.zeros(painted.image.label_shape, "uint8")
            if tuple(strokes.shape) != painted.image.label_shape:
                raise UserError(
                    f"The strokes of '{reference.name}' in '{contents.path.name}' have shape "
                    f"{tuple(strokes.shape)}, but the image needs {painted.image.label_shape}."
                )
            painted.norm, painted.strokes_array = reference.normalisation, strokes
            work.images[number] = painted
            work.places[painted] = place
        return work

    def _find(
        self, contents: _Contents, number: int, reference: ImageReference
    ) -> tuple[ImageChoice, Path] | None:
        """Open an image, asking where it is as long as it is not found; None: leave it out."""
        wrong = f"'{reference.path}' was moved."
        if reference.path is None:
            wrong = f"'{reference.name}' was not on disk when the project was saved."
        waiting = list(contents.candidates[number])
        while True:
            for place in waiting:
                try:
                    choice = open_as_layer(
                        self._session.viewer, place, reference, contents.project, contents.path
                    )
                except UserError as error:
                    wrong = str(error)
                else:
                    return choice, place
            chosen = self._ask_for_image(reference, wrong)
            if chosen is None:
                return None
            waiting = [chosen]

    # -- everything else ------------------------------------------------------------------------

    def _finish(self, contents: _Contents, work: _Work, newer: dict[int, Any]) -> None:
        try:
            self._set_up(contents, work)
        except Exception as error:
            self._fail(error)
            return
        session = self._session
        session.is_opening = False
        names = ", ".join(f"'{gone.reference.name}'" for gone in work.left_out)
        session.say(f"Left out: {names}; its strokes stay in the project." if names else "")
        file = SessionProject.of(session)
        file.note_saved(contents.path)
        session.parts["newer_strokes"] = {key: saved for key, saved in newer.items() if saved}
        file.opened.emit()
        self._load_enhancer(contents)

    def _set_up(self, contents: _Contents, work: _Work) -> None:
        session, project, panel = self._session, contents.project, contents.project.panel
        painter = LivePainter.of(session)
        session.live = False  # nothing is trained while images come one by one
        ClassEditor.of(session).forget()
        _take_settings(session, project)
        for painted in work.images.values():
            make_strokes(session, painted, painted.strokes_array)
            session.images.append(painted)
            follow_data(session, painted.layer)
        file = SessionProject.of(session)
        file.forget()
        file.left_out = work.left_out
        file.places.update(work.places)
        current = work.images.get(panel.get("current", 0))
        session.use_image(current or next(iter(work.images.values()), None))
        if contents.forest is not None and session.current is not None:
            painter.adopt(_classifier(project, contents.forest))
        session.live = bool(panel.get("live", True))
        session.live_changed.emit(session.live)
        PanelStates.of(session).hand_out(panel)
        if session.current is not None:
            session.viewer.layers.selection = {session.current.strokes}
            session.viewer.reset_view()

    def _load_enhancer(self, contents: _Contents) -> None:
        session, reference = self._session, contents.project.enhancer
        file = SessionProject.of(session)
        file.waiting_enhancer = reference
        if reference is None:
            return

        def take(enhancer: Enhancer, seam: float) -> None:
            if file.waiting_enhancer is not reference:
                return  # another project was opened meanwhile
            if enhancer.model.sha256 != reference.sha256:
                session.report(
                    UserError(
                        f"The enhancer '{reference.source}' has other weights than the project was "
                        f"saved with ({enhancer.model.sha256[:12]} instead of "
                        f"{reference.sha256[:12]}), so it stays off."
                    )
                )
                return
            was_saved = not file.unsaved
            file.waiting_enhancer = None
            session.set_enhancer(enhancer, reference.source)
            if was_saved:
                file.note_saved(contents.path)

        loader = ModelLoader(session, self._ask_consent, take, session.report)
        loader.load(reference.source)


def close_work(session: Session) -> None:
    """Take what a session works on out of the viewer: images, strokes, results."""
    layers = session.viewer.layers
    for painted in list(session.images):
        mine = [painted.layer, painted.strokes, *painted.results.values()]
        for layer in mine:
            if layer is not None and layer in layers:
                layers.remove(layer)
    session.set_classifier(None)
    session.set_enhancer(None)


def _take_settings(session: Session, project: Project) -> None:
    panel, styles = project.panel, project.classes
    keys = panel.get("keys")
    colors = [style.color for style in styles]
    told_apart = len(set(colors)) == len(colors)  # the command line has no colours to save
    session.set_classes(
        class_list(
            [style.name for style in styles],
            colors if told_apart else None,
            keys if isinstance(keys, list) else None,
        )
    )
    session.set_spec(project.features)
    session.set_normalisation(project.normalisation)
    session.set_forest_params(project.training)
    session.set_instance_params(project.instances)
    if project.enhancer is not None:
        options = project.enhancer.options.model_dump()
        session.set_enhancer_options(**options, live=bool(panel.get("live_enhancer", True)))
    opacity = panel.get("opacity")
    if isinstance(opacity, float) and 0 <= opacity <= 1:
        session.opacity = opacity


def _classifier(project: Project, forest: Forest) -> Any:
    from napari_cellda.core.classifier import PixelClassifier

    names = tuple(style.name for style in project.classes)
    return PixelClassifier(project.features, project.normalisation, project.channels, names, forest)


def _take_looks(layer: Any, looks: Any, number: int) -> None:
    """Show an image as it was shown; odd entries are ignored."""
    with suppress(TypeError, ValueError, KeyError, IndexError):
        mine = dict(looks[number])
        for name in ("scale", "visible", "contrast_limits", "colormap"):
            if name in mine:
                setattr(layer, name, mine[name])
