"""The crops that CKS trains on, with the points of their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import cut_plane
from napari_cellda.core.batches import every_second, quarter, smaller_side
from napari_cellda.core.points import centroids

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Plane


class Batch(NamedTuple):
    """The crops of one step, zoomed, with their cells."""

    images: Tensor
    """(N, C, S, S)."""
    points: Tensor
    """(n, 2): row and column of every cell, pixel edges."""
    owner: Tensor
    """(n,): the crop that each lies in."""
    labels: Tensor | None = None
    """(N, S, S): instance ids, when masks train."""
    ids: Tensor | None = None
    """(n,): the id of each cell in them."""

    def halved(self) -> Batch:
        """Return every second crop, or the upper left part of the only one, with their cells."""
        if len(self.images) > 1:
            cells = self.owner % 2 == 0
            smaller, owner = every_second, self.owner // 2
        else:
            cells = inside(self.points, smaller_side(self.images.shape[-1]))
            smaller, owner = quarter, self.owner
        return Batch(
            smaller(self.images),
            self.points[cells],
            owner[cells],
            None if self.labels is None else smaller(self.labels),
            None if self.ids is None else self.ids[cells],
        )


def inside(points: Any, side: int) -> Any:
    """Return which points lie in a crop; a cell whose point is on the border is mostly outside."""
    return ((points > 1) & (points < side - 1)).all(axis=1)


def cut_crop(
    plane: Plane,
    cells: tuple[NDArray[np.float64], NDArray[np.int64]],
    crop: int,
    zoom: float,
    rng: np.random.Generator,
) -> Batch:
    """Cut a random square that is `crop` pixels wide once it is zoomed, with its cells."""
    side = max(8, round(crop / zoom))
    top, left = (int(rng.integers(max(n - side, 0) + 1)) for n in plane.shape)
    pixels, labels, _ = cut_plane(plane, top, left, side)
    points, ids = _mirrored(*cells, plane.shape, side)
    points = (points + 0.5 - (top, left)) * (crop / side)
    kept = inside(points, crop)
    nearest = torch.arange(crop) * side // crop
    return Batch(
        _resized(torch.from_numpy(pixels)[None], crop),
        torch.from_numpy(points[kept].astype(np.float32)),
        torch.zeros(int(kept.sum()), dtype=torch.long),
        torch.from_numpy(labels)[nearest][:, nearest][None],
        torch.from_numpy(ids[kept]),
    )


def _mirrored(
    points: NDArray[np.float64], ids: NDArray[np.int64], shape: tuple[int, int], side: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Add the mirror images that a crop larger than its plane shows below and to the right."""
    for axis, length in enumerate(shape):
        period = 2 * (length - 1)
        if side <= length or period < 1:
            continue
        mirror = points.copy()
        mirror[:, axis] = period - mirror[:, axis]
        both, number = np.concatenate([points, mirror]), np.concatenate([ids, ids])
        shift = np.zeros(2)
        shift[axis] = period
        repeats = side // period + 1
        points = np.concatenate([both + k * shift for k in range(repeats)])
        ids = np.tile(number, repeats)
    return points, ids


def _resized(images: Tensor, side: int) -> Tensor:
    shrinks = images.shape[-1] > side
    return F.interpolate(
        images, (side, side), mode="bilinear", align_corners=False, antialias=shrinks
    )


def turned(cut: Batch, rng: np.random.Generator) -> Batch:
    """Flip and turn a crop and its points by one of the eight symmetries."""
    mirror, quarters = bool(rng.integers(2)), int(rng.integers(4))
    side = cut.images.shape[-1]
    points, arrays = cut.points, [cut.images, cut.labels]
    if mirror:
        arrays = [None if a is None else a.flip(-1) for a in arrays]
        points = torch.stack([points[:, 0], side - points[:, 1]], dim=1)
    images, labels = (None if a is None else torch.rot90(a, quarters, (-2, -1)) for a in arrays)
    for _ in range(quarters):  # (row, column) goes to (side - column, row)
        points = torch.stack([side - points[:, 1], points[:, 0]], dim=1)
    assert images is not None
    return cut._replace(images=images, labels=labels, points=points)


def lit(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change contrast (0.6 to 1.4 times) and brightness (by up to 0.3 of the crop's range)."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    spread = (images - mean).std(dim=(1, 2, 3), keepdim=True)
    shift = float(rng.uniform(-0.3, 0.3)) * spread
    return mean + (images - mean) * float(rng.uniform(0.6, 1.4)) + shift


def noisy(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Add fine or coarse noise to half of all crops, up to `strength` times their deviation."""
    if rng.random() < 0.5:
        return images
    deviation = images.std(dim=(1, 2, 3), keepdim=True) * float(rng.uniform(0, strength))
    side = images.shape[-1] // int(rng.choice([1, 1, 2, 3]))
    grain = rng.standard_normal((*images.shape[:2], side, side), np.float32)
    return images + deviation * F.interpolate(torch.from_numpy(grain), images.shape[-2:])


def hazed(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Add uneven light to half of all crops, up to `strength` times their deviation.

    As light from out of focus lies over tissue: smooth, and often brighter than a dim cell.
    """
    if strength == 0 or rng.random() < 0.5:
        return images
    deviation = images.std(dim=(1, 2, 3), keepdim=True) * float(rng.uniform(0, strength))
    side = int(rng.integers(2, 5))
    haze = torch.from_numpy(rng.random((1, 1, side, side), np.float32))
    return images + deviation * F.interpolate(
        haze, images.shape[-2:], mode="bicubic", align_corners=True
    )


def is_dark(pixels: NDArray[np.float32]) -> bool:
    """Whether the background (C, Y, X) is dark: the median lies in the lowest fifth of all greys.

    That is so in fluorescence, also of tissue; in phase contrast and electron microscopy the
    background is grey.
    """
    step = max(1, min(pixels.shape[1:]) // 256)
    low, middle, high = np.percentile(pixels[:, ::step, ::step], (1, 50, 99.8))
    return bool(middle - low < (high - low) / 5)


def cells_of(plane: Plane, with_masks: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the points (n, 2) of a plane and the ids (n,) of their cells."""
    if with_masks and plane.labels is not None:
        return centroids(plane.labels)
    points = np.zeros((0, 2)) if plane.points is None else np.asarray(plane.points, np.float64)
    return points, np.zeros(len(points), np.int64)


def at_most(batch: Batch, count: int) -> Batch:
    """Return the crops, from the first on, whose cells are not more than `count` in all.

    Whole crops only, since a cell that is not drawn would be background to the collaborator; of the
    first as many cells as allowed.
    """
    images = len(batch.images)
    per_crop = torch.bincount(batch.owner, minlength=images).cumsum(0)
    kept = max(1, int((per_crop <= count).sum()))
    cells = (batch.owner < kept).nonzero()[:count, 0]
    return Batch(
        batch.images[:kept],
        batch.points[cells],
        batch.owner[cells],
        None if batch.labels is None else batch.labels[:kept],
        None if batch.ids is None else batch.ids[cells],
    )


def on_device(batch: Batch, fabric: Any) -> Batch:
    """Return a batch on Fabric's device."""
    parts = {
        name: fabric.to_device(part) for name, part in batch._asdict().items() if part is not None
    }
    return Batch(**parts)
