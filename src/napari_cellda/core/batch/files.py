"""Run over files: what is missing, one after the other or in several processes, failures listed."""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from napari_cellda.core.atomic import REFUSED, remove_leftovers
from napari_cellda.core.batch_record import drop_record, is_done, keep_record, recorded_files
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.core.export.image import ExportChoice, export_image, result_paths
from napari_cellda.core.images import open_image
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.memory import ran_out_of_memory
from napari_cellda.core.paths import exists, find_images, same_stem, stem, tell_left_out
from napari_cellda.core.project import fingerprint
from napari_cellda.core.run_record import hash_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export import FileFormat
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker

T = TypeVar("T")
SKIPPED = "Skipped: "
"""Begins the note of an image that failed."""
LEFTOVER_SECONDS = 3600.0
"""What was half written so long ago was left by a process that is dead; before that, several jobs
of a cluster may be at work on one folder."""


@dataclass(frozen=True)
class BatchOptions:
    """How a batch runs; none of it changes the results."""

    workers: int | None = None
    """Processes on this machine, each for one image at a time. None: as many as pay; 1: none but
    this one, which uses all cores for one image."""
    scheduler: str | None = None
    """Address of a `dask.distributed` scheduler whose workers compute the tiles."""
    overwrite: bool = False
    """Do all images again, not only those that are missing, and replace whatever is in the way."""
    trusted: tuple[str, ...] = ()
    """SHA-256 of model programs (TorchScript) that somebody agreed to run."""

    def __post_init__(self) -> None:
        """Raise a UserError for processes here and a scheduler elsewhere."""
        if self.workers is not None and self.scheduler is not None:
            raise UserError(
                "--workers is for processes on this machine and --scheduler has its own: leave out "
                "one of them."
            )


@dataclass(frozen=True)
class Work:
    """What is done with every image."""

    pipeline: MapMaker
    choice: ExportChoice
    made_with: str
    """Hash of all that decides the results."""
    measured: Mapping[str, Normalisation] = field(default_factory=dict)
    """By fingerprint: images measured before keep their scaling."""


@dataclass(frozen=True)
class Failure:
    """An image that has no results."""

    path: Path
    sentence: str
    traceback: str = ""
    """Of a fault of ours; "" for what the user can mend."""

    def __str__(self) -> str:
        """Return the sentence, after the file's path if it does not begin with it."""
        path = f"'{self.path}'"
        return self.sentence if self.sentence.startswith(path) else f"{path}: {self.sentence}"


@dataclass(frozen=True)
class BatchReport:
    """What became of the images."""

    done: tuple[Path, ...] = ()
    """Images done now."""
    written: tuple[Path, ...] = ()
    """Files written for them."""
    kept: tuple[Path, ...] = ()
    """Images that were done before."""
    failures: tuple[Failure, ...] = ()

    def __add__(self, other: BatchReport) -> BatchReport:
        """Join what became of some images and of others."""
        return BatchReport(
            self.done + other.done,
            self.written + other.written,
            self.kept + other.kept,
            self.failures + other.failures,
        )


class BatchFault(Exception):
    """A fault of ours on single images; its cause holds the traceback of the first."""


def choice_for(
    output: Path, file_format: FileFormat, instances: InstanceParams | None
) -> ExportChoice:
    """Return what the command line writes of an image."""
    return ExportChoice(
        folder=output,
        instances=instances is not None,
        table=instances is not None,
        probabilities=True,
        file_format="ome-zarr" if file_format == "ome-zarr" else "imagej",
        instance_params=instances or InstanceParams(),
    )


def find_inputs(paths: Sequence[Path]) -> Task[list[Path]]:
    """List images as `find_images` does, but not what a batch wrote into one of the folders.

    Yields
    ------
    Note
        If images of other kinds are left out.

    Raises
    ------
    UserError
        See `find_images`; if a folder holds nothing but such results, or two images would write
        the same output files.
    """
    found: list[Path] = []
    for path in paths:
        inside = find_images(path)
        results = recorded_files(path) if path not in inside else set()
        images = [image for image in inside if image.name not in results]
        if not images:
            raise UserError(
                f"The images in '{path}' are results of a batch; name those to be taken as images."
            )
        found += images
    if alike := same_stem(found):
        raise UserError(
            f"'{alike[0]}' and '{alike[1]}' have one name but for endings and capitals, and so "
            "would their results; rename one, or run them into two folders."
        )
    if left_out := tell_left_out(paths):
        yield Note(left_out)
    return found


def check_nothing_is_lost(paths: Sequence[Path], choice: ExportChoice) -> None:
    """Raise a UserError if a result would replace a file beside the images that no batch wrote."""
    folder = choice.folder
    if folder.resolve() not in {path.parent.resolve() for path in paths}:
        return
    results = recorded_files(folder)
    for path in paths:
        for target in result_paths(stem(path), choice):
            if target.exists() and target.name not in results:
                raise UserError(
                    f"'{target}' is no result of a batch, but one would be written there; choose "
                    "another folder, or replace it with --overwrite."
                )


def find_missing(
    work: Work, paths: Sequence[Path], options: BatchOptions, *, stop: Stop
) -> Task[tuple[list[Path], list[Path]]]:
    """Split the images into those to do and those that are done; clear away a crash's leftovers.

    When stopped, only those that were looked at until then.
    """
    folder = work.choice.folder
    remove_leftovers(folder, [stem(path) for path in paths], older_than=LEFTOVER_SECONDS)
    missing: list[Path] = []
    kept: list[Path] = []
    if len(paths) > 1:
        yield Stage("Look for what is missing", len(paths))
    for number, path in enumerate(paths, 1):
        if stop():
            break
        done = not options.overwrite and is_done(folder, path, work.made_with)
        (kept if done else missing).append(path)
        if len(paths) > 1:
            yield Step(number)
    if kept:
        which = f"'{kept[0].name}' was" if len(paths) == 1 else f"{len(kept)} images were"
        yield Note(f"{which} done before, with the same settings; --overwrite does it again.")
    return missing, kept


def run_in_turn(work: Work, paths: Sequence[Path], *, stop: Stop) -> Task[BatchReport]:
    """Do one image after the other in this process; one that fails does not stop the others."""
    report = BatchReport()
    for number, path in enumerate(paths, 1):
        if stop():
            break
        task = process_image(work, path, stop=stop)
        try:
            files = yield from (task if len(paths) == 1 else _numbered(task, number, len(paths)))
        except Exception as error:
            failure = describe_failure(path, error)
            report += BatchReport(failures=(failure,))
            if len(paths) > 1:
                yield Note(f"{SKIPPED}{failure}")
        else:
            report += BatchReport((path,), tuple(files)) if files else BatchReport()
    return report


def run_together(
    work: Work, paths: Sequence[Path], at_once: int, *, stop: Stop
) -> Task[BatchReport]:
    """Do several images at once, in threads: for maps that are computed elsewhere."""
    report, ended = BatchReport(), threading.Event()
    yield Stage(f"{len(paths)} images, {at_once} at a time", len(paths))
    with ThreadPoolExecutor(at_once) as pool:
        try:
            futures = {
                pool.submit(drain_image, work, path, lambda: stop() or ended.is_set()): path
                for path in paths
            }
            for done, future in enumerate(as_completed(futures), 1):
                path = futures[future]
                try:
                    files, notes = future.result()
                except Exception as error:
                    failure = describe_failure(path, error)
                    report += BatchReport(failures=(failure,))
                    yield Note(f"{SKIPPED}{failure}")
                else:
                    yield from notes
                    report += BatchReport((path,), tuple(files)) if files else BatchReport()
                yield Step(done)
        finally:
            ended.set()
    return report


def drain_image(work: Work, path: Path, stop: Stop) -> tuple[list[Path], list[Note]]:
    """Do as `process_image`, and keep only the notes of its events."""
    notes: list[Note] = []
    task = process_image(work, path, stop=stop)
    while not stop():
        try:
            event = next(task)
        except StopIteration as end:
            return end.value, notes
        if isinstance(event, Note):
            notes.append(event)
    task.close()
    return [], notes


def process_image(work: Work, path: Path, *, stop: Stop) -> Task[list[Path]]:
    """Compute and write all of one image, and note that it is done; [] when stopped."""
    if not exists(path):
        raise UserError(f"'{path}' does not exist.")
    folder = work.choice.folder
    content = hash_input(path)
    drop_record(folder, path)
    image = open_image(path, channels=work.pipeline.channels)
    if image.others:
        yield Note(f"'{path}' holds {image.others + 1} images, of which only the first is read.")
    normalisation = _measured_before(work, image)
    done = yield from export_image(
        work.pipeline, image, work.choice, normalisation=normalisation, stop=stop
    )
    if done is None:
        return []
    keep_record(folder, path, content, work.made_with, list(done.paths))
    return list(done.paths)


def _measured_before(work: Work, image: Image) -> Normalisation | None:
    if not work.measured:
        return None
    try:
        return work.measured.get(fingerprint(image))
    except (OSError, ValueError, RuntimeError, KeyError):
        return None  # a damaged part, which the reading for the maps will name


def describe_failure(path: Path, error: Exception) -> Failure:
    """Say in one sentence why an image has no results."""
    if isinstance(error, UserError):
        return Failure(path, _with_path(str(error), path))
    if ran_out_of_memory(error):
        return Failure(path, f"'{path}' takes more memory than there is.")
    if isinstance(error, OSError) and error.errno in REFUSED:
        what = error.filename or path
        return Failure(path, f"'{what}' cannot be read or written: {error.strerror}.")
    first = " ".join(str(error).split())[:200]
    sentence = f"'{path}' met a fault of ours ({type(error).__name__}: {first})."
    return Failure(path, sentence, "".join(traceback.format_exception(error)))


def _with_path(sentence: str, path: Path) -> str:
    """Put the path where a sentence begins with the name: images of two folders may share it."""
    for name in (f"'{path.name}'", f"'{stem(path)}'"):
        if sentence.startswith(name):
            return f"'{path}'{sentence.removeprefix(name)}"
    return sentence


def insist(batch: Task[BatchReport]) -> Task[BatchReport]:
    """Run a batch; in the end, name the images that failed, and raise if any did.

    Returns
    -------
    BatchReport
        Without failures.

    Raises
    ------
    UserError
        If single images failed for reasons that the user can mend.
    BatchFault
        If one of them was a fault of ours.
    """
    report = yield from batch
    failures = report.failures
    total = len(report.done) + len(report.kept) + len(failures)
    if not failures:
        return report
    if total > 1:
        yield Note(f"{len(failures)} of {total} images failed:")
        for failure in failures:
            yield Note(f"  {failure}")
    summary = failures[0].sentence
    if total > 1:
        summary = (
            f"{len(failures)} of {total} images failed; they are listed above, and the same "
            "command does only what is missing."
        )
    fault = next((failure for failure in failures if failure.traceback), None)
    if fault is not None:
        raise BatchFault(summary) from BatchFault(f"\n{fault.traceback}")
    raise UserError(summary)


def _numbered(task: Task[T], number: int, total: int) -> Task[T]:
    """Put the number of the image before the titles of its stages."""
    while True:
        try:
            event = next(task)
        except StopIteration as end:
            result: T = end.value
            return result
        if isinstance(event, Stage):
            event = Stage(f"{number}/{total} {event.title}", event.total)
        yield event
