"""Many files through one pipeline: what `classify` and `predict` do, with or without a window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.classifier import PixelClassifier, never, train_classifier
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Task
from napari_cellda.core.export.image import ExportChoice, export_image
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import open_image
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.network_pipeline import NetworkPipeline
from napari_cellda.core.paths import find_images, pair_by_stem, stem
from napari_cellda.core.pipeline import Pipeline
from napari_cellda.core.project import (
    ClassStyle,
    EnhancerReference,
    ImageReference,
    Project,
    fingerprint,
    load_project,
    relative_to_project,
    save_project,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_cellda.core.classifier import Stop
    from napari_cellda.core.export import FileFormat
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker

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


def classify_images(
    images: Sequence[Path],
    strokes: Sequence[Path],
    output: Path,
    job: ClassifyJob,
    *,
    stop: Stop = never,
) -> Task[list[Path]]:
    """Train one forest on strokes and write the maps of every image.

    Parameters
    ----------
    images : sequence of Path
        Files or folders; those without strokes are only predicted.
    strokes : sequence of Path
        Label images, paired with the images by stem, or in order when there are as many.
    output : Path
        Folder, made if absent.
    job : ClassifyJob
    stop : callable

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        Before anything is written, if the input cannot be used; after all else is written, if
        single images failed.
    """
    if job.save is not None and job.save.suffix != ".cellda":
        raise UserError(f"--save is '{job.save}'; a project's name ends in .cellda.")
    paths = find_images(images)
    check_unique_stems(paths)
    pairs = pair_by_stem(paths, find_images(strokes))
    spec = feature_spec(job.features)
    enhancer = None if job.enhancer is None else Enhancer.open(job.enhancer)
    painted = [open_image(image, channels=job.channels) for image, _ in pairs]
    labels = [read_strokes(path, image) for (_, path), image in zip(pairs, painted, strict=True)]
    classifier = yield from train_classifier(
        painted,
        labels,
        spec=spec,
        channels=job.channels,
        params=ForestParams(seed=job.seed),
        stop=stop,
    )
    options = EnhancerOptions(class_index=job.enhanced_class)
    if enhancer is not None and not job.enhanced_class < classifier.n_classes:
        raise UserError(
            f"--enhancer-class is {job.enhanced_class}, but the strokes hold only the foreground "
            f"classes 1 to {classifier.n_classes - 1}."
        )
    pipeline = Pipeline(classifier, enhancer, options)
    if job.save is not None:
        _save(job.save, job, pipeline, painted, labels)
    instances = InstanceParams() if job.instances else None
    return (yield from write_all(pipeline, paths, output, job.file_format, instances, stop=stop))


def predict_images(
    model: str,
    images: Sequence[Path],
    output: Path,
    *,
    instances: bool = False,
    channels: Channels | None = None,
    file_format: FileFormat = "tif",
    stop: Stop = never,
) -> Task[list[Path]]:
    """Run a saved project, or the network of a package, on images.

    Parameters
    ----------
    model : str
        A project, ``X.cellda``; a run's folder; or whatever `open_model` opens.
    images, output, instances, file_format, stop
        See `classify_images`.
    channels : "grey", "all", or tuple of int, optional
        None: those that the project was trained on; grey for a network.
    """
    paths = find_images(images)
    check_unique_stems(paths)
    pipeline, measured, params = open_map_maker(model, channels)
    if instances and params is None:
        params = InstanceParams()
    return (
        yield from write_all(
            pipeline, paths, output, file_format, params, measured=measured, stop=stop
        )
    )


def open_map_maker(
    model: str, channels: Channels | None = None
) -> tuple[MapMaker, dict[str, Normalisation], InstanceParams | None]:
    """Open a project, a run or a package, whichever `model` names; see `open_pipeline`."""
    path = Path(model)
    if path.suffix == ".cellda":
        return open_pipeline(path, channels)
    source: str | Path = path / "model" if (path / "run.yaml").is_file() else model
    network = Enhancer.open(source)
    return NetworkPipeline(network, "grey" if channels is None else channels), {}, None


def write_all(
    pipeline: MapMaker,
    paths: Sequence[Path],
    output: Path,
    file_format: FileFormat,
    instances: InstanceParams | None = None,
    *,
    measured: Mapping[str, Normalisation] | None = None,
    stop: Stop = never,
) -> Task[list[Path]]:
    """Run a pipeline over files; one that fails is named and does not stop the others.

    Parameters
    ----------
    measured : mapping of fingerprint to Normalisation, optional
        Images measured before keep their scaling.

    Raises
    ------
    UserError
        After all the others are written, if any image failed.
    """
    choice = ExportChoice(
        folder=output,
        instances=instances is not None,
        table=instances is not None,
        probabilities=True,
        file_format="ome-zarr" if file_format == "ome-zarr" else "imagej",
        instance_params=instances or InstanceParams(),
    )
    written: list[Path] = []
    failures: list[str] = []
    for path in paths:
        if stop():
            break
        try:
            image = open_image(path, channels=pipeline.channels)
            normalisation = (measured or {}).get(fingerprint(image))
            done = yield from export_image(
                pipeline, image, choice, normalisation=normalisation, stop=stop
            )
            written += done.paths if done is not None else ()
        except UserError as error:
            failures.append(str(error))
            if len(paths) > 1:
                yield Note(f"Skipped {path.name}: {error}")
    if failures:
        raise UserError(
            failures[0]
            if len(paths) == 1
            else f"{len(failures)} of {len(paths)} images failed; the first: {failures[0]}"
        )
    return written


def open_pipeline(
    path: Path, channels: Channels | None = None
) -> tuple[Pipeline, dict[str, Normalisation], InstanceParams | None]:
    """Open a saved project to run it.

    Returns
    -------
    pipeline : Pipeline
    measured : dict of fingerprint to Normalisation
        Of the project's own images.
    instances : InstanceParams or None

    Raises
    ------
    UserError
        If it is no project, has no forest, or its enhancer is not the one that was saved.
    """
    project, _, forest = load_project(path)
    if forest is None:
        raise UserError(f"'{path.name}' holds no trained forest; paint and save it again.")
    classifier = PixelClassifier(
        project.features,
        project.normalisation,
        project.channels if channels is None else channels,
        tuple(style.name for style in project.classes),
        forest,
    )
    enhancer, options = None, EnhancerOptions()
    if project.enhancer is not None:
        enhancer, options = open_saved_enhancer(project.enhancer), project.enhancer.options
    measured = {image.fingerprint: image.normalisation for image in project.images}
    return Pipeline(classifier, enhancer, options), measured, project.instances


def open_saved_enhancer(reference: EnhancerReference) -> Enhancer:
    """Open a project's enhancer; a UserError if its weights are not those that were saved."""
    enhancer = Enhancer.open(reference.source)
    if enhancer.model.sha256 != reference.sha256:
        raise UserError(
            f"The enhancer '{reference.source}' has other weights than the project was saved with "
            f"({enhancer.model.sha256[:12]} instead of {reference.sha256[:12]})."
        )
    return enhancer


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
    strokes = strokes.astype(np.uint8)
    same = [n for n in strokes.shape if n > 1] == [n for n in image.label_shape if n > 1]
    return strokes.reshape(image.label_shape) if same else strokes


def check_unique_stems(paths: Sequence[Path]) -> None:
    """Raise a UserError if two images would write the same output files."""
    seen: dict[str, Path] = {}
    for path in paths:
        name = stem(path)
        if name in seen:
            raise UserError(
                f"'{seen[name]}' and '{path}' would both be written as '{name}'; "
                "rename one, or run them into two folders."
            )
        seen[name] = path


def _save(
    path: Path,
    job: ClassifyJob,
    pipeline: Pipeline,
    images: Sequence[Image],
    strokes: Sequence[np.ndarray],
) -> None:
    classifier = pipeline.classifier
    references = tuple(
        ImageReference(
            name=image.name,
            path=relative_to_project(image.path, path) if image.path else None,
            axes=image.axes,
            fingerprint=fingerprint(image),
            normalisation=measure_normalisation(image, classifier.normalisation),
        )
        for image in images
    )
    enhancer = None
    if pipeline.enhancer is not None and job.enhancer is not None:
        enhancer = EnhancerReference(
            source=job.enhancer,
            sha256=pipeline.enhancer.model.sha256,
            options=pipeline.options,
        )
    project = Project(
        images=references,
        classes=tuple(ClassStyle(name=name) for name in classifier.class_names),
        channels=job.channels,
        features=classifier.spec,
        normalisation=classifier.normalisation,
        enhancer=enhancer,
        instances=InstanceParams() if job.instances else None,
    )
    save_project(path, project, dict(enumerate(strokes)), classifier.forest)
