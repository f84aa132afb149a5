"""Train one forest on strokes, and run it with an enhancer over many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.batch.files import (
    BatchOptions,
    BatchReport,
    choice_for,
    find_inputs,
)
from napari_cellda.core.batch.models import Recipe
from napari_cellda.core.batch.run import run_batch
from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import open_image
from napari_cellda.core.images.label_arrays import same_but_for_ones
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.paths import find_images, pair_by_stem
from napari_cellda.core.pipeline import Pipeline
from napari_cellda.core.project import (
    ClassStyle,
    EnhancerReference,
    ImageReference,
    Project,
    fingerprint,
    relative_to_project,
    save_project,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export import FileFormat
    from napari_cellda.core.images import Channels, Image

FEATURE_SETS = ("ilastik", "compact", "s2d")
MAX_CLASSES = 8
"""Stroke ids go from 1 (background) to this."""


@dataclass(frozen=True)
class ClassifyJob:
    """What to do with the images, the same for each."""

    features: str = "ilastik"
    channels: Channels = "all"
    enhancer: str | None = None
    """Bundled or bioimage.io id, or a path; None leaves the forest's map as it is."""
    enhanced_class: int = 1
    instances: bool = False
    file_format: FileFormat = "tif"
    save: Path | None = None
    """Where to save the project; None does not."""
    seed: int = 0


def classify_batch(
    images: Sequence[Path],
    strokes: Sequence[Path],
    output: Path,
    job: ClassifyJob,
    *,
    options: BatchOptions | None = None,
    stop: Stop = never,
) -> Task[BatchReport]:
    """Train one forest on strokes and write the maps of every image that has none yet.

    Parameters
    ----------
    images : sequence of Path
        Files or folders; those without strokes are only predicted.
    strokes : sequence of Path
        Label images, paired with the images by stem, or in order when there are as many.
    output : Path
        Folder, made if absent.
    job : ClassifyJob
    options : BatchOptions, optional
    stop : callable
        Asked between tiles and images.

    Yields
    ------
    Stage, Step, Note
        A note for every image that failed.

    Returns
    -------
    BatchReport

    Raises
    ------
    UserError
        Before anything is written, if the input cannot be used.
    """
    if job.save is not None and job.save.suffix != ".cellda":
        raise UserError(f"--save is '{job.save}'; a project's name ends in .cellda.")
    if job.enhancer is None and job.enhanced_class != 1:
        raise UserError(
            f"--enhancer-class is {job.enhanced_class}, but no --enhancer is given; expected both."
        )
    paths = yield from find_inputs(images)
    options = options or BatchOptions()
    pairs = pair_by_stem(paths, find_images(strokes))
    pipeline = yield from _train(pairs, job, options.trusted, stop)
    if pipeline is None:
        return BatchReport()
    choice = choice_for(output, job.file_format, InstanceParams() if job.instances else None)

    def write_recipe(folder: Path) -> Recipe:
        path = folder / "batch.cellda"
        save_project(path, _project(job, pipeline, ()), {}, pipeline.classifier.forest)
        return Recipe(str(path), trusted=options.trusted)

    return (yield from run_batch(pipeline, write_recipe, paths, choice, options, stop=stop))


def _train(
    pairs: list[tuple[Path, Path]], job: ClassifyJob, trusted: Collection[str], stop: Stop
) -> Task[Pipeline | None]:
    """Train the forest and open the enhancer; None when stopped."""
    spec = feature_spec(job.features)
    enhancer = None if job.enhancer is None else Enhancer.open(job.enhancer, trusted=trusted)
    painted = [open_image(image, channels=job.channels) for image, _ in pairs]
    labels = [read_strokes(path, image) for (_, path), image in zip(pairs, painted, strict=True)]
    if stop():
        return None
    classifier = yield from train_classifier(
        painted, labels, spec=spec, channels=job.channels, params=ForestParams(seed=job.seed)
    )
    if enhancer is not None and not job.enhanced_class < classifier.n_classes:
        raise UserError(
            f"--enhancer-class is {job.enhanced_class}, but the strokes hold "
            f"{classifier.n_classes - 1} class(es) besides the background; expected one of them."
        )
    pipeline = Pipeline(classifier, enhancer, EnhancerOptions(class_index=job.enhanced_class))
    if job.save is not None and not stop():
        references = _references(job.save, classifier, painted)
        project = _project(job, pipeline, references)
        save_project(job.save, project, dict(enumerate(labels)), classifier.forest)
    return pipeline


def feature_spec(name: str) -> FeatureSpec:
    """Return the 2D feature set of this name; a UserError if there is none."""
    if name not in FEATURE_SETS:
        raise UserError(f"--features is '{name}'; expected one of {', '.join(FEATURE_SETS)}.")
    return FeatureSpec.model_validate({"name": name})


def read_strokes(path: Path, image: Image) -> np.ndarray:
    """Read the strokes of an image, whatever axes of size 1 the two files keep or drop.

    Raises
    ------
    UserError
        If the file holds more than 8 classes or negative values. Another shape is complained of
        where the strokes are used.
    """
    strokes = read_labels(path)
    low, high = int(strokes.min(initial=0)), int(strokes.max(initial=0))
    if low < 0 or high > MAX_CLASSES:
        raise UserError(
            f"'{path}' holds the value {low if low < 0 else high}; strokes are 0 (not annotated), "
            f"1 (background) and 2 to {MAX_CLASSES} (classes)."
        )
    strokes = strokes.astype(np.uint8, copy=False)
    same = same_but_for_ones(strokes.shape, image.label_shape)
    return strokes.reshape(image.label_shape) if same else strokes


def _references(
    path: Path, classifier: PixelClassifier, images: Sequence[Image]
) -> tuple[ImageReference, ...]:
    """Return how the project at `path` refers to the painted images."""
    return tuple(
        ImageReference(
            name=image.name,
            path=relative_to_project(image.path, path) if image.path else None,
            axes=image.axes,
            fingerprint=fingerprint(image),
            normalisation=measure_normalisation(image, classifier.normalisation),
        )
        for image in images
    )


def _project(job: ClassifyJob, pipeline: Pipeline, images: tuple[ImageReference, ...]) -> Project:
    """Return what a project says of a trained pipeline."""
    classifier, enhancer = pipeline.classifier, None
    if pipeline.enhancer is not None and job.enhancer is not None:
        enhancer = EnhancerReference(
            source=job.enhancer,
            sha256=pipeline.enhancer.model.sha256,
            options=pipeline.options,
        )
    return Project(
        images=images,
        classes=tuple(ClassStyle(name=name) for name in classifier.class_names),
        channels=job.channels,
        features=classifier.spec,
        normalisation=classifier.normalisation,
        enhancer=enhancer,
        instances=InstanceParams() if job.instances else None,
    )
