"""How an enhancer's input is cut into tiles: what its card asks for, and what memory allows."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from napari_cellda.core.network_tiles import TileAxis

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.model import Model

CORES = {2: (1024, 1024), 3: (64, 256, 256)}
"""Largest core of a tile, in pixels; smaller where its block would not fit `BLOCK_BYTES`."""
BLOCK_BYTES = 4 * 2**30
ACTIVATIONS = 5
"""About how many arrays of its first level a U-Net holds at once."""
UNKNOWN_FEATURES = 64
"""Assumed channels of the first level of a network that can only be run."""
GLOBAL_NORM_HALO = 32
"""Enough halo for a network with a norm over the whole tile: no halo makes its tiles equal."""


def tile_axes(model: Model) -> list[TileAxis]:
    """Return how a model's input is cut along (z, y, x).

    A 2D model takes planes: its z axis has cores of one pixel.
    """
    card = model.card
    field = card.receptive_field or (GLOBAL_NORM_HALO,) * card.ndim
    if not card.tiles_exactly:
        field = tuple(min(reach, GLOBAL_NORM_HALO) for reach in field)
    axes = [
        TileAxis(
            step=step or _divisor(least),
            least=least,
            halo=max(asked, reach),
            core=core,
            # Networks that take images give what any other program gets of their package.
            border=0 if card.kind == "network" else step or _divisor(least),
            fixed=step == 0,
            anchored=not card.tiles_exactly,
        )
        for step, least, asked, reach, core in zip(
            card.step, card.min_shape, card.halo, field, CORES[card.ndim], strict=True
        )
    ]
    axes = _shrunk(axes, _block_pixels(model))
    return axes if card.ndim == 3 else [TileAxis(1, 1, 0, 1), *axes]


def _divisor(size: int) -> int:
    """Return the pooling that a fixed size suggests."""
    return next(step for step in (16, 8, 4, 2, 1) if size % step == 0)


def _block_pixels(model: Model) -> int:
    """Return how many pixels a block may have."""
    from torch import nn

    convolutions = () if model.network is None else model.network.modules()
    features = (m.out_channels for m in convolutions if isinstance(m, nn.Conv2d | nn.Conv3d))
    return BLOCK_BYTES // (next(features, UNKNOWN_FEATURES) * ACTIVATIONS * 4)


def _shrunk(axes: list[TileAxis], pixels: int) -> list[TileAxis]:
    """Halve the largest core until a block fits, or cores are single steps."""
    while prod(axis.largest_core + 2 * axis.reach for axis in axes) > pixels:
        largest = max(axes, key=lambda axis: axis.largest_core / axis.step)
        if largest.fixed or largest.largest_core == largest.step:
            break
        smaller = replace(largest, core=largest.largest_core // 2)
        axes = [smaller if axis is largest else axis for axis in axes]
    return axes
