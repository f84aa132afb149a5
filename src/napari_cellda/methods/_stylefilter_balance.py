"""Class weights that keep rare classes in StyleFilter's pseudo-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_cellda.core.adaptation.domain import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Domain

MEMORY = 0.9
"""Of the running shares, per step."""
RATE = 0.1
"""How far a step moves the logarithm of a weight, at most."""
LARGEST = 20.0
"""No class counts more than so many times, or less than a so manyth."""


class Balance(nn.Module):
    """Weighs class probabilities so that each class is labelled as often as in the source.

    A network that is unsure of a rare class gives its pixels to a frequent one, learns that, and
    is less sure the next time. The weights of the classes follow the labels that are made: one that
    is labelled too seldom gains weight until its share, over the last steps, is that of the source.

    Parameters
    ----------
    prior : (K,) Tensor of float
        Share of each class in the source, sum 1, the background first.
    """

    prior: Tensor
    shares: Tensor
    log_weights: Tensor

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.register_buffer("prior", prior.clamp_min(1e-4))
        self.register_buffer("shares", self.prior.clone())
        self.register_buffer("log_weights", torch.zeros_like(prior))

    def weigh(self, maps: Tensor) -> Tensor:
        """Return (N, K, Y, X) probabilities times the weights of their classes, sum 1."""
        weighted = maps * self.log_weights.exp()[:, None, None]
        return weighted / weighted.sum(dim=1, keepdim=True)

    def observe(self, labels: Tensor) -> None:
        """Take note of pseudo-labels and move the weights.

        Parameters
        ----------
        labels : (N, 1, Y, X) Tensor of int
            `UNKNOWN` pixels do not count.
        """
        counts = torch.bincount(labels[labels != UNKNOWN], minlength=len(self.prior))
        found = counts / counts.sum().clamp_min(1)
        self.shares.lerp_(found.to(self.shares.dtype), 1 - MEMORY)
        lacking = (1 - self.shares / self.prior).clamp(-1, 1)
        self.log_weights += RATE * lacking
        self.log_weights -= self.log_weights[0].clone()
        most = float(torch.tensor(LARGEST).log())
        self.log_weights.clamp_(-most, most)


def class_shares(domain: Domain, n_classes: int) -> Tensor:
    """Return the share of each class among the annotated pixels of a domain; (K,), sum 1."""
    counts = torch.zeros(n_classes)
    for plane in domain.planes:
        labels = torch.from_numpy(plane.labels.astype("int64"))  # type: ignore[union-attr]
        counts += torch.bincount(labels[labels != UNKNOWN].flatten(), minlength=n_classes)
    return counts / counts.sum().clamp_min(1)
