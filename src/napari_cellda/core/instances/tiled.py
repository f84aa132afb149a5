"""Objects in images larger than memory: separated tile by tile and sewn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.events import Stage, Step, Stop, never
from napari_cellda.core.instances.basins import find
from napari_cellda.core.instances.separate import instances_from_maps
from napari_cellda.core.tiles import Region, grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.events import Task
    from napari_cellda.core.instances.separate import InstanceParams
    from napari_cellda.core.tiles import Spot

    ReadMaps = Callable[[Region], tuple[np.ndarray | None, np.ndarray | None]]
    ReadLabels = Callable[[Region], np.ndarray]
    WriteLabels = Callable[[Region, np.ndarray], None]

TILE_2D: Spot = (1, 2048, 2048)
HALO_2D: Spot = (0, 128, 128)
TILE_3D: Spot = (64, 256, 256)
HALO_3D: Spot = (16, 48, 48)


def label_tiles(
    read_maps: ReadMaps,
    read_labels: ReadLabels,
    write_labels: WriteLabels,
    limits: Spot,
    params: InstanceParams,
    *,
    t: int = 0,
    first: int = 1,
    tile: Spot | None = None,
    halo: Spot | None = None,
    spacing: Sequence[float] | None = None,
    stop: Stop = never,
) -> Task[int]:
    """Separate the objects of one time point with bounded memory.

    Parameters
    ----------
    read_maps : callable
        Gives the foreground and the boundary map of a region, (Z, Y, X) each, None where there is
        none; see `instances_from_maps`.
    read_labels, write_labels : callables
        Access to where the (Z, Y, X) labels go, such as a scratch array of uint32. Every pixel is
        written twice and read once.
    limits : tuple of int
        Size of the image, (Z, Y, X).
    params : InstanceParams
    t : int
        Time point of the regions.
    first : int
        Number of the first object.
    tile, halo : tuple of int, optional
        Core of a tile and what is added on each side, (z, y, x) pixels. Groups of
        touching objects that are smaller than the halo come out as if the image were one tile;
        larger ones are sewn together, and may differ by some pixels or, rarely, a cut.
    spacing : sequence of float, optional
        See `instances_from_maps`.
    stop : callable
        Asked before every tile.

    Returns
    -------
    int
        The next free number: `first` plus the number of objects, which are numbered without gaps.

    Notes
    -----
    Two tiles share a zone of twice the halo. Objects of the two that reach into the core of their
    tile and cover each other by more than half of the zone, both ways, are one object.
    """
    is_3d = limits[0] > 1
    tiles = grid(limits, tile or (TILE_3D if is_3d else TILE_2D), t)
    sewing = Sewing(limits, halo or (HALO_3D if is_3d else HALO_2D))
    loose = params.model_copy(update={"min_size": 0, "remove_border": False})
    yield Stage("Separate objects", 2 * len(tiles))
    for done, core in enumerate(tiles, 1):
        if stop():
            return first
        outer = core.grow(sewing.halo, limits)
        labels = instances_from_maps(*read_maps(outer), loose, spacing=spacing)
        write_labels(core, sewing.add(core, outer, labels))
        yield Step(done)
    numbers = sewing.numbers(params, first)
    for done, core in enumerate(tiles, len(tiles) + 1):
        if stop():
            return first
        write_labels(core, numbers[read_labels(core)])
        yield Step(done)
    return max(int(numbers.max()) + 1, first)


@dataclass
class Seam:
    """The labels of one tile in the zone that it shares with the next along one axis."""

    zone: Region
    labels: np.ndarray


class Sewing:
    """Keeps which labels of neighbouring tiles are one object, and how large each is.

    Parameters
    ----------
    limits, halo : tuple of int
        Of the image and the tiles, (z, y, x).
    """

    def __init__(self, limits: Spot, halo: Spot) -> None:
        self.limits = limits
        self.halo = halo
        self.parent = np.zeros(1, np.int64)
        self.sizes = np.zeros(1, np.int64)
        self.at_border = np.zeros(1, bool)
        self.seams: dict[tuple[int, int, int, int], Seam] = {}
        """By axis and origin of the tile that comes next."""

    def add(self, core: Region, outer: Region, labels: np.ndarray) -> np.ndarray:
        """Take the labels of a tile with its halo; return those of its core, unique so far."""
        base, count = len(self.parent) - 1, int(labels.max(initial=0))
        labels = np.where(labels > 0, labels + np.uint32(base), 0).astype(np.uint32)
        self.parent = np.append(self.parent, np.arange(base + 1, base + count + 1))
        inside = labels[core.inside(outer)]
        sizes = np.bincount(inside.ravel(), minlength=len(self.parent))[base + 1 :]
        self.sizes = np.append(self.sizes, sizes)
        self.at_border = np.append(self.at_border, np.zeros(count, bool))
        self._note_border(core, inside)
        self._sew(core, outer, labels)
        return inside

    def _note_border(self, core: Region, inside: np.ndarray) -> None:
        for axis, part in ((1, core.y), (2, core.x)):
            if part.start == 0:
                self.at_border[inside.take(0, axis)] = True
            if part.stop == self.limits[axis]:
                self.at_border[inside.take(-1, axis)] = True

    def _sew(self, core: Region, outer: Region, labels: np.ndarray) -> None:
        origin = tuple(part.start for part in core.slices)
        for axis in range(3):
            seam = self.seams.pop((axis, *origin), None)
            if seam is not None:
                self._join(seam.labels, labels[seam.zone.inside(outer)])
            edge = core.slices[axis].stop
            if edge < self.limits[axis] and self.halo[axis]:
                zone = list(outer.slices)
                zone[axis] = slice(
                    max(edge - self.halo[axis], outer.slices[axis].start), outer.slices[axis].stop
                )
                shared = Region(core.t, *zone)
                following = tuple(edge if i == axis else low for i, low in enumerate(origin))
                self.seams[(axis, *following)] = Seam(shared, labels[shared.inside(outer)].copy())

    def _join(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Unite the labels that cover each other by more than half, both ways."""
        both = (ours > 0) & (theirs > 0)
        span = len(self.parent)
        pairs, counts = np.unique(
            ours[both].astype(np.int64) * span + theirs[both], return_counts=True
        )
        sizes = np.bincount(ours.ravel(), minlength=span)
        other_sizes = np.bincount(theirs.ravel(), minlength=span)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            a, b = divmod(pair, span)
            # What lies in a halo only may be cut by its edge, and belongs to another tile anyway.
            in_cores = self.sizes[a] and self.sizes[b]
            if in_cores and 2 * count > max(sizes[a], other_sizes[b]):
                a, b = find(self.parent, a), find(self.parent, b)
                self.parent[max(a, b)] = min(a, b)

    def numbers(self, params: InstanceParams, first: int) -> np.ndarray:
        """Return the final number of every label; 0 for objects that are dropped."""
        roots = self.parent
        while (roots[roots] != roots).any():
            roots = roots[roots]
        sizes = np.bincount(roots, self.sizes, len(roots))
        at_border = np.bincount(roots, self.at_border, len(roots)) > 0
        keep = sizes >= max(params.min_size, 1)
        if params.remove_border:
            keep &= ~at_border
        keep[0] = False
        keep &= roots == np.arange(len(roots))
        numbers = np.where(keep, np.cumsum(keep) + first - 1, 0).astype(np.uint32)
        return np.asarray(numbers[roots])
