"""Places worth a look, ranked and spread, so that ten of them do not lie in one corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.tiles import Spot


@dataclass(frozen=True)
class Place:
    """A pixel of an image, how much it asks for a look, and why."""

    t: int
    z: int
    y: int
    x: int
    score: float
    """In [0, 1]; comparable among places of one search only."""
    reason: str = ""
    """In a few words, such as "forest unsure"."""

    def box(self, size: int, limits: Spot) -> Region:
        """Return the square of `size` pixels around it, moved into an image of size `limits`."""
        sides = []
        for middle, limit in ((self.y, limits[1]), (self.x, limits[2])):
            low = max(0, min(middle - size // 2, limit - size))
            sides.append(slice(low, min(low + size, limit)))
        return Region(self.t, slice(self.z, self.z + 1), *sides)


def spread(
    candidates: Sequence[Place],
    count: int,
    *,
    distance: float,
    z_step: float = 1.0,
    seen: Sequence[Place] = (),
) -> list[Place]:
    """Choose places that score high and lie apart.

    Parameters
    ----------
    candidates : sequence of Place
    count : int
        How many at most.
    distance : float
        Pixels within which a second place says little that is new.
    z_step : float
        Distance of two planes, in pixels. Time points count as infinitely far apart.
    seen : sequence of Place
        Chosen before; the new ones keep away from them too.

    Returns
    -------
    list of Place
        Best first. Each next one has the largest score times 1 - exp(-(d / distance)^2), with d
        the distance to the nearest one chosen so far: near ones are not forbidden, only late.
    """
    if not candidates:
        return []
    spots = np.array([_position(place, z_step) for place in candidates], float)
    times = np.array([place.t for place in candidates])
    left = np.array([place.score for place in candidates], float)
    for place in seen:
        left *= _novelty(spots, times, place, distance, z_step)
    chosen: list[Place] = []
    for _ in range(min(count, len(candidates))):
        best = int(left.argmax())
        chosen.append(candidates[best])
        left *= _novelty(spots, times, candidates[best], distance, z_step)
        left[best] = -np.inf
    return chosen


def _position(place: Place, z_step: float) -> tuple[float, float, float]:
    return place.z * z_step, place.y, place.x


def _novelty(
    spots: np.ndarray, times: np.ndarray, place: Place, distance: float, z_step: float
) -> np.ndarray:
    """Return how new each spot is beside `place`, from 0 (the same) to 1 (far away)."""
    squared = ((spots - _position(place, z_step)) ** 2).sum(axis=1)
    near: np.ndarray = np.exp(-squared / max(distance, 1e-6) ** 2)
    return np.where(times == place.t, 1 - near, 1.0)
