"""Did it help? The maps of several models on one image, compared with and without truth."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare.pixels import pixel_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.pipeline import MapMaker

SURE = 0.1
"""A pixel is sure when its probability is at most this far from 0 or 1."""


@dataclass(frozen=True)
class MapFigures:
    """What can be said of one map; shares of all pixels, in [0, 1]."""

    name: str
    foreground: float
    """Share above 0.5."""
    sure: float
    """Share of pixels it is sure of."""
    agreement: float
    """Dice at 0.5 with the map that is judged; tells how alike they are, not which is right."""
    dice: float | None = None
    """With the truth, at 0.5, if there is one."""
    iou: float | None = None


def foreground_maps(
    makers: Sequence[tuple[str, MapMaker]],
    image: Image,
    folder: Path,
    stop: Callable[[], bool],
) -> Task[dict[str, NDArray[np.float32]]]:
    """Compute the foreground maps of several models on one image.

    Parameters
    ----------
    makers : sequence of (name, MapMaker)
        A forest with an enhancer gives two maps: ``forest`` and its own name.
    image : Image
        With all its channels.
    folder : Path
        For scratch files.
    stop : callable

    Returns
    -------
    dict of name to ndarray
        Of the image's `label_shape`, in [0, 1]: 1 minus the background; fewer if stopped.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, maker in makers:
        if stop():
            break
        with ExitStack() as stack:
            maps = yield from maker.compute(image.select(maker.channels), stack, folder, stop=stop)
            if maps.forest is not None:
                found["forest"] = 1 - np.asarray(maps.forest[0], np.float32)
            found[name] = 1 - np.asarray(maps.probability[0], np.float32)
    return found


def judge(
    foreground: Mapping[str, NDArray[np.float32]],
    judged: str,
    truth_mask: NDArray[np.bool_] | None = None,
) -> list[MapFigures]:
    """Compare maps with the one that is judged, and with the truth if there is one.

    Parameters
    ----------
    foreground : mapping of name to ndarray
        Maps in [0, 1] of one shape.
    judged : str
        One of the names.
    truth_mask : ndarray of bool, optional
        Of the same shape.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    reference = foreground[judged] > 0.5  # ties are background, as in the masks that are written
    figures = []
    for name, values in foreground.items():
        mask = values > 0.5
        scores = None if truth_mask is None else pixel_scores(mask, truth_mask)
        figures.append(
            MapFigures(
                name,
                foreground=float(mask.mean()),
                sure=float(((values <= SURE) | (values >= 1 - SURE)).mean()),
                agreement=pixel_scores(mask, reference).dice,
                dice=None if scores is None else scores.dice,
                iou=None if scores is None else scores.iou,
            )
        )
    return figures
