"""The settings of enhancer training, and their presets."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from napari_cellda.core.enhancer_training.forests import ForestMix
from napari_cellda.core.enhancer_training.source import HoldOut  # noqa: TC001  pydantic needs it at run time
from napari_cellda.core.errors import UserError
from napari_cellda.core.licences import licence_names
from napari_cellda.core.params import Preset, check_shares, checked, unexpected

SHOWN = re.compile(r"[A-Za-z0-9_+() -]{1,100}")
"""What bioimage.io takes in the title of a package."""
REFERENCE = re.compile(r"(10\.\d{4}\S+|https?://\w\S*)?", re.ASCII)
"""What it takes as a DOI, or as the address that may stand in its place."""


class EnhancerParams(ForestMix):
    """How an enhancer is trained."""

    width: int = Field(16, ge=4, le=64)
    """Channels of the network's first level."""
    depth: int = Field(4, ge=2, le=5)
    """Levels of the network: how far around a pixel it looks."""
    patch: int = Field(192, ge=32, le=1024)
    """Side of the crops it is trained on, in pixels."""
    batch: int = Field(8, ge=1, le=256)
    """Crops per step."""
    init: str = ""
    """Enhancer to begin from, a package's folder or the id of a bundled one, instead of at random;
    width, depth and outputs must be the same."""
    steps: int = Field(3000, ge=1, le=1_000_000)
    """Optimisation steps."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    """Peak learning rate of AdamW; it falls along a cosine."""
    weight_decay: float = Field(1e-4, ge=0, le=1)
    """Pull of the weights towards 0."""
    bce: float = Field(0.3, ge=0, le=10)
    """Share of the binary cross entropy in the loss."""
    dice: float = Field(1.0, ge=0, le=10)
    """Share of the Dice loss, which keeps rare structures from being called background."""
    average: float = Field(0.995, ge=0, lt=1)
    """How slowly the average of the weights, which is what comes out, follows the training."""
    noise: float = Field(0.2, ge=0, le=1)
    """Largest standard deviation of the noise added to maps in training."""
    contrast: float = Field(0.6, ge=0, le=3)
    """How much maps are made surer or vaguer in training."""
    shift: float = Field(0.5, ge=0, le=3)
    """How far maps are pushed to either class in training: forests that stray on another image."""
    centred: float = Field(0.5, ge=0, le=1)
    """Share of good maps that are pushed until they show as much foreground as there is: most show
    too much, and an enhancer that met them alone shrinks the objects of all."""
    rotation: float = Field(20.0, ge=0, le=180)
    """Largest rotation of a crop in degrees, besides quarter turns and flips."""
    zoom: float = Field(1.3, ge=1, le=4)
    """Largest magnification of a crop in training, and reduction by as much."""
    bend: float = Field(8.0, ge=0, le=50)
    """Typical elastic shift in training, in pixels."""
    deformed_share: float = Field(0.7, ge=0, le=1)
    """Share of the crops that are turned, zoomed and bent."""
    validate_every: int = Field(250, ge=1)
    """Steps between two validations."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Share of the source kept for choosing the checkpoint."""
    hold_out: HoldOut = "auto"
    """What is kept: the last planes, or the right part of every plane, which is the stricter test
    for the sections of a stack. auto: the region when there are fewer than 50 planes."""

    id: str = Field("enhancer", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the package, in small letters without spaces."""
    shows: str = "structure"
    """What the source shows, e.g. nuclei; enhancers warn when they are used on something else."""
    licence: str = "CC-BY-4.0"
    """Licence of the package, as an SPDX name; the source's licence decides what is allowed."""
    attribution: str = ""
    """Who made the source, and under which terms; shown on the model's card."""
    doi: str = ""
    """DOI of the source, e.g. 10.1038/s41592-019-0612-7."""

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        return check_shares(self, "bce", "dice")

    # What follows would else be refused when the package is written, after the training.

    @field_validator("shows")
    @classmethod
    def _check_shows(cls, value: str) -> str:
        if not SHOWN.fullmatch(value):
            raise unexpected("up to 100 of the letters A to Z, digits, spaces and _ + - ( )")
        return value

    @field_validator("licence")
    @classmethod
    def _check_licence(cls, value: str) -> str:
        names = licence_names()
        if names and value not in names:
            in_small = {name.lower(): name for name in names}
            near = get_close_matches(value.lower(), in_small, n=1) or ["cc-by-4.0"]
            raise unexpected(f"the SPDX name of a licence, such as {in_small[near[0]]}")
        return value

    @field_validator("doi")
    @classmethod
    def _check_doi(cls, value: str) -> str:
        if not REFERENCE.fullmatch(value):
            raise unexpected("a DOI such as 10.1038/s41592-019-0612-7, or a web address")
        return value

    @property
    def mix(self) -> ForestMix:
        """The part that decides which forests there are."""
        return ForestMix(**self.model_dump(include=set(ForestMix.model_fields)))


PRESETS: dict[Preset, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "forests": 256,
        "maps_per_forest": 8,
        "map_size": 512,
        "width": 32,
        "patch": 256,
        "batch": 16,
        "steps": 12_000,
        "learning_rate": 1e-3,
        "validate_every": 500,
    },
    # As in the paper, with BatchNorm for its GroupNorm (tiles would show) and batches to feed it.
    "published": {
        "forests": 500,
        "maps_per_forest": 10,
        "map_size": 768,
        "stroke_share": 0.0,
        "worst_tile_share": 0.0,
        "ilastik_share": 0.0,
        "spoiled_share": 0.0,
        "rescaled_share": 0.0,
        "width": 64,
        "patch": 512,
        "batch": 4,
        "steps": 100_000,
        "learning_rate": 2e-4,
        "weight_decay": 1e-5,
        "bce": 1.0,
        "dice": 0.0,
        "validate_every": 1000,
    },
}


def enhancer_params(
    preset: Preset = "cpu", overrides: dict[str, Any] | None = None
) -> EnhancerParams:
    """Return a preset's settings with some of them replaced.

    Raises
    ------
    UserError
        If there is no such preset or setting, or a value is out of its range.
    """
    if preset not in PRESETS:
        raise UserError(f"There is no preset '{preset}'; expected one of {', '.join(PRESETS)}.")
    return checked(EnhancerParams, {**PRESETS[preset], **(overrides or {})}, "Enhancer training")
