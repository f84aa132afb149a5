"""CULPICO: two U-Nets teach each other where they agree [1]_.

Both are trained on the source; on the target each learns from the other's thresholded map, every
pixel weighted by how closely the two maps agree there.

.. [1] Miyaki, Morikura, Nishimoto, Tokuoka, Yamada, Funahashi, "Cell segmentation without
   annotation by unsupervised domain adaptation based on cooperative self-learning" (CULPICO).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.predict import mean_dice, predict_plane, preview_pixels
from napari_cellda.core.adaptation.pretrained import load_pretrained
from napari_cellda.core.adaptation.training import load_chosen, train_job
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.events import Event, Note, Preview, Score, Stage, Task
from napari_cellda.core.losses import bce_loss
from napari_cellda.core.nets.ensemble import TwinSegmenters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_cellda.core.loop import Stateful

SELECT = "minus mean total loss"
VALIDATION = "validation dice"
"""Names of the scores that choose the checkpoint: the higher, the better."""
SETTLED = 3
"""Windows after the warm-up until the mean discrepancy, which begins at 0, says something."""


class Params(MethodParams):
    """Two U-Nets and their schedule."""

    steps: int = Field(800, ge=1, le=10_000_000)
    """Training steps in all, the warm-up included."""
    width: int = Field(16, ge=4, le=128)
    """Channels of the first level of both U-Nets; 64 in the paper."""
    depth: int = Field(4, ge=1, le=6)
    """Number of times the U-Nets halve the image."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Of Adam, constant."""
    warmup: int = Field(100, ge=0)
    """Steps on the source alone before the target counts; 0 in the paper, which trains longer."""
    confidence: float = Field(1.0, ge=0, le=1)
    """Share of the agreement weight: 1 is the paper's, 0 lets every target pixel count alike."""
    selection_window: int = Field(50, ge=1)
    """Steps over which the total loss is averaged to choose the checkpoint."""


class TargetLoss(NamedTuple):
    """Eq. 2, and what it is made of."""

    m: Tensor
    """What network m learns from network n; scalar."""
    n: Tensor
    discrepancy: Tensor
    """Eq. 4, mean over pixels; scalar, for the curve."""


def discrepancy_map(p_m: Tensor, p_n: Tensor) -> Tensor:
    """Return how much two maps disagree, d = |p_m - p_n| (Eq. 4); same shape, in [0, 1]."""
    return (p_m - p_n).abs()


def source_loss(logits_m: Tensor, logits_n: Tensor, truth: Tensor) -> Tensor:
    """Return the supervised loss of both networks (Eq. 1).

    Parameters
    ----------
    logits_m, logits_n : (N, 1, Y, X) Tensor
    truth : (N, 1, Y, X) Tensor of int
        0, 1, or `UNKNOWN` for pixels that do not count.
    """
    known = (truth != UNKNOWN).float()
    target = (truth > 0).float()
    return bce_loss(logits_m, target, known) + bce_loss(logits_n, target, known)


def target_loss(logits_m: Tensor, logits_n: Tensor, confidence: float = 1.0) -> TargetLoss:
    """Return what both networks learn from each other on the target (Eq. 2-4).

    Parameters
    ----------
    logits_m, logits_n : (N, 1, Y, X) Tensor
    confidence : float, in [0, 1]
        1: each pixel weighs ``1 - d``. 0: all weigh 1.

    Notes
    -----
    The pseudo-labels (Eq. 3, p > 0.5) and the weights are **detached**, as in the reference code;
    the paper does not say so, but with a gradient through the weights the loss falls by making
    the networks disagree. The mean is over all pixels and not divided by the sum of the weights.
    """
    with torch.no_grad():
        p_m, p_n = torch.sigmoid(logits_m), torch.sigmoid(logits_n)
        d = discrepancy_map(p_m, p_n)
        weight = 1 - confidence * d
        pseudo_m, pseudo_n = (p_m > 0.5).float(), (p_n > 0.5).float()
    return TargetLoss(
        F.binary_cross_entropy_with_logits(logits_m, pseudo_n, weight=weight),
        F.binary_cross_entropy_with_logits(logits_n, pseudo_m, weight=weight),
        d.mean(),
    )


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Adapt two U-Nets to the target.

    Yields
    ------
    Stage, Step (``total``, ``source``, ``target m``, ``target n``, ``discrepancy``), Score, Note,
    Preview (``mean``, ``network m``, ``network n``, ``pseudo-label m``, ``pseudo-label n``,
    ``discrepancy``)

    Raises
    ------
    UserError
        If there is no annotated source.
    """
    trainer = _Trainer(job, params)
    yield Stage("Adapt two networks", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=params.look_every,
        select=SELECT if job.validation is None else VALIDATION,
    )
    together = progress.steps - params.warmup
    if together >= SETTLED * params.selection_window and not trainer.history.has_fallen:
        yield Note(
            f"The two networks did not come to agree: their mean discrepancy on the target, "
            f"{trainer.history.last:.3f}, did not fall. Compare with the source-only network "
            "before using this one."
        )
    rule = (
        f"The smallest total loss (source and target), averaged over {params.selection_window} "
        "steps"
        if job.validation is None
        else f"The highest Dice on {job.validated_on}"
    )
    chosen = load_chosen(job, progress, rule, m=trainer.twins.m, n=trainer.twins.n)
    return Adapted(
        network=trainer.twins.cpu().eval(),
        progress=progress,
        selection=f"{chosen}.",
        output_names=job.classes[1:],
        scores={"discrepancy": trainer.history.last} if together > 0 else {},
    )


class _History:
    """Running means of the total loss and the discrepancy; a part of the checkpoint."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.totals: list[float] = []
        self.peak = self.last = 0.0

    def add(self, total: float, discrepancy: float) -> None:
        self.totals = [*self.totals, total][-self.window :]
        self.last += (discrepancy - self.last) / self.window
        self.peak = max(self.peak, self.last)

    @property
    def mean_total(self) -> float:
        return float(np.mean(self.totals)) if self.totals else float("inf")

    @property
    def has_fallen(self) -> bool:
        """Whether the discrepancy came down from its peak; two new networks begin by agreeing."""
        return self.last < 0.9 * self.peak

    def state_dict(self) -> dict[str, Any]:
        return {"totals": self.totals, "peak": self.peak, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals, self.peak, self.last = state["totals"], state["peak"], state["last"]


class _Trainer:
    """Both networks, their optimisers, and one step."""

    def __init__(self, job: AdaptJob, params: Params) -> None:
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        self.source = job.annotated_source("CULPICO")
        # Two random beginnings are all that sets the networks apart: they see the same crops.
        self.twins = TwinSegmenters(job.target.n_channels, 2, params.width, params.depth, growth=8)
        load_pretrained(self.twins, job.pretrained)
        self.fabric = make_fabric(job.device)
        adam = [
            torch.optim.Adam(network.parameters(), params.learning_rate)
            for network in (self.twins.m, self.twins.n)
        ]
        self.m, self.adam_m = setup(self.fabric, self.twins.m, adam[0])
        self.n, self.adam_n = setup(self.fabric, self.twins.n, adam[1])
        self.history = _History(params.selection_window)
        self.shown = preview_pixels(job.target)

    @property
    def parts(self) -> dict[str, Stateful]:
        return {
            "m": self.twins.m,
            "n": self.twins.n,
            "adam m": self.adam_m,
            "adam n": self.adam_n,
            "history": self.history,
        }

    def batch(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cut and turn as many source as target crops: source images, truth, target images."""
        rng = self.job.rng(index)
        source = self.source.crops(rng, self.params.batch, self.params.crop)
        target = self.job.target.crops(rng, self.params.batch, self.params.crop)
        images, truth = flip_and_turn(
            torch.from_numpy(source.images), torch.from_numpy(source.labels)[:, None], rng
        )
        others = torch.from_numpy(target.images)
        return images, truth, flip_and_turn(others, others, rng)[0]

    def step(self, index: int, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Take one joint step of both networks on L_total = L_s + L_t (Eq. 5)."""
        images, truth, target = (self.fabric.to_device(t) for t in batch)
        self.m.train()
        self.n.train()
        x_s = images.to(memory_format=torch.channels_last)
        source = source_loss(self.m(x_s).float(), self.n(x_s).float(), truth)
        # Source and target pass apart from each other, as in the reference: batch norm sees each.
        x_t = target.to(memory_format=torch.channels_last)
        learned = target_loss(self.m(x_t).float(), self.n(x_t).float(), self.params.confidence)
        share = float(index >= self.params.warmup)
        total = source + share * (learned.m + learned.n)
        self.adam_m.zero_grad(set_to_none=True)
        self.adam_n.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self.adam_m.step()
        self.adam_n.step()
        losses = {
            "total": float(total.detach()),
            "source": float(source.detach()),
            "target m": float(learned.m.detach()),
            "target n": float(learned.n.detach()),
            "discrepancy": float(learned.discrepancy),
        }
        if share:
            self.history.add(losses["total"], losses["discrepancy"])
        return losses

    def validate(self, index: int) -> Iterator[Event]:
        done = index + 1
        self.twins.eval()
        if self.params.scores_at(done):
            yield from self._scores(done)
        if self.params.shows_at(done):
            yield from self._previews(done)

    def _scores(self, done: int) -> Iterator[Event]:
        """Tell the mean loss once the networks learn together, and the Dice of both on truth."""
        if done > self.params.warmup:
            yield Score(SELECT, -self.history.mean_total, done)
        if self.job.validation is not None:
            dice = mean_dice(self.job.validation, lambda p: self._predict(p.pixels).mean(axis=0))
            yield Score(VALIDATION, dice, done)

    def _previews(self, done: int) -> Iterator[Event]:
        """Show what both networks make of the first plane, and where they disagree."""
        p_m, p_n = self._predict(self.shown)[:, 0]
        pictures = {
            "mean": (p_m + p_n) / 2,
            "network m": p_m,
            "network n": p_n,
            "pseudo-label m": (p_m > 0.5).astype(np.uint8),
            "pseudo-label n": (p_n > 0.5).astype(np.uint8),
            "discrepancy": np.abs(p_m - p_n),
        }
        for name, picture in pictures.items():
            yield Preview(name, picture, done)

    def _predict(self, pixels: Any) -> np.ndarray:
        """Return both maps of a plane, (2, 1, Y, X)."""
        maps = predict_plane(lambda x: torch.cat(self.twins.both(x), dim=1), pixels, self.fabric)
        return maps[:, None]


METHODS = [
    Method(
        name="culpico",
        title="Two networks teach each other on unlabelled images, wherever they agree",
        params=Params,
        adapt=adapt,
        paper=(
            "Miyaki et al., Cell segmentation without annotation by unsupervised domain adaptation "
            "based on cooperative self-learning, https://github.com/funalab/CULPICO"
        ),
        presets={
            "gpu": {"width": 32, "crop": 256, "batch": 8, "steps": 5000, "warmup": 0},
            "published": {
                "normalisation": "minmax",
                "width": 64,
                "crop": 272,
                "batch": 16,
                "steps": 40000,
                "warmup": 0,
            },
        },
        needs=("target_images", "source_images", "source_masks"),
        takes=("pretrained",),
    )
]
