"""The networks of contrastive unpaired translation (CUT): generator, PatchGAN, projection.

Images are (N, C, Y, X) in [-1, 1].

References
----------
.. [1] Park, Efros, Zhang, Zhu, "Contrastive learning for unpaired image-to-image translation",
   ECCV 2020. https://arxiv.org/abs/2007.15651
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.nn import functional as F

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PROJECTED = 256
"""Channels that features are compared in."""


class Generator(nn.Module):
    """A ResNet between two anti-aliased halvings and doublings, with instance norm.

    Parameters
    ----------
    channels : int
        Of the image, in and out.
    width : int
        Channels after the first convolution.
    blocks : int
        Residual blocks at a quarter of the resolution.

    Notes
    -----
    `taps` names the layers whose features are compared, by their place in the original's list: 0
    the padded input, 4 and 8 the convolutions of the two halvings, 12 and 16 the first and the
    fifth block (with fewer blocks the first four only).
    """

    def __init__(self, channels: int = 1, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        for name, value, most in (("width", width, 256), ("blocks", blocks, 32)):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UserError(f"A generator's {name} must be from 1 to {most}, not {value!r}.")
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), *_norm(width),
        ]  # fmt: skip
        for before in (width, 2 * width):
            layers += [nn.Conv2d(before, 2 * before, 3, padding=1), *_norm(2 * before), Halve()]
        layers += [_Residual(4 * width) for _ in range(blocks)]
        for after in (2 * width, width):
            # Interpolation is the same as the original's [1, 3, 3, 1] filter between zeros.
            double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            layers += [double, nn.Conv2d(2 * after, after, 3, padding=1), *_norm(after)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()]
        self.layers = nn.ModuleList(layers)
        self.taps = (0, 4, 8, 12, 16) if blocks > 4 else (0, 4, 8, 12)
        self.tap_channels = (channels, 2 * width, 4 * width, 4 * width, 4 * width)[: len(self.taps)]
        _initialise(self)

    def forward(
        self, x: Tensor, give: Literal["image", "taps", "both"] = "image"
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Translate (N, C, Y, X), both sides multiples of 4, and give image, features or both."""
        found = []
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if give != "image" and place in self.taps:
                found.append(x)
                if give == "taps" and place == self.taps[-1]:
                    return found
        return x if give == "image" else (x, found)


class PatchDiscriminator(nn.Module):
    """Judges 70 x 70 pixels at each place (PatchGAN), with instance norm and anti-aliasing.

    Parameters
    ----------
    channels : int
    width : int
        Channels after the first convolution.
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, padding=1), nn.LeakyReLU(0.2), Halve(),
        ]  # fmt: skip
        for before, halve in ((width, True), (2 * width, True), (4 * width, False)):
            layers += [nn.Conv2d(before, 2 * before, 4, padding=1), _InstanceNorm(2 * before)]
            layers += [nn.LeakyReLU(0.2), *([Halve()] if halve else [])]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score per place, (N, 1, ...): 1 = real, 0 = translated."""
        scores: Tensor = self.layers(x)
        return scores


class Projection(nn.Module):
    """One small network per tap, which turns its features into unit vectors to compare."""

    def __init__(self, tap_channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, PROJECTED), nn.ReLU(), nn.Linear(PROJECTED, PROJECTED))
            for c in tap_channels
        )
        _initialise(self)

    def forward(self, taps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Return, per tap, (N, P, 256) unit vectors.

        Parameters
        ----------
        taps : sequence of (N, C, Y, X) Tensor
        places : sequence of (P,) Tensor of int
            Pixels of each tap in reading order.
        """
        chosen = [t.flatten(2)[..., p].transpose(1, 2) for t, p in zip(taps, places, strict=True)]
        return [F.normalize(h(c), dim=-1) for h, c in zip(self.heads, chosen, strict=True)]


class Halve(nn.Module):
    """Halve both sides behind a [1, 2, 1] / 4 low-pass filter, mirrored at the border.

    That filter is [1, 1] / 2 twice, and two poolings take a third of the time of the original's
    convolution. What is mirrored repeats the outermost mean, which the second one takes alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, Y / 2, X / 2), rounded up."""
        means = F.avg_pool2d(x, 2, stride=1)
        return F.avg_pool2d(means, 2, stride=2, padding=1, count_include_pad=False)


class _InstanceNorm(nn.InstanceNorm2d):
    """Torch's, but quicker where one image trains."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) > 1:
            return super().forward(x)
        # The same for one image, and it takes channels_last memory as it is.
        return F.batch_norm(x, None, None, training=True)


class _Residual(nn.Module):
    """Two convolutions whose result is added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), *_norm(channels),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), _InstanceNorm(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


def _norm(channels: int) -> list[nn.Module]:
    # Not in place: a tap may be what comes in.
    return [_InstanceNorm(channels), nn.ReLU()]


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight, gain=0.02)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
