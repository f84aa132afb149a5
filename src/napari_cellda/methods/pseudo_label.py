"""Pseudo-labels: a network learns the raw images from the enhancer's maps of them [1]_.

The third stage of "From shallow to deep": maps of the target (a forest's, or better the enhanced
ones) are soft labels. A moving average of the network, its teacher, asks for consistency, and the
labels are rectified by how sure the network usually is of each class. No source is needed.

.. [1] Matskevych, Wolny, Pape, Kreshuk, "From Shallow to Deep: Exploiting Feature-Based Classifiers
   for Domain Adaptation in Semantic Segmentation", Frontiers in Computer Science, 2022.
   https://doi.org/10.3389/fcomp.2022.805166
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch.optim.lr_scheduler import ReduceLROnPlateau

from napari_cellda.core.adaptation.domain import Domain
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.predict import (
    class_maps,
    mean_dice,
    predict_plane,
    preview_part,
    preview_pixels,
)
from napari_cellda.core.adaptation.pretrained import load_pretrained
from napari_cellda.core.adaptation.training import load_chosen, train_job
from napari_cellda.core.augment import Deformation, deform, flip_and_turn, relight
from napari_cellda.core.averaging import MovingAverage
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Preview, Score, Stage, Task
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.methods._pseudo_label_losses import (
    UsualConfidence,
    log_probabilities,
    rectification,
    soft_cross_entropy,
    soft_dice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Plane
    from napari_cellda.core.loop import Stateful

AGREEMENT = "agreement with held-out pseudo-labels"
VALIDATION = "validation dice"
"""Names of the scores that choose the checkpoint."""


class Params(MethodParams):
    """A U-Net, its teacher, and which of the terms are used."""

    width: int = Field(16, ge=4, le=128)
    """Channels of the U-Net's first level; 64 in the paper."""
    depth: int = Field(3, ge=1, le=6)
    """Number of times the U-Net halves the image; 4 in the paper."""
    batch: int = Field(8, ge=1, le=256)
    """Crops per step."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Of Adam; 2e-4 in the paper, which trains far longer."""
    patience: int = Field(0, ge=0)
    """Validations in a row without a better score that are borne; at the next one the rate falls to
    a fifth. 0: it stays."""
    weight_decay: float = Field(1e-5, ge=0, le=1)
    """Of Adam."""
    loss: Literal["bce", "dice"] = "bce"
    """bce: cross entropy, for compact structures; dice: for membranes, as in the paper."""
    consistency: bool = True
    """Whether the network shall agree with its teacher (Eq. 2-5)."""
    rectify: bool = True
    """Whether labels are rectified (Eq. 6-8)."""
    average: float = Field(0.999, ge=0, lt=1)
    """What the teacher keeps of itself at each step (Eq. 2); less in the first steps, in
    which it is the mean of all networks so far. In the paper it is the same throughout."""
    memory: float = Field(0.99, ge=0, lt=1)
    """What the usual confidence of a class keeps of itself at each step (Eq. 7)."""
    first_confidence: Literal["one", "batch"] = "one"
    """Where that confidence begins: at 1, or at that of the first batch, which trusts sure
    predictions less in the beginning."""
    noise: float = Field(0.1, ge=0, le=1)
    """Largest deviation of the noise added to a quarter of the images."""
    jitter: float = Field(0.4, ge=0, le=0.9)
    """Largest change of contrast and brightness; network and teacher see different ones. Without
    it a network repeats what its labels make of dark and bright. 0 in the paper."""
    keep: Literal["network", "teacher"] = "network"
    """Which of the two is the result: the network, as in the paper, or its teacher, an average over
    the training, which is steadier and shows less."""
    deformed: float = Field(0.0, ge=0, le=1)
    """Share of crops that are bent and turned by up to 20 degrees; all are flipped and turned by
    quarters."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of the target planes that is kept to choose the checkpoint."""


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Train a network on the target images from maps of them.

    Yields
    ------
    Stage, Step (``loss``, ``labels``, ``consistency``), Score, Preview (``prediction``,
    ``teacher``, ``pseudo-label``, ``label weight``)

    Raises
    ------
    UserError
        If there are no maps of the target images.
    """
    domain = job.target.select(lambda plane: plane.pseudo_map is not None)
    if not domain.planes:
        raise UserError(
            "pseudo-label needs maps of the target images: a project, X.cellda, or a folder of "
            "probability maps."
        )
    trainer = _Trainer(job, params, domain)
    yield Stage("Learn from the maps", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=params.look_every,
        select=trainer.select,
        # In its first steps a network knows bright from dark and nothing else. So does many a
        # forest, and so they can agree better than ever after.
        select_from=params.steps // 2 if job.validation is None else 0,
    )
    rule = (
        "The highest Dice against the rounded pseudo-labels of target planes kept aside, in the "
        "second half of the training: agreement with the maps, not with the truth"
        if job.validation is None
        else f"The highest Dice on {job.validated_on}"
    )
    chosen = load_chosen(job, progress, rule, network=trainer.network, teacher=trainer.teacher)
    return Adapted(
        network=trainer.kept.cpu().eval(),
        progress=progress,
        selection=f"{chosen}.",
        kind=job.map_kind,
        output_names=job.map_names,
        scores={} if progress.best_score is None else {trainer.select: progress.best_score},
    )


class _Trainer:
    """The network, its teacher, and one step."""

    def __init__(self, job: AdaptJob, params: Params, domain: Domain) -> None:
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        self.training, self.held_out = domain.split(params.validation_share, job.seed)
        self.network = Segmenter(
            job.target.n_channels, job.n_classes, width=params.width, depth=params.depth
        )
        load_pretrained(self.network, job.pretrained)
        adam = torch.optim.Adam(
            self.network.parameters(), params.learning_rate, weight_decay=params.weight_decay
        )
        self.fabric = make_fabric(job.device)
        self.model, self.optimiser = setup(self.fabric, self.network, adam)
        self.teacher = MovingAverage(self.network, params.average)
        self.confidence = UsualConfidence(job.n_classes, params.memory)
        self.rate = ReduceLROnPlateau(adam, "max", 0.2, params.patience)
        self.select = AGREEMENT if job.validation is None else VALIDATION
        self.loss = soft_cross_entropy if params.loss == "bce" else soft_dice
        self.shown = preview_pixels(domain)
        assert domain.planes[0].pseudo_map is not None
        self.shown_labels = torch.from_numpy(preview_part(domain.planes[0].pseudo_map))

    @property
    def parts(self) -> dict[str, Stateful]:
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "rate": self.rate,
            "teacher": self.teacher,
            "confidence": self.confidence,
        }

    @property
    def kept(self) -> Segmenter:
        """The one of the two that is the result."""
        return self.teacher.network if self.params.keep == "teacher" else self.network

    def batch(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cut crops: what the student sees, what the teacher sees, and the soft labels.

        All three are turned alike, so that the teacher's map fits the student's; noise and light
        differ.
        """
        rng, params = self.job.rng(index), self.params
        bent = Deformation(rotation=20, scale=1, share=params.deformed)
        room = round(params.crop * 1.25) if params.deformed else params.crop
        crops = self.training.crops(rng, params.batch, room)
        assert crops.pseudo_maps is not None
        images, labels = torch.from_numpy(crops.images), torch.from_numpy(crops.pseudo_maps)
        if params.deformed:
            images, labels = deform(images, labels, params.crop, bent, rng)
        images, labels = flip_and_turn(images, labels, rng)
        return self._disturbed(images, rng), self._disturbed(images, rng), labels

    def _disturbed(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Change the light of all crops, and add noise to a quarter of them."""
        strength = rng.uniform(0, self.params.noise, len(images)) * (rng.random(len(images)) < 0.25)
        noise = rng.standard_normal(tuple(images.shape), np.float32)
        noise *= strength[:, None, None, None].astype(np.float32)
        return relight(images, self.params.jitter, rng) + torch.from_numpy(noise)

    def step(self, index: int, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Take one step on L = L_R(p_f, y) + L_R(p_f, p_g) (Eq. 5)."""
        for_student, for_teacher, labels = (self.fabric.to_device(t) for t in batch)
        self.model.train()
        self.teacher.follow(self.network)  # before the student's step, as in the reference
        log_p = log_probabilities(
            self.model(for_student.to(memory_format=torch.channels_last)).float()
        )
        by_labels = self.loss(log_p, self._rectified(log_p.detach().exp(), labels))
        terms = {"labels": by_labels}
        if self.params.consistency:
            terms["consistency"] = self.loss(log_p, self._teacher_map(for_teacher))
        total = torch.stack(list(terms.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self.optimiser.step()
        return {name: float(term.detach()) for name, term in {"loss": total, **terms}.items()}

    def _rectified(self, p: Tensor, labels: Tensor) -> Tensor:
        """Weigh the labels (Eq. 7-8); without a gradient, as `p` has none here."""
        if not self.params.rectify:
            return labels
        if not self.confidence.updates and self.params.first_confidence == "batch":
            self.confidence.update(p, labels, memory=0.0)
        weighed = rectification(p, self.confidence.eta.to(p.device)) * labels
        self.confidence.update(p, labels)
        return weighed

    @torch.no_grad()
    def _teacher_map(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            maps = self.teacher.network(images.to(memory_format=torch.channels_last)).float()
        return class_maps(maps)

    def validate(self, index: int) -> Iterator[Event]:
        done = index + 1
        self.network.eval()
        if self.params.scores_at(done):
            yield from self._scores(done)
        if self.params.shows_at(done):
            yield from self._previews(done)

    def _scores(self, done: int) -> Iterator[Event]:
        """Measure the agreement with held-out pseudo-labels, and with truth that was given."""

        def predict(plane: Plane) -> np.ndarray:
            return predict_plane(self.kept.probabilities, plane.pixels, self.fabric)

        scores = {AGREEMENT: mean_dice(rounded(self.held_out), predict)}
        if self.job.validation is not None:
            scores[VALIDATION] = mean_dice(self.job.validation, predict)
        if self.params.patience:
            self.rate.step(scores[self.select])
        for name, value in scores.items():
            yield Score(name, value, done)

    def _previews(self, done: int) -> Iterator[Event]:
        """Show the first plane as both networks see it, its labels, and how much they count."""
        network, teacher = (
            predict_plane(each.probabilities, self.shown, self.fabric)
            for each in (self.network, self.teacher.network)
        )
        labels = self.shown_labels
        weights = rectification(class_maps(torch.from_numpy(network))[None], self.confidence.eta)[0]
        weight = weights.gather(0, labels.argmax(dim=0, keepdim=True))[0]
        yield Preview("prediction", _foreground(network), done)
        yield Preview("teacher", _foreground(teacher), done)
        yield Preview(
            "pseudo-label", _foreground(labels.numpy()[1 if len(labels) == 2 else 0 :]), done
        )
        yield Preview("label weight", weight.numpy(), done)


def rounded(domain: Domain) -> Domain:
    """Return the planes with their pseudo-labels, rounded, in the place of labels."""
    return Domain(
        tuple(
            replace(plane, labels=np.argmax(plane.pseudo_map, axis=0).astype(np.int32))
            for plane in domain.planes
            if plane.pseudo_map is not None
        )
    )


def _foreground(maps: np.ndarray) -> np.ndarray:
    """Return what is worth showing: the one foreground map, or all classes."""
    return maps[0] if len(maps) == 1 else maps


METHODS = [
    Method(
        name="pseudo-label",
        title="A network learns from the enhancer's maps of your images; no source is needed",
        params=Params,
        adapt=adapt,
        paper="10.3389/fcomp.2022.805166",
        presets={
            "gpu": {
                "width": 32,
                "depth": 4,
                "crop": 256,
                "steps": 5000,
                "learning_rate": 2e-4,
                "memory": 0.999,
                "validate_every": 250,
                "preview_every": 250,
            },
            "published": {
                "width": 64,
                "depth": 4,
                "crop": 1024,
                "batch": 1,
                "steps": 250_000,
                "learning_rate": 2e-4,
                "patience": 30,
                "memory": 0.999,
                "noise": 1.0,
                "jitter": 0,
                "deformed": 0.5,
                "validate_every": 200,
                "preview_every": 5000,
            },
        },
        needs=("target_images", "pseudo_labels|project"),
        takes=("pretrained",),
        multiclass=True,
    )
]
