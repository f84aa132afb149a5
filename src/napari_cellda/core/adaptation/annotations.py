"""What is annotated, read from masks and strokes, and the classes that it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Task
from napari_cellda.core.images.label_arrays import same_but_for_ones
from napari_cellda.core.images.readers import as_int32, read_labels
from napari_cellda.core.paths import folders_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.inputs import Opened, TargetFiles
    from napari_cellda.core.adaptation.method import Method
    from napari_cellda.core.images import Image

    Labels = NDArray[np.int32]

MAX_CLASSES = 32
"""Of more ids than that, each is an object."""


@dataclass(frozen=True)
class Annotations:
    """What is known of every image, and the classes that it tells."""

    target: tuple[Labels | None, ...]
    """Masks and strokes of each target image; None without any."""
    source: tuple[Labels, ...]
    validation: tuple[Labels | None, ...]
    """Masks of target images that may choose the checkpoint."""
    classes: tuple[str, ...]
    """Names, background first."""
    binary: bool
    """Whether all that is labelled is one class."""


def read_annotations(opened: Opened, method: Method, names: tuple[str, ...] = ()) -> Annotations:
    """Read all masks and strokes, and check that the method can learn from them.

    Parameters
    ----------
    opened : Opened
    method : Method
    names : tuple of str
        Of the foreground classes; empty when nobody named them.

    Raises
    ------
    UserError
        If masks do not fit their images, show only background or none, or a class is missing in
        the source.
    """
    target = [_target_labels(files) for files in opened.target]
    source = [read_mask(path, image) for image, path in opened.source]
    validation = [read_mask(f.validation, f.image) if f.validation else None for f in opened.target]
    known = [a for a in (*target, *source, *validation) if a is not None]
    _check_both([a for a in (*target, *source) if a is not None], opened)
    _check_validation([a for a in validation if a is not None], opened)
    classes = _classes(names or opened.class_names, method, known)
    if len(classes) > 2:
        _check_ids(known, classes)
        _check_source(source, classes)
    binary = len(classes) == 2 and not method.instances
    return Annotations(tuple(target), tuple(source), tuple(validation), classes, binary)


def note_merged(opened: Opened, known: Annotations, method: Method) -> Task[None]:
    """Tell of several classes that count as one; the ids of masks may be those of objects."""
    if not method.multiclass or len(known.classes) > 2:
        return
    told = [
        labels
        for files, labels in zip(opened.target, known.target, strict=True)
        if labels is not None and files.strokes is not None and files.masks is None
    ]
    if method.classes_by_default:
        told += known.source
    top = max((int(labels.max(initial=0)) for labels in told), default=0)
    if 1 < top < MAX_CLASSES:
        yield Note(
            f"The annotations show {top} classes, which count as one, '{known.classes[1]}'; to "
            "tell them apart, name them all with --classes (Classes in the panel)."
        )


def read_mask(path: Path, image: Image) -> Labels:
    """Read a mask: class or instance ids, {0, 255} as {0, 1}, negative ids as `UNKNOWN`.

    Raises
    ------
    UserError
        If its shape is not that of its image.
    """
    labels = read_labels(path)
    if not same_but_for_ones(labels.shape, image.label_shape):
        raise UserError(
            f"The mask '{path}' has shape {labels.shape}, its image '{image.name}' "
            f"{image.label_shape}."
        )
    labels = labels.reshape(image.label_shape)
    top = int(labels.max(initial=0))
    if top == 255 and set(np.unique(labels).tolist()) <= {0, 255}:
        labels = labels // 255
    clipped: Labels = np.maximum(as_int32(labels), UNKNOWN)
    return clipped


def _target_labels(files: TargetFiles) -> Labels | None:
    """Merge the masks and strokes of one image; strokes win where they are painted."""
    labels = None if files.masks is None else read_mask(files.masks, files.image)
    if files.strokes is None:
        return labels
    strokes = read_mask(files.strokes, files.image)
    painted = np.where(strokes > 0, strokes - 1, UNKNOWN).astype(np.int32)
    return painted if labels is None else np.where(painted == UNKNOWN, labels, painted)


def _classes(names: tuple[str, ...], method: Method, known: Sequence[Labels]) -> tuple[str, ...]:
    """Name the classes: as the user does, or by the largest id where a method tells classes."""
    if not names and method.multiclass and known:
        top = max(int(labels.max(initial=0)) for labels in known)
        # Many ids are instances, which are one class.
        if 1 < top < MAX_CLASSES and method.classes_by_default:
            names = tuple(f"class {k}" for k in range(1, top + 1))
    return ("background", *(names or ("foreground",)))


def _check_both(labels: Sequence[Labels], opened: Opened) -> None:
    """Make sure that there is foreground and background, if anything is annotated at all."""
    background = any((one == 0).any() for one in labels)
    foreground = any((one > 0).any() for one in labels)
    if background != foreground:
        only = "only background" if background else "no background"
        target = (path for files in opened.target for path in (files.masks, files.strokes))
        where = folders_of([*target, *(path for _, path in opened.source)])
        raise UserError(
            f"The masks and strokes in {where} show {only}; annotate some background and some "
            "foreground."
        )


def _check_validation(labels: Sequence[Labels], opened: Opened) -> None:
    """Make sure that there is something to find, or every checkpoint would be as good."""
    if labels and not any((one > 0).any() for one in labels):
        raise UserError(
            f"The validation masks in {folders_of([files.validation for files in opened.target])} "
            "show no foreground, by which no checkpoint can be chosen; give masks with foreground, "
            "or none."
        )


def _check_ids(known: Sequence[Labels], classes: tuple[str, ...]) -> None:
    top = max((int(labels.max(initial=0)) for labels in known), default=0)
    if top >= len(classes):
        raise UserError(
            f"A mask holds the class id {top}, but there are {len(classes) - 1} foreground classes "
            f"({', '.join(classes[1:])})."
        )


def _check_source(source: Sequence[Labels], classes: tuple[str, ...]) -> None:
    if not source:
        return
    seen = set(np.unique(np.concatenate([np.unique(labels) for labels in source])).tolist())
    missing = [name for k, name in enumerate(classes) if k and k not in seen]
    if missing:
        raise UserError(
            f"The source masks never show the class '{missing[0]}'; every class that is to be told "
            "apart must be in the source."
        )
