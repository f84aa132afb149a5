"""The target as StyleFilter learns from it: drawn in the style of the source, and cut to crops."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.events import Stage, Step, Task
from napari_cellda.core.processes import agree
from napari_cellda.methods._stylefilter_losses import disturb_greys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_cellda.core.adaptation.job import AdaptJob
    from napari_cellda.methods._stylefilter_params import Params

    Draw = Callable[[NDArray[np.float32]], NDArray[np.float32]]

CHECKED = 40
"""Planes, about and at most, on which the classes that are found are checked."""


class Target:
    """Which planes are adapted to, which are kept aside, and what both look like when drawn.

    Images are kept aside only when there are image-level labels to check by, and no masks.

    Attributes
    ----------
    adapted_to : list of int
        Planes.
    checked : list of lists of int
        The planes of each image on which the classes that are found are checked: a label is that
        of the whole stack, of which a plane may lack a class.
    """

    def __init__(self, job: AdaptJob, params: Params) -> None:
        self.job, self.params = job, params
        self.planes = job.target.planes
        n = len(self.planes)
        self.adapted_to, self.checked = list(range(n)), list[list[int]]()
        self.drawn: tuple[Plane, ...] = ()
        weak = [i for i in range(n) if self.planes[i].present_mask is not None]
        images = _by_image(weak, self.planes)
        if job.validation is None and len(images) > 1:
            order = np.random.default_rng([job.seed, 7]).permutation(len(images))
            count = min(max(1, round(params.validation_share * len(images))), len(images) - 1)
            aside = [images[k] for k in order[:count]]
            kept = {i for image in aside for i in image}
            self.adapted_to = [i for i in range(n) if i not in kept]
            ends = np.cumsum([len(image) for image in aside])
            self.checked = sorted(aside[: max(1, int((ends <= CHECKED).sum()))])

    def draw(self, network: torch.nn.Module | None, stylised: Draw) -> Task[bool]:
        """Draw every plane in the style of the source, once, and keep it on disk.

        Parameters
        ----------
        network : Module or None
            The generator, whose weights name the folder.
        stylised : callable (C, Y, X) -> (C, Y, X)

        Returns
        -------
        bool
            Whether it got to the end; False when it was asked to stop.
        """
        yield Stage("Draw the target in the style of the source", len(self.planes))
        folder = self.job.scratch / f"stylised-{_fingerprint(network)}"
        drawn = []
        for i, plane in enumerate(self.planes):
            if agree(self.job.stop()):
                return False
            path = folder / f"{i}.npy"
            if not path.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                with write_atomically(path) as aside, aside.open("wb") as file:
                    np.save(file, stylised(plane.pixels))
            drawn.append(replace(plane, pixels=np.load(path, mmap_mode="r")))
            yield Step(i + 1)
        self.drawn = tuple(drawn)
        return True

    def seen(self, i: int) -> NDArray[np.float32]:
        """Return a plane as the segmenter is shown it."""
        if self.params.student_input == "original":
            clipped: NDArray[np.float32] = np.clip(self.planes[i].pixels, 0, 1)
            return clipped
        return self.drawn[i].pixels

    def crops(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Cut the crops of one step.

        Returns
        -------
        clean, student : (N, C, S, S) Tensor of float in [0, 1]
            Drawn crops, and what the student sees of them: disturbed, with "both" 2 N of them.
        present : (N, K) Tensor of bool
            The classes that the image of each may show.
        """
        params = self.params
        place = [self.job.seed, 4, index]
        drawn = Domain(tuple(self.drawn[i] for i in self.adapted_to))
        cut = drawn.crops(np.random.default_rng(place), params.batch, params.crop)
        clean = original = torch.from_numpy(cut.images)
        if params.student_input != "stylised":
            raw = Domain(tuple(self.planes[i] for i in self.adapted_to))
            same = raw.crops(np.random.default_rng(place), params.batch, params.crop)
            original = torch.from_numpy(same.images).clamp(0, 1)
        clean, original = flip_and_turn(clean, original, rng)
        seen = {"stylised": (clean,), "original": (original,), "both": (clean, original)}
        student = torch.cat(
            [disturb_greys(x, rng, params.noise, params.jitter) for x in seen[params.student_input]]
        )
        masks = [self.planes[self.adapted_to[i]].present_mask for i in cut.planes]
        every = np.ones(self.job.n_classes, bool)
        present = np.stack([every if mask is None else mask for mask in masks])
        return clean, student, torch.from_numpy(present)


def _by_image(indices: Sequence[int], planes: Sequence[Plane]) -> list[list[int]]:
    """Return the indices of planes image by image."""
    found: dict[str, list[int]] = {}
    for i in indices:
        found.setdefault(planes[i].image or planes[i].name, []).append(i)
    return list(found.values())


def thinned(indices: Sequence[int], planes: Sequence[Plane], most: int) -> Sequence[int]:
    """Return the indices of planes of about so many pixels at most, spread over all.

    Small planes may lack a class each, and so would a few of them: their scores mean little.
    """
    pixels = sum(int(np.prod(planes[i].shape)) for i in indices)
    return indices[:: max(1, -(-pixels // most))]


def _fingerprint(network: torch.nn.Module | None) -> str:
    """Tell one set of weights from another."""
    digest = hashlib.sha256()
    for tensor in () if network is None else network.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
