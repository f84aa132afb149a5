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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.training import load_chosen, train_job
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Task
from napari_cellda.core.modelzoo.preprocessing import Scaling
from napari_cellda.core.points import centroids, separate_objects, typical_diameter
from napari_cellda.methods._cks_losses import Consistency, Following
from napari_cellda.methods._cks_trainer import Trainer
from napari_cellda.methods._cks_watch import SELECT, raise_least_score

if TYPE_CHECKING:
    from napari_cellda.core.params import Preset

LEAST_WINDOW = 2.2
"""Sides of a window in diameters of a cell: at its edge, none is cut off."""


class Params(MethodParams):
    """The principal, its collaborator, and how they are trained."""

    steps: int = Field(3000, ge=1, le=10_000_000)
    """Training steps in all."""
    crop: int = Field(192, ge=32, le=4096, multiple_of=32)
    """Side of the square crops that are trained on, in pixels after zooming; a multiple of 32."""
    batch: int = Field(2, ge=1, le=64)
    """Crops per step."""
    normalisation: Scaling = "zscore"
    """How grey values are scaled. zscore: mean 0, deviation 1 over a whole image: of phase
    contrast it learns in two thirds of the steps; percentile: 1 % to 0 and 99.8 % to 1; minmax:
    least to 0, largest to 1; dataset: zscore over all images."""
    preview_every: int = Field(100, ge=0)
    """Steps between two previews; 0 shows none."""
    noise: float = Field(0.4, ge=0, le=4)
    """Largest standard deviation of the noise that half of the crops get, as a share of theirs; 0
    as published. Without it, grain that training never saw is taken for cells."""
    haze: float = Field(2.0, ge=0, le=8)
    """Most uneven light that half of the crops get, as a share of their standard deviation; 0 as
    published. Only images with a dark background get it, such as fluorescence: without it, light
    from out of focus is taken for large cells."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Largest learning rate; it rises over the first steps and falls along half a cosine."""
    cell_size: float = Field(28.0, ge=8, le=512)
    """Images are zoomed so that the diameter given becomes about as many pixels."""
    window: int = Field(64, ge=16, le=512, multiple_of=16)
    """Side of the window that each cell is drawn in, in pixels after zooming: at least 2.2 times
    the cell size. Parts of cells that stick out of it are cut off."""
    prior: Literal["gaussian", "off"] = "gaussian"
    """What is known of the cells' size. gaussian: a hill of that width at each point; off: nothing,
    without a head start; networks then find whatever else lies at the points, or nothing."""
    prior_width: float = Field(0.1, gt=0, le=5)
    """Standard deviation of the hill, as a share of the diameter. Rather too narrow than too wide:
    masks grow to what looks alike, and what lies between cells must not be in the hills."""
    prior_weight: float = Field(2.0, ge=0, le=20)
    """Height of the hill in the logit."""
    principal_loss: Following = "linear"
    """How the principal follows the collaborator. linear: as published; winner: every pixel of a
    cell goes to the one that claims it most; entropy is for comparison."""
    collaborator_loss: Consistency = "linear"
    """How the collaborator follows the principal; entropy is for comparison."""
    size_weight: float = Field(0.01, ge=0, le=10)
    """Weight of the term that keeps masks from vanishing."""
    size_exponent: float = Field(0.5, gt=0, le=2)
    """Its exponent: 0.5 as in the published code; 1 as printed, which explodes."""
    head_start: int | None = Field(None, ge=0)
    """Steps at the beginning in which the collaborator learns from the prior alone; from a quarter
    of them on the principal follows. None: all of them. 0 as published: short trainings then end
    with the same disc for every cell, or with none."""
    doubt: float = Field(0.3, gt=0, le=1)
    """After a tenth of the head start, pixels of a window that the collaborator takes for cell
    surer than this count as neither cell nor background, so that cells are not cut down to the
    hill; 1 leaves that out."""
    leak: float = Field(0.05, ge=0, le=0.25)
    """Added to the sigmoid's slope in the principal's linear loss where a pixel is on the wrong
    side, so that what is sure and wrong still learns; 0 as published."""
    warmup_steps: int = Field(0, ge=0)
    """Steps with a hard foreground and a wide prior at the beginning."""
    score_weight: float = Field(10.0, gt=0, le=1000)
    """Weight of the detections' scores; 1 as published, which takes far longer trainings: of a
    grid, few places are cells."""
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
    collaborator_levels: int = Field(2, ge=2, le=4)
    """Its resolutions, 3 as published. With 2 it sees a dozen pixels around each: it learns what
    cells look like, not the shape of the hills."""
    border: int = Field(16, ge=4, le=64)
    """Channels of the collaborator's border network."""
    least_score: float = Field(0.25, gt=0, lt=1)
    """Detections below it are dropped. At the end it rises to where most of what is left are cells
    and few are lost, by the points of images that were kept aside."""
    apart: int = Field(8, ge=1, le=64)
    """Of detections closer than this, in pixels after zooming, the surer is kept."""
    validate_every: int = Field(250, ge=1)
    """Steps between two validations."""


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Train on points.

    Yields
    ------
    Note, Stage, Step, Score, Preview (``instances``, ``detected``, ``detections``,
    ``foreground M_c``, ``border B_c``, ``foreground M_p``, ``border B_p``)

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
    trainer = Trainer(job, params, domain, diameter, with_masks)
    yield Note(
        f"A cell of {diameter:g} pixels is zoomed {trainer.principal.zoom:g} times and drawn in a "
        f"window of {params.window} pixels."
    )
    if params.window < LEAST_WINDOW * params.cell_size:
        yield Note(
            f"Windows of {params.window} pixels are small for cells of {params.cell_size:g}, and "
            "what sticks out is cut off: make window larger or cell_size smaller."
        )
    if params.warmup_steps and params.warmup_steps <= trainer.head_start // 4:
        yield Note(
            f"The setting warmup_steps={params.warmup_steps} changes nothing: the first quarter of "
            f"{trainer.head_start} steps of head start goes without it; make head_start smaller."
        )
    if params.collaborator_loss != "linear" and trainer.head_start == params.steps:
        yield Note(
            f"The setting collaborator_loss={params.collaborator_loss} changes nothing: all "
            f"{params.steps} steps are head start; make head_start smaller."
        )
    yield Stage("Train on masks" if with_masks else "Train on points", params.steps)
    progress = yield from train_job(
        job,
        trainer,
        steps=params.steps,
        validate_every=params.look_every,
        select=SELECT,
    )
    chosen = load_chosen(job, progress, trainer.rule, principal=trainer.principal)
    trainer.principal.eval()
    least_score = raise_least_score(trainer) if progress.steps else params.least_score
    return Adapted(
        network=trainer.principal.cpu(),
        progress=progress,
        selection=f"{chosen}.",
        kind="instances",
        output_names=("foreground", "score", "row offset", "column offset"),
        scores={} if progress.best_score is None else {SELECT: progress.best_score},
        extra={
            "instances": {
                "step": "cks",
                "diameter": float(diameter),
                "zoom": trainer.principal.zoom,
                "window": params.window,
                "least_score": least_score,
                "apart": params.apart,
                "mask_threshold": 0.5,
                "offset_reach": trainer.principal.offset_reach,
            }
        },
    )


PRESETS: dict[Preset, dict[str, Any]] = {
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
        "head_start": 10000,
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
        "prior_width": 0.45,
        "noise": 0.0,
        "haze": 0.0,
        "score_weight": 1.0,
        "head_start": 0,
        "leak": 0.0,
        "collaborator": 16,
        "collaborator_levels": 3,
        "border": 32,
        "most_cells": 4096,
    },
}

METHODS = [
    Method(
        name="cks",
        title="Cells from one point each: two unlike models teach each other what a cell is",
        params=Params,
        adapt=adapt,
        paper="https://arxiv.org/abs/2304.10671",
        presets=PRESETS,
        needs=("target_images", "points|nuclei_images", "diameter"),
        takes=("pretrained",),
        instances=True,
    ),
    Method(
        name="cks-masks",
        title="The network of cks trained with masks: what points alone are held against",
        params=Params,
        adapt=adapt_with_masks,
        paper="https://arxiv.org/abs/2304.10671",
        presets={"cpu": {"steps": 4000}, **PRESETS},  # steps are quick with masks
        needs=("target_images", "target_masks"),
        takes=("diameter", "pretrained"),
        instances=True,
    ),
]
