"""Pseudo-labels from a saved project: its forest's, or enhanced, maps of the target images."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.adaptation.prepare import check_still_there
from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.batch import open_pipeline
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import open_image
from napari_cellda.core.project import fingerprint, load_project

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import Pipeline


def check_classes(project: Path, names: Sequence[str]) -> None:
    """Make sure that the classes that somebody named are those of a project, in its order.

    Parameters
    ----------
    project : Path
    names : sequence of str
        Of the foreground classes; empty when nobody named them. Others than the project's own are
        new names for them.

    Raises
    ------
    UserError
        If there are more or fewer, or the project has them in another order.
    """
    own = _class_names(project)[1:]
    shuffled = tuple(names) != own and sorted(names) == sorted(own)
    if names and (len(names) != len(own) or shuffled):
        raise UserError(
            f"'{project}' has the classes {', '.join(own)}, in this order, but "
            f"{', '.join(names)} are named; name the same, or none."
        )


def _class_names(project: Path) -> tuple[str, ...]:
    return tuple(style.name for style in load_project(project)[0].classes)


def project_maps(
    project: Path,
    images: Sequence[Image],
    folder: Path,
    stop: Stop,
    trusted: Collection[str] = (),
) -> Task[tuple[tuple[str, ...], dict[str, NDArray[np.float32]]] | None]:
    """Compute the maps of a project for every image; its models are opened only if one is missing.

    Parameters
    ----------
    project : Path
        ``X.cellda``, with a trained forest.
    images : sequence of Image
        With a path; read again with the channels that the project uses.
    folder : Path
        One ``.npy`` per image; what is there already is not made again.
    stop : callable
    trusted : collection of str
        See `open_model`.

    Returns
    -------
    classes : tuple of str
        Names, background first.
    maps : dict of image name to (K, ...) memory map of float32
        With the image's own axes after the classes.

    None when it was stopped.

    Raises
    ------
    UserError
        If an image goes away while it is read; its maps are not kept.
    """
    paths = {image: folder / f"maps {i}.npy" for i, image in enumerate(images)}
    missing = {image: path for image, path in paths.items() if not path.is_file()}
    if missing:
        pipeline, measured, _ = open_pipeline(project, trusted=trusted)
        for image, path in missing.items():
            assert image.path is not None
            again = open_image(image.path, channels=pipeline.channels)
            yield from _keep(pipeline, again, measured.get(fingerprint(again)), path, stop)
            if not path.is_file():
                return None
    return _class_names(project), {
        image.name: np.load(path, mmap_mode="r") for image, path in paths.items()
    }


def _keep(
    pipeline: Pipeline, image: Image, normalisation: Normalisation | None, path: Path, stop: Stop
) -> Task[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        found = yield from pipeline.compute(
            image, stack, path.parent, normalisation=normalisation, stop=stop
        )
        if stop():  # what was not reached is 0, and a resume would learn from it
            return
        check_still_there(image)
        with write_atomically(path) as aside:
            np.save(aside, np.asarray(found.probability, np.float32))
