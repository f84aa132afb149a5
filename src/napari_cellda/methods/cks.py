"""CKS: instance segmentation from one point per cell, by collaborative knowledge sharing [1]_.

A principal finds cells and draws each in a window of its own; a light collaborator says, for whole
images, what is cell and what is border. Nobody knows a mask: each model learns what the other
says, and a prior on the cells' size tells them where to begin.

References
----------
.. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing", 2023.
   https://arxiv.org/abs/2304.10671
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.predict import preview_pixels
from napari_cellda.core.adaptation.pretrained import load_pretrained
from napari_cellda.core.adaptation.training import load_best, train_job
from napari_cellda.core.compare.detection import Detections as FoundAndTrue
from napari_cellda.core.compare.matching import ObjectMatches
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Preview, Score, Stage, Task
from napari_cellda.core.instances.windows import find_in_plane, finder, window_params
from napari_cellda.core.loop import (
    Stateful,
    cosine_rate,
    make_fabric,
    set_learning_rate,
    setup,
)
from napari_cellda.core.nets.cks import CksPrincipal, Detections, Windows, zoom_by
from napari_cellda.core.nets.cks_collaborator import Collaborator
from napari_cellda.core.points import (
    centroids,
    location_precision,
    separate_objects,
    typical_diameter,
)
from napari_cellda.methods._cks_crops import Batch, at_most, cut_crop, lit, on_device, turned
from napari_cellda.methods._cks_losses import (
    Consistency,
    border_canvas,
    border_loss,
    detection_loss,
    foreground_loss,
    lay_out,
    mark_points,
    mask_loss,
    prior_canvas,
    segmentation_loss,
    size_loss,
    warm_up_loss,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_cellda.core.instances.windows import PaintedObjects

SELECT = "agreement"
WARM_UP = {"width": 100.0, "weight": 1.0, "delta": 0.02}
"""Of the published code's warm-up."""
FIXED_POINT = 64
"""Parts of a pixel in which places pass through Fabric, which would round them to bfloat16."""
MOST_VALIDATED = 8
"""Planes kept aside, at most."""


class Params(MethodParams):
    """The principal, its collaborator, and how they are trained."""

    steps: int = Field(1500, ge=1, le=10_000_000)
    """Training steps in all."""
    crop: int = Field(192, ge=32, le=4096, multiple_of=32)
    """Side of the square crops that are trained on, in pixels after zooming; a multiple of 32."""
    batch: int = Field(2, ge=1, le=64)
    """Crops per step."""
    preview_every: int = Field(100, ge=0)
    """Steps between two previews; 0 shows none."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Largest learning rate; it rises over the first steps and falls along half a cosine."""
    cell_size: float = Field(28.0, ge=8, le=512)
    """Images are zoomed so that the diameter given becomes about as many pixels."""
    window: int = Field(64, ge=16, le=512, multiple_of=16)
    """Side of the window that each cell is drawn in, in pixels after zooming: at least 2.2 times
    the cell size. Parts of cells that stick out of it are cut off."""
    prior: Literal["gaussian", "off"] = "gaussian"
    """What is known of the cells' size. gaussian: a hill of that width at each point; off: nothing,
    and networks tend to find nuclei or whatever else lies at the points."""
    prior_width: float = Field(0.45, gt=0, le=5)
    """Standard deviation of the hill, as a share of the diameter; 0.4 to 0.5 is usual."""
    prior_weight: float = Field(2.0, ge=0, le=20)
    """Height of the hill in the logit."""
    principal_loss: Consistency = "entropy"
    """How the principal follows the collaborator. linear, as published, needs long trainings: short
    ones end with one small disc for all cells."""
    collaborator_loss: Consistency = "linear"
    """How the collaborator follows the principal; entropy is for comparison."""
    size_weight: float = Field(0.01, ge=0, le=10)
    """Weight of the term that keeps masks from vanishing."""
    size_exponent: float = Field(0.5, gt=0, le=2)
    """Its exponent: 0.5 as in the published code; 1 as printed, which explodes."""
    head_start: int = Field(200, ge=0)
    """Steps at the beginning in which the collaborator learns from the prior alone; from half of
    them on the principal learns from it. 0 as published: short trainings then end with the same
    disc for every cell, or with none."""
    leak: float = Field(0.05, ge=0, le=0.25)
    """Added to the sigmoid's slope in the principal's linear loss where a pixel is on the wrong
    side, so that what is sure and wrong still learns; 0 as published."""
    warmup_steps: int = Field(0, ge=0)
    """Steps with a hard foreground and a wide prior at the beginning."""
    most_cells: int = Field(256, ge=1, le=65536)
    """Cells that are drawn per step, at most; detection always sees all."""
    widths: tuple[int, int, int, int] = (24, 48, 96, 192)
    """Channels of the encoder's stages."""
    depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    """Blocks of the encoder's stages."""
    pyramid: int = Field(48, ge=8, le=512)
    """Channels of the feature pyramid and of the detection head."""
    head: int = Field(2, ge=1, le=8)
    """Convolutions of the detection head."""
    features: int = Field(16, ge=4, le=128)
    """Channels of a cell's window."""
    drawing: int = Field(48, ge=8, le=512)
    """Channels of the convolutions before it."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Probability that the encoder's last block is skipped in training; fine-tuning takes 0.2."""
    collaborator: int = Field(8, ge=4, le=64)
    """Channels of the collaborator's first level. Keep it weak: a strong one makes both wrong."""
    border: int = Field(16, ge=4, le=64)
    """Channels of the collaborator's border network."""
    least_score: float = Field(0.25, gt=0, lt=1)
    """Detections below it are dropped."""
    apart: int = Field(8, ge=1, le=64)
    """Of detections closer than this, in pixels after zooming, the surer is kept."""
    validate_every: int = Field(250, ge=1)
    """Steps between two validations."""


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Train on points.

    Yields
    ------
    Note, Stage, Step, Score, Preview (``instances``, ``detections``, ``foreground M_c``,
    ``border B_c``, ``foreground M_p``, ``border B_p``)

    Raises
    ------
    UserError
        If there are no points, or no diameter.
    """
    pointed = job.target.select(lambda plane: plane.points is not None and len(plane.points) > 0)
    if not len(pointed):
        raise UserError(
            "No target image has points: give one point per cell, or images of the nuclei to find "
            "them in."
        )
    if job.diameter is None:
        raise UserError("The diameter of a typical cell is missing; expected pixels above 0.")
    domain = job.target.select(lambda plane: plane.points is not None)
    return (yield from _adapt(job, params, domain, job.diameter, with_masks=False))


def adapt_with_masks(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Train the same principal with masks: what points alone are held against.

    Yields
    ------
    See `adapt`.

    Raises
    ------
    UserError
        If no target image has masks with cells.
    """
    domain = Domain(tuple(_with_objects(plane) for plane in job.target.annotated().planes))
    if not any(len(plane.points) for plane in domain.planes if plane.points is not None):
        raise UserError("No target image has a mask with cells; give masks of some target images.")
    diameter = job.diameter or typical_diameter([p.labels for p in domain.planes])
    return (yield from _adapt(job, params, domain, diameter, with_masks=True))


def _with_objects(plane: Plane) -> Plane:
    """Give a plane with labels its points; a mask without instances is taken apart first."""
    assert plane.labels is not None
    labels = separate_objects(plane.labels)
    return replace(plane, labels=labels, points=centroids(labels)[0])


def _adapt(
    job: AdaptJob, params: Params, domain: Domain, diameter: float, *, with_masks: bool
) -> Task[Adapted]:
    if not (np.isfinite(diameter) and diameter > 0):
        raise UserError(f"The diameter of a typical cell is {diameter:g}; expected pixels above 0.")
    trainer = _Trainer(job, params, domain, diameter, with_masks)
    yield Note(
        f"A cell of {diameter:g} pixels is zoomed {trainer.principal.zoom:g} times and drawn in a "
        f"window of {params.window} pixels."
    )
    yield Stage("Train on masks" if with_masks else "Train on points", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=trainer.look_every,
        select=SELECT,
    )
    load_best(job, principal=trainer.principal)
    return Adapted(
        network=trainer.principal.cpu().eval(),
        progress=progress,
        selection=f"{trainer.rule}, step {progress.best_step}.",
        kind="instances",
        output_names=("foreground", "score", "row offset", "column offset"),
        scores={} if progress.best_score is None else {SELECT: progress.best_score},
        extra={
            "instances": {
                "step": "cks",
                "diameter": float(diameter),
                "zoom": trainer.principal.zoom,
                "window": params.window,
                "least_score": params.least_score,
                "apart": params.apart,
                "mask_threshold": 0.5,
                "offset_reach": trainer.principal.offset_reach,
            }
        },
    )


class _Trainer:
    """Both models, one optimiser, and one step."""

    def __init__(
        self, job: AdaptJob, params: Params, domain: Domain, diameter: float, with_masks: bool
    ) -> None:
        torch.manual_seed(job.seed)
        self.job, self.params, self.with_masks = job, params, with_masks
        self.training, self.held_out = _split(domain, job.seed)
        self.tables = [_cells(plane, with_masks) for plane in self.training.planes]
        self.principal = CksPrincipal(
            job.target.n_channels,
            params.widths,
            params.depths,
            params.pyramid,
            params.head,
            params.features,
            params.drawing,
            params.window,
            zoom_for(params.cell_size / diameter),
            params.least_score,
            params.apart,
            params.drop_path,
        )
        self.width = params.prior_width * diameter * self.principal.zoom
        self.diameter = diameter
        self.collaborator = Collaborator(job.target.n_channels, params.collaborator, params.border)
        self.models = torch.nn.ModuleDict(
            {"principal": self.principal, "collaborator": self.collaborator}
        )
        load_pretrained(self.principal, job.pretrained)
        # The stop-gradients part the losses, so one optimiser does what two would.
        optimiser = torch.optim.AdamW(self.models.parameters(), params.learning_rate, fused=True)
        self.fabric = make_fabric(job.device)
        self.model, self.optimiser = setup(self.fabric, _Pair(self.models), optimiser)
        self.shown = preview_pixels(domain)
        self.look_every = gcd(params.validate_every, params.preview_every)

    @property
    def parts(self) -> dict[str, Stateful]:
        return {
            "principal": self.principal,
            "collaborator": self.collaborator,
            "optimiser": self.optimiser,
        }

    @property
    def rule(self) -> str:
        """The words for how the checkpoint is chosen."""
        if self.job.validation is not None:
            return "The highest AP50 on the validation masks of target images that were given"
        consistency = "" if self.with_masks else " minus the two models' disagreement"
        return f"The highest precision of the places of cells{consistency}, on images kept aside"

    def batch(self, index: int) -> Batch:
        """Cut, zoom and vary the crops of one step."""
        rng = self.job.rng(index)
        cuts = [self._crop(rng) for _ in range(self.params.batch)]
        owner = [torch.full((len(cut.points),), i) for i, cut in enumerate(cuts)]
        images, points, _, labels, ids = zip(*cuts, strict=True)
        batch = Batch(torch.cat(images), torch.cat(points), torch.cat(owner))
        if not self.with_masks:
            return batch
        return batch._replace(labels=torch.cat(labels), ids=torch.cat(ids))

    def _crop(self, rng: np.random.Generator) -> Batch:
        chosen = int(rng.integers(len(self.training)))
        zoom = self.principal.zoom * 1.15 ** float(rng.uniform(-1, 1))
        plane, cells = self.training.planes[chosen], self.tables[chosen]
        cut = turned(cut_crop(plane, cells, self.params.crop, zoom, rng), rng)
        return cut._replace(images=lit(cut.images, rng))

    def step(self, index: int, batch: Batch) -> dict[str, float]:
        """Take one step of AdamW on all losses."""
        batch = on_device(batch, self.fabric)
        set_learning_rate(
            self.optimiser,
            cosine_rate(index, self.params.steps, self.params.learning_rate),
        )
        self.model.train()
        terms = self._losses(batch, index)
        total = torch.stack(list(terms.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self.fabric.clip_gradients(self.model, self.optimiser, max_norm=5.0)
        self.optimiser.step()
        names = ["loss", *terms]
        values = torch.stack([total, *terms.values()]).detach().tolist()
        return dict(zip(names, values, strict=True))

    def _losses(self, batch: Batch, index: int) -> dict[str, Tensor]:
        few = at_most(batch, self.params.most_cells)
        images = batch.images.to(memory_format=torch.channels_last)
        # What the collaborator sees is mirrored, one way or the other, so that it cannot agree by
        # making the same mistakes at the same places.
        flip = -1 - index % 2
        shared_input = None if self.with_masks else few.images.flip(flip)
        fixed = (few.points * FIXED_POINT).round().long()
        found, windows, shared = self.model(images, fixed, few.owner, shared_input)
        terms = detection_loss(found, batch.points, batch.owner)
        if few.labels is not None and few.ids is not None:
            return {**terms, "mask": mask_loss(windows, few.labels, few.ids)}
        foreground, border = (t.float().flip(flip) for t in shared)
        return {**terms, **self._sharing(few, windows, foreground, border, index)}

    def _sharing(
        self, batch: Batch, windows: Windows, foreground: Tensor, border: Tensor, index: int
    ) -> dict[str, Tensor]:
        """Return the losses by which both models teach each other."""
        params, shape = self.params, foreground.shape
        early = index < params.warmup_steps
        target = self._collaborator_target(batch, windows, shape, index)
        terms = {"foreground": foreground_loss(foreground, target, params.collaborator_loss)}
        if index < params.head_start // 2:
            return terms
        drawn = lay_out(windows, torch.sigmoid(foreground))
        segmentation = (
            warm_up_loss(drawn)
            if early
            else segmentation_loss(drawn, params.principal_loss, leak=params.leak)
        )
        delta = WARM_UP["delta"] if early else params.size_weight
        return terms | {
            "segmentation": segmentation,
            "border": border_loss(border, border_canvas(drawn.masks, windows, shape)),
            "size": size_loss(drawn, delta=delta, exponent=params.size_exponent),
        }

    def _collaborator_target(
        self, batch: Batch, windows: Windows, shape: Any, index: int
    ) -> Tensor:
        """Return M_p; in the head start of undecided drawings, which makes discs of the prior."""
        if index < self.params.head_start and self.params.prior != "off":
            blank = torch.full_like(windows.logits, -self.params.prior_weight / 2)
            windows = windows._replace(logits=blank)
        early = index < self.params.warmup_steps
        canvas = self.principal_foreground(windows, shape, early=early)
        return mark_points(canvas, batch.points, batch.owner)

    def principal_foreground(self, windows: Windows, shape: Any, *, early: bool = False) -> Tensor:
        """Return M_p (Eq. 4) with the prior that the settings ask for."""
        width, weight = self.width, self.params.prior_weight
        if early:
            width, weight = WARM_UP["width"], WARM_UP["weight"]
        if self.params.prior == "off":
            weight = 0.0
        return prior_canvas(windows, shape, width=width, weight=weight)

    def validate(self, index: int) -> Iterator[Event]:
        step = index + 1
        self.models.eval()
        every = self.params.preview_every
        if every and step % every == 0:
            yield from self._previews(step)
        if step % self.params.validate_every == 0 or step == self.params.steps:
            yield from self._scores(step)

    def _previews(self, step: int) -> Iterator[Event]:
        """Show what both models make of one part of the target."""
        labels, painted = self._find_in(self.shown)
        yield Preview("instances", labels.astype(np.int32), step)
        with torch.inference_mode():
            pixels = self.fabric.to_device(torch.from_numpy(self.shown)[None])
            yield Preview("detections", self._map(self.principal(pixels)[0, 1]), step)
            if self.with_masks:
                return
            zoomed = zoom_by(pixels, self.principal.zoom)
            foreground, border = self.collaborator(zoomed)
            points = torch.from_numpy((painted.points + 0.5) * self.principal.zoom).float()
            points = self.fabric.to_device(points)
            windows = self.principal.draw_at(zoomed, points)
            shape = zoomed.shape[0], *zoomed.shape[2:]
            maps = {
                "foreground M_c": torch.sigmoid(foreground)[0],
                "border B_c": torch.sigmoid(border)[0],
                "foreground M_p": self.principal_foreground(windows, shape)[0],
                "border B_p": border_canvas(torch.sigmoid(windows.logits), windows, shape)[0],
            }
            for name, found in maps.items():
                yield Preview(name, self._map(found, self.shown.shape[1:]), step)

    def _map(self, found: Tensor, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
        if shape is not None and tuple(found.shape) != shape:
            found = F.interpolate(found[None, None].float(), shape)[0, 0]
        return np.asarray(found.float().cpu().numpy())

    def _find_in(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.uint32], PaintedObjects]:
        with self.fabric.autocast():
            return find_in_plane(
                finder(self.principal, self.fabric.device),
                np.asarray(pixels),
                window_params(self.principal),
            )

    def _scores(self, step: int) -> Iterator[Event]:
        """Measure what chooses the checkpoint, on planes that were kept aside."""
        if self.job.validation is not None:
            precision = mask_precision(self.job.validation, self._find_in)
            yield Score("validation ap50", precision, step)
            yield Score(SELECT, precision, step)
            return
        found, truth = [], []
        for plane in self.held_out.planes:
            _, painted = self._find_in(plane.pixels)
            found.append((painted.points, painted.scores))
            truth.append(np.zeros((0, 2)) if plane.points is None else plane.points)
        places = location_precision(found, truth, 0.25 * self.diameter)
        yield Score("precision of places", places, step)
        disagreement = 0.0 if self.with_masks else self._disagreement()
        if not self.with_masks:
            yield Score("disagreement", disagreement, step)
        yield Score(SELECT, places - disagreement, step)

    @torch.inference_mode()
    def _disagreement(self) -> float:
        """Return L_M + L_S on crops of the planes that were kept aside, the same each time."""
        rng = np.random.default_rng([self.job.seed, 3])
        total, count = 0.0, 0
        for plane in self.held_out.planes:
            cut = cut_crop(plane, _cells(plane, False), self.params.crop, self.principal.zoom, rng)
            if not len(cut.points):
                continue
            cut = cut._replace(owner=torch.zeros(len(cut.points), dtype=torch.long))
            batch = on_device(at_most(cut, self.params.most_cells), self.fabric)
            with self.fabric.autocast():
                _, windows = self.principal(batch.images, batch.points, batch.owner)
                foreground, _ = self.collaborator(batch.images)
            drawn = lay_out(windows, torch.sigmoid(foreground.float()))
            prior = self.principal_foreground(windows, foreground.shape)
            target = mark_points(prior, batch.points, batch.owner)
            total += float(foreground_loss(foreground.float(), target) + segmentation_loss(drawn))
            count += 1
        return total / max(count, 1)


class _Pair(torch.nn.Module):
    """Both models as one, so that one pass goes through Fabric."""

    def __init__(self, models: torch.nn.ModuleDict) -> None:
        super().__init__()
        self.models = models

    def forward(
        self, images: Tensor, fixed: Tensor, owner: Tensor, shared_input: Tensor | None
    ) -> tuple[Detections, Windows, tuple[Tensor, Tensor] | None]:
        found, windows = self.models["principal"](images, fixed.float() / FIXED_POINT, owner)
        shared = None if shared_input is None else tuple(self.models["collaborator"](shared_input))
        return found, windows, cast("tuple[Tensor, Tensor] | None", shared)


def zoom_for(wanted: float) -> float:
    """Return the zoom nearest to the one wanted: in quarters from 1/2 to 8, in eighths below.

    Coarse steps keep the sides that tiles must be multiples of small.
    """
    if wanted < 0.5:
        return max(1, round(wanted * 8)) / 8
    return min(round(wanted * 4) / 4, 8.0)


def mask_precision(
    validation: Domain,
    find: Callable[[NDArray[np.float32]], tuple[NDArray[np.uint32], PaintedObjects]],
) -> float:
    """Return the AP50 (Eq. 9) on planes with masks; NaN without any object in them."""
    images = []
    for plane in validation.annotated().planes:
        assert plane.labels is not None
        labels, painted = find(plane.pixels)
        truth = np.maximum(separate_objects(plane.labels), 0)
        matches = ObjectMatches.compute(labels, truth, np.asarray(plane.labels) == UNKNOWN)
        images.append(FoundAndTrue.of(matches, dict(enumerate(painted.scores.tolist(), 1))))
    return FoundAndTrue.pool(images).average_precision(0.5)


def _split(domain: Domain, seed: int) -> tuple[Domain, Domain]:
    """Return the planes to train on and some to look at; both the same for a single one."""
    if len(domain) < 2:
        return domain, domain
    count = min(MOST_VALIDATED, max(1, len(domain) // 7))
    return domain.split(count / len(domain), seed)


def _cells(plane: Plane, with_masks: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the points (n, 2) of a plane and the ids (n,) of their cells."""
    if with_masks and plane.labels is not None:
        return centroids(plane.labels)
    points = np.zeros((0, 2)) if plane.points is None else np.asarray(plane.points, np.float64)
    return points, np.zeros(len(points), np.int64)


PRESETS: dict[str, dict[str, Any]] = {
    "gpu": {
        "steps": 15000,
        "crop": 384,
        "batch": 4,
        "cell_size": 36.0,
        "window": 96,
        "widths": (96, 192, 384, 768),
        "depths": (3, 3, 9, 3),
        "pyramid": 128,
        "head": 3,
        "features": 32,
        "drawing": 128,
        "collaborator": 16,
        "border": 32,
    },
    "published": {
        "steps": 90000,
        "crop": 544,
        "batch": 1,
        "cell_size": 36.0,
        "window": 96,
        "widths": (96, 192, 384, 768),
        "depths": (3, 3, 27, 3),
        "pyramid": 256,
        "head": 4,
        "features": 64,
        "drawing": 384,
        "drop_path": 0.2,
        "principal_loss": "linear",
        "head_start": 0,
        "leak": 0.0,
        "collaborator": 16,
        "border": 32,
        "most_cells": 4096,
    },
}

METHODS = [
    Method(
        name="cks",
        title="Cells from one point each: two unlike models teach each other what a cell is",
        params=cast("Any", Params),
        adapt=adapt,
        paper="https://arxiv.org/abs/2304.10671",
        presets=cast("Any", PRESETS),
        needs=("target_images", "points|nuclei_images", "diameter"),
        takes=("pretrained",),
        instances=True,
    ),
    Method(
        name="cks-masks",
        title="The network of cks trained with masks: what points alone are held against",
        params=cast("Any", Params),
        adapt=adapt_with_masks,
        paper="https://arxiv.org/abs/2304.10671",
        presets=cast("Any", PRESETS),
        needs=("target_images", "target_masks"),
        takes=("diameter", "pretrained"),
        instances=True,
    ),
]
