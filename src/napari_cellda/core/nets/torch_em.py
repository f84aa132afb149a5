"""The U-Nets of torch-em, so that its published state dicts load without running a file of theirs.

Only the names and shapes of the parameters follow torch-em [1]_; the code is our own. `forward`
is that of the published networks up to rounding, and like them it ends in the activation that the
package names: a published enhancer returns **probabilities**.

References
----------
.. [1] https://github.com/constantinpape/torch-em
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACTIVATIONS: dict[str | None, type[nn.Module]] = {None: nn.Identity, "Sigmoid": nn.Sigmoid}


class TorchEmUNet(nn.Module):
    """What torch-em's three U-Nets have in common.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    scale_factors : sequence of tuple of int
        Pooling factor per level and spatial axis; its length is the depth, the length of its
        entries 2 or 3 for 2D or 3D.
    initial_features, gain : int
        Channels of the first level, and their growth from level to level: 2, since torch-em's
        decoder joins two halves.
    final_activation : {None, "Sigmoid"}
    norm : {"InstanceNorm", "InstanceNormTrackStats", "BatchNorm", "GroupNorm", None}
        Norm **before** each convolution. InstanceNorm has no parameters here, so state dicts
        made with it and without norm differ only in their numbering.
    anisotropic_kernel : bool
        Convolve with 1 instead of 3 along the axes that are not pooled.
    return_side_outputs, postprocessing
        Refused unless False and None: no published enhancer has them.

    Raises
    ------
    UserError
        If an option is unknown or out of range; the arguments come from a stranger's file.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factors: Sequence[Sequence[int]],
        initial_features: int = 32,
        gain: int = 2,
        final_activation: str | None = None,
        norm: str | None = "InstanceNorm",
        anisotropic_kernel: bool = False,
        return_side_outputs: bool = False,
        postprocessing: str | None = None,
    ) -> None:
        super().__init__()
        _check(in_channels, out_channels, scale_factors, initial_features, gain)
        if final_activation not in _ACTIVATIONS:
            raise UserError(f"A torch-em U-Net ending in {final_activation!r} is not known here.")
        if return_side_outputs or postprocessing is not None:
            raise UserError(
                "A torch-em U-Net with side outputs or postprocessing is not known here."
            )
        factors = [tuple(factor) for factor in scale_factors]
        self.multiples = tuple(prod(axis) for axis in zip(*factors, strict=True))
        self.tiles_exactly = norm not in ("InstanceNorm", "GroupNorm")
        self.in_channels = in_channels
        self._looks = (factors, anisotropic_kernel)
        widths = [initial_features * gain**level for level in range(len(factors) + 1)]
        down, up = list(pairwise([in_channels, *widths])), list(pairwise(reversed(widths)))
        kernel = _kernel(factors, anisotropic_kernel)
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(_Block(*pair, kernel, norm) for pair in down[:-1])
        self.base = _Block(*down[-1], (3,) * len(kernel), norm)
        kernel = _kernel(factors[::-1], anisotropic_kernel)
        self.decoder = nn.Module()
        self.decoder.blocks = nn.ModuleList(_Block(*pair, kernel, norm) for pair in up)
        self.decoder.samplers = nn.ModuleList(
            _Sampler(*pair, factor) for pair, factor in zip(up, factors[::-1], strict=True)
        )
        self.pools = nn.ModuleList(_pool(factor) for factor in factors)
        self.out_conv = _conv(len(factors[0]))(widths[0], out_channels, 1)
        self.final_activation = _ACTIVATIONS[final_activation]()

    def slim(self, axis: int = 0) -> TorchEmUNet:
        """Return a 2D network whose first axis looks as far as `axis`, narrow, without norms."""
        factors, anisotropic = self._looks
        other = 1 if axis == 0 else 0
        pairs = [(factor[axis], factor[other]) for factor in factors]
        return TorchEmUNet(1, 1, pairs, 1, 2, None, None, anisotropic)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activated output of `x`, whose sides are multiples of `multiples`."""
        skips = []
        for block, pool in zip(_children(self.encoder, "blocks"), self.pools, strict=True):
            skips.append(block(x))
            x = pool(skips[-1])
        x = self.base(x)
        samplers, blocks = _children(self.decoder, "samplers"), _children(self.decoder, "blocks")
        for sampler, block in zip(samplers, blocks, strict=True):
            x = block(torch.cat([sampler(x), skips.pop()], dim=1))
        result: torch.Tensor = self.final_activation(self.out_conv(x))
        return result


class UNet2d(TorchEmUNet):
    """torch-em's 2D U-Net; `depth` poolings by 2."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 4, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, [(2, 2)] * _depth(depth), **kwargs)


class UNet3d(TorchEmUNet):
    """torch-em's isotropic 3D U-Net; `depth` poolings by 2."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 4, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, [(2, 2, 2)] * _depth(depth), **kwargs)


class AnisotropicUNet(TorchEmUNet):
    """torch-em's 3D U-Net with one pooling factor, or three, per level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factors: Sequence[Sequence[int] | int],
        **kwargs: Any,
    ) -> None:
        factors = [(f, f, f) if isinstance(f, int) else tuple(f) for f in scale_factors]
        super().__init__(in_channels, out_channels, factors, **kwargs)


class _Block(nn.Module):
    """(norm, convolution, ReLU) twice, numbered as torch-em does."""

    def __init__(self, before: int, after: int, kernel: Sequence[int], norm: str | None) -> None:
        super().__init__()
        conv: Any = _conv(len(kernel))
        padding = tuple(side // 2 for side in kernel)
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += _norm(norm, channels, len(kernel))
            layers += [conv(channels, after, tuple(kernel), padding=padding), nn.ReLU(inplace=True)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.block(x)
        return result


class _Sampler(nn.Module):
    """Upsample linearly and halve the channels.

    torch-em convolves after the interpolation; a 1 x 1 convolution commutes with it and is
    cheaper before.
    """

    def __init__(self, below: int, level: int, factor: Sequence[int]) -> None:
        super().__init__()
        self.factor = [float(f) for f in factor]
        self.mode = "bilinear" if len(factor) == 2 else "trilinear"
        self.conv = _conv(len(factor))(below, level, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(
            self.conv(x), scale_factor=self.factor, mode=self.mode, align_corners=False
        )

    def extra_repr(self) -> str:
        return f"{self.mode}, {self.factor}"


def _children(module: nn.Module, name: str) -> nn.ModuleList:
    children = getattr(module, name)
    assert isinstance(children, nn.ModuleList)
    return children


def _conv(ndim: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if ndim == 2 else nn.Conv3d


def _pool(factor: Sequence[int]) -> nn.Module:
    kernel: Any = tuple(factor)
    return nn.MaxPool2d(kernel) if len(factor) == 2 else nn.MaxPool3d(kernel)


def _kernel(factors: Sequence[Sequence[int]], anisotropic: bool) -> tuple[int, ...]:
    """Return the kernel of every level of an encoder or decoder.

    torch-em means to choose it level by level, but its levels share one dictionary of arguments:
    the first anisotropic factor decides for all, and published weights have those shapes.
    """
    uneven = [factor for factor in factors if len(set(factor)) > 1]
    if not anisotropic or not uneven:
        return (3,) * len(factors[0])
    return tuple(1 if f == 1 else 3 for f in uneven[0])


def _norm(norm: str | None, channels: int, ndim: int) -> list[nn.Module]:
    flat = ndim == 2
    if norm is None:
        return []
    if norm == "InstanceNorm":
        return [nn.InstanceNorm2d(channels) if flat else nn.InstanceNorm3d(channels)]
    if norm == "InstanceNormTrackStats":
        tracked = nn.InstanceNorm2d if flat else nn.InstanceNorm3d
        return [tracked(channels, affine=True, track_running_stats=True, momentum=0.01)]
    if norm == "BatchNorm":
        return [nn.BatchNorm2d(channels) if flat else nn.BatchNorm3d(channels)]
    if norm == "GroupNorm":
        return [nn.GroupNorm(min(32, channels), channels)]
    raise UserError(f"A torch-em U-Net with the norm {norm!r} is not known here.")


def _depth(depth: int) -> int:
    if not isinstance(depth, int) or not 1 <= depth <= 7:
        raise UserError(f"A torch-em U-Net's depth must be from 1 to 7, not {depth!r}.")
    return depth


def _check(
    in_channels: int,
    out_channels: int,
    scale_factors: Sequence[Sequence[int]],
    initial_features: int,
    gain: int,
) -> None:
    for name, value, most in (
        ("in_channels", in_channels, 64),
        ("out_channels", out_channels, 64),
        ("initial_features", initial_features, 256),
        ("depth", len(scale_factors), 7),
    ):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise UserError(f"A torch-em U-Net's {name} must be from 1 to {most}, not {value!r}.")
    if gain != 2:
        raise UserError(f"A torch-em U-Net's gain must be 2, not {gain!r}.")
    if any(f not in (1, 2, 3, 4) for factor in scale_factors for f in factor):
        raise UserError(f"A torch-em U-Net cannot be pooled by {scale_factors!r}.")
    if any(len(factor) not in (2, 3) for factor in scale_factors):
        raise UserError(
            f"A torch-em U-Net has 2 or 3 scale factors per level, not {scale_factors!r}."
        )
