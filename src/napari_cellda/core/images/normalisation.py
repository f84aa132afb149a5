"""Scaling of grey values: measured once per image, applied to every region alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.statistics import Source, moments, order_statistics
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from napari_cellda.core.images.image import Image

Kind = Literal["percentile", "minmax", "zscore", "none"]
PERCENTILES = (1.0, 99.8)
"""What becomes 0 and 1; values beyond are not clipped."""
LARGEST_FACTOR = 1e38
"""Beyond it float32 overflows: such an image counts as constant."""


class Normalisation(BaseParams):
    """How the values of one image are scaled: (value - offset) * factor, per channel."""

    kind: Kind = "percentile"
    """percentile: 1 % to 0 and 99.8 % to 1; minmax: least to 0 and largest to 1; zscore: mean 0 and
    standard deviation 1; none: as they are."""
    offset: tuple[float, ...]
    """One per channel, in the image's own values."""
    factor: tuple[float, ...]
    """One per channel; 0 for a constant channel."""

    @property
    def is_flat(self) -> bool:
        """Whether every channel is constant, so that nothing can be told apart."""
        return not any(self.factor)

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Scale a block.

        Parameters
        ----------
        block : (C, ...) ndarray of real numbers
            As many channels as were measured.

        Returns
        -------
        (C, ...) ndarray of float32
            0 where the block is NaN or infinite, and everywhere in a constant channel.
        """
        if len(block) != len(self.offset):
            raise UserError(
                f"The block has {len(block)} channel(s), the normalisation {len(self.offset)}."
            )
        shape = (-1,) + (1,) * (block.ndim - 1)
        with np.errstate(invalid="ignore", over="ignore"):
            exact = np.reshape(self.offset, shape)
            offset = exact.astype(np.float32)
            scaled: np.ndarray = np.subtract(block, offset).astype(np.float32, copy=False)
            scaled -= (exact - offset).astype(np.float32)  # matters for a narrow range far from 0
            scaled *= np.reshape(self.factor, shape).astype(np.float32)
        scaled[~np.isfinite(scaled)] = 0
        return scaled


def measure_normalisation(image: Image, kind: Kind = "percentile") -> Normalisation:
    """Measure how to scale an image, over all its pixels.

    Parameters
    ----------
    image : Image
        All time points and planes count; channels are measured one by one. NaN and infinity are
        left out.
    kind : {"percentile", "minmax", "zscore", "none"}

    Returns
    -------
    Normalisation

    Raises
    ------
    UserError
        If a channel holds no finite number.

    Notes
    -----
    Memory stays bounded: blocks along the chunks stream through a table of counts. Images of up to
    16 bits and "zscore" take one pass; the exact percentiles of others take two. An image with a
    pyramid is measured on its coarsest level of at least `statistics.ENOUGH_PIXELS` pixels. "none"
    reads nothing.
    """
    n = image.n_channels
    if kind == "none":
        return Normalisation(kind=kind, offset=(0.0,) * n, factor=(1.0,) * n)
    source = Source.best(image)
    low, high = (0, 100) if kind == "minmax" else PERCENTILES
    offset, width = moments(source) if kind == "zscore" else span(source, low / 100, high / 100)
    factor = (1 / size if size > 1 / LARGEST_FACTOR else 0.0 for size in width.tolist())
    return Normalisation(kind=kind, offset=tuple(offset.tolist()), factor=tuple(factor))


def span(source: Source, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the value that becomes 0 and its distance from the one that becomes 1, per channel.

    Where both quantiles are the same value (a few bright spots on an even ground) the extremes
    are taken, so that only a constant image is flat.
    """
    quantiles = np.array([0, low, high, 1])
    least, bottom, top, largest = order_statistics(source, quantiles).T
    flat = top <= bottom
    offset = np.where(flat, least, bottom)
    return offset, np.where(flat, largest, top) - offset
