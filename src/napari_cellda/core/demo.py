"""The demonstration without a window: a real image with a bundled enhancer, and scores."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import make_folder, write_atomically
from napari_cellda.core.batch import ClassifyJob, classify_batch, insist
from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.compare import pixel_scores
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.export import write_png
from napari_cellda.core.images import image_from_array
from napari_cellda.core.pipeline import Pipeline
from napari_cellda.core.samples import Sample, ihc_sample, nuclei_field, organelles_field

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.events import Task

ENHANCER = "nuclei"
SCORED = ((nuclei_field, "nuclei"), (organelles_field, "mitochondria"))
"""Generated fields whose truth is known, and the enhancer for each."""


def demo_without_window(output: Path) -> Task[list[dict[str, Any]]]:
    """Run the main job twice and leave everything in a folder.

    Parameters
    ----------
    output : Path
        Receives the real stained section with its strokes, its maps, mask, instances and objects,
        and ``scores.csv``.

    Returns
    -------
    list of dict
        One row per map of the generated fields: its pixel figures against the truth.
    """
    make_folder(output)
    section = ihc_sample()
    image, strokes = output / f"{section.name}.png", output / f"{section.name}_strokes.png"
    write_png(image, section.image)
    write_png(strokes, section.strokes)
    job = ClassifyJob(enhancer=ENHANCER, instances=True, save=output / f"{section.name}.cellda")
    yield from insist(classify_batch([image], [strokes], output, job))
    rows: list[dict[str, Any]] = []
    for make_field, enhancer in SCORED:
        rows += yield from score_field(make_field(domain="b"), enhancer, output)
    with write_atomically(output / "scores.csv") as aside, aside.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return rows


def score_field(sample: Sample, enhancer: str, folder: Path) -> Task[list[dict[str, Any]]]:
    """Score the forest's and the enhanced map of a generated field."""
    axes = "yx" if sample.image.ndim == 2 else "yxc"
    image = image_from_array(sample.image, axes, name=sample.name, rgb=axes == "yxc").select("grey")
    classifier = yield from train_classifier([image], [sample.strokes])
    pipeline = Pipeline(classifier, Enhancer.open(enhancer))
    assert sample.labels is not None
    with ExitStack() as stack:
        maps = yield from pipeline.compute(image, stack, folder)
        return [
            {
                "field": sample.name,
                "map": name,
                **asdict(pixel_scores(np.asarray(array)[1] > 0.5, sample.labels > 0)),
            }
            for name, array in (("forest", maps.forest), ("enhanced", maps.probability))
        ]
