"""Where the strokes are: the painted pixels of one image, kept tile by tile.

Strokes are sparse and change often. Re-reading only the tiles that a brush touched keeps a stroke
cheap on an image of any size, and what is handed to a background thread never changes afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.classifier import check_strokes_shape, tile_shape
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.live.coverage import Place, place_of
from napari_cellda.core.tiles import Region, grid, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cellda.core.features import FeatureSpec
    from napari_cellda.core.images import Image


NO_CLASS = 255
"""Stands for values that do not fit a byte."""


@dataclass(frozen=True, eq=False)
class TileStrokes:
    """The painted pixels of one feature tile; never changed once made."""

    tile: Region
    flat: np.ndarray
    """(N,) int64: positions in the tile of shape `tile.shape`, in C order, ascending."""
    ids: np.ndarray
    """(N,) uint8: stroke ids, 1 = background; `NO_CLASS` for values that are no id."""
    digest: bytes = field(default=b"")
    """Hash of the content; equal digests mean equal strokes."""

    @classmethod
    def find(cls, tile: Region, painted: np.ndarray) -> TileStrokes:
        """Collect the painted pixels of a (Z, Y, X) block that covers `tile`."""
        # A copy: another thread may paint meanwhile, which numpy's nonzero does not bear.
        values = np.array(painted).ravel()
        flat = np.flatnonzero(values)
        ids = values[flat]
        # Labels of other tools may not fit; none of them may turn into one of ours.
        return cls._of(tile, flat, np.where((ids < 0) | (ids > NO_CLASS), NO_CLASS, ids))

    @classmethod
    def _of(cls, tile: Region, flat: np.ndarray, ids: np.ndarray) -> TileStrokes:
        ids = ids.astype(np.uint8)
        digest = hashlib.blake2b(flat.tobytes() + ids.tobytes(), digest_size=16).digest()
        return cls(tile, flat, ids, digest)

    def known(self, n_classes: int) -> TileStrokes:
        """Return the strokes of these classes, without those of higher ids."""
        kept = self.ids <= n_classes
        return self if kept.all() else self._of(self.tile, self.flat[kept], self.ids[kept])


class StrokeIndex:
    """The painted pixels of one image, by the tile in which their features are computed.

    Parameters
    ----------
    image : Image
        Gives the shape and the axes of the strokes.
    spec : FeatureSpec
        Its dimension gives the size of the tiles.
    """

    def __init__(self, image: Image, spec: FeatureSpec) -> None:
        self._image = image
        self._tile = tile_shape(spec)
        self._tiles: dict[Place, TileStrokes] = {}

    def update(self, strokes: np.ndarray, regions: Iterable[Region] | None = None) -> bool:
        """Read the strokes again.

        Parameters
        ----------
        strokes : array of int, of the image's `label_shape`
            Numpy or anything sliced like it (zarr); only the tiles in question are read.
        regions : iterable of Region, optional
            What may have changed. None: everything.

        Returns
        -------
        bool
            Whether anything is different from before.

        Raises
        ------
        UserError
            If the strokes have another shape than the image.
        """
        check_strokes_shape(self._image, strokes)
        if regions is None:
            regions = [whole(self._image.limits, t) for t in range(self._image.n_times)]
        changed = False
        for tile in self._touched(regions):
            changed |= self._read(strokes, tile)
        return changed

    def _touched(self, regions: Iterable[Region]) -> list[Region]:
        limits = self._image.limits
        tiles = {
            place_of(tile): tile
            for region in regions
            for tile in grid(limits, self._tile, region.t, within=region)
        }
        return list(tiles.values())

    def _read(self, strokes: np.ndarray, tile: Region) -> bool:
        place = place_of(tile)
        old = self._tiles.get(place)
        painted = read_region(self._image, strokes, tile)
        if not painted.any():
            return self._tiles.pop(place, None) is not None
        new = TileStrokes.find(tile, painted)
        if old is not None and old.digest == new.digest:
            return False
        self._tiles[place] = new
        return True

    def snapshot(self, n_classes: int | None = None) -> tuple[TileStrokes, ...]:
        """Return all painted tiles, in the order in which `gather_samples` visits them.

        Where `n_classes` is given, strokes of higher ids are left out.
        """
        tiles = tuple(self._tiles[place] for place in sorted(self._tiles))
        if n_classes is None:
            return tiles
        known = (tile.known(n_classes) for tile in tiles)
        return tuple(tile for tile in known if len(tile.ids))

    def unknown(self, n_classes: int) -> int | None:
        """Return the least stroke id above `n_classes`; None if there is none."""
        beyond = [tile.ids[tile.ids > n_classes] for tile in self._tiles.values()]
        return min((int(ids.min()) for ids in beyond if len(ids)), default=None)

    def counts(self, n_classes: int) -> np.ndarray:
        """Count the painted pixels of each class; (n_classes,) int, background first."""
        total = np.zeros(n_classes + 1, np.int64)
        for tile in self._tiles.values():
            total += np.bincount(tile.ids, minlength=n_classes + 1)[: n_classes + 1]
        return total[1:]
