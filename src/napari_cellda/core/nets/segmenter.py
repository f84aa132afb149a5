"""Networks as they leave a training: the activation inside, so that what comes out is a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_cellda.core.nets.packable import Packable
from napari_cellda.core.nets.unet import Norm, UNet, Up

if TYPE_CHECKING:
    from torch import Tensor


class Segmenter(Packable):
    """A U-Net that gives logits while it is trained and probabilities in eval mode.

    Parameters
    ----------
    in_channels : int
    n_classes : int
        The background included. 2: one output, the foreground's probability. More: one output per
        class, sum 1.
    width, depth, norm, up, growth
        See `UNet`.
    """

    gives_logits = False

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
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "n_classes": n_classes,
            "width": width,
            "depth": depth,
            "norm": norm,
            "up": up,
            "growth": growth,
        }
        self.in_channels, self.out_channels = in_channels, 1 if n_classes == 2 else n_classes
        self._build()

    def _build(self) -> None:
        given = {key: value for key, value in self.config.items() if key != "n_classes"}
        self.unet = UNet(out_channels=self.out_channels, **given)
        self.multiple, self.multiples = self.unet.multiple, self.unet.multiples
        self.tiles_exactly = self.unet.tiles_exactly

    def rebuild(self, *, norm: Norm, up: Up, growth: int | None) -> None:
        """Take another build in place; if it is another indeed, the weights are new ones."""
        build = {"norm": norm, "up": up, "growth": growth}
        if any(self.config[key] != value for key, value in build.items()):
            self.config.update(build)
            self._build()

    def slim(self, axis: int = 0) -> UNet:
        """Return a network that looks as far; see `UNet.slim`."""
        return self.unet.slim(axis)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits in training mode, probabilities in eval mode; (N, K, Y, X)."""
        logits: Tensor = self.unet(x)
        return logits if self.training else activate(logits)

    def forward_exact(self, x: Tensor) -> Tensor:
        """Return probabilities of an `x` whose sides are multiples of ``2 ** depth``."""
        return activate(self.unet.forward_exact(x))

    def probabilities(self, x: Tensor) -> Tensor:
        """Return probabilities in either mode."""
        return activate(self.unet(x))


def activate(logits: Tensor) -> Tensor:
    """Return the sigmoid of one channel, the softmax over several."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
