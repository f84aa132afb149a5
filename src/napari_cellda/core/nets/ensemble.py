"""Two networks of one architecture, taken together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_cellda.core.nets.packable import Packable
from napari_cellda.core.nets.segmenter import Segmenter

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cellda.core.nets.unet import Norm, UNet, Up


class TwinSegmenters(Packable):
    """The mean of two segmenters that differ in their weights only.

    Parameters
    ----------
    in_channels, n_classes, width, depth, norm, up, growth
        Of both; see `Segmenter`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        width: int = 16,
        depth: int = 4,
        norm: Norm = "batch",
        up: Up = "bilinear",
        growth: int | None = None,
    ) -> None:
        super().__init__()
        twins = (
            Segmenter(in_channels, n_classes, width, depth, norm, up, growth) for _ in range(2)
        )
        self.m, self.n = twins
        self.config: dict[str, Any] = self.m.config
        self.in_channels, self.out_channels = self.m.in_channels, self.m.out_channels
        self.multiple, self.multiples = self.m.multiple, self.m.multiples
        self.tiles_exactly = self.m.tiles_exactly

    def slim(self, axis: int = 0) -> UNet | None:
        """Return a network that looks as far; see `UNet.slim`."""
        return self.m.slim(axis)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of the one and the other, (N, K, Y, X) each."""
        return self.m.probabilities(x), self.n.probabilities(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of both probabilities."""
        return torch.stack(self.both(x)).mean(dim=0)

    def forward_exact(self, x: Tensor) -> Tensor:
        """Return the mean for sides that are multiples of ``2 ** depth``."""
        return (self.m.forward_exact(x) + self.n.forward_exact(x)) / 2
