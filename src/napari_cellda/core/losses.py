"""Losses that several trainings share.

Every loss takes tensors of one shape (N, C, ...) and gives a scalar to minimise. `weight` counts
pixels more or less, or not at all where it is 0 (unpainted pixels, for instance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def dice_loss(probability: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 minus the Dice score, per channel over the whole batch, averaged over channels.

    Parameters
    ----------
    probability, target : (N, C, ...) Tensor of float in [0, 1]
        The target may be soft.
    weight : Tensor, optional
        Broadcast against them; multiplies both sums.

    Returns
    -------
    Tensor
        Scalar, ``mean_c(1 - 2 sum(w a b) / (sum(w a^2) + sum(w b^2)))``.

    Notes
    -----
    Equation 3 of [1]_ prints the score itself as the loss; its code takes 1 minus it, as here.

    References
    ----------
    .. [1] Matskevych et al., "From Shallow to Deep", Frontiers in Computer Science, 2022.
       https://doi.org/10.3389/fcomp.2022.805166
    """
    axes = (0, *range(2, probability.ndim))
    w = torch.ones_like(probability) if weight is None else weight.expand_as(probability)
    overlap = (w * probability * target).sum(axes)
    size = (w * (probability**2 + target**2)).sum(axes)
    return (1 - 2 * overlap / size.clamp_min(1e-6)).mean()


def bce_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy of logits, averaged over (weighted) pixels.

    Parameters
    ----------
    logits : (N, C, ...) Tensor of float
    target : Tensor of float in [0, 1]
        May be soft: ``-[y log p + (1 - y) log(1 - p)]`` with p = sigmoid(logits) [1]_ (Eq. 4 there
        lacks the minus and misplaces a bracket).
    weight : Tensor, optional
        Broadcast against them; the sum is divided by the sum of weights.

    References
    ----------
    .. [1] Matskevych et al., "From Shallow to Deep", Frontiers in Computer Science, 2022.
       https://doi.org/10.3389/fcomp.2022.805166
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if weight is None:
        return loss.mean()
    w = weight.expand_as(loss)
    return (w * loss).sum() / w.sum().clamp_min(1e-6)


def mixed_loss(
    logits: Tensor, target: Tensor, *, bce: float, dice: float, weight: Tensor | None = None
) -> dict[str, Tensor]:
    """Mix binary cross entropy and Dice.

    Parameters
    ----------
    logits, target : (N, C, ...) Tensor
    bce, dice : float
        Share of each; a term with share 0 is not computed.
    weight : Tensor, optional
        See `bce_loss`.

    Returns
    -------
    dict of str to Tensor
        ``"loss"``, the sum to minimise, and each term before its share, by name.
    """
    terms: dict[str, Tensor] = {}
    if bce:
        terms["bce"] = bce_loss(logits, target, weight)
    if dice:
        terms["dice"] = dice_loss(torch.sigmoid(logits), target, weight)
    shares = {"bce": bce, "dice": dice}
    total = torch.stack([shares[name] * term for name, term in terms.items()]).sum()
    return {"loss": total, **terms}


def one_hot(labels: Tensor, channels: int) -> Tensor:
    """Turn (N, Y, X) class ids into (N, K, Y, X) floats; one channel: the foreground alone."""
    if channels == 1:
        return (labels[:, None] > 0).float()
    return F.one_hot(labels, channels).movedim(-1, 1).float()
