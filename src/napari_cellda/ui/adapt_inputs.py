"""From what was picked in the panel Adapt to the words of the command."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.paths import stem
from napari_cellda.ui.axes import axes_of, channel_count, data_of
from napari_cellda.ui.inputs import Picked, Prepared, layer_stems, prepare, spatial_axes
from napari_cellda.ui.nuclei import nuclei_channel
from napari_cellda.ui.run_layers import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_cellda.core.adaptation.method import Method
    from napari_cellda.core.events import Stop
    from napari_cellda.core.pipeline import Pipeline
    from napari_cellda.ui.inputs import Kind
    from napari_cellda.ui.state import Session

ROLES: dict[str, tuple[str, Kind | None, str]] = {
    "target_images": ("Your images", "image", "The images to adapt to. Layers, or a folder"),
    "source_images": ("Annotated images", "image", "Images of another kind, with masks"),
    "source_masks": ("Their masks", "labels", "Paired by name, else in the same order"),
    "target_masks": ("Masks of yours", "labels", "Masks of some of your images, to train on"),
    "target_strokes": ("Strokes", "labels", "0 not annotated, 1 background, 2... classes"),
    "points": ("Points", "points", "One point per cell. Layers, or a folder of CSV tables"),
    "nuclei_images": ("Nuclei channel", "image", "Images in which the points are found"),
    "image_labels": ("Which classes", None, "A CSV table of which classes are in which image"),
    "pseudo_labels": ("Maps", None, "A folder of probability maps of your images"),
    "project": ("Project", None, "A saved project, whose maps are taken"),
    "pretrained": ("Begin with", None, "The folder of a run or a model to begin with"),
    "validation_masks": ("Validation", "labels", "Masks of some of your images"),
}
"""Title, kind of layer and help of each input, in the order of the rows."""
FILES = {
    "image_labels": "Tables (*.csv)",
    "project": "Projects (*.cellda)",
}
"""Inputs that are one file."""
PLANE_WORDS = {"t": "time 0", "z": "plane 0"}
"""How the first plane of an image is called, by the axes that it has."""
IMAGES = ("target_images", "source_images")
CHANNELS = {"grey": "as grey", "all": "all channels"}
"""How the panel calls channels that are not given by their numbers."""
BESIDE_TARGET = ("target_masks", "target_strokes", "points", "nuclei_images", "validation_masks")


@dataclass(frozen=True)
class AdaptPicks:
    """All that was picked."""

    inputs: Mapping[str, Picked]
    """By role; only what the chosen method wants."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Other options of the command, such as the diameter."""
    pipeline: Pipeline | None = None
    """The forest, perhaps with an enhancer, whose maps are the pseudo-labels; None takes those
    that were picked."""
    image_table: str = ""
    """A CSV table of which classes are in which image, filled in by hand; empty takes the file."""


def prepare_all(
    session: Session, picks: AdaptPicks, folder: Path
) -> tuple[dict[str, Any], list[Prepared]]:
    """Return the options of the command, and what has to be written before.

    Raises
    ------
    UserError
        If inputs do not belong together.
    """
    target = picks.inputs["target_images"]
    copied = len(target.layers) > 1 or any(
        picks.inputs.get(role, Picked()).layers for role in BESIDE_TARGET
    )
    prepared: dict[str, Prepared] = {}
    points = picks.inputs.get("points", Picked()).layers
    # Points that were found stand for their nuclei, which may be binned and fit no image then.
    needless = {"nuclei_images"} if target.layers and len(points) == len(target.layers) else set()
    # In the order of the rows: what an image is taken for is told before what does not fit it.
    for role in (role for role in ROLES if picks.inputs.get(role) and role not in needless):
        picked = picks.inputs[role]
        given: Sequence[str] = ()
        images: Sequence[Any] = ()
        if role in IMAGES:
            masks = picks.inputs.get("source_masks", Picked())
            named = copied if role == "target_images" else masks.layers
            given = image_names(picked) if named else ()
        elif picked.layers:
            owner = "source_images" if role == "source_masks" else "target_images"
            given, images = paired(session, picked.layers, picks.inputs.get(owner, Picked()))
        kind = ROLES[role][1] or "image"
        prepared[role] = prepare(picked, kind, folder / "inputs" / role, given, images)
        # What stands for its layer as a file says itself what its axes are.
        if role in IMAGES and prepared[role].write is not None:
            _check_planes(picks, role)
    _check_points(picks)
    items = list(prepared.values())
    options: dict[str, Any] = {role: item.path for role, item in prepared.items()}
    if "nuclei_images" in prepared:
        options["nuclei_channel"] = nuclei_channel(picks.inputs["nuclei_images"])
    if picks.pipeline is not None:
        maps = folder / "inputs" / "pseudo_labels"
        items.append(Prepared(maps, _map_maker(picks.pipeline, options["target_images"], maps)))
        options["pseudo_labels"] = maps
    if picks.image_table:
        path = folder / "inputs" / "image_labels.csv"
        items.append(Prepared(path, partial(_write_text, path, picks.image_table)))
        options["image_labels"] = path
    return {**options, **picks.options}, items


def _check_planes(picks: AdaptPicks, role: str) -> None:
    """Refuse layers of several channels as grey, and of several planes as channels.

    Whichever it is, the axes are guessed where nobody has told them, and the run would train.
    """
    row, channels = "Channels", picks.options.get("channels") or "grey"
    if role == "source_images" and picks.options.get("source_channels"):
        row, channels = "Their channels", picks.options["source_channels"]
    said = f"{row} says '{CHANNELS.get(channels, channels)}'"
    for layer in picks.inputs[role].layers:
        count, planes = channel_count(layer), _plane_words(layer)
        if channels == "grey" and count > 1:
            raise UserError(
                f"The layer '{layer.name}' seems to have {count} channels, but {said}: type "
                "the numbers of those to use; or if they are planes, choose this layer's Axes in "
                "the panel Paint."
            )
        if channels != "grey" and planes and not layer.rgb and "c" not in axes_of(layer):
            raise UserError(
                f"The layer '{layer.name}' is taken as {planes}, but {said}: choose 'as grey'; or "
                "if they are channels, choose this layer's Axes in the panel Paint."
            )


def _plane_words(layer: Any) -> str:
    """Return how many time points and planes a layer has, where there are several."""
    words = {"t": "time points", "z": "planes"}
    sizes = zip(axes_of(layer), data_of(layer).shape, strict=True)
    found = [f"{size} {words[axis]}" for axis, size in sizes if axis in words and size > 1]
    return " of ".join(found)


def _write_text(path: Path, text: str, stop: Stop = never) -> None:
    from napari_cellda.core.atomic import write_atomically

    with write_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _check_points(picks: AdaptPicks) -> None:
    """Refuse layers of points without any, by the names that the user knows."""
    points = picks.inputs.get("points", Picked()).layers
    if points and not any(len(layer.data) for layer in points):
        raise UserError(f"{_named(points)} no points: click once on every cell.")


def check_strokes(picks: AdaptPicks) -> None:
    """Refuse strokes that say nothing, by the layers that the user knows.

    To be called in the background: where there are none, all of a large image's are read.

    Raises
    ------
    UserError
        If nothing is painted, or background alone and no mask says where cells are.
    """
    strokes = picks.inputs.get("target_strokes", Picked()).layers
    if not strokes:
        return
    top = max(_top_label(data_of(layer)) for layer in strokes)
    if top < 1:
        raise UserError(f"{_named(strokes)} no strokes: paint some first.")
    alone = not any(picks.inputs.get(role) for role in ("source_masks", "target_masks"))
    if top == 1 and alone:  # beside masks, strokes may correct what was called cell
        raise UserError(
            f"{_named(strokes)} only strokes of label 1, which is background: paint cells with "
            "label 2."
        )


def _top_label(array: Any) -> int:
    """Return the largest label up to the first block with cells, loading a block at a time."""
    from napari_cellda.core.images.lazy import blocks, compute

    top = 0
    for box in blocks(array):
        top = max(top, int(compute(array[box]).max()))
        if top > 1:
            break
    return top


def _named(layers: Sequence[Any]) -> str:
    names = ", ".join(f"'{layer.name}'" for layer in layers)
    return f"The layer {names} has" if len(layers) == 1 else f"The layers {names} have"


def image_names(images: Picked) -> list[str]:
    """Return the names of images without ending.

    Raises
    ------
    UserError
        If the folder holds no images.
    """
    if images.path is not None:
        return [stem(path) for path in find_originals(images.path)]
    return layer_stems(images.layers)


def paired(
    session: Session, layers: Sequence[Any], images: Picked
) -> tuple[Sequence[str], Sequence[Any]]:
    """Return the name of each layer's image and that image's layer; no layers for a folder's.

    Raises
    ------
    UserError
        If a layer's image is not known.
    """
    if not images:
        return (), ()
    names = image_names(images)
    given = partners(session, layers, images, names)
    layer_of = dict(zip(names, images.layers, strict=False))
    return given, [layer_of[name] for name in given] if images.layers else ()


def partners(
    session: Session, layers: Sequence[Any], images: Picked, names: Sequence[str]
) -> list[str]:
    """Return the name of the image that each layer belongs to.

    Strokes know their image; a layer may be called like it, perhaps with more words, such as
    "field 1 masks"; as many layers as images pair in order.

    Raises
    ------
    UserError
        If a layer's image is not known, or the same as another's.
    """
    by_layer = {id(layer): name for layer, name in zip(images.layers, names, strict=False)}
    own = layer_stems(layers)
    found: list[str] = []
    for layer, name in zip(layers, own, strict=True):
        painted = session.find(layer)
        image = None
        if painted is not None:
            image = by_layer.get(id(painted.layer)) or (
                painted.name if painted.name in names else None
            )
        image = image or _called_like(name, names)
        if image is None and len(layers) == len(names):
            image = names[len(found)]
        if image is None:
            raise UserError(
                f"It is not clear which of the images '{layer.name}' belongs to: give it the name "
                "of its image, or choose as many layers as images, in the same order."
            )
        if image in found:
            other = layers[found.index(image)].name
            raise UserError(
                f"'{other}' and '{layer.name}' both seem to belong to the image '{image}': give "
                "each the name of its own."
            )
        found.append(image)
    return found


def _called_like(name: str, images: Sequence[str]) -> str | None:
    """Return the image with the longest name that stands in a name, as whole words.

    What parts words does not matter: "a_1 mask" is one of "a 1", also where there is "a".
    """
    alike = [one for one in images if _whole_words(one).search(name)]
    return max(alike, key=lambda one: (len(one), one in name), default=None)


def _whole_words(name: str) -> re.Pattern[str]:
    """Return what finds the words of a name one after the other; of one without words itself."""
    words = r"[\W_]+".join(re.findall(r"[^\W_]+", name)) or re.escape(name)
    return re.compile(rf"(?<![^\W_]){words}(?![^\W_])")


def _map_maker(pipeline: Pipeline, images: Path, folder: Path) -> Callable[..., None]:
    """Return what writes a pipeline's maps of images, once those are on disk."""

    def write(stop: Stop = never) -> None:
        from napari_cellda.core.events import run_quietly
        from napari_cellda.core.export.image import ExportChoice, export_image
        from napari_cellda.core.images import open_image

        choice = ExportChoice(
            folder=folder, mask=False, instances=False, table=False, probabilities=True
        )
        for path in find_originals(images):
            if stop():
                return
            image = open_image(path, channels=pipeline.channels)
            run_quietly(export_image(pipeline, image, choice, stop=stop))

    return write


def preview_place(
    session: Session, picks: AdaptPicks, method: Method, side: int = 512
) -> Place | None:
    """Return where a run's pictures belong: on the middle of the first plane that it trains on.

    Parameters
    ----------
    session : Session
    picks : AdaptPicks
    method : Method
    side : int
        Pictures show at most so many pixels along each axis.

    Returns
    -------
    Place or None
        None if the target images are no layers.
    """
    target = picks.inputs["target_images"]
    if not target.layers:
        return None
    layer_of = dict(zip(image_names(target), target.layers, strict=True))
    # As the run lists their files: "a b.tif" stands before "a.tif".
    first = min(_trained_on(session, picks, method), key=lambda name: Path(f"{name}.tif"))
    return place_on(layer_of[first], side)


def place_on(first: Any, side: int = 512) -> Place:
    """Return where pictures of the middle of an Image layer's first plane belong.

    Raises
    ------
    UserError
        If its axes cannot be told.
    """
    lengths = dict(zip(spatial_axes(first), data_of(first).shape, strict=False))  # without RGB
    scale = tuple(float(one) for one in first.scale)
    translate = tuple(
        float(start) + (max(0, (length - side) // 2) * step if axis in "yx" else 0)
        for (axis, length), start, step in zip(lengths.items(), first.translate, scale, strict=True)
    )
    before = list(lengths.items())[:-2]
    between = tuple(length if axis == "c" else 1 for axis, length in before)
    words = [PLANE_WORDS[axis] for axis, length in before if axis != "c" and length > 1]
    return Place(scale, translate, between, ", ".join([first.name, *words]))


def _trained_on(session: Session, picks: AdaptPicks, method: Method) -> Sequence[str]:
    """Name the target layers that a run trains on: of CKS those with marked cells."""
    target = picks.inputs["target_images"]
    for role in ("points", "nuclei_images", "target_masks") if method.instances else ():
        if layers := picks.inputs.get(role, Picked()).layers:
            return paired(session, layers, target)[0]
    return image_names(target)
