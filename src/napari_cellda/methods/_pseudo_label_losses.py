"""What pseudo-labels are learned with: soft losses, and labels weighed by the usual confidence.

References
----------
.. [1] Matskevych, Wolny, Pape, Kreshuk, "From Shallow to Deep: Exploiting Feature-Based Classifiers
   for Domain Adaptation in Semantic Segmentation", Frontiers in Computer Science, 2022.
   https://doi.org/10.3389/fcomp.2022.805166
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from napari_cellda.core.losses import dice_loss

if TYPE_CHECKING:
    from torch import Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log p of every class, background first; (N, K, Y, X).

    Parameters
    ----------
    logits : (N, 1, Y, X) or (N, K, Y, X) Tensor
        One channel stands for foreground against background.
    """
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    return F.log_softmax(logits, dim=1)


def soft_cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy with soft labels (Eq. 4).

    Parameters
    ----------
    log_p, labels : (N, K, Y, X) Tensor
        `labels` need not sum to 1, as rectified ones do not.

    Notes
    -----
    ``-mean sum_k y_k log p_k``; for two classes the binary cross entropy. Eq. 4 as printed lacks
    the minus and has ``1 - log p`` for ``log(1 - p)``; the reference code does what is done here.
    """
    return -(labels * log_p).sum(dim=1).mean()


def soft_dice(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return 1 minus the Dice score of the foreground classes (Eq. 3; the code takes 1 minus it).

    With rectified labels the target shrinks, as in the reference code; the loss is not weighted.
    """
    return dice_loss(log_p[:, 1:].exp(), labels[:, 1:])


def rectification(p: Tensor, confidence: Tensor) -> Tensor:
    """Return the weight of every class and pixel, ``w_k = 1 - |p_k - eta_k|`` (Eq. 6).

    Parameters
    ----------
    p : (N, K, Y, X) Tensor
    confidence : (K,) Tensor
        eta, how sure the network usually is of each class.
    """
    return 1 - (p - confidence.view(1, -1, 1, 1)).abs()


class UsualConfidence:
    """How sure the network usually is of each class (eta of Eq. 7); a part of the checkpoint.

    Parameters
    ----------
    classes : int
    memory : float
        lambda of Eq. 7. The paper has 0.999; the reference code looks for it under another name
        and so uses 0.9999.
    """

    def __init__(self, classes: int, memory: float) -> None:
        self.eta = torch.ones(classes)
        self.memory = memory
        self.updates = 0

    @torch.no_grad()
    def update(self, p: Tensor, labels: Tensor, memory: float | None = None) -> None:
        """Move towards the mean of p_k over the pixels whose label is k (y_k >= 0.5), if any."""
        memory = self.memory if memory is None else memory
        there = labels >= 0.5
        counts = there.sum(dim=(0, 2, 3))
        means = ((p * there).sum(dim=(0, 2, 3)) / counts.clamp_min(1)).cpu()
        moved = memory * self.eta + (1 - memory) * means
        self.eta = torch.where(counts.cpu() > 0, moved, self.eta)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return eta and the number of updates."""
        return {"eta": self.eta, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.eta, self.updates = state["eta"], int(state["updates"])
