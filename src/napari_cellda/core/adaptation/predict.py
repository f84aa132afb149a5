"""Looking at a network while it is trained: whole planes, previews, validation."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.nets.unet import pad_to_multiple
from napari_cellda.core.network_tiles import TileAxis, cut_axis
from napari_cellda.core.tiles import middle_slice

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.job import Kind

    Forward = Callable[[torch.Tensor], torch.Tensor]

PREVIEW_SIDE = 512
"""Largest side of a preview in pixels."""
TILES = TileAxis(step=32, least=32, halo=96, core=768)
"""How planes are cut, along y and x alike."""


@torch.inference_mode()
def predict_plane(
    forward: Forward, pixels: NDArray[np.float32], fabric: Any
) -> NDArray[np.float32]:
    """Run a network over one plane, in overlapping tiles when it is large.

    Parameters
    ----------
    forward : callable (1, C, Y, X) -> (1, K, Y, X)
        In eval mode, with the activation inside. Sides are multiples of 32.
    pixels : (C, Y, X) ndarray of float32
        Normalised; continued by reflection where the last tiles stick out.
    fabric : lightning_fabric.Fabric
        Tells the device and the precision.

    Returns
    -------
    (K, Y, X) ndarray of float32
    """
    result: NDArray[np.float32] | None = None
    for y, x in product(*(cut_axis(0, side, side, TILES) for side in pixels.shape[1:])):
        # A copy, since torch asks for arrays that can be written to.
        block = np.array(pixels[:, y.start : y.stop, x.start : x.stop])
        padded = pad_to_multiple(torch.from_numpy(block)[None], TILES.step)
        with fabric.autocast():
            tile = forward(fabric.to_device(padded))[0].float().cpu().numpy()
        if result is None:
            result = np.empty((len(tile), *pixels.shape[1:]), np.float32)
        result[:, y.core, x.core] = tile[:, y.core_inside, x.core_inside]
    assert result is not None
    return result


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
