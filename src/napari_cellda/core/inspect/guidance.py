"""Where to paint next: places of a whole stack, ranked by all that speaks for a stroke there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.confidence import RADIUS, uncertain_spots, uncertainty_map
from napari_cellda.core.events import Stage, Step, never
from napari_cellda.core.inspect.places import Place, spread
from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.classifier import Normalised, PixelClassifier
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image

REASONS = {
    "uncertainty": "the forest is unsure here",
    "contradiction": "the enhancer contradicts the forest here",
    "discrepancy": "two networks disagree here",
}
"""What can speak for a stroke, and how a person is told."""
MAX_PLANES = 24
"""A stack is searched in at most so many planes, evenly spread."""
TREES = 20
"""The search asks a part of the forest only: it looks for doubt, not for an answer."""

Signals = Mapping[str, np.ndarray]
"""(Y, X) maps in [0, 1] by a key of `REASONS`."""
ReadSignals = Callable[[Region], Signals]


def priority_map(signals: Signals) -> np.ndarray:
    """Combine what speaks for a stroke.

    Parameters
    ----------
    signals : dict of str to (Y, X) ndarray of float in [0, 1]

    Returns
    -------
    (Y, X) ndarray of float32 in [0, 1]
        Their mean: a place that several point at comes before one that only one points at.
    """
    total = sum(np.asarray(signal, np.float32) for signal in signals.values())
    return np.asarray(total, np.float32) / len(signals)


def plane_candidates(
    signals: Signals, t: int, z: int, painted_mask: np.ndarray | None, count: int
) -> list[Place]:
    """Rank the places of one plane.

    Parameters
    ----------
    signals
        See `priority_map`.
    t, z : int
        Which plane.
    painted_mask : (Y, X) ndarray of bool, optional
        What is painted already; places keep `confidence.RADIUS` from it.
    count : int
        How many at most.

    Returns
    -------
    list of Place
        The score is the mean priority around the place; the reason the strongest signal there.
    """
    priority = priority_map(signals)
    places = []
    for y, x in uncertain_spots(priority, painted_mask, count):
        around = (slice(max(0, y - RADIUS), y + RADIUS + 1), slice(max(0, x - RADIUS), x + RADIUS))
        means = {name: float(signal[around].mean()) for name, signal in signals.items()}
        score = float(priority[around].mean())
        places.append(Place(t, z, y, x, score, REASONS[max(means, key=lambda name: means[name])]))
    return places


def search_stack(
    read_signals: ReadSignals,
    planes: Sequence[Region],
    painted_mask: Callable[[Region], np.ndarray],
    *,
    count: int = 10,
    z_step: float = 1.0,
    seen: Sequence[Place] = (),
    stop: Stop = never,
) -> Task[list[Place]]:
    """Rank places to paint next, spread over the planes of an image.

    Parameters
    ----------
    read_signals : callable of Region
        Computes or reads what speaks for a stroke in one plane; see `priority_map`.
    planes : sequence of Region
        Where to look, one plane each; see `spread_planes`.
    painted_mask : callable of Region
        Returns the (Y, X) mask of what is painted in a plane.
    count : int
        How many places at most.
    z_step : float
        Distance of two planes, in pixels.
    seen : sequence of Place
        Shown before; new ones keep away from them.
    stop : callable
        Asked before every plane.

    Yields
    ------
    Stage, Step

    Returns
    -------
    list of Place
        Best first; [] when all is painted.
    """
    yield Stage("Look for places to paint", len(planes))
    candidates: list[Place] = []
    for done, plane in enumerate(planes, 1):
        if stop():
            break
        mask = painted_mask(plane)
        if not mask.all():
            signals = read_signals(plane)
            here = plane_candidates(signals, plane.t, plane.z.start, mask, count)
            top, left = plane.y.start, plane.x.start
            candidates += [replace(place, y=place.y + top, x=place.x + left) for place in here]
        yield Step(done)
    # A stroke teaches about its surroundings, and about the planes that show the same object.
    return spread(candidates, count, distance=4 * RADIUS, z_step=z_step, seen=seen)


def forest_uncertainty(classifier: PixelClassifier, source: Normalised, stop: Stop) -> ReadSignals:
    """Return a reader of the forest's uncertainty, from a part of its trees."""
    quick = replace(classifier, forest=classifier.forest.truncated(TREES))

    def read(plane: Region) -> Signals:
        return {"uncertainty": uncertainty_map(quick.predict(source, plane, stop=stop))[0]}

    return read


def spread_planes(image: Image, most: int = MAX_PLANES) -> list[Region]:
    """Return at most so many planes of an image, evenly spread over depth and time."""
    nz, ny, nx = image.limits
    total = image.n_times * nz
    chosen = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))
    return [
        Region(int(i) // nz, slice(int(i) % nz, int(i) % nz + 1), slice(0, ny), slice(0, nx))
        for i in chosen
    ]


def z_step(image: Image) -> float:
    """Return how far apart two planes of an image count when places are spread, in pixels.

    Their true distance, but at least so much that the stack is as deep as it is wide: stain and
    focus change with depth, so that a thin stack, too, wants strokes on several planes.
    """
    along_z, along_y, _ = image.pixel_size
    nz, ny, nx = image.limits
    true = float(along_z / along_y) if along_y > 0 and along_z > 0 else 1.0
    return max(true, min(ny, nx) / nz)
