"""What a network must tell about itself to be written as a package and rebuilt from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cellda.core.nets.unet import UNet


class Packable(nn.Module):
    """A network of this package; ``type(network)(**network.config)`` is the same architecture."""

    gives_logits: ClassVar[bool] = False
    """Whether a sigmoid has to follow; else it returns probabilities in eval mode."""
    context: int = 0
    """What a tile should have around itself, in pixels, where the exact reach has no end."""

    config: dict[str, Any]
    """The constructor's arguments; plain values."""
    in_channels: int
    out_channels: int
    multiple: int
    """Sides must be multiples of it, apart from the padding that `forward` does."""
    multiples: tuple[int, ...]
    """The same per spatial axis."""
    tiles_exactly: bool
    """Whether a tile gets the values that the whole image would have."""

    def slim(self, axis: int = 0) -> UNet | None:
        """Return a thin 2D twin that looks as far along an axis; None if that has no end."""
        raise NotImplementedError

    def forward_exact(self, x: Tensor) -> Tensor:
        """Return what `forward` does for sides that are multiples, without any padding."""
        raise NotImplementedError
