"""From opened inputs to the planes that a method trains on: normalised once, kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.adaptation.annotations import note_merged, read_annotations
from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.atomic import reserve, write_atomically
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step, Task, never
from napari_cellda.core.images.normalisation import (
    LARGEST_FACTOR,
    Normalisation,
    measure_normalisation,
)
from napari_cellda.core.images.readers import load_whole, read_file
from napari_cellda.core.images.statistics import Source, moments
from napari_cellda.core.paths import exists, folders_of
from napari_cellda.core.points import find_nuclei
from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.annotations import Labels
    from napari_cellda.core.adaptation.inputs import Opened, TargetFiles
    from napari_cellda.core.adaptation.method import Method
    from napari_cellda.core.events import Stop
    from napari_cellda.core.images import Image
    from napari_cellda.core.modelzoo.preprocessing import Scaling

ROWS = 2048
"""Rows of a plane that are read at a time."""


@dataclass(frozen=True)
class Prepared:
    """The domains of a run, and the names of its classes."""

    target: Domain
    source: Domain | None
    validation: Domain | None
    classes: tuple[str, ...]
    normalisation: Normalisation
    """Of the first target image; with "dataset" of every one."""


def prepare_domains(
    opened: Opened,
    method: Method,
    scaling: Scaling,
    folder: Path,
    *,
    names: tuple[str, ...] = (),
    maps: Mapping[str, NDArray[np.float32]] | None = None,
    diameter: float | None = None,
    stop: Stop = never,
) -> Task[Prepared | None]:
    """Read, normalise and keep every plane.

    Parameters
    ----------
    opened : Opened
    method : Method
    scaling : str
        See `MethodParams.normalisation`.
    folder : Path
        One ``.npy`` per plane; what is there already is not made again.
    names : tuple of str
        Of the foreground classes; empty when nobody named them.
    maps : mapping of image name to (K, ...) array, optional
        Pseudo-labels, with the image's own axes after the classes.
    diameter : float, optional
        Of a typical cell, in pixels: the size around which nuclei are looked for, where points are
        missing and images of the nuclei are there.
    stop : callable
        Asked before every image.

    Returns
    -------
    Prepared
        None when it was stopped.

    Raises
    ------
    UserError
        If masks do not fit their images, a class is missing in the source, maps are no maps, or an
        image goes away while it is read: of that plane nothing is kept.
    """
    total = len(opened.target) + len(opened.source)
    yield Stage("Read the images", total)
    known = read_annotations(opened, method, names)
    classes = known.classes
    scale_target = _scaler([files.image for files in opened.target], scaling)
    scale_source = _scaler([image for image, _ in opened.source], scaling)
    target: list[Plane] = []
    allowed: list[Plane] = []
    for i, files in enumerate(opened.target):
        if stop():
            return None
        scale = scale_target(files.image)
        planes = _planes(files.image, scale, folder / f"target {i}")
        pseudo = (maps or {}).get(files.image.name)
        if files.pseudo is not None:
            pseudo = _read_map(files.pseudo, files.image, len(classes))
        extended = [_with_more(plane, files, pseudo) for plane in planes]
        if files.points is None and files.nuclei is not None:
            extended = [_with_nuclei(plane, files.nuclei, diameter) for plane in extended]
        target += _labelled(extended, files.image, known.target[i], known.binary)
        if known.validation[i] is not None:
            allowed += _labelled(planes, files.image, known.validation[i], known.binary)
        yield Step(i + 1)
    source: list[Plane] = []
    for i, (image, _) in enumerate(opened.source):
        if stop():
            return None
        planes = _planes(image, scale_source(image), folder / f"source {i}")
        source += _labelled(planes, image, known.source[i], known.binary)
        yield Step(len(opened.target) + i + 1)
    _check_nuclei(opened, target)
    yield from _notes(opened, target)
    yield from note_merged(opened, known, method)
    return Prepared(
        Domain(tuple(target)),
        Domain(tuple(source)) if source else None,
        Domain(tuple(allowed)) if allowed else None,
        classes,
        target[0].normalisation,
    )


def _notes(opened: Opened, target: Sequence[Plane]) -> Task[None]:
    """Tell what was read otherwise than somebody might think."""
    flat = [plane.name for plane in target if plane.normalisation.is_flat]
    if flat:
        yield Note(f"{len(flat)} target image(s) hold one single value, such as '{flat[0]}'.")
    pointed = {files.image.name for files in opened.target if files.points is not None}
    bare = [p.name for p in target if p.image in pointed and p.points is None]
    if bare:
        yield Note(
            f"{len(bare)} plane(s) of stacks have no points, such as '{bare[0]}', and are left out."
        )


def _check_nuclei(opened: Opened, planes: Sequence[Plane]) -> None:
    """Make sure that there are points, if they had to be found in images of the nuclei."""
    images = [files.nuclei for files in opened.target if files.nuclei is not None]
    if images and not any(plane.points is not None and len(plane.points) for plane in planes):
        raise UserError(
            f"No nuclei were found in {folders_of([image.path for image in images])}: expected "
            "bright spots about as large as the diameter."
        )


def _scaler(images: Sequence[Image], scaling: Scaling) -> Callable[[Image], Normalisation]:
    if scaling != "dataset":
        return lambda image: measure_normalisation(image, scaling)
    if not images:
        return lambda image: measure_normalisation(image, "zscore")
    found = [moments(Source.best(image)) for image in images]
    weights = np.array([image.data.size for image in images], np.float64)[:, None]
    means, deviations = (np.stack([f[k] for f in found]) for k in (0, 1))
    mean = (weights * means).sum(axis=0) / weights.sum()
    square = (weights * (deviations**2 + means**2)).sum(axis=0) / weights.sum() - mean**2
    deviation = np.sqrt(np.maximum(square, 0))
    factor = tuple(1 / d if d > 1 / LARGEST_FACTOR else 0.0 for d in deviation.tolist())
    shared = Normalisation(kind="zscore", offset=tuple(mean.tolist()), factor=factor)
    return lambda image: shared


def _planes(image: Image, normalisation: Normalisation, folder: Path) -> list[Plane]:
    """Keep every plane of an image on disk."""
    source = Normalised(image, normalisation)
    planes = []
    for t, z in product(range(image.n_times), range(image.limits[0])):
        path = folder / f"{t}_{z}.npy"
        if not path.is_file():
            _keep(source, t, z, path)
        place = [f"{a} {i}" for a, i in (("t", t), ("z", z)) if a in image.label_axes]
        name = ", ".join([image.name, *place])
        pixels = np.load(path, mmap_mode="r")
        planes.append(Plane(name, pixels, normalisation, t, z, image.name))
    return planes


def _labelled(
    planes: Sequence[Plane], image: Image, labels: Labels | None, binary: bool
) -> list[Plane]:
    """Give every plane its part of the labels of an image; `binary` makes them one class."""
    if labels is None:
        return list(planes)
    labels = np.sign(labels) if binary else labels
    return [replace(p, labels=labels[image.label_index(p.t, p.z)]) for p in planes]


def _keep(source: Normalised, t: int, z: int, path: Path) -> None:
    """Write one normalised plane, some rows at a time."""
    _, height, width = source.image.limits
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as aside:
        shape = (source.image.n_channels, height, width)
        with aside.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            reserve(file, file.tell() + 4 * int(np.prod(shape)))
        kept = np.lib.format.open_memmap(aside, "r+")
        for top in range(0, height, ROWS):
            rows = slice(top, min(top + ROWS, height))
            block, _ = source.read(Region(t, slice(z, z + 1), rows, slice(0, width)))
            kept[:, rows] = block[:, 0]
        kept.flush()
        del kept
        check_still_there(source.image)


def check_still_there(image: Image) -> None:
    """Make sure that what was read of an image may be kept for a resume, too.

    A zarr array without its files reads as zeros, and no error tells that a drive was unplugged.

    Raises
    ------
    UserError
        If its file is gone.
    """
    if image.path is not None and not exists(image.path):
        raise UserError(
            f"'{image.path}' is not there any more: connect its drive or put it back, then resume "
            "the run."
        )


def _with_more(plane: Plane, files: TargetFiles, maps: NDArray[np.float32] | None) -> Plane:
    """Add points, image-level labels and pseudo-labels."""
    if maps is not None:
        index: tuple[Any, ...] = (slice(None), *files.image.label_index(plane.t, plane.z))
        plane = replace(plane, pseudo_map=maps[index])
    if files.points is not None:
        here = (np.round(files.points[:, :2]) == (plane.t, plane.z)).all(axis=1)
        # Nobody has looked for cells in a plane of a stack that has no point.
        in_stack = files.image.n_times * files.image.limits[0] > 1
        points = files.points[here, 2:] if here.any() or not in_stack else None
        plane = replace(plane, points=points)
    if files.present is not None:
        plane = replace(plane, present_mask=np.array([True, *files.present]))
    return plane


def _with_nuclei(plane: Plane, nuclei: Image, diameter: float | None) -> Plane:
    """Add a point per nucleus found in a plane's image of the nuclei."""
    return replace(plane, points=find_nuclei(nuclei, plane.t, plane.z, diameter))


def _read_map(path: Path, image: Image, n_classes: int) -> NDArray[np.float32]:
    """Read the class probabilities of an image, with its own axes after the classes.

    Raises
    ------
    UserError
        If they do not fit the image or the classes, or leave [0, 1].
    """
    found = read_file(path)
    array = load_whole(found, path)
    if "c" in found.axes:  # where it does not say so, the classes are the first axis
        array = array.transpose([found.axes.index(axis) for axis in "ctzyx" if axis in found.axes])
    plane_axes = len(image.label_shape)
    if array.shape[-plane_axes:] != image.label_shape or array.ndim > plane_axes + 1:
        raise UserError(
            f"The map '{path}' has shape {array.shape}, its image '{image.name}' "
            f"{image.label_shape}; expected (classes, {', '.join(image.label_axes)})."
        )
    with_classes = array if array.ndim == plane_axes + 1 else array[None]
    maps: NDArray[np.float32] = with_classes.astype(np.float32)
    # What is no number makes both comparisons false.
    if not (maps.size and maps.min() >= 0 and maps.max() <= 1):
        raise UserError(f"The map '{path}' leaves [0, 1]; expected probabilities.")
    if len(maps) == 1 and n_classes == 2:
        maps = np.concatenate([1 - maps, maps])
    if len(maps) != n_classes:
        raise UserError(
            f"The map '{path}' has {len(maps)} classes, the background included; {n_classes} are "
            "expected. Name its foreground classes with --classes (Classes in the panel)."
        )
    return maps
