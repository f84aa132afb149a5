"""What every adaptation method declares about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field

from napari_cellda.core.modelzoo.preprocessing import Scaling
from napari_cellda.core.params import BaseParams, Preset, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_cellda.core.adaptation.job import Adapted, AdaptJob
    from napari_cellda.core.events import Task

PRESETS: tuple[Preset, ...] = get_args(Preset)

INPUTS: dict[str, str] = {
    "target_images": "images to adapt to",
    "source_images": "annotated images of another kind",
    "source_masks": "masks of the source images",
    "target_masks": "masks of some target images",
    "target_strokes": "brushstrokes on some target images",
    "points": "one point per cell",
    "nuclei_images": "images of the nuclei, in which the points are found",
    "diameter": "the diameter of a typical cell",
    "image_labels": "which classes are in which image",
    "pseudo_labels": "probability maps of the target images",
    "project": "a project, X.cellda, whose maps are taken",
    "pretrained": "a network to begin with",
}
"""What a method may ask for, in words for people."""
SOURCE = ("source_images", "source_masks")
"""Inputs of which one is no use without the other."""


def alternatives(need: str) -> list[str]:
    """Return the names of the inputs of which a need, as in `Method.needs`, asks for one."""
    return need.split("|")


class MethodParams(BaseParams):
    """Settings that every method has; each sets its own defaults."""

    steps: int = Field(800, ge=1, le=10_000_000)
    """Training steps in all."""
    crop: int = Field(128, ge=32, le=4096)
    """Side of the square crops that are trained on, in pixels."""
    batch: int = Field(4, ge=1, le=256)
    """Crops per domain and step."""
    normalisation: Scaling = "percentile"
    """How grey values are scaled. percentile: 1 % to 0 and 99.8 % to 1; minmax: least to 0, largest
    to 1; zscore: mean 0, deviation 1, each over a whole image; dataset: zscore over all images."""
    preview_every: int = Field(50, ge=0)
    """Steps between two previews; 0 shows none."""
    validate_every: int = Field(50, ge=1)
    """Steps between two validations, whose scores choose the checkpoint."""

    @property
    def look_every(self) -> int:
        """Steps after which there may be something to score or to show."""
        return gcd(self.validate_every, self.preview_every)

    def scores_at(self, done: int) -> bool:
        """Whether a validation is due after so many steps; after the last it is."""
        return done == self.steps or done % self.validate_every == 0

    def shows_at(self, done: int) -> bool:
        """Whether previews are due after so many steps."""
        every = self.preview_every
        return every > 0 and (done == self.steps or done % every == 0)


@dataclass(frozen=True)
class Method:
    """One adaptation method; the form, the command line and the docs follow from it."""

    name: str
    """As typed on the command line, with ``-`` between words."""
    title: str
    """One sentence for the method's card."""
    params: type[MethodParams]
    """Its settings; the defaults are those of the cpu preset."""
    adapt: Callable[[AdaptJob, Any], Task[Adapted]]
    """``adapt(job, params)``: a generator of events that returns the adapted network."""
    paper: str
    """Its DOI, or who wrote it and what it is called and, last, a web address."""
    presets: Mapping[Preset, Mapping[str, Any]] = field(default_factory=dict)
    """What ``gpu`` and ``published`` change of the defaults."""
    needs: tuple[str, ...] = ()
    """Inputs without which it refuses to start, names of `INPUTS`; ``a|b``: one of them."""
    takes: tuple[str, ...] = ()
    """Inputs that it can use besides."""
    multiclass: bool = False
    """Whether it can tell more than one foreground class apart."""
    classes_by_default: bool = False
    """Whether ids in masks are classes when nobody names any; else they count as instances."""
    instances: bool = False
    """Whether it needs to know which pixels belong to the same object."""

    @property
    def reference(self) -> str:
        """The DOI or web address of its paper; "" when `paper` ends with neither."""
        last = self.paper.split()[-1] if self.paper else ""
        return last if last.startswith(("10.", "http://", "https://")) else ""

    def settings(self, preset: Preset, overrides: Mapping[str, Any] | None = None) -> MethodParams:
        """Return the settings of a preset with some of them changed.

        Raises
        ------
        UserError
            If there is no such setting, or a value is out of its range.
        """
        values = {**self.presets.get(preset, {}), **(overrides or {})}
        return checked(self.params, values, self.name)

    @property
    def wanted(self) -> set[str]:
        """Names of the inputs that it needs or can use."""
        return {name for need in self.needs for name in alternatives(need)} | set(self.takes)

    def lacking(self, given: set[str]) -> list[str]:
        """Return what is needed and not among the inputs given, written as in `needs`.

        Of source images and their masks, the one where the other is given is needed too.
        """
        lacking = [need for need in self.needs if not given & set(alternatives(need))]
        for one, other in (SOURCE, SOURCE[::-1]):
            halved = one in given & self.wanted and other not in given
            if halved and other not in lacking:
                lacking.append(other)
        return lacking

    def missing(self, given: set[str]) -> list[str]:
        """Return, in words, what `lacking` returns."""
        return [
            " or ".join(INPUTS[name] for name in alternatives(need)) for need in self.lacking(given)
        ]
