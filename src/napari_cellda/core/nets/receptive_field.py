"""How far a network looks: measured once, so that tiles get the halo they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def receptive_field_halo(
    network: torch.nn.Module,
    *,
    in_channels: int = 1,
    multiple: Sequence[int] = (16, 16),
    limit: int = 192,
) -> tuple[int, ...] | None:
    """Measure how far from a pixel its output depends on the input, along every spatial axis.

    Parameters
    ----------
    network : torch.nn.Module
        Takes and returns (N, C, [Z], Y, X); used in eval mode on its own device, left as it was.
    in_channels : int
        Channels of the input.
    multiple : sequence of int
        What the sides of an input must be multiples of, one per spatial axis; also tells 2D or 3D.
    limit : int
        Largest halo looked for, in pixels.

    Returns
    -------
    tuple of int, or None
        Halo per spatial axis, in pixels. None when there is no such halo: one pixel reaches the
        whole image, as it does through an instance or group norm.

    Notes
    -----
    One axis at a time. A NaN is put into a whole plane of a constant input, at every offset
    within one pooling cell; convolutions, poolings, norms and interpolations all hand a NaN on,
    so the plane's reach is the reach of the architecture, whatever the weights (a small finite
    change would get lost at a ReLU or under a maximum).
    """
    was_training = network.training
    network.eval()
    try:
        reaches = [
            _reach(network, in_channels, axis, multiple, limit) for axis in range(len(multiple))
        ]
    finally:
        network.train(was_training)
    known = [reach for reach in reaches if reach is not None]
    return tuple(known) if len(known) == len(reaches) else None


def _reach(
    network: torch.nn.Module, in_channels: int, axis: int, multiple: Sequence[int], limit: int
) -> int | None:
    cell = multiple[axis]
    middle = -(-limit // cell) * cell
    shape = [2 * m for m in multiple]
    shape[axis] = 2 * middle + cell
    parameter = next(network.parameters(), torch.empty(0))
    reach = 0
    for offset in {0, cell - 1}:
        x = torch.zeros(1, in_channels, *shape, device=parameter.device, dtype=parameter.dtype)
        x.narrow(2 + axis, middle + offset, 1).fill_(float("nan"))
        with torch.inference_mode():
            y = network(x)
        others = tuple(a for a in range(y.ndim) if a != 2 + axis)
        touched = torch.nonzero(_any(y.isnan(), others))
        first, last = int(touched.min()), int(touched.max())
        if first == 0 or last == shape[axis] - 1:
            return None
        reach = max(reach, middle + offset - first, last - middle - offset)
    return reach


def _any(mask: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Return `mask` reduced by "any" over several axes."""
    for axis in sorted(axes, reverse=True):
        mask = mask.any(dim=axis)
    return mask
