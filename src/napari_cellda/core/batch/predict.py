"""Run a saved project, or the network of a package, on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.batch.files import (
    BatchOptions,
    choice_for,
    find_inputs,
)
from napari_cellda.core.batch.models import Recipe, open_map_maker
from napari_cellda.core.batch.run import run_batch
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.instances import InstanceParams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_cellda.core.batch.files import BatchReport
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export import FileFormat
    from napari_cellda.core.images import Channels


def predict_batch(
    model: str,
    images: Sequence[Path],
    output: Path,
    *,
    instances: bool = False,
    least_score: float | None = None,
    channels: Channels | None = None,
    file_format: FileFormat = "tif",
    options: BatchOptions | None = None,
    stop: Stop = never,
) -> Task[BatchReport]:
    """Run a saved project, or the network of a package, on images.

    Parameters
    ----------
    model : str
        A project, ``X.cellda``; a run's folder; or whatever `open_model` opens.
    images, output, instances, file_format, options, stop
        See `classify_batch`.
    least_score : float, optional
        See `InstanceParams`; with one, objects are written without `instances`, too.
    channels : "grey", "all", or tuple of int, optional
        None: those that the model was trained on, see `open_map_maker`.

    Returns
    -------
    BatchReport

    Raises
    ------
    UserError
        If a least score is given for a model that has none.
    """
    paths = yield from find_inputs(images)
    options = options or BatchOptions()
    pipeline, measured, params = open_map_maker(model, channels, options.trusted)
    if instances and params is None:
        params = InstanceParams()
    if least_score is not None:
        if not getattr(pipeline, "draws_objects", False):
            raise UserError(
                f"'{model}' does not find objects by itself, so there is no least score to set."
            )
        params = (params or InstanceParams()).model_copy(update={"least_score": least_score})
    return (
        yield from run_batch(
            pipeline,
            lambda _: Recipe(model, channels, options.trusted),
            paths,
            choice_for(output, file_format, params),
            options,
            measured=measured,
            stop=stop,
        )
    )
