"""Where two probability maps disagree: as a heatmap, over epochs, and as boxes to annotate.

The pixel-level discrepancy of CULPICO is |p_a - p_b|: 0 where two networks (or a forest and its
enhancer, or two runs) agree, 1 where one is sure of what the other is sure to be wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.inspect.maps import LazyMap, as_map, check_shapes
from napari_cellda.core.inspect.places import Place, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_cellda.core.events import Task
    from napari_cellda.core.jobs import Run


def discrepancy_map(a: Any, b: Any, names: tuple[str, str] = ("a", "b")) -> np.ndarray:
    """Measure how far two maps are apart, pixel by pixel.

    Parameters
    ----------
    a, b : ndarray of float in [0, 1], or bool
        Same shape, any number of axes.
    names : (str, str)
        What messages call them.

    Returns
    -------
    ndarray of float32 in [0, 1]
        |a - b|.

    Raises
    ------
    UserError
        If the shapes differ or a value lies outside [0, 1].
    """
    check_shapes(a, b, names)
    difference: np.ndarray = as_map(a, names[0]) - as_map(b, names[1])
    np.abs(difference, out=difference)
    return difference


def lazy_discrepancy(a: Any, b: Any, names: tuple[str, str] = ("a", "b")) -> LazyMap:
    """Return `discrepancy_map` of two arrays of any size, computed part by part when looked at.

    Values are clipped, not refused: a viewer that draws them could show no message. Check what is
    in view with `as_map` before.

    Raises
    ------
    UserError
        If the shapes differ.
    """
    check_shapes(a, b, names)

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.clip(np.abs(a.astype(np.float32) - b.astype(np.float32)), 0, 1)

    return LazyMap(compute, a, b, dtype=np.float32)


def disputed_places(
    planes: Iterable[tuple[int, int, np.ndarray]],
    count: int,
    *,
    size: int,
    z_step: float = 1.0,
    stop: Callable[[], bool],
) -> Task[list[Place]]:
    """Find the most disputed regions of a stack, plane by plane.

    Parameters
    ----------
    planes : iterable of (t, z, (Y, X) ndarray of float in [0, 1])
        Read one at a time.
    count : int
        How many at most.
    size : int
        Side of a region in pixels.
    z_step : float
        Distance of two planes, in pixels.
    stop : callable
        Asked before every plane.

    Yields
    ------
    Stage, Step
        A step per plane, with its mean discrepancy.

    Returns
    -------
    list of Place
        Spread over the stack, the most disputed first; the score is the region's mean
        discrepancy. Regions without any are left out.
    """
    yield Stage("Look for disputed regions")
    candidates: list[Place] = []
    for done, (t, z, plane) in enumerate(planes, 1):
        if stop():
            break
        found = _disputed_windows(plane, count, size)
        candidates += [Place(t, z, y, x, score, "maps disagree") for y, x, score in found]
        yield Step(done, {"discrepancy": float(plane.mean()) if plane.size else 0.0})
    chosen = spread(candidates, count, distance=size, z_step=z_step)
    return sorted(chosen, key=lambda place: -place.score)


def _disputed_windows(plane: np.ndarray, count: int, size: int) -> list[tuple[int, int, float]]:
    """Return the middles of the windows with the highest mean, none over another: (y, x, mean)."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(np.asarray(plane, np.float32), size, mode="constant")
    found: list[tuple[int, int, float]] = []
    while len(found) < count and mean.size:
        y, x = (int(i) for i in np.unravel_index(mean.argmax(), mean.shape))
        score = float(mean[y, x])
        if score <= 1e-3:
            break
        found.append((y, x, min(score, 1.0)))
        mean[max(0, y - size + 1) : y + size, max(0, x - size + 1) : x + size] = 0
    return found


# -- over epochs -----------------------------------------------------------------------------------


def preview_epochs(run: Run, name: str) -> list[int]:
    """Return the steps at which a run kept a picture of this name.

    Raises
    ------
    UserError
        If it kept none; the names that there are stand in the message.
    """
    known = run.previews()
    if not known.get(name):
        there = ", ".join(sorted(known)) or "none"
        raise UserError(
            f"The run in '{run.folder}' kept no pictures called '{name}'; it has: {there}."
        )
    return known[name]


def preview_map(run: Run, name: str, index: int) -> np.ndarray:
    """Read one picture of a run as a (Y, X) map; of several channels the last counts."""
    found = run.preview(name, index).array
    plane = found.reshape(-1, *found.shape[-2:])[-1]
    return as_map(plane, f"{name} {index}")


def discrepancy_over_epochs(
    run: Run, names: Sequence[str]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Follow the discrepancy through a run's pictures.

    Parameters
    ----------
    run : Run
    names : one or two str
        Two maps that are compared at every step that has both; a single one is taken for a
        discrepancy map that the run itself kept.

    Returns
    -------
    steps : list of int
    maps : (E, Y, X) ndarray of float32 in [0, 1]
    means : (E,) ndarray of float
        The mean curve (CULPICO Fig. 6a).

    Raises
    ------
    UserError
        If there are no such pictures, no step has both, or their shapes differ.
    """
    steps = sorted(set.intersection(*(set(preview_epochs(run, name)) for name in names)))
    if not steps:
        raise UserError(f"No step of the run in '{run.folder}' has both {' and '.join(names)}.")
    maps = []
    for step in steps:
        found = [preview_map(run, name, step) for name in names]
        pair = (names[0], names[-1])
        maps.append(found[0] if len(found) == 1 else discrepancy_map(found[0], found[1], pair))
        check_shapes(maps[0], maps[-1], (f"{names[0]} {steps[0]}", f"{names[0]} {step}"))
    stack = np.stack(maps)
    return steps, stack, stack.mean(axis=(1, 2), dtype=np.float64)
