"""Small domains to train on: generated nuclei, a source and a target that looks different."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.samples import nuclei_field

UNIT = Normalisation(offset=(0.0,), factor=(1 / 255,))
SIDE = 96


@cache
def nuclei_domain(look: str, count: int = 3, *, first: int = 0) -> Domain:
    """Fields of nuclei with instance labels, points, image labels and soft pseudo-labels."""
    rng = np.random.default_rng(first)
    planes = []
    for i in range(first, first + count):
        sample = nuclei_field((SIDE, SIDE), i, look)  # type: ignore[arg-type]
        grey = sample.image.reshape(SIDE, SIDE, -1).mean(axis=-1, dtype=np.float32) / 255
        labels = np.asarray(sample.labels).astype(np.int32)
        ids = np.unique(labels[labels > 0])
        points = np.array([np.argwhere(labels == k).mean(axis=0) for k in ids]).reshape(-1, 2)
        p = np.clip((labels > 0) * 0.6 + 0.2 + rng.normal(0, 0.1, labels.shape), 0, 1)
        planes.append(
            Plane(
                f"field {i}",
                grey[None],
                UNIT,
                labels=labels,
                points=points,
                present_mask=np.array([True, True]),
                pseudo_map=np.stack([1 - p, p]).astype(np.float32),
            )
        )
    return Domain(tuple(planes))


def unlabelled(domain: Domain) -> Domain:
    """The same planes without their labels."""
    return Domain(tuple(replace(plane, labels=None) for plane in domain.planes))


def make_job(folder: Path, *, instances: bool = False, **changes: Any) -> AdaptJob:
    """A job with everything that any method may ask for."""
    source = nuclei_domain("a")
    target = nuclei_domain("b", first=10)
    if not instances:
        source, target = source.foreground(), target.foreground()
    given = {
        "target": unlabelled(target),
        "source": source,
        "store": MemoryStore(),
        "scratch": folder,
        "diameter": 16.0,
        "device": "cpu",
        "seed": 3,
    }
    return AdaptJob(**{**given, **changes})


def runs_out_of_memory(trainer: Any, call: int) -> None:
    """Let the backward pass number `call` of a trainer, from 1, run out of memory."""
    backward, calls = trainer.fabric.backward, []

    def counted(loss: torch.Tensor) -> None:
        calls.append(loss)
        if len(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        backward(loss)

    trainer.fabric.backward = counted
