"""Settings of StyleFilter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_cellda.core.adaptation.method import MethodParams


class Params(MethodParams):
    """The three stages: style, source, adaptation."""

    steps: int = Field(2700, ge=1, le=10_000_000)
    """Training steps of all three stages together."""
    normalisation: Literal["percentile", "minmax"] = "percentile"
    """How grey values are scaled to [0, 1], where the style networks work: percentile: 1 % to 0 and
    99.8 % to 1; minmax: least to 0, largest to 1."""
    style_share: float = Field(0.45, ge=0, le=1)
    """Share of the steps that learns the style; 0 leaves the style out."""
    source_share: float = Field(0.4, ge=0, le=1)
    """Share of the steps that trains on the source alone; the rest adapts."""
    style_mode: Literal["fastcut", "cut"] = "fastcut"
    """fastcut: no identity term, a tenfold contrast, flips; cut: the larger original."""
    style_crop: int = Field(128, ge=32, le=1024, multiple_of=4)
    """Side of the crops that the style is learned on, in pixels; a multiple of 4."""
    style_batch: int = Field(1, ge=1, le=64)
    """Crops per domain and step while the style is learned."""
    style_width: int = Field(16, ge=4, le=128)
    """Channels of the generator's and the discriminator's first level."""
    style_blocks: int = Field(4, ge=1, le=16)
    """Residual blocks of the generator."""
    style_rate: float = Field(2e-4, gt=0, le=1)
    """Learning rate of the style networks; it falls to 0 along the last part of their stage."""
    patches: int = Field(64, ge=2, le=4096)
    """Places per layer at which an image and its translation are compared."""
    width: int = Field(16, ge=4, le=128)
    """Channels of the U-Net's first level."""
    depth: int = Field(4, ge=1, le=6)
    """Number of times the U-Net halves the image."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Learning rate of the segmenter on the source."""
    adaptation_rate: float = Field(2e-4, gt=0, le=1)
    """Learning rate of the segmenter while it adapts."""
    rate_falls: bool = True
    """Whether both rates of the segmenter fall along half a cosine; the paper keeps them."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """Weight decay of the segmenter."""
    noise: float = Field(0.05, ge=0, le=0.5)
    """Largest standard deviation of the noise added to crops, as a share of the grey range."""
    jitter: float = Field(0.2, ge=0, le=0.9)
    """Largest change of brightness and contrast."""
    student_input: Literal["stylised", "original", "both"] = "stylised"
    """What the segmenter learns the pseudo-labels on. With "original" it predicts on original
    images too, else on stylised ones."""
    confidence: float = Field(0.0, ge=0, lt=1)
    """Pseudo-labels that are less certain are left out; 0 keeps all."""
    teacher: Literal["before", "current"] = "before"
    """Whose pseudo-labels are learned. before: those of the network as it was when the round began;
    current: those of the network as it is, as published, which may lose rare classes."""
    rounds: int = Field(3, ge=1, le=100)
    """Number of rounds of the adaptation; each begins with labels anew, and its rate falls anew."""
    match_shares: bool = True
    """Whether classes are weighed so that the pseudo-labels hold each as often as the source masks
    do. Not in the paper; leave it out where a class of your images is far rarer or more frequent
    than in the source, or use it with image-level labels."""
    present_pixels: int = Field(16, ge=1)
    """Pixels from which on a class counts as found in an image, when the checkpoint is chosen."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of source planes, and of target planes with image-level labels, kept aside to check."""
    validate_every: int = Field(100, ge=1)
    """Steps between two checks."""

    @property
    def stage_ends(self) -> tuple[int, int, int]:
        """Step at which each stage is done."""
        style = round(self.style_share * self.steps)
        source = min(self.steps, style + round(self.source_share * self.steps))
        return style, source, self.steps

    @property
    def round_starts(self) -> tuple[int, ...]:
        """Step before which each round of the adaptation begins."""
        _, first, end = self.stage_ends
        return tuple(first + (end - first) * i // self.rounds for i in range(self.rounds))
