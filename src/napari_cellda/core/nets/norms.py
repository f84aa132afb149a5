"""Batch norms whose statistics are measured anew, on images of one domain."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def with_norms_of(network: Network, batches: Iterable[Tensor]) -> Network:
    """Return a copy, in eval mode, whose batch norms hold the statistics of some images [1]_.

    Parameters
    ----------
    network : Module
        Not changed. Without batch norms the copy is just that.
    batches : iterable of (N, C, Y, X) Tensor
        At least one, on the network's device; every batch counts the same.

    References
    ----------
    .. [1] Li et al., "Adaptive batch normalization for practical domain adaptation", Pattern
       Recognition 80, 2018. https://arxiv.org/abs/1603.04779
    """
    copy = deepcopy(network).eval()
    norms = [m for m in copy.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return copy
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    for batch in batches:
        copy(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copy.eval()
