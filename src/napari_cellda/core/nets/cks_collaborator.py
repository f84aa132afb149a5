"""The light collaborator of CKS: which pixels are cells, and which are borders, of whole images.

It lives while a network is trained and is left out of what leaves the training.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from napari_cellda.core.nets.unet import pad_to_multiple

if TYPE_CHECKING:
    from torch import Tensor


class Shared(NamedTuple):
    """What the collaborator says of (N, C, Y, X) images."""

    foreground_logits: Tensor
    """(N, Y, X); the sigmoid is M_c."""
    border_logits: Tensor
    """(N, Y, X); the sigmoid is B_c."""


class Collaborator(nn.Module):
    """Two small networks that share nothing [1]_.

    Parameters
    ----------
    in_channels : int
    width : int
        Channels of the foreground U-Net's first level; they double with every further one.
    border_width : int
        Channels of the three convolutions that see borders.
    levels : int
        Resolutions of the foreground U-Net, each half of the one before; 3 in the paper.

    Notes
    -----
    Kept weak on purpose: with a strong one both models agree and are wrong (Fig. 7 there). Instance
    norms may stay, since nothing of it is ever tiled.

    References
    ----------
    .. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing",
       2023. https://arxiv.org/abs/2304.10671
    """

    def __init__(
        self, in_channels: int = 1, width: int = 16, border_width: int = 32, levels: int = 3
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.level = nn.ModuleList(
            [nn.Sequential(*_conv(in_channels, width), *_conv(width, width))]
        )
        self.level.extend(
            nn.Sequential(*_conv(above, below, stride=2), *_conv(below, below))
            for above, below in pairwise(widths)
        )
        rising = list(pairwise(reversed(widths)))
        self.rise = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(below, above, 1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
            for below, above in rising
        )
        self.merge = nn.ModuleList(nn.Sequential(*_conv(2 * c, c), *_conv(c, c)) for _, c in rising)
        self.foreground = nn.Conv2d(width, 1, 3, padding=1)
        self.border = nn.Sequential(
            *_conv(in_channels, border_width),
            *_conv(border_width, border_width),
            nn.Conv2d(border_width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Shared:
        """Return the logits of M_c and B_c (Eq. 2)."""
        y = pad_to_multiple(x, 2 ** (len(self.level) - 1))
        seen = []
        for level in self.level:
            y = level(y)
            seen.append(y)
        for rise, merge, fine in zip(self.rise, self.merge, reversed(seen[:-1]), strict=True):
            y = merge(torch.cat([fine, rise(y)], dim=1))
        foreground = self.foreground(y)[:, 0, : x.shape[2], : x.shape[3]]
        return Shared(foreground, self.border(x)[:, 0])


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.InstanceNorm2d(after, affine=True),
        nn.ReLU(inplace=True),
    ]
