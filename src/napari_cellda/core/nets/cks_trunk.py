"""The trunk of the CKS principal: a ConvNeXt encoder and a feature pyramid."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STRIDES = (4, 8, 16, 32)
"""Of the encoder's four stages, in pixels."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel of (N, C, Y, X), so that tiles agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with mean 0 and deviation 1 over each pixel's channels, scaled."""
        # In float32, as autocast does on a GPU; on a processor, bfloat16 takes three times as long.
        # What comes next takes bfloat16 again, and is quicker if it does not have to convert it.
        last = x.permute(0, 2, 3, 1).float()
        normed = F.layer_norm(last, last.shape[-1:], self.weight, self.bias, 1e-6)
        return normed.permute(0, 3, 1, 2).to(x.dtype)


class Depthwise(nn.Conv2d):
    """A convolution of each channel by itself, (N, C, Y, X) to the same size.

    On a processor it trains in float32, with the gradient of `DepthwiseGradient`.

    Parameters
    ----------
    channels : int
    side : int
        Of the kernel, odd.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, channels, side, padding=side // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the filtered `x`."""
        if self.training and x.device.type == "cpu":
            y: Tensor = DepthwiseGradient.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class DepthwiseGradient(torch.autograd.Function):
    """A depthwise convolution whose kernels get their gradient by a depthwise convolution, too.

    The gradient of a tap is the product of the image, moved by the tap, and the output's gradient,
    summed over all pixels: the image filtered with the output's gradient as kernel. torch's own
    gradient of the kernels takes two to five times as long, most of a block's time.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return `x` (N, C, Y, X) filtered with `weight` (C, 1, S, S), plus `bias` (C,)."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of `x`, `weight` and `bias`."""
        x, weight = ctx.saved_tensors
        n, channels, height, width = x.shape
        side = weight.shape[-1]
        margin = side // 2
        to_x = F.conv2d(gradient, weight.flip(2, 3), padding=margin, groups=channels)
        planes = n * channels
        padded = F.pad(x, (margin,) * 4).reshape(1, planes, height + side - 1, width + side - 1)
        kernels = gradient.reshape(planes, 1, height, width)
        to_weight = F.conv2d(padded, kernels, groups=planes).view(n, *weight.shape).sum(0)
        return to_x, to_weight, gradient.sum((0, 2, 3))


class Block(nn.Module):
    """One ConvNeXt block [1]_: 7 x 7 depthwise, norm, four times wider, back; added to its input.

    Parameters
    ----------
    channels : int
    drop_path : float
        Probability that a sample skips the block in training.

    References
    ----------
    .. [1] Liu et al., "A ConvNet for the 2020s", CVPR 2022. https://arxiv.org/abs/2201.03545
    """

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.body = nn.Sequential(
            Depthwise(channels, 7),
            ChannelNorm(channels),
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Conv2d(4 * channels, channels, 1),
        )
        # ConvNeXt begins at 1e-6, which takes far longer trainings than these to grow.
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with what the block adds to it."""
        y: Tensor = self.scale * self.body(x)
        if self.training and self.drop_path:
            kept = 1 - self.drop_path
            y = y * torch.bernoulli(y.new_full((len(y), 1, 1, 1), kept)) / kept
        return x + y


class Encoder(nn.Module):
    """ConvNeXt: maps of stride 4, 8, 16 and 32.

    Parameters
    ----------
    in_channels : int
    widths, depths : four int each
        Channels and blocks per stage.
    drop_path : float
        Of the last block; it rises linearly from 0.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], depths: Sequence[int], drop_path: float
    ) -> None:
        super().__init__()
        stems: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 4), ChannelNorm(widths[0]))
        ]
        stems += [
            nn.Sequential(ChannelNorm(before), nn.Conv2d(before, after, 2, 2))
            for before, after in pairwise(widths)
        ]
        total = sum(depths)
        rates = iter([drop_path * k / max(total - 1, 1) for k in range(total)])
        self.stages = nn.ModuleList(
            nn.Sequential(stem, *(Block(width, next(rates)) for _ in range(depth)))
            for stem, width, depth in zip(stems, widths, depths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of all stages, finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Feature pyramid [1]_: what deep maps know is added to the finer ones.

    References
    ----------
    .. [1] Lin et al., "Feature pyramid networks for object detection", CVPR 2017.
       https://arxiv.org/abs/1612.03144
    """

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 1), nn.ReLU(inplace=True)) for before in widths
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))
            for _ in widths
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps of the same strides, all of one width."""
        lateral = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for k in range(len(lateral) - 2, -1, -1):
            lateral[k] = lateral[k] + F.interpolate(lateral[k + 1], scale_factor=2.0)
        return [layer(x) for layer, x in zip(self.smooth, lateral, strict=True)]


def conv_stack(before: int, width: int, depth: int) -> nn.Sequential:
    """Return `depth` times 3 x 3 convolution, norm, ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, *(width,) * (depth - 1))[:depth]:
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            ChannelNorm(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
