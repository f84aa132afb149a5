"""The losses of CellSegUDA, by the numbers of the paper's equations.

References
----------
.. [1] Haq, Huang, "Adversarial domain adaptation for cell segmentation", MIDL 2020.
   https://proceedings.mlr.press/v121/haq20a.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.losses import one_hot

if TYPE_CHECKING:
    from torch import Tensor


def overlap_loss(probability: Tensor, labels: Tensor, smooth: float = 1.0) -> Tensor:
    """1 minus the soft Dice score over all pixels of a batch (Eq. 1).

    Parameters
    ----------
    probability : (N, K, Y, X) Tensor of float in [0, 1]
        K = 1: the foreground; else one map per class.
    labels : (N, 1, Y, X) Tensor of int
        Pixels that are `UNKNOWN` count in neither sum; if all are, the loss is 0.
    smooth : float
        Added to both sides of the fraction, by the reference code only: empty and predicted empty
        costs nothing.

    Returns
    -------
    Tensor
        Scalar, ``mean_k(1 - (2 sum(y p) + s) / (sum(y) + sum(p) + s))``; linear, unlike
        `core.losses.dice_loss`. The paper has one class; the mean over several is ours.
    """
    known = (labels != UNKNOWN).to(probability.dtype)
    truth = one_hot(labels[:, 0].clamp_min(0), probability.shape[1]) * known
    guess = probability * known
    axes = (0, 2, 3)
    overlap, size = (truth * guess).sum(axes), truth.sum(axes) + guess.sum(axes)
    return (1 - (2 * overlap + smooth) / (size + smooth)).mean()


def adversarial_loss(target_logits: Tensor) -> Tensor:
    """Return how far target maps are from being taken for source maps (Eq. 2), a scalar."""
    return F.binary_cross_entropy_with_logits(target_logits, torch.ones_like(target_logits))


def reconstruction_loss(image: Tensor, redrawn: Tensor) -> Tensor:
    """Mean squared difference of the normalised image and what the decoder drew (Eq. 3)."""
    return F.mse_loss(redrawn, image)


def discriminator_loss(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Cross entropy of the discriminator, 1 = source and 0 = target (Eq. 5), summed over both."""
    return F.binary_cross_entropy_with_logits(
        source_logits, torch.ones_like(source_logits)
    ) + F.binary_cross_entropy_with_logits(target_logits, torch.zeros_like(target_logits))
