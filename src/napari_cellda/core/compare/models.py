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
    from collections.abc import Mapping

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

    Yields
    ------
    Stage, Step, Note

    Returns
    -------
    Evaluation or None
        With pictures; None when stopped. What models predicted is not kept.

    Raises
    ------
    UserError
        If there is a model and no folder of images, or names, shapes or values do not fit.
    """
    models = [name for name, source in sources.items() if is_model(source)]
    if models and images is None:
        raise UserError(f"'{models[0]}' is a model; choose the folder of images to try it on.")
    if models and images is not None:
        pair_folders(images, reference, kind)  # so that nobody waits for names that do not fit
    with TemporaryDirectory(prefix="cellda-compare-") as scratch:
        predictions = dict(sources)
        for number, name in enumerate(models):
            predictions[name] = Path(scratch) / str(number)
            yield from _predict(name, sources[name], images, predictions[name], kind, stop)
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
    name: str, source: Path, images: Path | None, output: Path, kind: Kind, stop: Stop
) -> Task[None]:
    from napari_cellda.core.batch import predict_batch

    assert images is not None, "checked before"
    with_objects = kind == "instances"
    report = yield from predict_batch(
        str(source), [images], output, instances=with_objects, stop=stop
    )
    if report.failures:
        first, total = report.failures[0], len(report.failures) + len(report.done)
        raise UserError(
            f"'{name}' cannot predict {len(report.failures)} of {total} images; of the first, "
            f"'{first.path.name}', it was said: {first.sentence}"
        )
