"""An adaptation as a run: folders in, a run folder with a bioimage.io package out."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.adaptation.package import middle_of, write_adapted
from napari_cellda.core.adaptation.prepare import prepare_domains
from napari_cellda.core.adaptation.pretrained import read_trained
from napari_cellda.core.adaptation.project_maps import check_classes, project_maps
from napari_cellda.core.atomic import plain_disk_errors, remove
from napari_cellda.core.batch import open_pipeline
from napari_cellda.core.batch_record import tell_results
from napari_cellda.core.devices import find_device
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Task, never
from napari_cellda.core.jobs import Run
from napari_cellda.core.paths import files_below, is_zarr, tell_left_out
from napari_cellda.core.processes import rank, tell_lost_process, wait_for, world_size
from napari_cellda.core.run_record import recorded_name
from napari_cellda.core.runs.commands import check_resumed_by, typed_again
from napari_cellda.core.runs.folder import (
    check_new_folder,
    clear_failed,
    copy_into,
    failed_before_first_step,
)
from napari_cellda.core.runs.inputs import files_read, is_unchanged, newest_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.job import Adapted
    from napari_cellda.core.adaptation.method import Method
    from napari_cellda.core.adaptation.pretrained import Trained
    from napari_cellda.core.events import Stop
    from napari_cellda.core.params import Preset

NO_NETWORK = Note("Stopped before the first step, so there is no network.")
NO_SEGMENTER = Note("Stopped before it learned to segment, so there is no model; resume to go on.")


def begin_adaptation(
    folder: Path,
    method: Method,
    inputs: AdaptInputs,
    *,
    preset: Preset = "cpu",
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    bundle: bool = False,
    trusted: Collection[str] = (),
) -> Run:
    """Check everything and begin a run; nothing is computed yet.

    Parameters
    ----------
    folder : Path
        New or empty.
    method : Method
    inputs : AdaptInputs
    preset : {"cpu", "gpu", "published"}
    overrides : mapping, optional
        Settings that differ from the preset.
    seed : int
    device : str
        Where it will run: checked, not recorded.
    bundle : bool
        Copy the inputs into the run, so that the folder alone can go to another machine.
    trusted : collection of str
        See `run_adaptation`.

    Raises
    ------
    ProgramRefused
        If the project's enhancer is a program that is not among the trusted.
    UserError
        For bad inputs or settings, or a folder that holds something but a run that failed before
        its first step; nothing is written then.
    """
    if rank():
        wait_for(folder / "run.yaml")
        return Run(folder)
    settings = method.settings(preset, overrides)
    find_device(device)
    opened = open_inputs(inputs, method)
    # Of several processes the others would take the run that failed for the new one.
    again = world_size() == 1 and failed_before_first_step(folder)
    if not again:
        check_new_folder(folder)
    if inputs.pretrained is not None:
        read_trained(inputs.pretrained)
    if inputs.project is not None:
        check_classes(inputs.project, opened.class_names)
        open_pipeline(inputs.project, trusted=trusted)  # what it lacks is told before all else
    paths = inputs.paths
    if bundle:
        paths = {role: _copy_in(role, path, folder / "inputs") for role, path in paths.items()}
    if again:
        clear_failed(folder)
    options = inputs.model_dump(mode="json", exclude=set(inputs.paths))
    return Run.create(
        folder,
        method.name,
        settings,
        paths,
        seed=seed,
        options={key: value for key, value in options.items() if value not in (None, [])},
        command=_command(method, inputs, preset, overrides, seed),
    )


def resume_adaptation(folder: Path, inputs: Path | None = None) -> Run:
    """Open a run to go on with it.

    Parameters
    ----------
    folder : Path
    inputs : Path, optional
        Where the inputs lie now, if they were moved: files and folders of their old names, or one
        folder per input, named as the options are. What is not there may still be in its place.

    Raises
    ------
    UserError
        If there is no run, it trains an enhancer, or an input is missing or has changed.
    """
    run = Run(folder)
    check_resumed_by(run.record.method, "adapt", folder)
    if inputs is not None:
        _point_to(run, inputs)
        run = Run(folder)
    run.check_inputs("or say with --inputs where it lies now")
    return run


def run_adaptation(
    run: Run,
    find_method: Callable[[str], Method],
    *,
    device: str = "auto",
    trusted: Collection[str] = (),
    stop: Stop = never,
) -> Task[Path | None]:
    """Run an adaptation, or go on with it from its last checkpoint.

    Parameters
    ----------
    run : Run
        From `begin_adaptation` or `resume_adaptation`.
    find_method : callable name -> Method
    device : str
        "auto", "cpu", "cuda" or "mps".
    trusted : collection of str
        See `open_model`. The run does not record them, or whoever gave it away would have agreed
        for others; it keeps the maps, so that a resume does without the program.
    stop : callable
        Asked before every step; the partial network is written as a package all the same.

    Yields
    ------
    Stage, Step, Score, Preview, Note
        Also written to the run's log.

    Returns
    -------
    Path or None
        The package ``<run>/model``; None when it was stopped before the first step.

    Raises
    ------
    UserError
        For bad inputs, a device that is not there, and when a loss is not finite.
    """
    method = find_method(run.record.method)
    return (yield from run.drive(_work(run, method, device, trusted, run.stopper(stop))))


def _work(
    run: Run, method: Method, device: str, trusted: Collection[str], stop: Stop
) -> Task[Path | None]:
    """Adapt, and then forget what was read, unless a resume will need it."""
    cache = run.folder / ("cache" if not rank() else f"cache {rank()}")
    with tell_lost_process():
        package, over = yield from _adapt(run, cache, method, device, trusted, stop)
    if over:
        gc.collect()  # Windows removes no mapped file, and a cycle of references may hold maps
        remove(cache)
    return package


def _adapt(
    run: Run, cache: Path, method: Method, device: str, trusted: Collection[str], stop: Stop
) -> Task[tuple[Path | None, bool]]:
    """Return the package, and whether the run is over, so that nothing is left to go on with."""
    find_device(device)
    run.check_present()
    inputs = inputs_of(run)
    settings = method.settings("cpu", run.record.params)
    opened = open_inputs(inputs, method)
    given = (inputs.target_images, inputs.source_images, inputs.nuclei_images)
    folders = [path for path in given if path is not None]
    for left_out in (tell_left_out(folders), tell_results(folders)):
        if left_out:
            yield Note(left_out)
    # Processes agree on when to stop from their first step on; before, one might wait for ever.
    reading = stop if world_size() == 1 else never
    maps: dict[str, NDArray[np.float32]] = {}
    names = opened.class_names
    if inputs.project is not None:
        images = [files.image for files in opened.target]
        found = yield from project_maps(inputs.project, images, cache, reading, trusted)
        if found is None:
            yield NO_NETWORK
            return None, False
        classes, maps = found
        names = names or classes[1:]
    prepared = yield from prepare_domains(
        opened,
        method,
        settings.normalisation,
        cache,
        names=names,
        maps=maps,
        diameter=inputs.diameter,
        stop=reading,
    )
    if prepared is None:
        yield NO_NETWORK
        return None, False
    run.check_present()  # masks are read as zeros, too, when their zarr files are gone
    example = middle_of(opened.target[0].image)
    trained = None if inputs.pretrained is None else read_trained(inputs.pretrained)
    job = AdaptJob(
        target=prepared.target,
        source=prepared.source,
        validation=prepared.validation,
        classes=prepared.classes,
        diameter=inputs.diameter,
        pretrained=trained,
        store=run,
        scratch=cache,
        seed=run.record.seed,
        device=device,
        stop=stop,
    )
    adapted = yield from _told(method.adapt(job, settings), run, trained)
    if not (adapted.progress.steps and adapted.segments):
        yield NO_SEGMENTER if adapted.progress.steps else NO_NETWORK
        return None, False
    if rank():
        return None, True
    yield Stage("Write the model")
    package = write_adapted(run, method, settings, prepared, adapted, example)
    return package, not adapted.progress.stopped


def _told(task: Task[Adapted], run: Run, trained: Trained | None) -> Task[Adapted]:
    """Pass a training on; first tell what was taken of a trained network, if it begins now."""
    if trained is None or run.checkpoint_path("last").is_file():
        return (yield from task)
    first = next(task)  # by then its networks are made
    for text in trained.notes:
        yield Note(text)
    yield first
    return (yield from task)


def inputs_of(run: Run) -> AdaptInputs:
    """Return the inputs of a run, wherever they lie now."""
    paths = {item.role: run.input_path(item.role) for item in run.record.inputs}
    return AdaptInputs.model_validate({**run.record.options, **paths})


def _copy_in(role: str, source: Path, folder: Path) -> Path:
    """Copy an input into the run, where an earlier beginning may have copied it before."""
    whole = source.is_dir() and not is_zarr(source)
    target = folder / role if whole else folder / role / source.name
    if target.resolve() == source.resolve():
        return target
    files = files_read(role, source, hidden=True)
    there = target if source.is_dir() else target.parent
    names = {path.relative_to(there).as_posix() for path in files_below(target, hidden=True)}
    if others := names - {name for name, _ in files}:
        raise UserError(
            f"'{target}' holds '{min(others)}', which is not in '{source}': choose a new folder."
        )
    with plain_disk_errors(target):
        copy_into(files, there)
    return target


def _point_to(run: Run, folder: Path) -> None:
    """Rewrite where the inputs lie, after finding each by name and content, there or in place."""
    moved = {}
    for item in run.record.inputs:
        name = recorded_name(item.path)
        roles = [folder / item.role, folder / item.role.replace("_", "-")]
        candidates = [folder / name, *roles, *(role / name for role in roles)]
        candidates.append(run.input_path(item.role))
        for path in candidates:
            if path.exists() and is_unchanged(item, path):
                moved[item.role] = path
                break
        else:
            there = next((path for path in candidates if path.exists()), None)
            hint = ""
            if there is not None:
                hint = f"; '{there}' is another{newest_file(item.role, there)}"
            raise UserError(
                f"'{folder}' holds no '{name}' with the content that the run began with "
                f"({item.role.replace('_', ' ')}){hint}."
            )
    run.move_inputs(moved)


def _command(
    method: Method,
    inputs: AdaptInputs,
    preset: Preset,
    overrides: Mapping[str, Any] | None,
    seed: int,
) -> str:
    """Return the command line that begins this run again."""
    options = {name: getattr(inputs, name) for name in AdaptInputs.model_fields}
    if inputs.channels == "grey":
        del options["channels"]  # as when nothing is said
    options |= {"preset": preset, "seed": seed}
    return typed_again(("adapt", method.name), options, overrides or {})
