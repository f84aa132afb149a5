"""A moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch

Network = TypeVar("Network", bound=torch.nn.Module)


class MovingAverage(Generic[Network]):
    """A copy of a network whose weights follow it slowly [1]_.

    Parameters
    ----------
    network : Module
        Followed; it is copied here and not changed.
    decay : float, in [0, 1)
        What the average keeps of itself at each step. At the beginning it keeps less,
        ``min(decay, 1 - 1 / (t + 1))`` at step t, so that it soon forgets the random start.

    Notes
    -----
    ``theta <- decay * theta + (1 - decay) * theta_network`` for parameters and for the running
    statistics of norms alike; whole-number buffers are copied.

    References
    ----------
    .. [1] Tarvainen, Valpola, "Mean teachers are better role models", NeurIPS 2017.
       https://arxiv.org/abs/1703.01780
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def follow(self, network: torch.nn.Module) -> None:
        """Take one step towards the network."""
        self.updates += 1
        share = 1 - min(self.decay, 1 - 1 / (self.updates + 1))
        theirs = network.state_dict()
        for name, mine in self.network.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], share)
            else:
                mine.copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])
