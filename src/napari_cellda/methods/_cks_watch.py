"""What CKS shows while it trains, and what chooses its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.compare.detection import Detections
from napari_cellda.core.compare.matching import ObjectMatches
from napari_cellda.core.events import Event, Preview, Score
from napari_cellda.core.instances.windows import find_in_plane, finder, window_params
from napari_cellda.core.nets.cks import zoom_by
from napari_cellda.core.points import best_least_score, location_precision, separate_objects
from napari_cellda.methods._cks_crops import at_most, cells_of, cut_crop, on_device
from napari_cellda.methods._cks_losses import (
    border_canvas,
    foreground_loss,
    lay_out,
    mark_points,
    segmentation_loss,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_cellda.core.adaptation.domain import Domain
    from napari_cellda.core.instances.windows import PaintedObjects
    from napari_cellda.methods._cks_trainer import Trainer

SELECT = "agreement"
"""The score that chooses the checkpoint."""
RIGHT = 0.25
"""A place is right when it is not farther from a cell's point than this share of the diameter."""


def look(trainer: Trainer, step: int) -> Iterator[Event]:
    """Show what both models make of one part of the target."""
    labels, painted = find_in(trainer, trainer.shown)
    yield Preview("instances", labels.astype(np.int32), step)
    detected = np.column_stack([painted.points, painted.scores])
    yield Preview("detected", detected, step, "points")
    with torch.inference_mode():
        pixels = trainer.fabric.to_device(torch.from_numpy(trainer.shown)[None])
        yield Preview("detections", _map(trainer.principal(pixels)[0, 1]), step)
        if trainer.with_masks:
            return
        zoomed = zoom_by(pixels, trainer.principal.zoom)
        foreground, border = trainer.collaborator(zoomed)
        points = torch.from_numpy((painted.points + 0.5) * trainer.principal.zoom).float()
        points = trainer.fabric.to_device(points)
        windows = trainer.principal.draw_at(zoomed, points)
        shape = zoomed.shape[0], *zoomed.shape[2:]
        maps = {
            "foreground M_c": torch.sigmoid(foreground)[0],
            "border B_c": torch.sigmoid(border)[0],
            "foreground M_p": trainer.principal_foreground(windows, shape)[0],
            "border B_p": border_canvas(torch.sigmoid(windows.logits), windows, shape)[0],
        }
        for name, found in maps.items():
            yield Preview(name, _map(found, trainer.shown.shape[1:]), step)


def _map(found: Tensor, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    if shape is not None and tuple(found.shape) != shape:
        found = F.interpolate(found[None, None].float(), shape)[0, 0]
    return np.asarray(found.float().cpu().numpy())


def find_in(
    trainer: Trainer, pixels: NDArray[np.float32]
) -> tuple[NDArray[np.uint32], PaintedObjects]:
    """Find and paint the cells of a (C, Y, X) plane."""
    with trainer.fabric.autocast():
        return find_in_plane(
            finder(trainer.principal, trainer.fabric.device),
            np.asarray(pixels),
            window_params(trainer.principal),
        )


def measure(trainer: Trainer, step: int) -> Iterator[Event]:
    """Measure what chooses the checkpoint, on planes that were kept aside."""
    validation = trainer.job.validation
    if validation is None and trainer.with_masks:
        validation = trainer.held_out
    if validation is not None:
        precision = mask_precision(trainer, validation)
        yield Score("validation ap50", precision, step)
        yield Score(SELECT, precision, step)
        return
    places = location_precision(*_places(trainer), RIGHT * trainer.diameter)
    yield Score("precision of places", places, step)
    disagreement = _disagreement(trainer)
    yield Score("disagreement", disagreement, step)
    yield Score(SELECT, places - disagreement, step)


def raise_least_score(trainer: Trainer) -> float:
    """Let the principal drop what is seldom a cell, by the points of planes that were kept aside.

    An addition of ours: a fixed limit keeps dozens of weak detections in nearly empty images.

    Returns
    -------
    float
        The new limit; the old one where it was best.
    """
    least = best_least_score(*_places(trainer), RIGHT * trainer.diameter)
    if least is not None:
        trainer.principal.config["least_score"] = least
    return float(trainer.principal.config["least_score"])


def _places(
    trainer: Trainer,
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], list[NDArray[np.float64]]]:
    """Return the places found in the planes kept aside with their scores, and the true ones."""
    found, truth = [], []
    for plane in trainer.held_out.planes:
        _, painted = find_in(trainer, plane.pixels)
        found.append((painted.points, painted.scores))
        truth.append(np.zeros((0, 2)) if plane.points is None else np.asarray(plane.points))
    return found, truth


@torch.inference_mode()
def _disagreement(trainer: Trainer) -> float:
    """Return L_M + L_S on crops of the planes that were kept aside, the same each time.

    As at the first step, so that the numbers before and after the head start can be compared.
    """
    rng = np.random.default_rng([trainer.job.seed, 3])
    total, count = 0.0, 0
    for plane in trainer.held_out.planes:
        cut = cut_crop(
            plane, cells_of(plane, False), trainer.params.crop, trainer.principal.zoom, rng
        )
        if not len(cut.points):
            continue
        cut = cut._replace(owner=torch.zeros(len(cut.points), dtype=torch.long))
        batch = on_device(at_most(cut, trainer.params.most_cells), trainer.fabric)
        with trainer.fabric.autocast():
            _, windows = trainer.principal(batch.images, batch.points, batch.owner)
            foreground, _ = trainer.collaborator(batch.images)
        drawn = lay_out(windows, trainer.shared_foreground(foreground.float(), 0))
        prior = trainer.principal_foreground(windows, foreground.shape)
        target = mark_points(prior, batch.points, batch.owner)
        total += float(foreground_loss(foreground.float(), target) + segmentation_loss(drawn))
        count += 1
    return total / max(count, 1)


def mask_precision(trainer: Trainer, validation: Domain) -> float:
    """Return the AP50 (Eq. 9) on planes with masks; NaN without any object in them."""
    images = []
    for plane in validation.annotated().planes:
        assert plane.labels is not None
        labels, painted = find_in(trainer, plane.pixels)
        truth = np.maximum(separate_objects(plane.labels), 0)
        matches = ObjectMatches.compute(labels, truth, np.asarray(plane.labels) == UNKNOWN)
        images.append(Detections.of(matches, dict(enumerate(painted.scores.tolist(), 1))))
    return Detections.pool(images).average_precision(0.5)
