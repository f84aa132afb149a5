"""Maps of forests that show neither too much nor too little.

A forest of a few balanced strokes shows too much: the rim of every object, and more. An enhancer
that met such forests alone takes a pixel or two off all objects, which is right on average and
wrong for a forest that was corrected until it fits. The map does not tell one from the other, so
what was met in training decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

GOOD = 0.8
"""Dice from which a map counts as good: others show too much for reasons that can be seen."""
_FARTHEST = 0.1
"""The threshold that becomes 0.5 lies between this and 1 minus this."""


def centre_maps(maps: Tensor, truth: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Push a share of the good maps until their area above 0.5 is that of the truth.

    Parameters
    ----------
    maps, truth : (N, 1, Y, X) Tensor of float in [0, 1]
    share : float, in [0, 1]
    rng : Generator

    Returns
    -------
    (N, 1, Y, X) Tensor of float in [0, 1]
        Some with their logit shifted by a constant; those without foreground or background, and
        those with a Dice below `GOOD` after the shift, as they were.
    """
    if not share:
        return maps
    pairs = zip(maps, truth, rng.random(len(maps)) < share, strict=True)
    return torch.stack([_centre(one, mask) if drawn else one for one, mask, drawn in pairs])


def _centre(one: Tensor, mask: Tensor) -> Tensor:
    area = round(float(mask.sum()))
    if not 0 < area < mask.numel():
        return one
    threshold = one.flatten().kthvalue(mask.numel() - area).values
    threshold = threshold.clamp(_FARTHEST, 1 - _FARTHEST)
    shown = one > threshold
    dice = 2 * float(mask[shown].sum()) / (float(shown.sum()) + area)
    if dice < GOOD:
        return one
    return torch.sigmoid(torch.logit(one, eps=1e-3) - torch.logit(threshold))
