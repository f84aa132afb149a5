"""Style and segmentation as one network: what StyleFilter predicts with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from napari_cellda.core.nets.cut import Generator
from napari_cellda.core.nets.packable import Packable
from napari_cellda.core.nets.segmenter import Segmenter, activate
from napari_cellda.core.nets.unet import UNet, pad_to_multiple

if TYPE_CHECKING:
    from torch import Tensor


class StyledSegmenter(Packable):
    """Translates an image to the style of the source, then segments that.

    Parameters
    ----------
    in_channels : int
    n_classes : int
        The background included; see `Segmenter`.
    width, depth : int
        Of the segmenter's U-Net.
    style_width, style_blocks : int
        Of the generator; without blocks (0) the image is segmented as it is.

    Notes
    -----
    Images come scaled to about [0, 1] and are cut there, as the generator gives them. Its instance
    norms look at the whole image, so tiles differ from it: predict whole planes where possible.
    """

    context = 128

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        width: int = 16,
        depth: int = 4,
        style_width: int = 16,
        style_blocks: int = 4,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "n_classes": n_classes,
            "width": width,
            "depth": depth,
            "style_width": style_width,
            "style_blocks": style_blocks,
        }
        self.generator = Generator(in_channels, style_width, style_blocks) if style_blocks else None
        self.segmenter = Segmenter(in_channels, n_classes, width, depth)
        self.in_channels, self.out_channels = in_channels, self.segmenter.out_channels
        # The generator mirrors borders at a quarter of the size, which takes a few pixels there.
        self.multiple = max(16, self.segmenter.multiple)
        self.multiples = (self.multiple, self.multiple)
        self.tiles_exactly = self.generator is None

    def slim(self, axis: int = 0) -> UNet | None:
        """Return the segmenter's thin twin when there is no style, else None: no end in sight."""
        return None if self.generator else self.segmenter.slim(axis)

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities (N, K, Y, X) for sides of any length."""
        height, width = x.shape[2:]
        return self.forward_exact(pad_to_multiple(x, self.multiple))[..., :height, :width]

    def forward_exact(self, x: Tensor) -> Tensor:
        """Return probabilities of an `x` whose sides are multiples of `multiple`."""
        return activate(self.segmenter.unet.forward_exact(self.stylise(x)))

    def stylise(self, x: Tensor) -> Tensor:
        """Return the image as the source would show it, in [0, 1]; sides multiples of 4."""
        x = x.clamp(0, 1)
        if self.generator is None:
            return x
        return (cast("Tensor", self.generator(2 * x - 1)) + 1) / 2
