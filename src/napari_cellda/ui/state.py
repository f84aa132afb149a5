"""What one viewer is working on: images, classes, settings, forest, enhancer. No Qt here.

Panels, live painting and exports of one viewer share one `Session` and talk through its signals.
Nothing in this module imports Qt or napari: layers are held as objects with the few attributes
used here, so all of it is tested without a window.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from psygnal import Signal

from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.ui.arrays import Scratch
from napari_cellda.ui.classes import ClassList

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.features import FeatureSpec
    from napari_cellda.core.forest import ForestParams
    from napari_cellda.core.images.normalisation import Kind
    from napari_cellda.core.instances import InstanceParams
    from napari_cellda.ui.painted import PaintedImage

Part = TypeVar("Part")


class LiveEnhancerOptions(EnhancerOptions):
    """How the enhancer is applied in the window."""

    live: bool = True
    """Whether the enhanced map follows the strokes."""


class Session:
    """The shared state of one viewer.

    Get it with ``Session.of(viewer)``; two viewers have two sessions that know nothing of each
    other. Set attributes through the methods: they check, then emit the signal named below.

    Signals
    -------
    image_changed
        The current image, its axes or channels, or its layers changed (or it went away).
    leaving(PaintedImage)
        Its image or strokes layer was deleted; its strokes are at hand now for the last time.
    strokes_changed
        Painted pixels of any image changed.
    classes_changed
        Names, colours or number of classes changed.
    settings_changed
        Features, normalisation, channels or forest settings changed.
    live_changed(bool)
        Live update was switched.
    classifier_changed
        A new forest was trained, or the old one became invalid (`classifier` is None).
    enhancer_changed
        Another enhancer, or other options.
    objects_changed
        `instance_params` is another: how objects are separated.
    score_changed
        `score` is another: the forest's accuracy was measured, or a new forest has none yet.
    results_changed(PaintedImage)
        Result arrays of this image were updated (throttled; layers are refreshed already).
    loaded
        The libraries that painting needs are loaded; before, strokes are painted but not answered.
    rested
        The background thread has nothing left to do.
    status_changed(str)
        One line for the user.
    failed(Exception)
        Something went wrong; panels show it in their status line.
    closed
        The window is closing: stop work, keep nothing.

    Attributes
    ----------
    viewer
        The napari viewer, held weakly; None once it is gone.
    images : list of PaintedImage
        All that take part; those with strokes train the forest together.
    current : PaintedImage or None
        The one that is looked at.
    classes : ClassList
    live : bool
        Whether the forest follows the strokes.
    classifier : PixelClassifier or None
        The latest whole forest.
    score : float or None
        Its accuracy on painted pixels that a tree did not see, once measured.
    flat_images : tuple of str
        Names of constant images, whose maps are flat.
    enhancer, enhancer_options
        The chosen enhancer (None: off) and how it is applied.
    enhancer_source : str
        What it was opened by: an id or a path; "" when nobody told.
    instance_params : InstanceParams or None
        How objects are separated; None as long as nobody asked for objects.
    trusted : set of str
        SHA-256 of model programs that the user agreed to run.
    is_opening : bool
        Whether a project is being opened; until it is, no image is chosen by itself.
    opacity : float
        Of the maps, 0 to 1.
    scratch : Scratch
        Makes arrays for layers, on disk where large.
    parts : dict
        What lives as long as the session and belongs to one module, by that module's name.
    """

    image_changed = Signal()
    leaving = Signal(object)
    strokes_changed = Signal()
    classes_changed = Signal()
    settings_changed = Signal()
    live_changed = Signal(bool)
    classifier_changed = Signal()
    enhancer_changed = Signal()
    objects_changed = Signal()
    score_changed = Signal()
    results_changed = Signal(object)
    loaded = Signal()
    rested = Signal()
    status_changed = Signal(str)
    failed = Signal(object)
    closed = Signal()

    _sessions: ClassVar[weakref.WeakKeyDictionary[Any, Session]] = weakref.WeakKeyDictionary()

    def __init__(self, viewer: Any = None) -> None:
        self._viewer = weakref.ref(viewer) if viewer is not None else lambda: None
        self.images: list[PaintedImage] = []
        self.current: PaintedImage | None = None
        self.classes = ClassList()
        self.normalisation: Kind = "percentile"
        self.live = True
        self.classifier: PixelClassifier | None = None
        self.score: float | None = None
        self.flat_images: tuple[str, ...] = ()
        self.opacity = 0.6
        self.parts: dict[str, Any] = {}
        self.enhancer: Enhancer | None = None
        self.enhancer_source = ""
        self.enhancer_options = LiveEnhancerOptions()
        self.instance_params: InstanceParams | None = None
        self.trusted: set[str] = set()
        self.scratch = Scratch()
        self.is_closed = self.is_opening = False
        self._spec: FeatureSpec | None = None
        self._forest_params: ForestParams | None = None
        self.last_error: Exception | None = None

    @classmethod
    def of(cls, viewer: Any) -> Session:
        """Return the viewer's session, made on the first call; the viewer is held weakly."""
        # napari hands every docked panel a short-lived proxy: the session belongs to what is in it.
        viewer = getattr(viewer, "__wrapped__", viewer)
        session = cls._sessions.get(viewer)
        if session is None:
            session = cls._sessions[viewer] = cls(viewer)
            if hasattr(viewer, "layers"):
                from napari_cellda.ui.lifetime import watch

                watch(session, viewer)
        return session

    @property
    def viewer(self) -> Any:
        """The viewer, or None once it is gone."""
        return self._viewer()

    # -- images ---------------------------------------------------------------------------------

    def part(self, name: str, make: Callable[[Session], Part]) -> Part:
        """Return what `parts` holds under a name, made on the first call."""
        if name not in self.parts:
            self.parts[name] = make(self)
        found: Part = self.parts[name]
        return found

    def use_image(self, painted: PaintedImage | None) -> None:
        """Make `painted` the current image (adding it if new); None when there is none."""
        if painted is not None and painted not in self.images:
            self.images.append(painted)
        if painted is not self.current:
            self.current = painted
            self.image_changed.emit()

    def replace_image(self, old: PaintedImage, new: PaintedImage) -> None:
        """Put `new` where `old` was, e.g. with other axes or channels; the forest is dropped."""
        self.images[self.images.index(old)] = new
        if self.current is old:
            self.current = new
        self.set_classifier(None)
        self.image_changed.emit()

    def find(self, layer: Any) -> PaintedImage | None:
        """Return the image that `layer` belongs to, as image, strokes or result; else None."""
        for painted in self.images:
            mine = (painted.layer, painted.strokes, *painted.results.values())
            if any(layer is one for one in mine):
                return painted
        return None

    def forget_layer(self, layer: Any) -> None:
        """React to a layer that was deleted from the viewer.

        A deleted image leaves with its results (its strokes layer stays in the viewer, it is the
        user's); deleted strokes take their samples out of the forest; a deleted result layer stays
        away until results are asked for again.
        """
        painted = self.find(layer)
        if painted is None:
            return
        if layer is painted.layer or layer is painted.strokes:
            self.leaving.emit(painted)
        if layer is painted.layer:
            self.images.remove(painted)
            if self.current is painted:
                self.current = None
            self.image_changed.emit()
            self.strokes_changed.emit()
        elif layer is painted.strokes:
            painted.strokes = painted.strokes_array = painted.index = None
            self.image_changed.emit()
            self.strokes_changed.emit()
        else:
            for role in [r for r, result in painted.results.items() if result is layer]:
                del painted.results[role]
                painted.unwanted.add(role)

    def require_current(self) -> PaintedImage:
        """Return the current image.

        Raises
        ------
        UserError
            If none is chosen.
        """
        if self.current is None:
            raise UserError("No image is chosen; open one and choose it at the top of the panel.")
        return self.current

    def require_classifier(self) -> PixelClassifier:
        """Return the trained classifier.

        Raises
        ------
        UserError
            If there is none yet.
        """
        if self.classifier is None:
            raise UserError("No forest is trained yet; paint some strokes of two classes first.")
        return self.classifier

    # -- settings -------------------------------------------------------------------------------

    @property
    def spec(self) -> FeatureSpec:
        """The features to compute; ilastik's 2D set unless changed."""
        if self._spec is None:
            from napari_cellda.core.features import FeatureSpec

            self._spec = FeatureSpec()
        return self._spec

    @property
    def forest_params(self) -> ForestParams:
        """The forest's settings."""
        if self._forest_params is None:
            from napari_cellda.core.forest import ForestParams

            self._forest_params = ForestParams()
        return self._forest_params

    def set_spec(self, spec: FeatureSpec) -> None:
        """Change the features."""
        if spec != self.spec:
            self._spec = spec
            self.settings_changed.emit()

    def set_forest_params(self, params: ForestParams) -> None:
        """Change the forest's settings."""
        if params != self.forest_params:
            self._forest_params = params
            self.settings_changed.emit()

    def set_instance_params(self, params: InstanceParams | None) -> None:
        """Change how objects are separated."""
        if params != self.instance_params:
            self.instance_params = params
            self.objects_changed.emit()

    def set_normalisation(self, kind: Kind) -> None:
        """Change how images are normalised; every image is measured again."""
        if kind != self.normalisation:
            self.normalisation = kind
            for painted in self.images:
                painted.norm = None
            self.settings_changed.emit()

    def set_live(self, live: bool) -> None:
        """Switch live updates on or off."""
        if live != self.live:
            self.live = live
            self.live_changed.emit(live)

    def set_classes(self, classes: ClassList) -> None:
        """Change names, colours or number of classes."""
        if classes != self.classes:
            before, self.classes = self.classes.names, classes
            self._follow_enhanced_class(before)
            self.classes_changed.emit()

    def _follow_enhanced_class(self, before: Sequence[str]) -> None:
        """Keep enhancing the same class where its place is another one now; the first without."""
        index, names = self.enhancer_options.class_index, self.classes.names
        if len(names) == len(before):
            return  # renamed at most
        known = index < len(before) and before[index] in names
        self.set_enhancer_options(class_index=max(1, names.index(before[index])) if known else 1)

    # -- results --------------------------------------------------------------------------------

    def set_classifier(self, classifier: PixelClassifier | None) -> None:
        """Take over a newly trained classifier; None drops the old one."""
        if classifier is not self.classifier:
            self.classifier = classifier
            self.set_score(None)
            self.classifier_changed.emit()

    def set_score(self, score: float | None) -> None:
        """Take over the forest's out-of-bag accuracy; None while it is not measured."""
        if score != self.score:
            self.score = score
            self.score_changed.emit()

    def set_enhancer(self, enhancer: Enhancer | None, source: str = "") -> None:
        """Choose an enhancer, and say what it was opened by; None switches enhancing off."""
        if enhancer is not self.enhancer:
            self.enhancer, self.enhancer_source = enhancer, source
            self.enhancer_changed.emit()

    def set_enhancer_options(self, **changes: Any) -> None:
        """Change options of the enhancer, by name (see `LiveEnhancerOptions`)."""
        options = LiveEnhancerOptions(**{**self.enhancer_options.model_dump(), **changes})
        if options != self.enhancer_options:
            self.enhancer_options = options
            self.enhancer_changed.emit()

    # -- talking to the user --------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Show one line of status in the panels."""
        self.status_changed.emit(text)

    def report(self, error: Exception) -> None:
        """Show an error: a `UserError` as its one sentence, anything else with its type."""
        self.last_error = error
        self.failed.emit(error)

    def close(self) -> None:
        """Tell everybody that the window closes; later calls do nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.closed.emit()
            self.images.clear()
            self.current = None
            self.scratch.close()
