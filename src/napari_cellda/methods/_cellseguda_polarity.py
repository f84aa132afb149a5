"""Whether bright and dark are swapped between source and target, as far as images can tell."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.domain import Domain, Plane

CLEAR = 0.5
"""Contrast, in standard deviations, and skewness, from which on they count as clear."""
PLANES, STRIDE = 16, 2
"""Planes that are looked at, at most, and the step between their pixels."""


def seems_swapped(source: Domain, target: Domain) -> bool:
    """Tell whether cells that are bright in the source seem to be dark in the target, or reverse.

    Parameters
    ----------
    source : Domain
        Annotated.
    target : Domain
        Its labels are not looked at.

    Returns
    -------
    bool
        True when the masks tell that the source's cells are clearly brighter (or darker) than the
        rest, its grey values lean that way, too, and those of the target clearly the other way.

    Notes
    -----
    Cells that fill a small part of an image are its tail of grey values: bright cells on dark
    ground are a tail to the right, which makes the skewness positive. Where that does not hold in
    the source (phase contrast, crowded cells), nothing is said of the target.
    """
    cells = _median(_contrast(plane) for plane in _some(source.annotated()))
    here, there = (_median(_skewness(plane) for plane in _some(d)) for d in (source, target))
    is_clear = min(abs(cells), abs(here), abs(there)) >= CLEAR
    return is_clear and np.sign(cells) == np.sign(here) != np.sign(there)


def _contrast(plane: Plane) -> float:
    """Return how much brighter the cells are than the rest, in standard deviations of the image."""
    grey, labels = _grey(plane), np.asarray(plane.labels)[::STRIDE, ::STRIDE]
    if not (labels > 0).any() or not (labels == 0).any() or grey.std() == 0:
        return 0.0
    return float((grey[labels > 0].mean() - grey[labels == 0].mean()) / grey.std())


def _skewness(plane: Plane) -> float:
    grey = _grey(plane)
    deviation = grey - grey.mean()
    return float((deviation**3).mean() / max(float(grey.std()), 1e-6) ** 3)


def _grey(plane: Plane) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(plane.pixels[:, ::STRIDE, ::STRIDE], float).mean(0)
    return values


def _some(domain: Domain) -> tuple[Plane, ...]:
    return domain.planes[:: max(1, ceil(len(domain) / PLANES))]


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
