"""Looking at a network while it is trained: whole planes, previews, validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.nets.unet import pad_to_multiple
from napari_cellda.core.tiles import middle_slice

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.job import Kind

    Forward = Callable[[torch.Tensor], torch.Tensor]

PREVIEW_SIDE = 512
"""Largest side of a preview in pixels."""
TILE, OVERLAP = 768, 96


@torch.inference_mode()
def predict_plane(
    forward: Forward, pixels: NDArray[np.float32], fabric: Any, *, multiple: int = 32
) -> NDArray[np.float32]:
    """Run a network over one plane, in overlapping tiles when it is large.

    Parameters
    ----------
    forward : callable (1, C, Y, X) -> (1, K, Y, X)
        In eval mode, with the activation inside.
    pixels : (C, Y, X) ndarray of float32
        Normalised.
    fabric : lightning_fabric.Fabric
        Tells the device and the precision.
    multiple : int
        Sides are padded to multiples of it by reflection.

    Returns
    -------
    (K, Y, X) ndarray of float32
    """
    rows, columns = (_tiles(side) for side in pixels.shape[1:])
    result: NDArray[np.float32] | None = None
    for top, bottom, keep_top, keep_bottom in rows:
        for left, right, keep_left, keep_right in columns:
            block = np.array(pixels[:, top:bottom, left:right])  # writable: torch asks for it
            x = pad_to_multiple(torch.from_numpy(block)[None], multiple)
            with fabric.autocast():
                y = forward(fabric.to_device(x))
            tile = y[0, :, : bottom - top, : right - left].float().cpu().numpy()
            if result is None:
                result = np.empty((len(tile), *pixels.shape[1:]), np.float32)
            inner = tile[
                :, keep_top - top : keep_bottom - top, keep_left - left : keep_right - left
            ]
            result[:, keep_top:keep_bottom, keep_left:keep_right] = inner
    assert result is not None
    return result


def _tiles(side: int) -> list[tuple[int, int, int, int]]:
    """Cut an axis: (start, stop) of every tile and of the part of it that is kept."""
    step = TILE - 2 * OVERLAP
    starts = [0] if side <= TILE else list(range(0, side - 2 * OVERLAP, step))
    cuts = []
    for start in starts:
        stop = min(start + TILE, side)
        first = 0 if start == 0 else start + OVERLAP
        last = side if stop == side else stop - OVERLAP
        cuts.append((start, stop, first, last))
        if stop == side:
            break
    return cuts


def preview_pixels(domain: Domain, index: int = 0) -> NDArray[np.float32]:
    """Return the (C, Y, X) part of a plane that previews show: its middle, at most 512 wide."""
    return preview_part(domain.planes[index].pixels)


def preview_part(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the part of a (C, Y, X) array of a whole plane that previews show."""
    middle = tuple(middle_slice(size, PREVIEW_SIDE) for size in array.shape[1:])
    return np.array(array[(slice(None), *middle)])


def class_labels(maps: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the class of every pixel of (K, Y, X) maps: the largest, or above 0.5 for K = 1."""
    found: NDArray[np.intp] = (
        (maps[0] > 0.5).astype(np.intp) if len(maps) == 1 else maps.argmax(axis=0)
    )
    return found


def class_maps(maps: torch.Tensor) -> torch.Tensor:
    """Return (..., K, Y, X) maps of all classes, the background's before a foreground's alone."""
    return torch.cat([1 - maps, maps], dim=-3) if maps.shape[-3] == 1 else maps


def maps_kind(maps: NDArray[np.float32]) -> Kind:
    """Return what (K, Y, X) maps show, which is also what their preview is called."""
    return "foreground" if len(maps) == 1 else "classes"


def mean_dice(domain: Domain, predict: Callable[[Plane], NDArray[np.float32]]) -> float:
    """Return the Dice of predicted against known classes, over all annotated planes together.

    Parameters
    ----------
    domain : Domain
        Planes without labels are left out, and so are `UNKNOWN` pixels.
    predict : callable Plane -> (K, Y, X)
        Maps as `class_labels` takes them.

    Returns
    -------
    float
        Mean over the foreground classes that occur in the labels or the prediction; NaN when the
        labels show none, for then any prediction is as good as another, or there are none.
    """
    hits: dict[int, float] = {}
    sizes: dict[int, float] = {}
    foreground = False
    for plane in domain.annotated().planes:
        maps = predict(plane)
        found = class_labels(maps)
        assert plane.labels is not None
        truth = np.asarray(plane.labels)
        known = truth != UNKNOWN
        foreground = foreground or bool((truth > 0).any())
        for k in range(1, max(2, len(maps))):
            a, b = (found == k) & known, (truth == k) & known
            hits[k] = hits.get(k, 0) + 2 * float((a & b).sum())
            sizes[k] = sizes.get(k, 0) + float(a.sum() + b.sum())
    if not foreground:
        return float("nan")
    return float(np.mean([hits[k] / sizes[k] for k in hits if sizes[k]]))
