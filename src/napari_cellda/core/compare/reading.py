"""Planes of predictions and truth, read one at a time and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import Image, image_from_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Kind = Literal["semantic", "instances", "boundary"]
ReferenceType = Literal["classes", "instances", "binary"]
THRESHOLD = 0.5
"""A map is foreground above (>) this."""


@dataclass(frozen=True)
class Scheme:
    """What is compared and how the truth is to be understood."""

    kind: Kind
    reference_type: ReferenceType
    ignore: int | None = None
    """Value of truth pixels that are not scored."""
    classes: tuple[int, ...] = (1,)
    """Classes that are scored."""


@dataclass(frozen=True, eq=False)
class PlanePair:
    """One plane of a prediction and of its truth, ready to be compared."""

    predicted_mask: NDArray[np.integer]
    """(Y, X) class of every pixel, 0 = background."""
    truth_mask: NDArray[np.integer]
    ignore: NDArray[np.bool_] | None = None
    """Pixels that are not scored."""
    predicted_labels: NDArray[np.integer] | None = None
    """(Y, X) objects; None when only classes are compared."""
    truth_labels: NDArray[np.integer] | None = None


def open_planes(path: Path) -> Image:
    """Open a mask, labels or maps lazily, as an image of which `read_plane` reads one plane.

    Raises
    ------
    UserError
        If the file is missing, damaged or foreign.
    """
    from napari_cellda.core.images.readers import read_bitmap, read_file
    from napari_cellda.core.paths import BITMAP_SUFFIXES, is_zarr, stem

    if is_zarr(path):
        from napari_cellda.core.images.ome_zarr import find_labels

        found = read_file(find_labels(path))
    elif path.is_file() and path.suffix.lower() in BITMAP_SUFFIXES:
        found = read_bitmap(path, palette_indices=True)
    else:
        found = read_file(path)
    axes = found.axes.replace("c", "z") if found.planar else found.axes
    return image_from_array(
        found.array, axes, name=stem(path), pixel_size=found.pixel_size, unit=found.unit, path=path
    )


def n_planes(image: Image) -> int:
    """Return the number of planes: times the slices of each."""
    return image.n_times * image.limits[0]


def read_plane(image: Image, index: int) -> NDArray[Any]:
    """Read one (C, Y, X) plane in the file's own type; planes count through z, then t."""
    t, z = divmod(index, image.limits[0])
    everything = slice(None)
    box = (slice(t, t + 1), everything, slice(z, z + 1), everything, everything)
    block: NDArray[Any] = image.load(box)[0, :, 0]
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def check_shapes(predicted: Image, truth: Image) -> None:
    """Raise a UserError that names both shapes unless planes and their sizes are the same."""
    shapes = [(n_planes(image), *image.limits[1:]) for image in (predicted, truth)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"'{_name(predicted)}' has shape {predicted.label_shape}, its truth "
            f"'{_name(truth)}' {truth.label_shape}; they must match."
        )


def read_pair(predicted: Image, truth: Image, index: int, scheme: Scheme) -> PlanePair:
    """Read one plane of both and bring them into the form that the kind of comparison needs.

    Raises
    ------
    UserError
        If the values are not what the kind expects.
    """
    truth_plane, ignore = read_truth(truth, index, scheme.ignore)
    block = read_plane(predicted, index)
    if scheme.kind == "semantic":
        mask = class_plane(block, predicted)
        if scheme.reference_type == "classes":
            return PlanePair(mask, from_255(truth_plane), ignore)
        return PlanePair((mask > 0).astype(np.uint8), (truth_plane > 0).astype(np.uint8), ignore)
    if scheme.kind == "instances":
        labels = whole_numbers(block, predicted)
        if scheme.reference_type != "instances":
            truth_plane = components(truth_plane)
        return _of_objects(labels, truth_plane, ignore)
    return _of_boundaries(boundary_plane(block, predicted), truth_plane, ignore, scheme)


def read_truth(
    truth: Image, index: int, ignore: int | None
) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
    """Read one plane of truth and the pixels that are not scored, which become 0."""
    plane = whole_numbers(read_plane(truth, index), truth, check_negative=False)
    ignored = None if ignore is None else plane == ignore
    if ignored is not None:
        plane = np.where(ignored, 0, plane)
    if plane.dtype.kind == "i" and plane.size and plane.min() < 0:
        raise UserError(
            f"'{_name(truth)}' holds the label {plane.min()}; expected labels from 0, or an "
            f"ignored class that is named (--ignore {plane.min()})."
        )
    return plane, ignored


def whole_numbers(
    block: NDArray[Any], image: Image, *, check_negative: bool = True
) -> NDArray[np.integer]:
    """Turn a (C, Y, X) block into one plane of labels.

    Raises
    ------
    UserError
        For fractions, colours and negative labels.
    """
    plane: NDArray[Any] = block[0]
    if not (block == plane).all():
        raise UserError(
            f"'{_name(image)}' has {len(block)} different channels; expected one with label "
            "numbers."
        )
    if plane.dtype.kind == "f":
        if not _is_whole(plane):
            raise UserError(f"'{_name(image)}' holds fractions or NaN; expected label numbers.")
        plane = plane.astype(np.int64)
    elif plane.dtype.kind == "b":
        plane = plane.astype(np.uint8)
    if check_negative and plane.dtype.kind == "i" and plane.size and plane.min() < 0:
        raise UserError(f"'{_name(image)}' holds the label {plane.min()}; expected labels from 0.")
    return plane


def class_plane(block: NDArray[Any], image: Image) -> NDArray[np.integer]:
    """Turn a mask, or the probabilities of classes, into classes.

    One channel of probabilities is foreground above 0.5; of several the largest counts, the first
    (background) of equals. A mask of 0 and 255 alone is foreground, too.
    """
    if block.dtype.kind != "f" or (len(block) == 1 and _is_whole(block)):
        return from_255(whole_numbers(block, image))
    check_probability(block, image)
    if len(block) == 1:
        return np.asarray(block[0] > THRESHOLD, np.uint8)
    return np.asarray(block.argmax(axis=0), np.uint8)


def boundary_plane(block: NDArray[Any], image: Image) -> NDArray[np.float32]:
    """Turn class probabilities, one map or a mask into a boundary map in [0, 1].

    Of several channels the first is the background, and the boundary is what it leaves.
    """
    if block.dtype.kind == "f":
        check_probability(block, image)
        return np.asarray(block[0] if len(block) == 1 else 1 - block[0], np.float32)
    plane = from_255(whole_numbers(block, image))
    if plane.size and plane.max() > 1:
        raise UserError(
            f"'{_name(image)}' holds whole numbers up to {plane.max()}; expected a boundary map "
            "in [0, 1], or a mask of 0 and 1 or 0 and 255."
        )
    return plane.astype(np.float32)


def check_probability(block: NDArray[np.floating], image: Image) -> None:
    """Raise a UserError that names the range unless all values are in [0, 1]."""
    # float32 sums of probabilities miss 1 by some roundings
    if not ((block >= -1e-5) & (block <= 1 + 1e-5)).all():
        numbers = block[~np.isnan(block)]
        found = "nothing but NaN"
        if numbers.size:
            beside = " and NaN" if numbers.size < block.size else ""
            found = f"values from {numbers.min():.4g} to {numbers.max():.4g}{beside}"
        raise UserError(f"'{_name(image)}' holds {found}; expected probabilities in [0, 1].")


def numbers_in(plane: NDArray[np.integer]) -> set[int]:
    """Return the numbers in a plane other than 0."""
    if plane.max(initial=0) < 2**16:  # much quicker than sorting all pixels
        present = np.flatnonzero(np.bincount(plane.ravel().astype(np.intp)))
    else:
        present = np.unique(plane)
    return set(present.tolist()) - {0}


def components(mask: NDArray[np.integer]) -> NDArray[np.integer]:
    """Give the 4-connected parts of each class numbers from 1."""
    from bioimage_cpp.segmentation import label

    labels = np.zeros(mask.shape, np.int64)
    for index in sorted(numbers_in(mask)):
        parts = np.asarray(label(mask == index, connectivity=1), np.int64)
        labels[parts > 0] = parts[parts > 0] + labels.max()
    return labels


def truth_boundaries(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where objects meet: what has no label, and what touches another label."""
    boundary_mask = labels == 0
    for axis in range(labels.ndim):
        low = tuple(slice(0, -1) if i == axis else slice(None) for i in range(labels.ndim))
        high = tuple(slice(1, None) if i == axis else slice(None) for i in range(labels.ndim))
        differ = labels[low] != labels[high]
        boundary_mask[low] |= differ
        boundary_mask[high] |= differ
    return np.asarray(boundary_mask)


def _of_objects(
    predicted_labels: NDArray[np.integer],
    truth_labels: NDArray[np.integer],
    ignore: NDArray[np.bool_] | None,
) -> PlanePair:
    predicted_mask = (predicted_labels > 0).astype(np.uint8)
    truth_mask = (truth_labels > 0).astype(np.uint8)
    return PlanePair(predicted_mask, truth_mask, ignore, predicted_labels, truth_labels)


def _of_boundaries(
    boundary_map: NDArray[np.float32],
    truth_plane: NDArray[np.integer],
    ignore: NDArray[np.bool_] | None,
    scheme: Scheme,
) -> PlanePair:
    """Cut the map into objects; a truth without objects has them between its boundaries."""
    from napari_cellda.core.instances import instances_from_maps

    if scheme.reference_type == "instances":
        truth_mask, truth_labels = truth_boundaries(truth_plane), truth_plane
    else:
        truth_mask = truth_plane > 0
        truth_labels = components(np.asarray(~truth_mask, np.uint8))
    labels = instances_from_maps(None, boundary_map, method="multicut")
    mask = np.asarray(boundary_map > THRESHOLD, np.uint8)
    return PlanePair(mask, truth_mask.astype(np.uint8), ignore, labels, truth_labels)


def from_255(plane: NDArray[np.integer]) -> NDArray[np.integer]:
    """Read 0 and 255 alone as 0 and 1."""
    if plane.size and plane.max() == 255 and not ((plane > 0) & (plane < 255)).any():
        return np.asarray(plane > 0, np.uint8)
    return plane


def _is_whole(array: NDArray[np.floating]) -> bool:
    return bool((np.isfinite(array) & (np.rint(array) == array)).all())


def _name(image: Image) -> str:
    return str(image.path or image.name)
