"""Plain supervised training: source-only, target-only, or fine-tuning from strokes and masks.

No adaptation of its own, but what every adaptation is measured against: trained on the annotated
source alone it is the lower bound, on annotated target images alone the upper one. With both it
is fine-tuning: source and target crops share every batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.predict import (
    maps_kind,
    mean_dice,
    predict_plane,
    preview_pixels,
)
from napari_cellda.core.adaptation.pretrained import load_pretrained
from napari_cellda.core.adaptation.training import load_chosen, train_job
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Preview, Score, Stage, Task
from napari_cellda.core.loop import Stateful, cosine_rate, set_learning_rate
from napari_cellda.core.losses import mixed_loss, one_hot
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.core.params import check_shares

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECT = "validation dice"


class Params(MethodParams):
    """A U-Net and its schedule."""

    width: int = Field(16, ge=4, le=128)
    """Channels of the U-Net's first level."""
    depth: int = Field(4, ge=1, le=6)
    """Number of times the U-Net halves the image."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Largest learning rate; it rises over the first steps and falls along half a cosine."""
    bce: float = Field(1.0, ge=0, le=10)
    """Weight of the cross entropy."""
    dice: float = Field(1.0, ge=0, le=10)
    """Weight of the Dice loss."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of the annotated planes that is kept to choose the checkpoint."""
    preview_every: int = Field(100, ge=0)
    """Steps between two previews; 0 shows none."""
    validate_every: int = Field(100, ge=1)
    """Steps between two validations."""

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        return check_shares(self, "bce", "dice")


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Train on whatever is annotated.

    Yields
    ------
    Stage, Step (``loss``, ``bce``, ``dice``), Score, Preview (``foreground`` or ``classes``)

    Raises
    ------
    UserError
        If nothing is annotated.
    """
    trainer = _Trainer(job, params)
    yield Stage("Train on the annotated images", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=params.look_every,
        select=SELECT,
    )
    rule = f"The highest Dice on {trainer.validated_on}"
    chosen = load_chosen(job, progress, rule, network=trainer.network)
    return Adapted(
        network=trainer.network.cpu().eval(),
        progress=progress,
        selection=f"{chosen}.",
        kind=job.map_kind,
        output_names=job.map_names,
        scores={} if progress.best_score is None else {SELECT: progress.best_score},
    )


class _Trainer:
    """The network, its optimiser, and one step."""

    def __init__(self, job: AdaptJob, params: Params) -> None:
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        self.training, self.validation, self.validated_on = _split(job, params.validation_share)
        self.network = Segmenter(
            job.target.n_channels, job.n_classes, width=params.width, depth=params.depth
        )
        load_pretrained(self.network, job.pretrained)
        optimiser = torch.optim.AdamW(self.network.parameters(), params.learning_rate)
        self.fabric = make_fabric(job.device)
        self.model, self.optimiser = setup(self.fabric, self.network, optimiser)
        self.shown = preview_pixels(job.target)

    @property
    def parts(self) -> dict[str, Stateful]:
        return {"network": self.network, "optimiser": self.optimiser}

    def batch(self, index: int) -> tuple[torch.Tensor, ...]:
        """Cut and turn the crops of one step: the images of each annotated domain, then labels."""
        rng = self.job.rng(index)
        crops = [d.crops(rng, self.params.batch, self.params.crop) for d in self.training]
        images = torch.from_numpy(np.concatenate([c.images for c in crops]))
        labels = torch.from_numpy(np.concatenate([c.labels for c in crops]))[:, None]
        # Apart, so that every domain is still there when memory is short and crops are left out.
        turned = flip_and_turn(images, labels, rng)
        return tuple(part for both in turned for part in torch.split(both, self.params.batch))

    def step(self, index: int, batch: tuple[torch.Tensor, ...]) -> dict[str, float]:
        """Take one step of AdamW on cross entropy and Dice of the annotated pixels."""
        n = len(self.training)
        images, labels = (self.fabric.to_device(torch.cat(t)) for t in (batch[:n], batch[n:]))
        set_learning_rate(
            self.optimiser, cosine_rate(index, self.params.steps, self.params.learning_rate)
        )
        self.model.train()
        logits = self.model(images.to(memory_format=torch.channels_last)).float()
        known = (labels != UNKNOWN).float()
        truth = one_hot(labels[:, 0].clamp_min(0), logits.shape[1])
        # Each class against the rest, though a softmax follows: trained by that, rare classes were
        # found in images without them.
        terms = mixed_loss(logits, truth, bce=self.params.bce, dice=self.params.dice, weight=known)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        self.optimiser.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    def validate(self, index: int) -> Iterator[Event]:
        self.network.eval()

        def forward(pixels: Any) -> Any:
            return predict_plane(self.network.probabilities, pixels, self.fabric)

        done = index + 1
        if self.params.scores_at(done):
            dice = mean_dice(self.validation, lambda plane: forward(plane.pixels))
            yield Score(SELECT, dice, done)
        if self.params.shows_at(done):
            maps = forward(self.shown)
            yield Preview(maps_kind(maps), maps, done)


def _split(job: AdaptJob, share: float) -> tuple[list[Domain], Domain, str]:
    """Return the domains to train on, the one to validate on, and words for that one."""
    domains = [d.annotated() for d in (job.source, job.target) if d is not None and d.is_annotated]
    if not domains:
        raise UserError(
            "Nothing is annotated: give source images with masks, or masks or strokes of some "
            "target images."
        )
    if job.validation is not None:
        return domains, job.validation, job.validated_on
    # Of the target alone where it is annotated: a few strokes weigh nothing beside a whole source.
    *others, last = domains
    training, held_out = last.split(share, job.seed)
    seen = len(training) == len(last)
    words = "annotated planes that training saw too" if seen else "annotated planes kept aside"
    return [*others, training], held_out, words


METHODS = [
    Method(
        name="supervised",
        title="Plain training on what is annotated: the bounds that every adaptation is held to",
        params=Params,
        adapt=adapt,
        paper="10.1007/978-3-319-24574-4_28",
        presets={
            "gpu": {"width": 32, "crop": 256, "batch": 8, "steps": 5000},
            "published": {"width": 64, "crop": 256, "batch": 16, "steps": 20000},
        },
        needs=("target_images", "source_images|target_masks|target_strokes"),
        takes=("source_masks", "pretrained"),
        multiclass=True,
    )
]
