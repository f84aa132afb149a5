"""What trains CKS: both models, one optimiser, one step."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, cast

import torch

from napari_cellda.core.adaptation.predict import preview_pixels
from napari_cellda.core.adaptation.pretrained import load_pretrained
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.loop import Stateful, cosine_rate, set_learning_rate
from napari_cellda.core.nets.cks import CksPrincipal
from napari_cellda.core.nets.cks_collaborator import Collaborator
from napari_cellda.core.nets.cks_windows import blank_windows, in_window, ridges
from napari_cellda.methods._cks_crops import (
    Batch,
    at_most,
    cells_of,
    cut_crop,
    hazed,
    is_dark,
    lit,
    noisy,
    on_device,
    turned,
)
from napari_cellda.methods._cks_losses import (
    balanced_loss,
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
    winner_loss,
)
from napari_cellda.methods._cks_watch import look, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Domain
    from napari_cellda.core.adaptation.job import AdaptJob
    from napari_cellda.core.events import Event
    from napari_cellda.core.nets.cks_windows import Detections, Windows
    from napari_cellda.methods.cks import Params

WARM_UP = {"width": 100.0, "weight": 1.0, "delta": 0.02}
"""Of the published code's warm-up."""
FIXED_POINT = 64
"""Parts of a pixel in which places pass through Fabric, which would round them to bfloat16."""
MOST_VALIDATED = 16
"""Planes kept aside, at most."""


class Trainer:
    """Both models, one optimiser, and one step."""

    def __init__(
        self, job: AdaptJob, params: Params, domain: Domain, diameter: float, with_masks: bool
    ) -> None:
        torch.manual_seed(job.seed)
        self.job, self.params, self.with_masks = job, params, with_masks
        self.training, self.held_out = _split(domain, job.seed)
        self.tables = [cells_of(plane, with_masks) for plane in self.training.planes]
        self.dark = [is_dark(plane.pixels) for plane in self.training.planes]
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
        self.prior_weight = 0.0 if params.prior == "off" else params.prior_weight
        head_start = params.steps if params.head_start is None else params.head_start
        self.head_start = min(head_start, params.steps) if self.prior_weight else 0
        self.collaborator = Collaborator(
            job.target.n_channels, params.collaborator, params.border, params.collaborator_levels
        )
        self.models = torch.nn.ModuleDict(
            {"principal": self.principal, "collaborator": self.collaborator}
        )
        load_pretrained(self.principal, job.pretrained)
        # The stop-gradients part the losses, so one optimiser does what two would.
        optimiser = torch.optim.AdamW(self.models.parameters(), params.learning_rate, fused=True)
        self.fabric = make_fabric(job.device)
        self.model, self.optimiser = setup(self.fabric, _Pair(self.models), optimiser)
        self.shown = preview_pixels(domain)

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
            return f"The highest AP50 on {self.job.validated_on}"
        if self.with_masks:
            return "The highest AP50 on the masks of images kept aside"
        return (
            "The highest precision of the places of cells minus the two models' disagreement, on "
            "images kept aside"
        )

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
        hazy = hazed(cut.images, self.params.haze, rng) if self.dark[chosen] else cut.images
        images = noisy(lit(hazy, rng), self.params.noise, rng)
        return cut._replace(images=images)

    def step(self, index: int, batch: Batch) -> dict[str, float]:
        """Take one step of AdamW on all losses."""
        batch = on_device(batch, self.fabric)
        set_learning_rate(
            self.optimiser,
            cosine_rate(index, self.params.steps, self.params.learning_rate),
        )
        if not self.models.training:  # which takes a moment: there are many layers
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
        terms = detection_loss(
            found, batch.points, batch.owner, score_weight=self.params.score_weight
        )
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
        if index < self.head_start:
            blank = blank_windows(batch.points, batch.owner, params.window, self.prior_weight)
            discs = mark_points(self.principal_foreground(blank, shape), batch.points, batch.owner)
            neither = self._neither(blank, foreground, index)
            terms = {"foreground": balanced_loss(foreground, discs, neither)}
        else:
            target = self.principal_foreground(windows, shape, early=early)
            target = mark_points(target, batch.points, batch.owner)
            terms = {"foreground": foreground_loss(foreground, target, params.collaborator_loss)}
        if index < self.head_start // 4:
            return terms
        drawn = lay_out(windows, self.shared_foreground(foreground, index))
        if early:
            segmentation = warm_up_loss(drawn)
        elif params.principal_loss == "winner":
            segmentation = winner_loss(drawn, width=self.width, weight=self.prior_weight)
        else:
            segmentation = segmentation_loss(drawn, params.principal_loss, leak=params.leak)
        delta = WARM_UP["delta"] if early else params.size_weight
        return terms | {
            "segmentation": segmentation,
            "border": border_loss(border, border_canvas(drawn.masks, windows, shape)),
            "size": size_loss(drawn, delta=delta, exponent=params.size_exponent),
        }

    def _neither(self, windows: Windows, foreground: Tensor, index: int) -> Tensor:
        """Return the pixels that count as neither cell nor background in the head start.

        Once the collaborator tells cells from background, what it takes for cell in a window may be
        the rest of that cell, unless it lies between two points.
        """
        if index < self.head_start // 10:
            return torch.zeros_like(foreground, dtype=torch.bool)
        sure = torch.sigmoid(foreground.detach()) > self.params.doubt
        between = ridges(windows, foreground.shape)
        return sure & in_window(windows, foreground.shape) & ~between

    def shared_foreground(self, logits: Tensor, index: int) -> Tensor:
        """Return M_c as the principal is to follow it at a step.

        What is surer than `doubt` is never pushed further down in the head start, so that rims of
        cells stay between that and 1/2: there, the odds are even at `doubt`.
        """
        doubt = self.params.doubt if index < self.head_start else 0.5
        return torch.sigmoid(logits - log(doubt / (1 - doubt)) if doubt < 0.5 else logits)

    def principal_foreground(self, windows: Windows, shape: Any, *, early: bool = False) -> Tensor:
        """Return M_p (Eq. 4) with the prior that the settings ask for."""
        width, weight = self.width, self.prior_weight
        if early and weight:
            width, weight = WARM_UP["width"], WARM_UP["weight"]
        return prior_canvas(windows, shape, width=width, weight=weight)

    def validate(self, index: int) -> Iterator[Event]:
        step = index + 1
        self.models.eval()
        if self.params.shows_at(step):
            yield from look(self, step)
        if self.params.scores_at(step):
            yield from measure(self, step)


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


def _split(domain: Domain, seed: int) -> tuple[Domain, Domain]:
    """Return the planes to train on and some to look at; both the same for a single one."""
    if len(domain) < 2:
        return domain, domain
    count = min(MOST_VALIDATED, max(1, len(domain) // 7))
    return domain.split(count / len(domain), seed)
