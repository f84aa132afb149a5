"""Check a trained model on a part of an image, without truth."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.batch.models import open_map_maker
from napari_cellda.core.events import run_quietly
from napari_cellda.core.images import image_from_array
from napari_cellda.core.inspect.quality import check_agreement, check_discrepancy, self_agreement
from napari_cellda.core.jobs import Run

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_cellda.core.images import Image
    from napari_cellda.core.inspect.quality import Verdict
    from napari_cellda.core.tiles import Region

SIDE = 512
"""Pixels of the part that a model is tried on."""
CAUTION = "That alone says little: in our tests more than half of the poor results did so, too."
"""Of agreement: benchmarks/quality.py tried networks on images that they were not trained on."""


def check_run(
    source: Path, image: Image, region: Region, trusted: Collection[str] = ()
) -> list[Verdict]:
    """Check a trained model on one region of an image, and the way of its run if it has one.

    Parameters
    ----------
    source : Path
        A run's folder, a model package or a project.
    image : Image
        With all its channels; those that it takes are chosen here.
    region : Region
        One plane of it; of a large one the middle is taken.
    trusted : collection of str
        See `open_model`.

    Raises
    ------
    UserError
        If there is no model, or it takes other images.
    """
    verdicts = [_check_way(source)] if (source / "run.yaml").is_file() else []
    maker = open_map_maker(str(source), trusted=trusted)[0]
    image = image.select(maker.channels)

    def predict(pixels: np.ndarray) -> np.ndarray:
        # As an image of its own: what normalisation makes up for is no disagreement.
        part = image_from_array(pixels, "cyx", name=image.name)
        with TemporaryDirectory() as folder, ExitStack() as stack:
            maps = run_quietly(maker.compute(part, stack, Path(folder)))
            return 1 - np.asarray(maps.probability[0])

    agreement = check_agreement(self_agreement(predict, middle(image.read(region)[:, 0])))
    if agreement.level == "green":
        agreement = replace(agreement, reason=f"{agreement.reason} {CAUTION}")
    verdicts.append(agreement)
    return [verdict for verdict in verdicts if verdict is not None]


def _check_way(folder: Path) -> Verdict | None:
    """Judge whether the discrepancy of two networks fell, by the run's log."""
    losses = [e["losses"] for e in Run(folder).events() if e["type"] == "Step"]
    return check_discrepancy([one["discrepancy"] for one in losses if "discrepancy" in one])


def middle(block: np.ndarray) -> np.ndarray:
    """Cut the middle out of a (..., Y, X) block, at most `SIDE` wide."""
    parts = []
    for size in block.shape[-2:]:
        length = min(SIDE, size // 16 * 16 or size)
        start = (size - length) // 2
        parts.append(slice(start, start + length))
    return np.ascontiguousarray(block[..., parts[0], parts[1]])
