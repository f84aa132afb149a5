"""The light collaborator of CKS: which pixels are cells, and which are borders, of whole images.

It lives while a network is trained and is left out of what leaves the training.
"""

from __future__ import annotations

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
        Channels of the foreground U-Net's first level; they double twice.
    border_width : int
        Channels of the three convolutions that see borders.

    Notes
    -----
    Kept weak on purpose: with a strong one both models agree and are wrong (Fig. 7 there). Instance
    norms may stay, since nothing of it is ever tiled.

    References
    ----------
    .. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing",
       2023. https://arxiv.org/abs/2304.10671
    """

    def __init__(self, in_channels: int = 1, width: int = 16, border_width: int = 32) -> None:
        super().__init__()
        one, two, three = width, 2 * width, 4 * width
        self.level = nn.ModuleList(
            [
                nn.Sequential(*_conv(in_channels, one), *_conv(one, one)),
                nn.Sequential(*_conv(one, two, stride=2), *_conv(two, two)),
                nn.Sequential(*_conv(two, three, stride=2), *_conv(three, three)),
            ]
        )
        self.rise = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(below, above, 1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
            for below, above in ((three, two), (two, one))
        )
        self.merge = nn.ModuleList(
            nn.Sequential(*_conv(2 * c, c), *_conv(c, c)) for c in (two, one)
        )
        self.foreground = nn.Conv2d(one, 1, 3, padding=1)
        self.border = nn.Sequential(
            *_conv(in_channels, border_width),
            *_conv(border_width, border_width),
            nn.Conv2d(border_width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Shared:
        """Return the logits of M_c and B_c (Eq. 2)."""
        padded = pad_to_multiple(x, 4)
        fine = self.level[0](padded)
        middle = self.level[1](fine)
        y = self.merge[0](torch.cat([middle, self.rise[0](self.level[2](middle))], dim=1))
        y = self.merge[1](torch.cat([fine, self.rise[1](y)], dim=1))
        foreground = self.foreground(y)[:, 0, : x.shape[2], : x.shape[3]]
        return Shared(foreground, self.border(x)[:, 0])


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.InstanceNorm2d(after, affine=True),
        nn.ReLU(inplace=True),
    ]
