"""Densely annotated planes: what enhancers are trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from napari_cellda.core.batch_record import find_originals
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import open_image
from napari_cellda.core.images.readers import as_int32, find_images, pair_by_stem, read_labels
from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.images import Channels

MasksAre = Literal["instances", "foreground", "boundary"]
Structure = Literal["foreground", "boundary", "both"]
HoldOut = Literal["auto", "planes", "region"]
Window = tuple[slice, slice]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "foreground": ("foreground",),
    "boundary": ("boundary",),
    "both": ("foreground", "boundary"),
}
DEFAULT_STRUCTURE: dict[str, Structure] = {
    "instances": "both",
    "foreground": "foreground",
    "boundary": "boundary",
}
_MARGIN = 2
"""Pixels around a window that its boundaries depend on."""


@dataclass(frozen=True)
class SourcePlane:
    """One plane with its dense truth, read window by window."""

    source: Normalised
    t: int
    z: int
    labels: NDArray[np.integer]
    """(Y, X), as `open_source` reads them."""
    masks_are: MasksAre
    outputs: tuple[str, ...]
    """What the truth is turned into: "foreground", "boundary" or both, in this order."""
    first_column: int = 0
    """Where the plane begins in its image, when it is only a part of it."""

    @property
    def name(self) -> str:
        """For messages: the image's name, with time and plane in stacks."""
        image = self.source.image
        place = [f"{a} {i}" for a, i in (("t", self.t), ("z", self.z)) if a in image.label_axes]
        return ", ".join([image.name, *place])

    def columns(self, start: int, stop: int) -> SourcePlane:
        """Return a part of this plane."""
        part = self.labels[:, start:stop]
        return replace(self, labels=part, first_column=self.first_column + start)

    def same_as(self, other: SourcePlane) -> bool:
        """Whether both are (parts of) one plane of one image."""
        mine, theirs = ((p.source.image.data, p.t, p.z) for p in (self, other))
        return mine[0] is theirs[0] and mine[1:] == theirs[1:]

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read one window.

        Parameters
        ----------
        window : (slice, slice)
            Rows and columns, inside the plane.

        Returns
        -------
        image : (C, h, w) ndarray of float32
            Normalised; 0 where it is not finite.
        truth : (K, h, w) ndarray of bool
            One channel per output.
        """
        rows, columns = window[0], _shift(window[1], self.first_column)
        block, _ = self.source.read(Region(self.t, slice(self.z, self.z + 1), rows, columns))
        return block[:, 0], self.truth(window)

    def truth(self, window: Window) -> NDArray[np.bool_]:
        """Return only the truth of `read`."""
        outer = tuple(slice(max(part.start - _MARGIN, 0), part.stop + _MARGIN) for part in window)
        inner = tuple(
            slice(part.start - grown.start, part.stop - grown.start)
            for part, grown in zip(window, outer, strict=True)
        )
        made = make_truth(self.labels[outer], self.masks_are, self.outputs)
        return made[(slice(None), *inner)]


def make_truth(
    labels: NDArray[np.integer], masks_are: MasksAre, outputs: tuple[str, ...]
) -> NDArray[np.bool_]:
    """Turn masks into what the network is to give out.

    Parameters
    ----------
    labels : (Y, X) ndarray of int
        Instances, a foreground mask, or a mask of boundaries.
    masks_are : {"instances", "foreground", "boundary"}
    outputs : tuple of "foreground", "boundary"

    Returns
    -------
    (K, Y, X) ndarray of bool
        In the order of `outputs`. The boundary of instances (or of a foreground mask) is the two
        pixels on either side of every edge, also between touching instances; the foreground of a
        boundary mask is what lies between.
    """
    if masks_are == "boundary":
        made = {"boundary": labels > 0, "foreground": labels == 0}
    else:
        objects = labels if masks_are == "instances" else (labels > 0).astype(np.uint8)
        made = {"foreground": labels > 0}
        if "boundary" in outputs:
            around = (ndimage.maximum_filter(objects, 3), ndimage.minimum_filter(objects, 3))
            made["boundary"] = around[0] != around[1]
    return np.stack([made[name] for name in outputs])


def open_source(
    images: Path,
    masks: Path,
    masks_are: MasksAre = "instances",
    structure: Structure | None = None,
    channels: Channels = "grey",
) -> list[SourcePlane]:
    """Open an annotated source: every plane of every image that has a mask.

    Parameters
    ----------
    images, masks : Path
        Folders; files pair by their names.
    masks_are : {"instances", "foreground", "boundary"}
    structure : {"foreground", "boundary", "both"}, optional
        What to learn; None: both for instances, else what the masks show.
    channels : "grey", "all" or indices

    Returns
    -------
    list of SourcePlane
        In the order of names, then t, then z.

    Raises
    ------
    UserError
        If images and masks do not pair, differ in shape, leave fewer than two planes, or show no
        foreground or no background at all.
    """
    pairs = pair_by_stem(find_originals(images), find_images(masks))
    outputs = OUTPUTS[structure or DEFAULT_STRUCTURE[masks_are]]
    planes = []
    for image_path, mask_path in pairs:
        source = Normalised.measure(open_image(image_path, channels=channels))
        labels = (
            as_int32(read_labels(mask_path))  # scipy's filters mix up numbers beyond 2**53
            if masks_are == "instances"
            else _binary(read_labels(mask_path))
        )
        if labels.shape != source.image.label_shape:
            raise UserError(
                f"The mask '{mask_path}' has shape {labels.shape}, but its image needs "
                f"{source.image.label_shape}."
            )
        planes += _planes(source, labels, masks_are, outputs)
    check_source(planes, str(images), str(masks))
    return planes


def check_source(planes: list[SourcePlane], images: str, masks: str) -> None:
    """Raise a UserError unless the planes can train an enhancer; the names are for the message."""
    if len(planes) < 2:
        raise UserError(
            f"'{images}' has {len(planes)} annotated plane(s); at least two are needed, because a "
            "forest must not predict the plane it was trained on."
        )
    filled = [bool((plane.labels != 0).any()) for plane in planes]
    if not any(filled):
        raise UserError(f"The masks in '{masks}' are empty: no foreground in any of them.")
    if all((plane.labels != 0).all() for plane in planes):
        raise UserError(f"The masks in '{masks}' have no background (value 0) anywhere.")
    channels = {plane.source.image.n_channels for plane in planes}
    if len(channels) > 1:
        raise UserError(
            f"The images in '{images}' differ in their number of channels ({sorted(channels)}); "
            "choose channels that all of them have."
        )


def hold_out(
    planes: list[SourcePlane], share: float, how: HoldOut = "auto"
) -> tuple[list[SourcePlane], list[SourcePlane]]:
    """Keep a part of the source for choosing the checkpoint.

    Parameters
    ----------
    planes : list of SourcePlane
    share : float, in (0, 1)
        Share of the planes, or of their columns, that is kept.
    how : {"auto", "planes", "region"}
        The last planes, or the right part of every plane. The sections of a stack show the same
        objects, so a network can do well on a neighbour of what it has learned by heart: only
        another region tells. "auto" takes the region for fewer than 50 planes, if it is at least
        64 pixels wide everywhere.

    Returns
    -------
    training, validation : list of SourcePlane
    """
    least = min(round(share * plane.shape[1]) for plane in planes)
    if how == "region" or (how == "auto" and len(planes) < 50 and least >= 64):
        cuts = [min(max(1, round((1 - share) * p.shape[1])), p.shape[1] - 1) for p in planes]
        pairs = list(zip(planes, cuts, strict=True))
        left = [plane.columns(0, cut) for plane, cut in pairs]
        return left, [plane.columns(cut, plane.shape[1]) for plane, cut in pairs]
    kept = min(max(1, round(share * len(planes))), len(planes) - 1)
    return planes[:-kept], planes[-kept:]


def object_diameter(planes: list[SourcePlane]) -> float | None:
    """Return the median diameter of the true objects, as of a disc of the same area, in pixels.

    Taken over at most 50 planes; None for boundary masks, and when there is no object.
    """
    areas: list[float] = []
    for plane in planes[:: max(1, len(planes) // 50)]:
        if plane.masks_are == "boundary":
            return None
        labels = plane.labels
        if plane.masks_are == "foreground":
            labels = ndimage.label(labels > 0)[0]
        counts = np.unique(labels[labels > 0], return_counts=True)[1]
        areas.extend(counts[counts >= 10])
    return float(np.sqrt(4 * np.median(areas) / np.pi)) if areas else None


def _shift(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _planes(
    source: Normalised,
    labels: NDArray[np.integer],
    masks_are: MasksAre,
    outputs: tuple[str, ...],
) -> list[SourcePlane]:
    image = source.image
    return [
        SourcePlane(source, t, z, labels[image.label_index(t, z)], masks_are, outputs)
        for t in range(image.n_times)
        for z in range(image.limits[0])
    ]


def _binary(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Read {0, 255} masks above 127 as 1, so that smoothed edges do not grow them."""
    threshold = 127 if labels.size and labels.max() == 255 else 0
    return (labels > threshold).astype(np.uint8)
