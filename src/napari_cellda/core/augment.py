"""Random variations of training crops, on batches of tensors.

All randomness comes from a NumPy generator that is handed in, never from a global state, so that a
resumed run sees the very batches that it would have seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from torch import Tensor


class Deformation(BaseParams):
    """How far crops are turned, scaled and bent."""

    rotation: float = Field(20.0, ge=0, le=180)
    """Largest rotation in degrees, besides the quarter turns and flips."""
    scale: float = Field(1.4, ge=1, le=4)
    """Largest magnification, and shrinking by as much."""
    bend: float = Field(6.0, ge=0, le=50)
    """Typical elastic shift in pixels."""
    share: float = Field(0.5, ge=0, le=1)
    """Share of crops that are deformed; all are flipped and turned by quarters."""


class MapNoise(BaseParams):
    """How forest maps are disturbed, so that an enhancer meets worse forests than it was shown."""

    noise: float = Field(0.2, ge=0, le=1)
    """Largest standard deviation of the noise added to a map."""
    contrast: float = Field(0.6, ge=0, le=3)
    """How much a map is made surer or vaguer (standard deviation of the log slope of its logit)."""
    shift: float = Field(0.5, ge=0, le=3)
    """How much a map is pushed to either class (standard deviation of the shift of its logit)."""
    share: float = Field(0.5, ge=0, le=1)
    """Share of maps that each disturbance is applied to."""


def flip_and_turn(images: Tensor, truth: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn every crop of (N, C, S, S) batches by one of the eight symmetries."""
    moved = []
    for image, target in zip(images, truth, strict=True):
        quarter, mirror = int(rng.integers(4)), bool(rng.integers(2))
        pair = [
            torch.rot90(t.flip(-1) if mirror else t, quarter, (-2, -1)) for t in (image, target)
        ]
        moved.append(pair)
    return torch.stack([m[0] for m in moved]), torch.stack([m[1] for m in moved])


def relight(images: Tensor, jitter: float, rng: np.random.Generator) -> Tensor:
    """Change contrast and brightness of every crop by its own random amounts.

    Parameters
    ----------
    images : (N, C, Y, X) Tensor of float
        Grey values of about [0, 1].
    jitter : float in [0, 1)
        Contrast is multiplied by 1 - jitter to 1 + jitter around 0.5, brightness shifted by as
        much of half the range; 0 changes nothing.
    rng : Generator

    Returns
    -------
    (N, C, Y, X) Tensor of float
        Not clipped.
    """
    shape = (len(images), 1, 1, 1)
    contrast = torch.from_numpy(rng.uniform(1 - jitter, 1 + jitter, shape).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-jitter / 2, jitter / 2, shape).astype(np.float32))
    return images * contrast + (0.5 * (1 - contrast) + shift)


def deform(
    images: Tensor, truth: Tensor, size: int, how: Deformation, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Rotate, scale and bend crops, and cut them to `size`.

    Parameters
    ----------
    images, truth : (N, C, S, S) Tensor of float
        S should exceed `size` by the room that the deformation needs; what lies outside is
        mirrored. `truth` is sampled at the nearest pixel, so its values stay what they are.
    size : int
        Side of the result.
    how : Deformation
    rng : Generator

    Returns
    -------
    images, truth : (N, C, size, size) Tensor
    """
    n, side = images.shape[0], images.shape[-1]
    grid = torch.stack([_sampling_grid(size, side, how, rng) for _ in range(n)])
    return (
        F.grid_sample(images, grid, "bilinear", padding_mode="reflection", align_corners=False),
        F.grid_sample(truth, grid, "nearest", padding_mode="reflection", align_corners=False),
    )


def _sampling_grid(size: int, side: int, how: Deformation, rng: np.random.Generator) -> Tensor:
    """Where each pixel of one result comes from; (size, size, 2) as (x, y) in [-1, 1]."""
    # The centre of pixel i of n lies at (2 i + 1) / n - 1; a plain crop is the identity times
    # size / side.
    axis = ((2 * np.arange(size) + 1) / size - 1) * size / side
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if rng.random() < how.share:
        angle = np.deg2rad(rng.uniform(-how.rotation, how.rotation))
        zoom = np.exp(rng.uniform(-1, 1) * np.log(how.scale))
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        y, x = cos * y - sin * x, sin * y + cos * x
        y, x = (v + _bend(size, rng) * how.bend * 2 / side for v in (y, x))
    return torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))


def _bend(size: int, rng: np.random.Generator) -> np.ndarray:
    """One smooth random field (size, size) with a standard deviation of about 1."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 5, 5)).astype(np.float32))
    field = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return field[0, 0].numpy()


def disturb_maps(maps: Tensor, how: MapNoise, rng: np.random.Generator) -> Tensor:
    """Disturb probability maps; see `MapNoise`.

    Parameters
    ----------
    maps : (N, C, Y, X) Tensor of float in [0, 1]
    how : MapNoise
    rng : Generator

    Returns
    -------
    (N, C, Y, X) Tensor of float in [0, 1]
        A share of the maps with another slope and shift of their logit, which keeps 0 and 1, and
        with fine or coarse Gaussian noise of a standard deviation up to `how.noise`, clipped.
    """
    return torch.stack([_disturb(m, how, rng) for m in maps])


def _disturb(one: Tensor, how: MapNoise, rng: np.random.Generator) -> Tensor:
    if rng.random() < how.share:
        slope, shift = np.exp(rng.normal(0, how.contrast)), rng.normal(0, how.shift)
        one = torch.sigmoid(slope * torch.logit(one, eps=1e-3) + shift)
    if rng.random() < how.share:
        coarseness = int(rng.choice([1, 1, 2, 4]))
        shape = (1, one.shape[0], *(-(-n // coarseness) for n in one.shape[1:]))
        noise = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        if coarseness > 1:
            noise = F.interpolate(noise, one.shape[1:], mode="bilinear", align_corners=False)
        one = one + float(rng.uniform(0, how.noise)) * noise[0]
    return one.clamp(0, 1)
