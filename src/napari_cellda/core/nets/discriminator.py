"""The network that tells where a segmentation came from."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Discriminator(nn.Module):
    """Five 4 x 4 convolutions of stride 2, LeakyReLU between them, no norm, after DCGAN [1]_.

    Parameters
    ----------
    in_channels : int
    width : int
        Channels after the first convolution; they double with every further one but the last.

    References
    ----------
    .. [1] Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional
       generative adversarial networks", ICLR 2016. https://arxiv.org/abs/1511.06434
    """

    def __init__(self, in_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        channels = [in_channels, width, 2 * width, 4 * width, 8 * width, 1]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, Y / 32, X / 32) for (N, C, Y, X); both sides at least 32."""
        logits: Tensor = self.layers(x)
        return logits
