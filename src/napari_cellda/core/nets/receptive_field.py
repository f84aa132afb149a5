"""How far a network looks: measured once, so that tiles get the halo they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.nets.packable import Packable
    from napari_cellda.core.nets.torch_em import TorchEmUNet
    from napari_cellda.core.nets.unet import UNet


LIMIT = 512
"""Largest halo looked for, in pixels: that of six poolings is below."""
MARGINS = (64, 128, 256, LIMIT)
_MEASURED: dict[str, int | None] = {}
"""What was measured in this process, by architecture."""


def architecture_reach(network: Packable | TorchEmUNet) -> tuple[int, ...] | None:
    """Return the halo of one of our networks, measured on its slim twins without norms.

    A twin is 2D and as narrow as can be, so that it costs nothing even for a 3D network. With an
    instance or group norm the halo is what the convolutions need; the norm then still makes every
    pixel depend on the whole tile. None for a network that says it has no such halo, or whose halo
    is beyond `LIMIT`.
    """
    twins = [network.slim(axis) for axis in range(len(network.multiples))]
    measured = [None if twin is None else _slim_reach(twin) for twin in twins]
    known = tuple(reach for reach in measured if reach is not None)
    return known if len(known) == len(twins) else None


def _slim_reach(twin: UNet | TorchEmUNet) -> int | None:
    architecture = repr(twin)
    if architecture not in _MEASURED:
        _MEASURED[architecture] = reach_along(twin, 0, twin.in_channels)
    return _MEASURED[architecture]


def reach_along(network: Packable | TorchEmUNet, axis: int, in_channels: int = 1) -> int | None:
    """Measure how far from a pixel the output of a network depends on its input.

    Parameters
    ----------
    network : torch.nn.Module
        Takes and returns (N, C, [Z], Y, X), in eval mode.
    axis : int
        Spatial axis, from 0.
    in_channels : int

    Returns
    -------
    int or None
        In pixels. None when one pixel reaches farther than `LIMIT`, as it does through an instance
        or group norm.

    Notes
    -----
    A NaN is put into a whole plane of a constant input, at every place within a pooling cell;
    convolutions, poolings, norms and interpolations all hand a NaN on, so the plane's reach is the
    reach of the architecture, whatever the weights (a small finite change would get lost at a ReLU
    or under a maximum).
    """
    cell = network.multiples[axis]
    shape = list(network.multiples)
    for margin in MARGINS:  # most look less far, and short is quick
        if margin < 6 * cell:  # they look farther than that
            continue
        middle = -(-margin // cell) * cell
        shape[axis] = 2 * middle + cell
        reach = _reach_within(network, in_channels, axis, shape, middle)
        if reach is not None:
            return reach
    return None


def _reach_within(
    network: torch.nn.Module, in_channels: int, axis: int, shape: Sequence[int], middle: int
) -> int | None:
    """Return how far planes of NaN in the middle cell spread; None if one reaches the border."""
    cell = shape[axis] - 2 * middle
    like = next(network.parameters(), torch.empty(0))
    x = torch.zeros(cell, in_channels, *shape, device=like.device, dtype=like.dtype)
    for i in range(cell):
        x[i].narrow(1 + axis, middle + i, 1).fill_(float("nan"))
    with torch.inference_mode():
        touched = network(x).isnan().movedim(2 + axis, 1).flatten(2).any(dim=2)
    if touched[:, [0, -1]].any():
        return None
    row, place = torch.nonzero(touched, as_tuple=True)
    return int((place - (middle + row)).abs().max())
