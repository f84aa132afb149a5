"""Did it help? The maps of several models on one image, compared with and without truth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.compare.pixels import PixelCounts
from napari_cellda.core.compare.reading import Scheme, n_planes, numbers_in, read_truth
from napari_cellda.core.compare.scoring import score_image
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, never
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.runs.apply import apply_model, by_pieces, label_maps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.pipeline import MapMaker
    from napari_cellda.core.runs.apply import Applied

SURE = 0.1
"""A pixel is sure when its probability is at most this far from 0 or 1."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What one model shows of an image; arrays of the image's `label_shape`."""

    foreground: Any
    """float32 in [0, 1]: 1 minus the background."""
    labels: Any
    """uint8 classes, or uint32 objects; 0 is background."""
    n_classes: int = 2
    """With the background."""
    scores: Mapping[int, float] | None = None
    """Of each object; None where the labels are classes."""

    @property
    def picture(self) -> Any:
        """What is to be looked at: the map of a foreground, else the classes or the objects."""
        plain = self.n_classes == 2 and self.scores is None
        return self.foreground if plain else self.labels


@dataclass(frozen=True)
class MapFigures:
    """What can be said of one map; shares of all pixels, in [0, 1]."""

    name: str
    foreground: float
    """Share above 0.5."""
    sure: float
    """Share of pixels it is sure of."""
    agreement: float
    """Dice with what is judged, the mean over the classes of both; tells how alike they are, not
    which is right."""
    dice: float | None = None
    """With the truth, if there is one; the mean over several classes."""
    iou: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    """Dice of each class by its name, where there are several."""
    ap50: float | None = None
    """Average precision of objects at an IoU above 0.5; nan without true objects."""
    instance_dice: float | None = None
    """Of objects, see `compare.instance_dice`."""


def show_models(
    makers: Sequence[tuple[str, MapMaker]],
    image: Image,
    folder: Path,
    *,
    objects: bool = False,
    stop: Stop = never,
) -> Task[dict[str, Shown]]:
    """Run several models on one image.

    Parameters
    ----------
    makers : sequence of (name, MapMaker)
        A forest with an enhancer gives two results: ``forest`` and its own name.
    image : Image
        With all its channels.
    folder : Path
        For arrays larger than memory.
    objects : bool
        Whether the labels are objects; else they are classes.
    stop : callable

    Returns
    -------
    dict of name to Shown
        Fewer than asked for if stopped.
    """
    found: dict[str, Shown] = {}
    for name, maker in makers:
        applied = yield from apply_model(maker, image, folder, objects=objects, stop=stop)
        if applied is None:
            break
        parts = {name: applied}
        if applied.maps.forest is not None:
            plain = replace(applied.maps, probability=applied.maps.forest, boundary=None)
            forest = yield from label_maps(image, plain, folder, objects=objects, stop=stop)
            parts = {"forest": forest, name: applied} if forest is not None else parts
        for part, one in parts.items():
            shown = yield from _shown(image, one, folder, stop)
            if shown is not None:
                found[part] = shown
    return found


def _shown(image: Image, applied: Applied, folder: Path, stop: Stop) -> Task[Shown | None]:
    probability, table = applied.maps.probability, applied.table
    foreground = yield from by_pieces(
        image,
        np.float32,
        folder,
        lambda region: 1 - read_region(image, probability[0], region),
        stop,
    )
    scores = None
    if table is not None:
        scores = dict(zip(table["label"].tolist(), table["score"].tolist(), strict=True))
    if foreground is None:
        return None
    return Shown(foreground, applied.labels, len(probability), scores)


def judge(
    shown: Mapping[str, Shown],
    judged: str,
    truth: Image | None = None,
    class_names: Sequence[str] = (),
    *,
    stop: Stop = never,
) -> Task[list[MapFigures]]:
    """Compare models with the one that is judged, and with the truth if there is one.

    Parameters
    ----------
    shown : mapping of name to Shown
        Of one image.
    judged : str
        One of the names; what it shows tells how the truth is read: as objects, as its classes,
        or, where it knows but a foreground, as everything but 0.
    truth : Image, optional
        Mask of the same shape.
    class_names : sequence of str
        Of the judged one's foreground classes; those without a name are numbered.
    stop : callable

    Returns
    -------
    list of MapFigures
        Models with other classes than the judged one are not scored, nor is anything once stopped.

    Raises
    ------
    UserError
        If the truth holds what is no class of the judged model.
    """
    scheme = None if truth is None else _scheme(truth, shown[judged])
    figures = []
    for name, one in shown.items():
        own = _compared(name, one, shown[judged])
        same = one.n_classes == shown[judged].n_classes
        if truth is not None and scheme and (same or scheme.reference_type != "classes"):
            own = yield from _scored(own, one, truth, scheme, class_names, stop)
        figures.append(own)
    return figures


def _compared(name: str, one: Shown, reference: Shown) -> MapFigures:
    """Say what can be said without truth, plane by plane."""
    by_class = one.scores is None and one.n_classes == reference.n_classes > 2
    counts = dict.fromkeys(range(1, one.n_classes) if by_class else (0,), PixelCounts())
    covered = sure = 0
    for plane in _planes(one.foreground):
        values = one.foreground[plane]
        mask = values > 0.5  # ties are background, as in the masks that are written
        covered += int(np.count_nonzero(mask))
        sure += int(np.count_nonzero((values <= SURE) | (values >= 1 - SURE)))
        for k in counts:
            pair = [mask, reference.foreground[plane] > 0.5]
            if k:
                pair = [part.labels[plane] == k for part in (one, reference)]
            counts[k] += PixelCounts.of(pair[0], pair[1])
    n = one.foreground.size
    agreement = float(np.mean([count.scores.dice for count in counts.values()]))
    return MapFigures(name, covered / n, sure / n, agreement)


def _planes(array: Any) -> Iterator[tuple[int, ...]]:
    """Return the indices of the (Y, X) planes."""
    return np.ndindex(*array.shape[:-2])


def _scheme(truth: Image, judged: Shown) -> Scheme:
    """Tell how the truth is to be read."""
    if judged.n_classes == 2 and judged.scores is None:
        return Scheme("semantic", "binary")
    planes = (read_truth(truth, index, None)[0] for index in range(n_planes(truth)))
    numbers = set().union(*map(numbers_in, planes))
    if judged.scores is not None:
        whole = numbers in (set(), {1}, {255})
        return Scheme("instances", "binary" if whole else "instances")
    last = judged.n_classes - 1
    if max(numbers, default=0) > last:
        raise UserError(
            f"The mask '{truth.name}' holds the number {max(numbers)}, but the run knows the "
            f"classes 1 to {last}; expected a mask of these classes, 0 is background."
        )
    return Scheme("semantic", "classes", classes=tuple(range(1, last + 1)))


def _scored(
    own: MapFigures,
    one: Shown,
    truth: Image,
    scheme: Scheme,
    class_names: Sequence[str],
    stop: Stop,
) -> Task[MapFigures]:
    """Add the figures that need truth; those of `evaluate`."""
    yield Stage(f"Score {own.name}", n_planes(truth))
    axes = truth.label_axes
    labels = image_from_array(one.labels, axes, name=own.name, pixel_size=truth.pixel_size)
    result = yield from score_image(own.name, labels, truth, scheme, scores=one.scores, stop=stop)
    if result is None:
        return own
    found, classes = result.figures, {}
    if len(scheme.classes) > 1:
        for k, part in result.classes.items():
            name = class_names[k - 1] if k <= len(class_names) else f"class {k}"
            classes[name] = part.figures["dice"]
    of_objects = scheme.kind == "instances"
    return replace(
        own,
        dice=found["dice"],
        iou=found["iou"],
        classes=classes,
        ap50=found["ap50"] if of_objects else None,
        instance_dice=found["instance_dice"] if of_objects else None,
    )
