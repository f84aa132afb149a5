"""Who makes StyleFilter's pseudo-labels, and the weights that keep rare classes among them."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from napari_cellda.core.adaptation.domain import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Domain
    from napari_cellda.core.nets.segmenter import Segmenter

ROUNDS, STEP = 40, 0.5
"""How often the weights are moved, and by which share of what is lacking (in logarithms)."""
LARGEST = 20.0
"""No class weighs more than so many times the background, or less than a so manyth."""
SEEN = 1e-4
"""Share that a class which is never labelled is taken to have."""


class Teacher(torch.nn.Module):
    """The segmenter as it was when a round began, and what each class weighs in its labels.

    Both belong to the checkpoint: a run that is resumed goes on with the labels that it had.

    Parameters
    ----------
    segmenter : Segmenter
        Copied, here and in `begin_round`.
    n_classes : int
        The background included.
    """

    weights: Tensor
    """(K,), 1 for all at first."""

    def __init__(self, segmenter: Segmenter, n_classes: int) -> None:
        super().__init__()
        self.segmenter = deepcopy(segmenter).requires_grad_(False)
        self.register_buffer("weights", torch.ones(n_classes))

    def begin_round(self, segmenter: Segmenter) -> None:
        """Label like this segmenter from now on, in eval mode."""
        self.segmenter.load_state_dict(segmenter.state_dict())
        self.segmenter.eval()


def class_weights(maps: Tensor, shares: Tensor) -> Tensor:
    """Find weights with which each class wins as many pixels as it should.

    Parameters
    ----------
    maps : (K, P) Tensor of float in [0, 1]
        Class probabilities of pixels, the background first; 0 where a class cannot be.
    shares : (K,) Tensor of float
        Wanted share of each class, sum 1.

    Returns
    -------
    (K,) Tensor of float
        The background's is 1.

    Notes
    -----
    A network that is unsure of a rare class gives its pixels to a frequent one: of what it is 20 %
    sure to be mitochondria, nothing is labelled so, and the class is gone after a few steps.
    """
    wanted = shares.clamp_min(SEEN).log()
    log_weights = torch.zeros_like(wanted)
    for _ in range(ROUNDS):
        winners = (maps * log_weights.exp()[:, None]).argmax(dim=0)
        found = torch.bincount(winners, minlength=len(shares)) / winners.numel()
        log_weights += STEP * (wanted - found.clamp_min(SEEN).log())
        log_weights -= log_weights[0].clone()
        log_weights.clamp_(-math.log(LARGEST), math.log(LARGEST))
    return log_weights.exp()


def class_shares(domain: Domain, n_classes: int) -> Tensor:
    """Return the share of each class among the annotated pixels of a domain; (K,), sum 1."""
    counts = torch.zeros(n_classes)
    for plane in domain.annotated().planes:
        assert plane.labels is not None
        labels = torch.from_numpy(plane.labels.astype("int64"))
        counts += torch.bincount(labels[labels != UNKNOWN], minlength=n_classes)
    return counts / counts.sum().clamp_min(1)
