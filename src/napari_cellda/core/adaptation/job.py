"""What a method is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.processes import rank

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from napari_cellda.core.adaptation.domain import Domain
    from napari_cellda.core.adaptation.pretrained import Trained
    from napari_cellda.core.events import Stop
    from napari_cellda.core.loop import Progress, Store

Kind = Literal["foreground", "classes", "instances"]


@dataclass(frozen=True)
class AdaptJob:
    """Whatever a method may ask for; what the user did not give is None."""

    target: Domain
    """The images to adapt to. Labels here (masks or strokes of some planes) are for training."""
    store: Store
    """Where checkpoints are kept; a ``"last"`` found there is gone on from."""
    scratch: Path
    """A folder for what a method makes on its way and can make again, such as stylised images."""
    source: Domain | None = None
    """Annotated images of another kind."""
    validation: Domain | None = None
    """Target planes with masks that the user allowed to choose the checkpoint; else None."""
    classes: tuple[str, ...] = ("background", "foreground")
    """Names by class index."""
    diameter: float | None = None
    """Of a typical cell, in pixels."""
    pretrained: Path | Trained | None = None
    """A run, a package or weights to begin with; for `load_pretrained`."""
    seed: int = 0
    device: str = "auto"
    """"auto", "cpu", "cuda" or "mps"."""
    stop: Stop = never
    """Asked before every step."""

    @property
    def n_classes(self) -> int:
        """Classes, the background included."""
        return len(self.classes)

    @property
    def map_kind(self) -> Kind:
        """What a segmenter of these classes gives; see `Adapted.kind`."""
        return "foreground" if self.n_classes == 2 else "classes"

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of its maps: the foreground alone, or every class."""
        return self.classes[1:] if self.n_classes == 2 else self.classes

    @property
    def validated_on(self) -> str:
        """Words for `validation`."""
        known = {plane.name for plane in self.target.planes if plane.is_annotated}
        planes = self.validation.planes if self.validation is not None else ()
        both = any(plane.name in known for plane in planes)
        words = "the validation masks of target images that were given"
        return f"{words}, some of which were annotated for the training, too" if both else words

    def annotated_source(self, method: str) -> Domain:
        """Return the source planes that have masks, or raise a UserError in a method's name."""
        if self.source is None or not self.source.is_annotated:
            raise UserError(f"{method} needs annotated source images; none were given.")
        return self.source.annotated()

    def rng(self, index: int) -> np.random.Generator:
        """Return what decides the crops of a step.

        A function of the seed and the step alone, so that a resumed run sees the same crops; where
        several processes train together each one gets others.
        """
        return np.random.default_rng([self.seed, 2, index, *([rank()] if rank() else [])])


@dataclass(frozen=True)
class Adapted:
    """An adapted network, ready to be written as a package.

    The network takes (N, C, Y, X) normalised as the target was and returns **probabilities**, so
    that any program that runs the package gets what `predict` gets.
    """

    network: torch.nn.Module
    """In eval mode, on the CPU: (N, K, Y, X) float32. One of `modelzoo.weights.ARCHITECTURES`,
    with its constructor's arguments in `config`."""
    progress: Progress
    selection: str
    """One sentence: the rule that chose the checkpoint."""
    kind: Kind = "foreground"
    """foreground: one map; classes: one map per class, background first, sum 1; instances: dense
    maps from which an instance step, recorded in the package, makes objects."""
    output_names: tuple[str, ...] = ("foreground",)
    scores: dict[str, float] = field(default_factory=dict)
    """What was measured without target truth (or with the user's own validation masks)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Anything that the package has to record, such as the settings of the instance step."""
    segments: bool = True
    """Whether the network has begun to learn how to segment; else it is not written."""
