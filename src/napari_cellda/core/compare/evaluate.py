"""Predictions against truth, folder by folder: the work behind `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_cellda.core.compare.overlay_files import (
    overlay_file,
    plane_overlay,
    small_picture,
    staged,
)
from napari_cellda.core.compare.overlays import object_contours
from napari_cellda.core.compare.pairing import FilePair, pair_folders, read_scores
from napari_cellda.core.compare.parameters import count_parameters
from napari_cellda.core.compare.reading import (
    check_shapes,
    n_planes,
    numbers_in,
    open_planes,
)
from napari_cellda.core.compare.scheme import find_scheme
from napari_cellda.core.compare.scoring import score_image
from napari_cellda.core.compare.summary import ModelResult
from napari_cellda.core.events import Note, Stage, Step, never
from napari_cellda.core.images.units import METRES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.compare.overlaps import Overlaps
    from napari_cellda.core.compare.reading import Kind, PlanePair, ReferenceType, Scheme
    from napari_cellda.core.compare.scoring import ImageResult
    from napari_cellda.core.events import Stop, Task

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of comparing models with a truth."""

    scheme: Scheme
    models: dict[str, ModelResult]
    pictures: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Small PNG overlays by model and image, if they were asked for."""

    def as_json(self) -> dict[str, Any]:
        """Return the result of the only model, or {"models": {name: result}}."""
        found = {name: model.as_json() for name, model in self.models.items()}
        return next(iter(found.values())) if len(found) == 1 else {"models": found}


@dataclass(frozen=True)
class _Job:
    """One image of one model, checked."""

    files: FilePair
    shape: tuple[int, int, int]
    """(planes, Y, X)"""
    pixel_size: tuple[float, float, float]
    unit: str


def evaluate(
    predictions: Mapping[str, Path],
    reference: Path,
    kind: Kind = "semantic",
    reference_type: ReferenceType | None = None,
    *,
    ignore: int | None = None,
    overlays: Path | None = None,
    pictures: bool = False,
    stop: Stop = never,
) -> Task[Evaluation | None]:
    """Compare the predictions of one or several models with the truth.

    Parameters
    ----------
    predictions : mapping of name to Path
        Folders of predictions, paired with the truth by the names of their files.
    reference : Path
        Folder of the truth.
    kind : {"semantic", "instances", "boundary"}
    reference_type : {"classes", "instances", "binary"}, optional
        What the truth's numbers are. None: binary when every file holds only 0 and 1 or only 0 and
        255; else classes for semantic and instances for the other kinds. A note says what a truth
        that is not plain was taken for.
    ignore : int, optional
        Value of truth pixels that are not scored.
    overlays : Path, optional
        Folder for overlays, one file an image; with several models in folders of their names.
    pictures : bool
        Keep small pictures of the overlays in the result.
    stop : callable
        Asked between planes.

    Yields
    ------
    Stage, Step, Note

    Returns
    -------
    Evaluation or None
        None when stopped; then nothing was written.

    Raises
    ------
    UserError
        If names, shapes or values do not fit; then nothing was written.
    """
    files = {
        name: pair_folders(folder, reference, kind, reference_type)
        for name, folder in predictions.items()
    }
    truths = [pair.truth for pair in next(iter(files.values()))]
    results: dict[str, ModelResult] = {}
    seen: dict[tuple[str, str], bytes] = {}
    try:
        jobs = yield from _unless(stop, _check_files(files))
        scheme = yield from _unless(stop, find_scheme(truths, kind, reference_type, ignore))
        with staged(overlays) as folder:
            for name in predictions:
                inside = folder / name if folder is not None and len(predictions) > 1 else folder
                draw = _Drawing(name, inside, seen if pictures else None)
                images = yield from _score_model(name, jobs[name], scheme, draw, stop)
                results[name] = ModelResult(name, images, count_parameters(predictions[name]))
    except _Stopped:
        return None
    return Evaluation(scheme, results, seen)


class _Stopped(Exception):
    """Unwinds the open files, so that none of them appears."""


def _unless(stop: Stop, task: Task[T]) -> Task[T]:
    """Pass on what a task says, and ask between its steps whether to go on."""
    while True:
        if stop():
            raise _Stopped
        try:
            yield next(task)
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(frozen=True, eq=False)
class _Drawing:
    """Where the overlays of a model go."""

    model: str
    folder: Path | None
    """None writes no files."""
    pictures: dict[tuple[str, str], bytes] | None
    """None keeps no pictures."""


def _check_files(files: Mapping[str, Sequence[FilePair]]) -> Task[dict[str, list[_Job]]]:
    """Open every pair once, compare the shapes and find the unit that all share."""
    yield Stage("Checking the files", sum(map(len, files.values())))
    found: dict[str, list[_Job]] = {}
    step = 0
    for name, pairs in files.items():
        found[name] = []
        for pair in pairs:
            predicted, truth = open_planes(pair.predicted), open_planes(pair.truth)
            check_shapes(predicted, truth)
            scaled = predicted if truth.unit == "pixel" else truth
            shape = (n_planes(truth), truth.limits[1], truth.limits[2])
            found[name].append(_Job(pair, shape, scaled.pixel_size, scaled.unit))
            step += 1
            yield Step(step)
    units = {job.unit for jobs in found.values() for job in jobs}
    if len(units) > 1:
        yield Note(_say_units(units))
    return {name: [_in_unit(job, units) for job in jobs] for name, jobs in found.items()}


def _say_units(units: set[str]) -> str:
    if "pixel" in units:
        return "Only some of the images say how large a pixel is, so distances are in pixels."
    return f"The images are in {', '.join(sorted(units))}; distances are in micrometer."


def _in_unit(job: _Job, units: set[str]) -> _Job:
    """Turn a pixel's size into the unit that all images share."""
    if len(units) == 1:
        return job
    if "pixel" in units:
        return replace(job, pixel_size=(1.0, 1.0, 1.0), unit="pixel")
    factor = METRES[job.unit] / METRES["micrometer"]
    z, y, x = (size * factor for size in job.pixel_size)
    return replace(job, pixel_size=(z, y, x), unit="micrometer")


def _score_model(
    name: str, jobs: Sequence[_Job], scheme: Scheme, drawing: _Drawing, stop: Stop
) -> Task[tuple[ImageResult, ...]]:
    yield Stage(f"Scoring {name}", sum(job.shape[0] for job in jobs))
    results: list[ImageResult] = []
    strangers: set[int] = set()
    first_step = 1
    for job in jobs:
        with overlay_file(drawing.folder, job.files.name, job.shape) as write:
            result = yield from score_image(
                job.files.name,
                open_planes(job.files.predicted),
                open_planes(job.files.truth),
                scheme,
                scores=_scores(job, scheme),
                pixel_size=job.pixel_size,
                unit=job.unit,
                see=_viewer(job, scheme, drawing, write, strangers),
                first_step=first_step,
                stop=stop,
            )
            if result is None:
                raise _Stopped
        results.append(result)
        first_step += job.shape[0]
    if strangers:
        which = ", ".join(map(str, sorted(strangers)[:20]))
        yield Note(f"{name} predicts class {which}, which no truth has: it gets no figures.")
    return tuple(results)


def _scores(job: _Job, scheme: Scheme) -> dict[int, float] | None:
    if scheme.kind != "instances" or job.files.objects is None:
        return None
    return read_scores(job.files.objects)


def _viewer(
    job: _Job,
    scheme: Scheme,
    drawing: _Drawing,
    write: Callable[[int, NDArray[np.uint8]], None],
    strangers: set[int],
) -> Callable[[int, PlanePair, Overlaps | None], None]:
    """Return what looks at every plane that is scored: draws it, and notes unknown classes."""
    shown = job.shape[0] // 2

    def see(index: int, pair: PlanePair, overlaps: Overlaps | None) -> None:
        if scheme.kind == "semantic":
            strangers.update(numbers_in(pair.predicted_mask) - set(scheme.classes))
        wanted = drawing.pictures is not None and index == shown
        if drawing.folder is None and not wanted:
            return
        overlay = plane_overlay(pair, overlaps, scheme.kind)
        write(index, overlay)
        if drawing.pictures is not None and wanted:
            if scheme.kind == "instances" and pair.truth_labels is not None:
                overlay = np.where(object_contours(pair.truth_labels), 0, overlay).astype(np.uint8)
            drawing.pictures[drawing.model, job.files.name] = small_picture(overlay)

    return see
