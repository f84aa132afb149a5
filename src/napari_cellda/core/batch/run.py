"""A batch from its first file to the report of the last."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.atomic import make_folder
from napari_cellda.core.batch.files import (
    BatchReport,
    Work,
    check_nothing_is_lost,
    find_missing,
    run_in_turn,
    run_together,
)
from napari_cellda.core.batch.models import identity
from napari_cellda.core.batch.workers import Order, run_in_processes, worker_count
from napari_cellda.core.events import never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_cellda.core.batch.files import BatchOptions
    from napari_cellda.core.batch.models import Recipe
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export.image import ExportChoice
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker


def run_batch(
    pipeline: MapMaker,
    write_recipe: Callable[[Path], Recipe],
    paths: Sequence[Path],
    choice: ExportChoice,
    options: BatchOptions,
    *,
    measured: Mapping[str, Normalisation] | None = None,
    stop: Stop = never,
) -> Task[BatchReport]:
    """Run a pipeline over files; one that fails is reported and does not stop the others.

    Parameters
    ----------
    pipeline : MapMaker
    write_recipe : callable
        Given a folder, returns the recipe by which other processes open the same pipeline; a file
        that it needs goes into the folder.
    paths : sequence of Path
    choice : ExportChoice
    options : BatchOptions
    measured : mapping of fingerprint to Normalisation, optional
        Images measured before keep their scaling.
    stop : callable

    Yields
    ------
    Stage, Step, Note
        A note for every image that failed.

    Returns
    -------
    BatchReport
        When stopped, of the images that were done until then.

    Raises
    ------
    UserError
        If a result would replace a file of the user's, or the folder cannot be made.
    """
    make_folder(choice.folder)
    work = Work(pipeline, choice, _made_with(pipeline, choice), measured or {})
    missing, kept = yield from find_missing(work, paths, options, stop=stop)
    before = BatchReport(kept=tuple(kept))
    if not missing or stop():
        return before
    if not options.overwrite:
        check_nothing_is_lost(missing, choice)
    with tempfile.TemporaryDirectory(prefix="cellda-") as folder:
        if options.scheduler is not None:
            from napari_cellda.core.cluster import on_cluster

            with on_cluster(pipeline, write_recipe(Path(folder)), options.scheduler) as remote:
                work = Work(remote, choice, work.made_with, work.measured)
                at_once = min(remote.images_at_once(missing[0]), len(missing))
                if at_once == 1:
                    return before + (yield from run_in_turn(work, missing, stop=stop))
                return before + (yield from run_together(work, missing, at_once, stop=stop))
        n_workers = worker_count(options.workers, len(missing))
        if n_workers == 1:
            return before + (yield from run_in_turn(work, missing, stop=stop))
        order = Order.of(write_recipe(Path(folder)), work, n_workers)
        return before + (yield from run_in_processes(order, missing, n_workers, stop=stop))


def _made_with(pipeline: MapMaker, choice: ExportChoice) -> str:
    digest = hashlib.sha256(identity(pipeline).encode())
    digest.update(f"{choice.file_format} {choice.mask} {choice.probabilities}".encode())
    if choice.instances:
        digest.update(choice.instance_params.model_dump_json().encode())
    return digest.hexdigest()
