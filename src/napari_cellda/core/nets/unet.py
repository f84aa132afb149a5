"""The U-Net that every method here shares: logits out, any size in."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from napari_cellda.core.errors import UserError
from napari_cellda.core.nets.packable import Packable

if TYPE_CHECKING:
    from collections.abc import Sequence

Norm = Literal["batch", "group", "instance", "none"]
Up = Literal["nearest", "bilinear", "transpose"]


class UNet(Packable):
    """U-Net [1]_ with a configurable norm, upsampling, width and depth, in 2D or 3D.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits that come out.
    width : int
        Channels of the first level; they double with every level below.
    depth : int
        Number of 2 x 2 (x 2) max-poolings.
    norm : {"batch", "group", "instance", "none"}
        Norm after each convolution. Only ``"batch"`` (in eval mode) and ``"none"`` give a tile the
        values that the whole image would have; networks that are tiled should use one of them.
    up : {"nearest", "bilinear", "transpose"}
        Upsampling. The first two are preceded by a 1 x 1 convolution that halves the channels: it
        commutes with the interpolation and costs a quarter (2D) when it comes first.
    ndim : {2, 3}
        (N, C, Y, X) or (N, C, Z, Y, X).
    growth : int or None
        Levels stop doubling at ``growth * width`` channels. The U-Nets of CULPICO and CellSegUDA
        stop at 8; None never stops.

    Notes
    -----
    `forward` returns **logits**; whoever needs probabilities applies the sigmoid or softmax once.
    An input whose sides are no multiple of ``2 ** depth`` is padded by reflection at its end and
    the output cropped. Every argument is kept in `config`, so that ``UNet(**net.config)`` is the
    same architecture.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image
       segmentation", MICCAI 2015. https://doi.org/10.1007/978-3-319-24574-4_28
    """

    gives_logits = True

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 16,
        depth: int = 4,
        norm: Norm = "batch",
        up: Up = "nearest",
        ndim: Literal[2, 3] = 2,
        growth: int | None = None,
    ) -> None:
        super().__init__()
        _check(in_channels, out_channels, width, depth, norm, up, ndim, growth)
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "depth": depth,
            "norm": norm,
            "up": up,
            "ndim": ndim,
            "growth": growth,
        }
        widths = [width * min(2**level, growth or 2**level) for level in range(depth + 1)]
        self.in_channels, self.out_channels = in_channels, out_channels
        self.multiple = 2**depth
        self.multiples = (self.multiple,) * ndim
        self.tiles_exactly = norm in ("batch", "none")
        self.pool = nn.MaxPool2d(2) if ndim == 2 else nn.MaxPool3d(2)
        self.down = nn.ModuleList(
            _block(before, after, norm, ndim) for before, after in pairwise([in_channels, *widths])
        )
        self.rise = nn.ModuleList(
            _upsample(below, level, up, ndim) for level, below in pairwise(widths)
        )
        self.up = nn.ModuleList(_block(2 * level, level, norm, ndim) for level in widths[:-1])
        self.head = _conv(ndim)(widths[0], out_channels, 1)

    def slim(self, axis: int = 0) -> UNet:
        """Return a 2D network that looks as far along `axis`, one channel wide, without norms."""
        changes = {"in_channels": 1, "out_channels": 1, "width": 1, "norm": "none", "ndim": 2}
        return UNet(**{**self.config, **changes})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of `x`, at its own size."""
        y = self.forward_exact(pad_to_multiple(x, self.multiple))
        for axis in range(2, x.ndim):
            y = y.narrow(axis, 0, x.shape[axis])
        return y

    def forward_exact(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of an `x` whose sides are multiples of ``2 ** depth``."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for rise, block in zip(reversed(self.rise), reversed(self.up), strict=True):
            x = block(torch.cat([rise(x), skips.pop()], dim=1))
        logits: torch.Tensor = self.head(x)
        return logits


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad the end of every spatial axis of (N, C, [Z], Y, X) by reflection to a multiple.

    An axis that is shorter than its pad is reflected as often as it takes.
    """
    for axis in range(2, x.ndim):
        pad = -x.shape[axis] % multiple
        if pad:
            index = _mirror(x.shape[axis], pad, x.device)
            x = torch.cat([x, x.index_select(axis, index)], dim=axis)
    return x


def _mirror(size: int, pad: int, device: torch.device) -> torch.Tensor:
    """Return the indices that continue an axis of `size` by reflection (no repeated border)."""
    period = max(2 * size - 2, 1)
    after = torch.arange(size, size + pad, device=device) % period
    return torch.minimum(after, period - after)


def _conv(ndim: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if ndim == 2 else nn.Conv3d


def _block(before: int, after: int, norm: Norm, ndim: int) -> nn.Sequential:
    """Return (3 x 3 convolution, norm, ReLU) twice."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        # A norm that subtracts the mean makes the bias before it idle.
        layers += [_conv(ndim)(channels, after, 3, padding=1, bias=norm == "none")]
        layers += [*_norm(norm, after, ndim), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _norm(norm: Norm, channels: int, ndim: int) -> Sequence[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels) if ndim == 2 else nn.BatchNorm3d(channels)]
    if norm == "instance":
        return [
            nn.InstanceNorm2d(channels, affine=True)
            if ndim == 2
            else nn.InstanceNorm3d(channels, affine=True)
        ]
    if norm == "group":
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        return [nn.GroupNorm(groups, channels)]
    return []


def _upsample(below: int, level: int, up: Up, ndim: int) -> nn.Module:
    if up == "transpose":
        transpose = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
        return transpose(below, level, 2, stride=2)
    linear = "bilinear" if ndim == 2 else "trilinear"
    return nn.Sequential(
        _conv(ndim)(below, level, 1), _Interpolate(linear if up == "bilinear" else up)
    )


class _Interpolate(nn.Module):
    """Double every spatial side."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = None if self.mode == "nearest" else False
        return F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=corners)

    def extra_repr(self) -> str:
        return self.mode


def _check(
    in_channels: int,
    out_channels: int,
    width: int,
    depth: int,
    norm: str,
    up: str,
    ndim: int,
    growth: int | None,
) -> None:
    """Refuse what cannot be built: the arguments may come from a stranger's file."""
    for name, value, most in (
        ("in_channels", in_channels, 1024),
        ("out_channels", out_channels, 1024),
        ("width", width, 256),
        ("depth", depth, 7),
        ("growth", 1 if growth is None else growth, 1024),
    ):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise UserError(f"A U-Net's {name} must be from 1 to {most}, not {value!r}.")
    for name, choice, allowed in (
        ("norm", norm, get_args(Norm)),
        ("up", up, get_args(Up)),
        ("ndim", ndim, (2, 3)),
    ):
        if choice not in allowed:
            raise UserError(f"A U-Net's {name} must be one of {allowed}, not {choice!r}.")
