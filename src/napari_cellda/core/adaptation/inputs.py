"""What the user gives: folders and files, checked as a whole before anything is begun."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from napari_cellda.core.adaptation.method import INPUTS, alternatives
from napari_cellda.core.adaptation.tables import read_image_labels, read_points
from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import check_same_channels, open_image
from napari_cellda.core.images.image import Channels
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import find_images, find_maps, pair_by_stem, pairing_stem, same_stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.method import Method
    from napari_cellda.core.images import Image


SMALLEST_DIAMETER = 2.0
"""Pixels; a smaller cell has no shape."""


class AdaptInputs(BaseParams):
    """Where the inputs of an adaptation lie; None was not given."""

    target_images: Path
    source_images: Path | None = None
    source_masks: Path | None = None
    target_masks: Path | None = None
    target_strokes: Path | None = None
    validation_masks: Path | None = None
    points: Path | None = None
    """A folder of CSV files, one per image, or one file for one image."""
    nuclei_images: Path | None = None
    nuclei_channel: int | None = Field(None, ge=0)
    """Which channel of them counts, from 0; None: the only one, or the luminance of RGB."""
    image_labels: Path | None = None
    pseudo_labels: Path | None = None
    project: Path | None = None
    pretrained: Path | None = None
    diameter: float | None = Field(None)
    """Pixels."""
    channels: Channels = "grey"
    source_channels: Channels | None = None
    """None: the same as of the target."""
    classes: tuple[str, ...] = ()
    """Names of the foreground classes, in the order of their ids; empty: told by the masks."""

    @property
    def given(self) -> set[str]:
        """Names of the inputs that are there."""
        return {name for name in (*INPUTS, "validation_masks") if getattr(self, name) is not None}

    @property
    def paths(self) -> dict[str, Path]:
        """The inputs that are files or folders."""
        found = {name: getattr(self, name) for name in sorted(self.given)}
        return {name: path for name, path in found.items() if isinstance(path, Path)}


@dataclass(frozen=True)
class TargetFiles:
    """One target image and what belongs to it."""

    image: Image
    masks: Path | None = None
    strokes: Path | None = None
    validation: Path | None = None
    pseudo: Path | None = None
    nuclei: Image | None = None
    points: NDArray[np.float64] | None = None
    """(n, 4): t, z, row, column."""
    present: tuple[bool, ...] | None = None
    """By class, without the background."""


@dataclass(frozen=True)
class Opened:
    """All inputs, opened lazily and paired."""

    target: tuple[TargetFiles, ...]
    source: tuple[tuple[Image, Path], ...]
    class_names: tuple[str, ...]
    """Foreground classes named by the user or the table; empty when nobody named them."""


def open_inputs(inputs: AdaptInputs, method: Method) -> Opened:
    """Open and pair everything, reading no pixel.

    Raises
    ------
    UserError
        If an input is missing, unwanted or unpaired, or the channels differ.
    """
    _check_wanted(inputs, method)
    paths = find_originals(inputs.target_images)
    _check_names(paths)
    images = [_open(path, inputs.channels, "--channels") for path in paths]
    check_same_channels(images)
    _check_diameter(inputs.diameter, images)
    source = _open_source(inputs)
    if source and source[0][0].n_channels != images[0].n_channels:
        raise UserError(
            f"The source images have {source[0][0].n_channels} channel(s) in use and the target "
            f"images {images[0].n_channels}; choose the same number with --channels and "
            "--source-channels."
        )
    columns, present = read_image_labels(inputs.image_labels, [image.name for image in images])
    if inputs.classes and columns and inputs.classes != columns:
        raise UserError(
            f"'{inputs.image_labels}' has the classes {', '.join(columns)}, but --classes names "
            f"{', '.join(inputs.classes)}."
        )
    companions = {
        role: _companions(images, getattr(inputs, role), role)
        for role in ("target_masks", "target_strokes", "validation_masks", "pseudo_labels")
    }
    nuclei = _open_nuclei(images, inputs)
    points = read_points(inputs.points, images)
    target = tuple(
        TargetFiles(
            image,
            masks=companions["target_masks"].get(image.name),
            strokes=companions["target_strokes"].get(image.name),
            validation=companions["validation_masks"].get(image.name),
            pseudo=companions["pseudo_labels"].get(image.name),
            nuclei=nuclei.get(image.name),
            points=points.get(image.name),
            present=present.get(image.name),
        )
        for image in images
    )
    return Opened(target, tuple(source), inputs.classes or columns)


def _check_wanted(inputs: AdaptInputs, method: Method) -> None:
    if lacking := method.lacking(inputs.given):
        either = alternatives(lacking[0])
        words = " or ".join(f"{INPUTS[name]} ({_option(name)})" for name in either)
        raise UserError(f"{method.name} needs {words}; see: napari-cellda methods.")
    unwanted = sorted(inputs.given - method.wanted - {"validation_masks"})
    if unwanted:
        raise UserError(f"{method.name} has no use for {_option(unwanted[0])}; leave it out.")
    twice = [n for n, k in Counter(("background", *inputs.classes)).items() if k > 1]
    if twice:
        raise UserError(
            f"--classes names '{twice[0]}' twice, or though it is always there; expected one name "
            "per foreground class."
        )
    if len(inputs.classes) > 1 and not method.multiclass:
        raise UserError(
            f"{method.name} tells foreground from background only, but --classes names "
            f"{len(inputs.classes)} classes."
        )


def _option(name: str) -> str:
    """Return the option of the command that gives an input."""
    return "--" + name.replace("_", "-")


def _check_names(paths: Sequence[Path]) -> None:
    """Make sure that masks, points and maps, which are found by name, have one image each."""
    if alike := same_stem(paths):
        raise UserError(
            f"The target images '{alike[0]}' and '{alike[1]}' have one name but for endings and "
            "capitals; give each a name of its own, by which its masks and points are found."
        )


def _check_diameter(diameter: float | None, images: Sequence[Image]) -> None:
    longest = max(side for image in images for side in image.limits[1:])
    if diameter is not None and not SMALLEST_DIAMETER <= diameter <= longest:
        raise UserError(
            f"--diameter is {diameter:g}; expected pixels, from {SMALLEST_DIAMETER:g} to "
            f"{longest}, the longest side of the target images."
        )


def _open_source(inputs: AdaptInputs) -> list[tuple[Image, Path]]:
    if inputs.source_images is None or inputs.source_masks is None:
        return []
    channels = inputs.channels if inputs.source_channels is None else inputs.source_channels
    paths = find_originals(inputs.source_images)
    pairs = pair_by_stem(paths, find_images(inputs.source_masks))
    alone = [path.name for path in paths if path not in {image for image, _ in pairs}]
    if alone:
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise UserError(
            f"{len(alone)} source image(s) have no mask in '{inputs.source_masks}': "
            f"{', '.join(alone[:5])}{more}."
        )
    opened = [(_open(image, channels, "--source-channels"), mask) for image, mask in pairs]
    check_same_channels([image for image, _ in opened])
    return opened


def _open(path: Path, channels: Channels, option: str) -> Image:
    """Open an image; where channels have to be chosen, name the option that does it."""
    image = open_image(path, channels="all")
    return image.select(channels, f"choose with {option} which to use, such as 0,2 or all")


def _companions(images: Sequence[Image], folder: Path | None, role: str) -> dict[str, Path]:
    """Return the file of each image that has one, by the image's name."""
    if folder is None:
        return {}
    files = find_maps(folder) if role == "pseudo_labels" else find_images(folder)
    by_path = {image.path: image for image in images if image.path is not None}
    pairs = pair_by_stem(list(by_path), files)
    return {by_path[image].name: other for image, other in pairs}


def _nuclei_image(path: Path, channel: int | None) -> Image:
    """Open an image of the nuclei, with the one channel that shows them."""
    image = open_image(path, channels="all")
    if channel is None and image.n_channels > 1 and not image.rgb:
        raise UserError(
            f"The nuclei image '{path}' has {image.n_channels} channels; say with --nuclei-channel "
            "in which one the nuclei are, counted from 0."
        )
    if channel is not None and channel >= image.n_channels:
        raise UserError(
            f"--nuclei-channel is {channel}, but the nuclei image '{path}' has {image.n_channels} "
            "channel(s), counted from 0."
        )
    return image.select("grey" if channel is None else (channel,))


def _open_nuclei(images: Sequence[Image], inputs: AdaptInputs) -> dict[str, Image]:
    if inputs.nuclei_images is None:
        if inputs.nuclei_channel is not None:
            raise UserError("--nuclei-channel is given without --nuclei-images; add those.")
        return {}
    files = find_originals(inputs.nuclei_images)
    found = {pairing_stem(path): _nuclei_image(path, inputs.nuclei_channel) for path in files}
    missing = [image.name for image in images if image.name not in found]
    if len(missing) == len(images) == len(found):  # no name fits, as in `pair_by_stem`
        in_order = zip(images, found.values(), strict=True)
        found, missing = {image.name: nuclei for image, nuclei in in_order}, []
    if missing:
        raise UserError(
            f"'{inputs.nuclei_images}' has no image named {', '.join(missing[:5])}; one per target "
            "image is expected."
        )
    for image in images:
        nuclei = found[image.name]
        if nuclei.label_shape != image.label_shape:
            raise UserError(
                f"The nuclei image '{nuclei.path}' has shape {nuclei.label_shape}, its target "
                f"image '{image.name}' {image.label_shape}."
            )
    return found
