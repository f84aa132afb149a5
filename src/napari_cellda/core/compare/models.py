"""Runs, projects and model packages compared with a truth: applied to images first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from napari_cellda.core.compare.evaluate import evaluate
from napari_cellda.core.compare.pairing import pair_folders
from napari_cellda.core.compare.parameters import count_parameters
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari_cellda.core.compare.evaluate import Evaluation
    from napari_cellda.core.compare.reading import Kind
    from napari_cellda.core.events import Stop, Task


def is_model(source: Path) -> bool:
    """Whether a path is a run, a project or a model package, and no folder of predictions."""
    return source.suffix in (".cellda", ".zip") or any(
        (source / name).is_file() for name in ("run.yaml", "rdf.yaml")
    )


def evaluate_sources(
    sources: Mapping[str, Path],
    images: Path | None,
    reference: Path,
    kind: Kind = "semantic",
    *,
    ignore: int | None = None,
    trusted: Collection[str] = (),
    stop: Stop = never,
) -> Task[Evaluation | None]:
    """Compare predictions and models with the truth; models predict the images first.

    Parameters
    ----------
    sources : mapping of name to Path
        Folders of predictions, or what `is_model` says to be a model.
    images : Path or None
        Folder of the images for the models.
    reference, kind, ignore, stop
        See `evaluate`.
    trusted : collection of str
        See `open_model`.

    Yields
    ------
    Stage, Step, Note

    Returns
    -------
    Evaluation or None
        With pictures; None when stopped. What models predicted is not kept.

    Raises
    ------
    ProgramRefused
        If a model is a program that is not among the trusted.
    UserError
        If there is a model and no folder of images, or names, shapes or values do not fit.
    """
    from napari_cellda.core.batch import open_map_maker

    models = [name for name, source in sources.items() if is_model(source)]
    if models and images is None:
        raise UserError(f"'{models[0]}' is a model; choose the folder of images to try it on.")
    if models and images is not None:  # nobody waits for names or models that do not fit
        pair_folders(images, reference, kind)
        for name in models:
            open_map_maker(str(sources[name]), trusted=trusted)
    with TemporaryDirectory(prefix="cellda-compare-") as scratch:
        predictions = dict(sources)
        for number, name in enumerate(models):
            predictions[name] = Path(scratch) / str(number)
            output = predictions[name]
            yield from _predict(name, sources[name], images, output, kind, trusted, stop)
            if stop():
                return None
        found = yield from evaluate(
            predictions, reference, kind, ignore=ignore, pictures=True, stop=stop
        )
    if found is None:
        return None
    sized = {
        name: replace(model, n_parameters=count_parameters(sources[name]))
        for name, model in found.models.items()
    }
    return replace(found, models=sized)


def _predict(
    name: str,
    source: Path,
    images: Path | None,
    output: Path,
    kind: Kind,
    trusted: Collection[str],
    stop: Stop,
) -> Task[None]:
    from napari_cellda.core.batch import BatchOptions, predict_batch

    assert images is not None, "checked before"
    report = yield from predict_batch(
        str(source),
        [images],
        output,
        instances=kind == "instances",
        options=BatchOptions(trusted=tuple(trusted)),
        stop=stop,
    )
    if report.failures:
        first, total = report.failures[0], len(report.failures) + len(report.done)
        raise UserError(
            f"'{name}' cannot predict {len(report.failures)} of {total} images; of the first "
            f"it was said: {first}"
        )
