"""The planes that a network is trained on: pixels, and whatever is known about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_cellda.core.images.normalisation import Normalisation

UNKNOWN = -1
"""Label of a pixel that nobody annotated; losses leave it out."""


@dataclass(frozen=True)
class Plane:
    """One 2D plane of an image, normalised."""

    name: str
    """Of its image, with time and plane in stacks; unique in its domain."""
    pixels: NDArray[np.float32]
    """(C, Y, X), normalised over its whole image; may be a memory map."""
    normalisation: Normalisation
    """What was applied."""
    t: int = 0
    z: int = 0
    image: str = ""
    """Stem of the image; planes of one stack have the same."""
    labels: NDArray[np.integer] | None = None
    """(Y, X): class or instance ids, 0 = background, `UNKNOWN` = not annotated."""
    points: NDArray[np.float64] | None = None
    """(n, 2): row and column of one point per cell, in pixels."""
    present_mask: NDArray[np.bool_] | None = None
    """(K,): which classes are in the plane, by its image-level labels; the background always."""
    pseudo_map: NDArray[np.float32] | None = None
    """(K, Y, X): class probabilities that somebody else made, such as an enhancer."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def is_annotated(self) -> bool:
        """Whether the label of any pixel is known; a strokes file may be empty."""
        return self.labels is not None and bool((self.labels != UNKNOWN).any())

    @property
    def shows_something(self) -> bool:
        """Whether its labels or points show anything to find; where nothing is known, it may."""
        if self.labels is not None:
            return bool((self.labels > 0).any())
        return self.points is None or len(self.points) > 0


class Crops(NamedTuple):
    """Crops of one size, with the truth that belongs to them."""

    images: NDArray[np.float32]
    """(N, C, S, S)."""
    labels: NDArray[np.int64]
    """(N, S, S); `UNKNOWN` where nothing is known."""
    planes: NDArray[np.intp]
    """(N,): the plane that each was cut from."""
    pseudo_maps: NDArray[np.float32] | None
    """(N, K, S, S), if every plane has them."""


@dataclass(frozen=True)
class Domain:
    """The planes of one kind of image."""

    planes: tuple[Plane, ...]

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def n_channels(self) -> int:
        """Channels of every plane."""
        return int(self.planes[0].pixels.shape[0])

    @property
    def is_annotated(self) -> bool:
        """Whether any plane has labels."""
        return any(plane.is_annotated for plane in self.planes)

    def select(self, keep: Callable[[Plane], bool]) -> Domain:
        """Return the domain of those planes for which `keep` says so."""
        return Domain(tuple(plane for plane in self.planes if keep(plane)))

    def annotated(self) -> Domain:
        """Return the domain of the planes that have labels."""
        return self.select(lambda plane: plane.is_annotated)

    def foreground(self) -> Domain:
        """Return the same planes with one foreground class: labels 0, 1 and `UNKNOWN`."""
        return Domain(tuple(_binary(plane) for plane in self.planes))

    def split(self, share: float, seed: int = 0) -> tuple[Domain, Domain]:
        """Split off a share of the planes for validation: at least one, that shows something.

        By planes that are empty no checkpoint can be chosen, so they are trained on only. With a
        single plane that shows something, all are trained on, and that one is both.
        """
        order = np.random.default_rng([seed, 7]).permutation(len(self)).tolist()
        telling = [i for i in order if self.planes[i].shows_something]
        if len(telling) < 2:
            return self, Domain(tuple(self.planes[i] for i in telling)) if telling else self
        held_out = set(telling[: min(max(1, round(share * len(self))), len(telling) - 1)])
        return (
            Domain(tuple(p for i, p in enumerate(self.planes) if i not in held_out)),
            Domain(tuple(p for i, p in enumerate(self.planes) if i in held_out)),
        )

    def crops(self, rng: np.random.Generator, count: int, size: int) -> Crops:
        """Cut random crops.

        Parameters
        ----------
        rng : Generator
            Decides planes and places: planes with equal probability, places uniformly.
        count, size : int
            Number and side in pixels; a smaller plane is continued by reflection.

        Returns
        -------
        Crops
        """
        chosen = rng.integers(len(self), size=count)
        cut = [cut_plane(self.planes[i], *_place(self.planes[i], size, rng), size) for i in chosen]
        maps = [c[2] for c in cut]
        return Crops(
            np.stack([c[0] for c in cut]),
            np.stack([c[1] for c in cut]),
            chosen,
            None if any(m is None for m in maps) else np.stack([m for m in maps if m is not None]),
        )


def cut_plane(
    plane: Plane, top: int, left: int, size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
    """Cut one square out of a plane: pixels (C, S, S), labels (S, S), maps (K, S, S) or None.

    What lies beyond the plane is continued by reflection.
    """
    rows, columns = (
        _reflected(start, size, side) for start, side in zip((top, left), plane.shape, strict=True)
    )

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(array)[..., rows, :][..., columns]

    labels = np.full((size, size), UNKNOWN) if plane.labels is None else cut(plane.labels)
    maps = None if plane.pseudo_map is None else cut(plane.pseudo_map).astype(np.float32)
    return cut(plane.pixels).astype(np.float32), labels.astype(np.int64), maps


def _binary(plane: Plane) -> Plane:
    if plane.labels is None:
        return plane
    return replace(plane, labels=np.sign(plane.labels).astype(np.int32))


def _place(plane: Plane, size: int, rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = (max(side - size, 0) for side in plane.shape)
    return int(rng.integers(rows + 1)), int(rng.integers(columns + 1))


def _reflected(start: int, size: int, side: int) -> slice | NDArray[np.intp]:
    """Return where a cut lies along one axis; beyond the border it is mirrored."""
    if 0 <= start <= side - size:
        return slice(start, start + size)  # which is read several times as fast as indices
    period = max(2 * side - 2, 1)
    index = np.arange(start, start + size) % period
    return np.minimum(index, period - index)
