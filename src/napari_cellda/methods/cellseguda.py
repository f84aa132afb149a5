"""CellSegUDA and CellSegSSDA: segmentations of the target shall look like those of the source.

A discriminator tells which domain a predicted map comes from, and the segmenter learns to fool it;
a decoder has to redraw the target image from its map, so that the map stays true to the image.
CellSegSSDA also learns from masks or strokes of some target images.

References
----------
.. [1] Haq, Huang, "Adversarial domain adaptation for cell segmentation", MIDL 2020.
   https://proceedings.mlr.press/v121/haq20a.html
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method
from napari_cellda.core.adaptation.predict import mean_dice, predict_plane
from napari_cellda.core.adaptation.training import held_still, load_chosen, train_job
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Score, Stage, Task
from napari_cellda.core.nets.discriminator import Discriminator
from napari_cellda.core.nets.norms import with_norms_of
from napari_cellda.core.nets.segmenter import Segmenter, activate
from napari_cellda.core.nets.unet import UNet
from napari_cellda.methods._cellseguda_losses import (
    adversarial_loss,
    discriminator_loss,
    overlap_loss,
    reconstruction_loss,
)
from napari_cellda.methods._cellseguda_params import Params
from napari_cellda.methods._cellseguda_polarity import seems_swapped
from napari_cellda.methods._cellseguda_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from napari_cellda.core.loop import Stateful

SELECT = "target dice"
INVERT = 0.5
"""Share of source crops with bright and dark swapped, where those seem to be."""
SWAPPED = (
    "Bright and dark seem to be swapped: cells stand out one way in the source, and the grey "
    f"values of your images lean the other way. So a share of {INVERT} of the source crops is "
    "shown inverted; if cells stand out the same way in both, set invert=0."
)
UNIT_SCALINGS = ("percentile", "minmax")
"""Ways of scaling after which dark is 0 and bright 1; after the others the mean is 0."""
NORM_BATCHES, NORM_CROPS = 8, 4
"""Crops of the target that the norms' statistics are measured on."""


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Adapt without any target label (CellSegUDA).

    Yields
    ------
    Stage, Step (``loss``, ``segmentation``, ``target segmentation``, ``adversarial``,
    ``reconstruction``, ``discriminator``), Score, Note, Preview (``foreground`` or ``classes``,
    ``reconstruction``, ``reconstruction error``, ``source likeness``)

    Raises
    ------
    UserError
        If there is no annotated source.
    """
    unlabelled = Domain(tuple(replace(plane, labels=None) for plane in job.target.planes))
    return (yield from _adapt(replace(job, target=unlabelled), params))


def adapt_with_labels(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Adapt with masks or strokes of some target images (CellSegSSDA); see `adapt`.

    Raises
    ------
    UserError
        If there is no annotated source, or no target image is annotated.
    """
    if not job.target.is_annotated:
        raise UserError(
            "cellsegssda needs masks or strokes of some target images; without any, use cellseguda."
        )
    return (yield from _adapt(job, params))


def _adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    trainer = _Trainer(job, params)
    if params.invert is None and trainer.invert and job.store.load("last") is None:
        yield Note(SWAPPED)
    yield Stage("Adapt the segmentation to the target", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=params.look_every,
        select=SELECT if trainer.validation else None,
    )
    chosen = load_chosen(
        job,
        progress,
        f"The highest Dice on {trainer.validated_on}",
        otherwise="no target label took part in the choice",
        network=trainer.network,
    )
    network = trainer.final_network()
    scores = trainer.health(network)
    if progress.best_score is not None:
        scores[SELECT] = progress.best_score
    return Adapted(
        network=network.cpu().eval(),
        progress=progress,
        selection=f"{chosen}; batch norms with the statistics of the {params.norm_statistics}.",
        kind=job.map_kind,
        output_names=job.map_names,
        scores=scores,
    )


class _Trainer:
    """Segmenter S, decoder R, discriminator D, and one step of all three."""

    def __init__(self, job: AdaptJob, params: Params) -> None:
        annotated = job.annotated_source("CellSegUDA")
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        share = params.validation_share
        self.source, checked = annotated.split(share, job.seed)
        self.target, self.validation, self.validated_on = _split_target(job, share)
        swapped = params.invert is None and seems_swapped(self.source, job.target)
        self.invert = params.invert or (INVERT if swapped else 0.0)
        self.fabric = make_fabric(job.device)
        self._build_networks()
        self.watch = Watch(
            self.fabric,
            self.decoder if params.lam_rec else None,
            self.discriminator if params.lam_adv else None,
            source=checked,
            target=job.target,
        )

    def _build_networks(self) -> None:
        job, params = self.job, self.params
        channels, classes = job.target.n_channels, job.n_classes
        maps = 1 if classes == 2 else classes
        self.network = Segmenter(
            channels, classes, params.width, params.depth, up="transpose", growth=8
        )
        self.decoder = UNet(
            maps, channels, params.decoder_width, params.depth, up="transpose", growth=8,
            norm="batch",
        )  # fmt: skip
        self.discriminator = Discriminator(maps, params.discriminator_width)
        rates = (params.learning_rate, params.decoder_rate, params.discriminator_rate)
        networks = (self.network, self.decoder, self.discriminator)
        ready = [
            setup(self.fabric, network, torch.optim.Adam(network.parameters(), rate))
            for network, rate in zip(networks, rates, strict=True)
        ]
        (self.s, self.s_adam), (self.r, self.r_adam), (self.d, self.d_adam) = ready

    @property
    def parts(self) -> dict[str, Stateful]:
        return {
            "network": self.network,
            "decoder": self.decoder,
            "discriminator": self.discriminator,
            "network optimiser": self.s_adam,
            "decoder optimiser": self.r_adam,
            "discriminator optimiser": self.d_adam,
        }

    def batch(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cut the crops of one step: source images and labels, target images and labels."""
        # The source comes first, so that it is the same whatever is done with the target.
        rng = self.job.rng(index)
        images, labels = self._crops(self.source, rng)
        swapped = rng.random((len(images), 1, 1, 1)) < self.invert
        inverted = 1 - images if self.params.normalisation in UNIT_SCALINGS else -images
        images = torch.where(torch.from_numpy(swapped), inverted, images)
        return (images, labels, *self._crops(self.target, rng))

    def _crops(self, domain: Domain, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        crops = domain.crops(rng, self.params.batch, self.params.crop)
        images, labels = torch.from_numpy(crops.images), torch.from_numpy(crops.labels)[:, None]
        return flip_and_turn(images, labels, rng) if self.params.flips else (images, labels)

    def step(self, index: int, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Train D on detached maps, then S and R on Eq. 4 or 6 with D held still."""
        source, source_labels, target, target_labels = (self.fabric.to_device(t) for t in batch)
        for model in (self.s, self.r, self.d):
            model.train()
        source_map = self._maps(source)
        terms = {"segmentation": overlap_loss(source_map, source_labels)}
        # S on target crops moves its norms' statistics: left out where nothing would be learned.
        if self._uses_target(target_labels):
            target_map = self._maps(target)
            terms["target segmentation"] = overlap_loss(target_map, target_labels)
            if self.params.lam_adv:
                terms["discriminator"] = self._train_discriminator(source_map, target_map)
            terms |= self._target_terms(target, target_map)
        terms["loss"] = self._train_segmenter(terms)
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        return dict(zip(terms, values, strict=True))

    def _maps(self, images: Tensor) -> Tensor:
        logits = self.s(images.to(memory_format=torch.channels_last)).float()
        return activate(logits)

    def _uses_target(self, labels: Tensor) -> bool:
        weights = self.params.lam_adv or self.params.lam_rec
        return bool(weights) or bool((labels != UNKNOWN).any())

    def _train_discriminator(self, source_map: Tensor, target_map: Tensor) -> Tensor:
        loss = discriminator_loss(self.d(source_map.detach()), self.d(target_map.detach()))
        self.d_adam.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.d_adam.step()
        return loss.detach()

    def _target_terms(self, target: Tensor, target_map: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.params.lam_adv:
            with held_still(self.discriminator):
                terms["adversarial"] = adversarial_loss(self.d(target_map))
        if self.params.lam_rec:
            terms["reconstruction"] = reconstruction_loss(target, self.r(target_map))
        return terms

    def _train_segmenter(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Take a step of S and R on the weighted sum of the terms (Eq. 4, 6)."""
        weights = {
            "segmentation": 1.0,
            "target segmentation": 1.0,
            "adversarial": self.params.lam_adv,
            "reconstruction": self.params.lam_rec,
        }
        loss = torch.stack([weights[k] * terms[k] for k in weights if k in terms]).sum()
        for optimiser in (self.s_adam, self.r_adam):
            optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.s_adam.step()
        if "reconstruction" in terms:
            self.r_adam.step()
        return loss.detach()

    def final_network(self) -> Segmenter:
        """Return S, in eval mode, with the statistics that it shall be used with; a copy."""
        return self._for(self.target)

    def _for(self, domain: Domain) -> Segmenter:
        """Return S as it is in training when it sees crops of a domain; a copy in eval mode."""
        if self.params.norm_statistics == "training":
            return deepcopy(self.network).eval()
        with self.fabric.autocast():  # as it is trained and used
            return with_norms_of(self.network, self._norm_batches(domain))

    def _norm_batches(self, domain: Domain) -> Iterator[Tensor]:
        rng = np.random.default_rng([self.job.seed, 5])
        for _ in range(NORM_BATCHES):
            crops = domain.crops(rng, max(self.params.batch, NORM_CROPS), self.params.crop)
            yield self.fabric.to_device(torch.from_numpy(crops.images))

    def validate(self, index: int) -> Iterator[Event]:
        done = index + 1
        network = self.final_network()
        if self.params.scores_at(done):
            yield from self._scores(network, done)
        if self.params.shows_at(done):
            yield from self.watch.previews(network, done)

    def _scores(self, network: Segmenter, done: int) -> Iterator[Event]:
        if self.validation is not None:
            predict = partial(predict_plane, network, fabric=self.fabric)
            yield Score(SELECT, mean_dice(self.validation, lambda p: predict(p.pixels)), done)
        health = self.health(network)
        for name, value in health.items():
            yield Score(name, value, done)
        yield from self.watch.notes(health)

    def health(self, network: Segmenter) -> dict[str, float]:
        """Measure, without target truth, whether the training goes well; see `Watch.figures`."""
        return self.watch.figures(self._for(self.source), network)


def _split_target(job: AdaptJob, share: float) -> tuple[Domain, Domain | None, str]:
    """Return the target to train on, planes to choose the checkpoint by, and words for those.

    A plane that is kept aside stays in training, without its labels.
    """
    if job.validation is not None:
        return job.target, job.validation, job.validated_on
    labelled = job.target.annotated()
    if len(labelled) < 2:
        return job.target, None, ""
    _, kept = labelled.split(share, job.seed)
    names = {plane.name for plane in kept.planes}
    planes = [replace(p, labels=None) if p.name in names else p for p in job.target.planes]
    return Domain(tuple(planes)), kept, f"{len(kept)} labelled target plane(s) kept aside"


_METHOD = Method(
    name="cellseguda",
    title="Segmentations of your images shall look like those of annotated ones",
    params=Params,
    adapt=adapt,
    paper="https://proceedings.mlr.press/v121/haq20a.html",
    presets={
        "gpu": {
            "width": 32, "decoder_width": 32, "discriminator_width": 64, "crop": 256, "batch": 4,
            "steps": 5000, "learning_rate": 1e-4,
        },
        "published": {
            "width": 64, "decoder_width": 64, "discriminator_width": 64, "crop": 512, "batch": 1,
            "steps": 5000, "learning_rate": 1e-4, "flips": False, "invert": 0.0,
            "norm_statistics": "training",
        },
    },
    needs=("target_images", "source_images", "source_masks"),
    multiclass=True,
)  # fmt: skip

METHODS = [
    _METHOD,
    replace(
        _METHOD,
        name="cellsegssda",
        title="Like cellseguda, with masks or strokes of some of your images",
        adapt=adapt_with_labels,
        needs=(*_METHOD.needs, "target_masks|target_strokes"),
    ),
]
