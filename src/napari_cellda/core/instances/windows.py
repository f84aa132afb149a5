"""Objects that a network finds and draws one by one, painted into label images of any size.

A tile is looked at with a margin; an object belongs to the tile that its middle lies in. Where two
objects claim a pixel the one with the better score gets it, whatever was painted first, so tiles
and the whole image agree. What is then mostly hidden was a second drawing of the same cell and is
dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from napari_cellda.core.events import Stop, never
from napari_cellda.core.params import BaseParams
from napari_cellda.core.tiles import Region, grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    ReadBlock = Callable[[Region], NDArray[np.float32]]
    """Gives the (C, Y, X) pixels of a region with one plane."""
    Finder = Callable[[NDArray[np.float32]], "FoundObjects"]
    """Gives the objects of a (C, Y, X) block, in its pixels."""


class WindowParams(BaseParams):
    """How objects from windows become labels."""

    tile: int = Field(1024, ge=64)
    """Side of a tile's core, in pixels."""
    margin: int = Field(128, ge=0)
    """What is looked at around it, in pixels; a window's side is enough."""
    slack: int = Field(8, ge=0)
    """Middles so close outside a core still count; the neighbour's double is hidden by it."""
    visible: float = Field(0.5, ge=0, le=1)
    """Share of its pixels that an object must keep from those on top of it."""
    min_size: int = Field(1, ge=0)
    """Smaller objects are dropped, in pixels."""
    remove_border: bool = False
    """Drop objects that touch the border of the plane."""


@dataclass(frozen=True)
class FoundObjects:
    """Objects of one block, each in a window of its own."""

    points: NDArray[np.float64]
    """(n, 2): row and column of each middle."""
    scores: NDArray[np.float32]
    """(n,), in [0, 1]."""
    masks: NDArray[np.bool_]
    """(n, S, S)."""
    corners: NDArray[np.int64]
    """(n, 2): row and column of each window's first pixel; may be negative."""


@dataclass(frozen=True)
class PaintedObjects:
    """What was painted; rows in the order of the labels, which count without gaps."""

    points: NDArray[np.float64]
    """(n, 2): row and column where each was found."""
    scores: NDArray[np.float64]
    """(n,), in [0, 1]."""


def paint_objects(
    find: Finder,
    read: ReadBlock,
    labels: NDArray[np.uint32],
    scores: NDArray[np.float32],
    params: WindowParams | None = None,
    *,
    first: int = 1,
    t: int = 0,
    z: int = 0,
    stop: Stop = never,
) -> PaintedObjects:
    """Find the objects of one plane tile by tile and paint them.

    Parameters
    ----------
    find : Finder
    read : ReadBlock
    labels : (Y, X) array of uint32
        Zeros, such as a scratch file; receives the objects.
    scores : (Y, X) array of float32
        Zeros; receives each object's score at its pixels.
    params : WindowParams, optional
    first : int
        Number of the first object.
    t, z : int
        Of the plane, for `read`.
    stop : callable
        Asked before every tile.

    Returns
    -------
    PaintedObjects
    """
    params = params or WindowParams()
    limits = (1, *labels.shape)
    painted = _Painted(labels, scores)
    for core in grid(limits, (1, params.tile, params.tile), t):
        if stop():
            break
        outer = core.grow((0, params.margin, params.margin), limits)
        block = read(Region(t, slice(z, z + 1), outer.y, outer.x))
        found = find(np.ascontiguousarray(block, np.float32))
        painted.add(found, outer, core.grow((0, params.slack, params.slack), limits))
    return painted.finish(params, first)


class _Painted:
    """Labels on their way: numbered as they come, tidied at the end."""

    def __init__(self, labels: NDArray[np.uint32], scores: NDArray[np.float32]) -> None:
        self.labels, self.canvas = labels, scores
        self.areas, self.scores = [0], [0.0]
        self.points: list[NDArray[np.float64]] = [np.zeros(2)]

    def add(self, found: FoundObjects, outer: Region, core: Region) -> None:
        """Paint the objects whose middle lies in `core`; they are in the pixels of `outer`."""
        # Plain views: a mapped file would be asked anew for every object.
        labels, canvas = (np.asarray(a[outer.y, outer.x]) for a in (self.labels, self.canvas))
        points = found.points + np.array([outer.y.start, outer.x.start])
        low = np.array([core.y.start, core.x.start]) - 0.5
        high = np.array([core.y.stop, core.x.stop]) - 0.5
        for k in np.flatnonzero(((points >= low) & (points < high)).all(axis=1)):
            window, inner = _clip(found.corners[k], found.masks[k].shape, labels.shape)
            mask, score = found.masks[k][inner], float(found.scores[k])
            on_top = mask & (score > canvas[window])
            labels[window][on_top] = len(self.areas)
            canvas[window][on_top] = score
            self.areas.append(int(mask.sum()))
            self.scores.append(score)
            self.points.append(points[k])

    def finish(self, params: WindowParams, first: int) -> PaintedObjects:
        """Drop what is hidden or small, and number the rest from `first`."""
        bands = [band.y for band in grid((1, *self.labels.shape), (1, 1024, self.labels.shape[1]))]
        seen = np.zeros(len(self.areas), np.int64)
        for rows in bands:
            seen += np.bincount(np.asarray(self.labels[rows]).ravel(), minlength=len(seen))
        areas = np.array(self.areas)
        keep = (seen >= max(params.min_size, 1)) & (seen >= params.visible * areas)
        if params.remove_border:
            for index in ((0,), (-1,), (slice(None), 0), (slice(None), -1)):
                keep[np.asarray(self.labels[index])] = False
        keep[0] = False
        numbers = np.where(keep, np.cumsum(keep) + first - 1, 0).astype(np.uint32)
        for rows in bands:
            band = np.array(self.labels[rows])
            self.canvas[rows] *= keep[band]
            self.labels[rows] = numbers[band]
        return PaintedObjects(np.array(self.points)[keep], np.array(self.scores)[keep])


def _clip(
    corner: NDArray[np.int64], size: tuple[int, ...], limits: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of an array that a window covers, and that part of the window."""
    start = np.maximum(corner, 0)
    stop = np.maximum(np.minimum(corner + size, limits), start)
    window = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    inside = zip(start - corner, stop - corner, strict=True)
    return window, tuple(slice(int(a), int(b)) for a, b in inside)


def find_in_plane(
    find: Finder, pixels: NDArray[np.float32], params: WindowParams | None = None
) -> tuple[NDArray[np.uint32], PaintedObjects]:
    """Find the objects of a (C, Y, X) plane in memory; see `paint_objects`.

    Returns
    -------
    labels : (Y, X) ndarray of uint32
    PaintedObjects
    """
    shape = pixels.shape[1:]
    labels, scores = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
    painted = paint_objects(
        find, lambda region: pixels[:, region.y, region.x], labels, scores, params
    )
    return labels, painted


def window_params(network: Any, **settings: Any) -> WindowParams:
    """Return the parameters that suit a network's windows."""
    side = math.ceil(network.offset_reach)
    return WindowParams(margin=max(128, side), slack=max(8, side // 8), **settings)


def finder(network: Any, device: Any = "cpu", least_score: float | None = None) -> Finder:
    """Return how a network that draws objects, such as `CksPrincipal`, is asked by `paint_objects`.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode, with ``find``.
    device : torch.device or str
        Where the network is.
    least_score : float, optional
        Weaker objects do not count. None: what the network was trained to.
    """
    import torch

    def find(block: NDArray[np.float32]) -> FoundObjects:
        with torch.inference_mode():
            # A block may be a part of a file that is only read, which torch warns of.
            pixels = torch.from_numpy(np.require(block, requirements="W"))
            found = network.find(pixels.to(device), least_score)
        points, scores, masks, corners = (part.cpu().numpy() for part in found)
        return FoundObjects(points.astype(np.float64), scores, masks, corners.astype(np.int64))

    return find
