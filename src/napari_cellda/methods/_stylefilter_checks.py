"""How StyleFilter looks at itself: scores that need no target mask, and previews."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.predict import (
    class_labels,
    class_maps,
    maps_kind,
    mean_dice,
    predict_plane,
    preview_pixels,
)
from napari_cellda.core.events import Event, Preview, Score
from napari_cellda.methods._stylefilter_losses import presence_f1
from napari_cellda.methods._stylefilter_target import thinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_cellda.core.adaptation.job import AdaptJob
    from napari_cellda.core.nets.styled import StyledSegmenter
    from napari_cellda.methods._stylefilter_params import Params
    from napari_cellda.methods._stylefilter_target import Target

PRESENCE = "present classes F1"
PRESENCE_AND_STEPS = "present classes F1 and steps"
STEPS_BONUS = 0.05
"""What all steps of the adaptation are worth beside the F1 of the present classes: on some dozens
of images smaller differences are noise, by which the first step was chosen now and then."""
VALIDATION = "validation dice"
KEPT = "adapted steps"
"""Chosen by where nothing is known of the target: of the checkpoints that still know the source,
the latest."""
GUARD = 0.8
"""A checkpoint is not chosen when its Dice on the source falls below this share of what it was
before the adaptation."""
CHECKED_SOURCE = 2**21
"""Pixels of the source, about and at most, on which the checks are done."""


class Remembered:
    """One number that a checkpoint keeps."""

    def __init__(self) -> None:
        self.value = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the number by name."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the number back."""
        self.value = float(state["value"])


class Checks:
    """Scores and previews of one network.

    Parameters
    ----------
    job : AdaptJob
    params : Params
    network : StyledSegmenter
        In eval mode whenever a method is called.
    fabric : lightning_fabric.Fabric
    source : Domain
        Annotated planes kept aside.
    target : Target
    """

    def __init__(
        self,
        job: AdaptJob,
        params: Params,
        network: StyledSegmenter,
        fabric: Any,
        source: Domain,
        target: Target,
    ) -> None:
        self.job, self.params, self.network, self.fabric = job, params, network, fabric
        chosen = thinned(range(len(source)), source.planes, CHECKED_SOURCE)
        self.source, self.target = Domain(tuple(source.planes[i] for i in chosen)), target
        self.shown = preview_pixels(job.target)
        self.guard = Remembered()
        if job.validation is not None:
            self.select = VALIDATION
            self.selected_by = f"Dice on {job.validated_on}"
        elif target.checked:
            self.select = PRESENCE_AND_STEPS
            self.selected_by = (
                f"F1 of the classes found in {len(target.checked)} target image(s) with "
                f"image-level labels that were kept aside, plus up to {STEPS_BONUS} for the steps "
                "of adaptation done"
            )
        else:
            self.select = KEPT
            self.selected_by = (
                "number of steps of adaptation after which the Dice on the source was still "
                f"{GUARD:.0%} of that before"
            )

    def scores(self, done: int) -> Iterator[Event]:
        """Score the segmenter on the source and, once it adapts, by what is known of the target."""
        dice = mean_dice(self.source, lambda p: self._segment(np.clip(p.pixels, 0, 1)))
        yield Score("source dice", dice, done)
        adapts_after = self.params.stage_ends[1]
        if done == adapts_after:
            self.guard.value = GUARD * dice
        if done <= adapts_after:
            return
        if self.job.validation is not None:
            yield Score(VALIDATION, mean_dice(self.job.validation, self._predict), done)
            return
        score = float(done - adapts_after)
        if self.select == PRESENCE_AND_STEPS:
            presence = self._presence_score()
            yield Score(PRESENCE, presence, done)
            score = presence + STEPS_BONUS * score / (self.params.steps - adapts_after)
        yield Score(self.select, score if dice >= self.guard.value else 0.0, done)

    def _presence_score(self) -> float:
        found, truth = [], []
        for image in self.target.checked:
            counts = np.zeros(self.job.n_classes, np.int64)
            for i in image:
                labels = class_labels(self._segment(self.target.seen(i)))
                counts += np.bincount(labels.ravel(), minlength=self.job.n_classes)
            found.append(counts >= self.params.present_pixels)
            truth.append(self.target.planes[image[0]].present_mask)
        return presence_f1(np.stack(found), np.stack([t for t in truth if t is not None]))

    def _segment(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return predict_plane(self.network.segmenter, pixels, self.fabric)

    def _predict(self, plane: Plane) -> NDArray[np.float32]:
        if self.params.student_input == "original":
            return self._segment(np.clip(plane.pixels, 0, 1))
        return predict_plane(self.network, plane.pixels, self.fabric)

    def previews(self, done: int, label: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Event]:
        """Show the drawn image and, once there is a segmenter, its maps and labels.

        Parameters
        ----------
        done : int
        label : callable (1, C, Y, X), (1, K) -> (1, 1, Y, X)
            Makes the pseudo-labels of a drawn image from the classes that it may show.
        """
        stylised = predict_plane(self.network.stylise, self.shown, self.fabric)
        yield Preview("stylised", stylised[0] if len(stylised) == 1 else stylised, done)
        if done <= self.params.stage_ends[0]:
            return
        maps = self._segment(stylised)
        yield Preview(maps_kind(maps), maps, done)
        clean = self.fabric.to_device(torch.from_numpy(stylised)[None])
        every = np.ones(self.job.n_classes, bool)
        present = self.job.target.planes[0].present_mask
        for name, mask in (("pseudo-labels", None), ("filtered labels", present)):
            allowed = torch.from_numpy(every if mask is None else mask)[None]
            labels = label(clean, self.fabric.to_device(allowed))[0, 0].cpu().numpy()
            yield Preview(name, np.maximum(labels, 0).astype(np.uint8), done)
        sure = class_maps(torch.from_numpy(maps)[None])[0].amax(dim=0)
        yield Preview("confidence", sure.numpy(), done)
