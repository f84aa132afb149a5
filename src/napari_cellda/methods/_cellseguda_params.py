"""Settings of CellSegUDA and CellSegSSDA."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_cellda.core.adaptation.method import MethodParams
from napari_cellda.core.modelzoo.preprocessing import Scaling


class Params(MethodParams):
    """Three networks, their losses and learning rates."""

    batch: int = Field(2, ge=1, le=256)
    """Crops per domain and step."""
    normalisation: Scaling = "dataset"
    """How grey values are scaled. dataset: mean 0, deviation 1 over all images of a domain, as
    published; zscore: the same for every image; percentile: 1 % to 0 and 99.8 % to 1; minmax: least
    to 0, largest to 1."""
    width: int = Field(16, ge=4, le=128)
    """Channels of the segmenter's first level."""
    decoder_width: int = Field(8, ge=4, le=128)
    """Channels of the decoder's first level."""
    discriminator_width: int = Field(32, ge=4, le=128)
    """Channels after the discriminator's first convolution."""
    depth: int = Field(4, ge=1, le=6)
    """Number of times that segmenter and decoder halve the image."""
    learning_rate: float = Field(5e-4, gt=0, le=1)
    """Learning rate of the segmenter."""
    discriminator_rate: float = Field(1e-3, gt=0, le=1)
    """Learning rate of the discriminator."""
    decoder_rate: float = Field(1e-3, gt=0, le=1)
    """Learning rate of the decoder."""
    lam_adv: float = Field(1e-3, ge=0, le=10)
    """Weight of fooling the discriminator; 0 leaves the discriminator out."""
    lam_rec: float = Field(1e-2, ge=0, le=10)
    """Weight of redrawing the target image; 0 leaves the decoder out."""
    flips: bool = True
    """Whether crops are flipped and turned by quarters; the paper does neither."""
    invert: float | None = Field(None, ge=0, le=1)
    """Share of source crops that are shown with bright and dark swapped; for targets that may be,
    such as stained tissue for a fluorescent source. None: half of them where the two seem to be
    swapped, by their grey values and the source's masks, else none. Not in the paper."""
    norm_statistics: Literal["target", "training"] = "target"
    """Which statistics the batch norms end with. target: measured anew on target images; training:
    the moving averages, in which source and target mix, as published."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of the annotated planes, of source and target, that is kept aside to check on."""
    validate_every: int = Field(100, ge=1)
    """Steps between two checks."""
