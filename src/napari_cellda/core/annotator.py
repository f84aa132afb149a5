"""A simulated annotator: brushstrokes drawn from a known truth.

With it a forest can be trained the way a person trains one (a few thin strokes, then more where the
forest is wrong), so that enhancers see such forests in training and users can measure, on an
annotated set of their own, what painting would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIES = 6  # new directions tried before a stroke that would leave its class ends


def random_strokes(
    truth: NDArray[np.integer],
    n_per_class: int,
    length: float = 40,
    width: float = 3,
    rng: np.random.Generator | int = 0,
    *,
    n_classes: int | None = None,
) -> NDArray[np.uint8]:
    """Draw strokes at random places of every class.

    Parameters
    ----------
    truth : (Y, X) ndarray of int
        Class of every pixel, 0 = background; negative pixels belong to no class.
    n_per_class : int
        Strokes drawn per class; a class that does not occur gets none.
    length, width : float
        Size of a stroke in pixels. A stroke bends to stay inside its class and ends early where it
        cannot, as a person's does; what would stick out sideways is not painted.
    rng : Generator or int
        Source of randomness, or its seed.
    n_classes : int, optional
        Classes to draw; None takes all that occur in `truth`.

    Returns
    -------
    (Y, X) ndarray of uint8
        Stroke ids: 0 = not annotated, class + 1 elsewhere.
    """
    rng = np.random.default_rng(rng)
    strokes = np.zeros(truth.shape, np.uint8)
    for index in range(int(truth.max()) + 1 if n_classes is None else n_classes):
        allowed = truth == index
        for start in _random_starts(allowed, n_per_class, width, rng):
            _paint(strokes, allowed, start, length, width, index + 1, rng)
    return strokes


def error_strokes(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    n_per_class: int,
    rng: np.random.Generator | int = 0,
    *,
    length: float = 40,
    width: float = 3,
) -> NDArray[np.uint8]:
    """Draw strokes in the largest errors of a prediction, as a person correcting it would.

    An error is a connected region of one class that was predicted as another one. The stroke
    begins at the point of the error that lies deepest inside it, and stays in the class.

    Parameters
    ----------
    truth, predicted : (Y, X) ndarray of int
        Class of every pixel, 0 = background. Negative truth is never an error.
    n_per_class : int
        Strokes per class; fewer where a class has fewer errors.
    rng : Generator or int
        Source of randomness, or its seed.
    length, width : float
        Size of a stroke in pixels.

    Returns
    -------
    (Y, X) ndarray of uint8
        Stroke ids of the new strokes only: 0 = not annotated, class + 1 elsewhere.
    """
    rng = np.random.default_rng(rng)
    strokes = np.zeros(truth.shape, np.uint8)
    for index in range(int(truth.max()) + 1):
        allowed = truth == index
        for start in _deepest_points(allowed & (predicted != index), n_per_class):
            _paint(strokes, allowed, start, length, width, index + 1, rng)
    return strokes


def stroke_at(
    truth: NDArray[np.integer],
    start: tuple[int, int],
    rng: np.random.Generator | int = 0,
    *,
    length: float = 40,
    width: float = 3,
) -> NDArray[np.uint8]:
    """Draw one stroke of whatever class is at a place, as a person who was sent there would.

    Parameters
    ----------
    truth : (Y, X) ndarray of int
        Class of every pixel, 0 = background; not negative at `start`.
    start : (y, x)
    rng, length, width
        As for `random_strokes`.

    Returns
    -------
    (Y, X) ndarray of uint8
        Stroke ids: 0 = not annotated, class + 1 on the stroke.
    """
    strokes = np.zeros(truth.shape, np.uint8)
    index = int(truth[start])
    allowed = truth == index
    rng = np.random.default_rng(rng)
    _paint(strokes, allowed, np.array(start), length, width, index + 1, rng)
    return strokes


def _random_starts(
    allowed: NDArray[np.bool_], n: int, width: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Choose start points (N, 2), away from the edge of the class wherever it is wide enough."""
    inner = ndimage.binary_erosion(allowed, iterations=max(1, round(width / 2)))
    candidates = np.argwhere(inner if inner.any() else allowed)
    if not len(candidates):
        return candidates
    return candidates[rng.choice(len(candidates), n, replace=len(candidates) < n)]


def _deepest_points(error: NDArray[np.bool_], n: int) -> list[NDArray[np.intp]]:
    """Return the deepest pixel of each of the `n` largest connected errors, largest first."""
    regions, count = ndimage.label(error)
    if not count:
        return []
    sizes = np.bincount(regions.ravel())[1:]
    # A frame of zeros makes the image's edge count as an edge of the error too.
    depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    largest = np.argsort(-sizes, kind="stable")[:n] + 1
    return [np.array(ndimage.maximum_position(depth, regions, label)) for label in largest]


def _paint(
    strokes: NDArray[np.uint8],
    allowed: NDArray[np.bool_],
    start: NDArray[np.intp],
    length: float,
    width: float,
    stroke_id: int,
    rng: np.random.Generator,
) -> None:
    """Paint one stroke in place: a smoothly turning walk, widened, clipped to `allowed`."""
    path = _walk(allowed, start, round(length), rng)
    radius = (width - 1) / 2
    reach = int(np.ceil(radius))
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    brush = offsets[(offsets**2).sum(axis=1) <= (radius + 0.5) ** 2]
    points = (path[:, None] + brush[None]).reshape(-1, 2)
    inside = ((points >= 0) & (points < allowed.shape)).all(axis=1)
    y, x = points[inside].T
    keep = allowed[y, x]
    strokes[y[keep], x[keep]] = stroke_id


def _walk(
    allowed: NDArray[np.bool_], start: NDArray[np.intp], steps: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Walk from `start` in steps of one pixel inside `allowed`; (N, 2) pixels, N <= steps."""
    position = start + 0.5
    heading = rng.uniform(0, 2 * np.pi)
    path = [start]
    while len(path) < steps:
        for attempt in range(_TRIES):
            angle = heading + rng.normal(0, 0.15 + 0.4 * attempt)
            ahead = position + np.array([np.sin(angle), np.cos(angle)])
            pixel = np.floor(ahead).astype(np.intp)
            if ((pixel >= 0) & (pixel < allowed.shape)).all() and allowed[tuple(pixel)]:
                position, heading = ahead, angle
                path.append(pixel)
                break
        else:
            break
    return np.array(path)
