"""The Prediction Enhancer: a network that repairs a forest's map, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.enhancer.options import FLAT_RANGE
from napari_cellda.core.enhancer.tiled import TiledNetwork
from napari_cellda.core.enhancer.zoom import Zoom
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.modelzoo.model import Model, open_model
from napari_cellda.core.modelzoo.probe import made_up_map
from napari_cellda.core.network_tiles import ceil_to
from napari_cellda.core.tiles import Region, Spot, whole

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from napari_cellda.core.enhancer.zoom import ReadMap
    from napari_cellda.core.events import Stop

SEAM_TILES = {2: (256, 256), 3: (32, 64, 64)}
"""Tiles that `seam` compares with twice as long ones, in pixels."""


class Enhancer(TiledNetwork):
    """A model that takes a forest's map of one class and returns a better one [1]_.

    Parameters
    ----------
    model : Model
        One input channel.

    Raises
    ------
    UserError
        If the model takes another number of channels, or images.

    Notes
    -----
    All methods may be called from any thread.

    References
    ----------
    .. [1] Matskevych, Wolny, Pape, Kreshuk, "From shallow to deep: exploiting feature-based
       classifiers for domain adaptation in semantic segmentation", Front. Comput. Sci. 2022.
       https://doi.org/10.3389/fcomp.2022.805166
    """

    def __init__(self, model: Model) -> None:
        if model.card.n_inputs != 1:
            raise UserError(
                f"{model.card.name} takes {model.card.n_inputs} channels; an enhancer takes one, "
                "the forest's map of a class."
            )
        if model.card.kind != "enhancer":
            raise UserError(f"{model.card.name} takes images, not the map of a forest.")
        super().__init__(model)

    @classmethod
    def open(cls, source: str | Path, *, trusted: Collection[str] = ()) -> Enhancer:
        """Open an enhancer from wherever `open_model` can open it."""
        return cls(open_model(source, trusted=trusted))

    def enhance(self, map_block: np.ndarray) -> np.ndarray:
        """Enhance a map that is in memory, as an image of its own.

        Parameters
        ----------
        map_block : (Y, X) or (Z, Y, X) ndarray of float32, in [0, 1]

        Returns
        -------
        (K, Y, X) or (K, Z, Y, X) ndarray of float32, in [0, 1]
            One map per output of the enhancer (see `card.output_names`).
        """
        stack = map_block if map_block.ndim == 3 else map_block[np.newaxis]
        limits = (stack.shape[0], stack.shape[1], stack.shape[2])
        enhanced = self.enhance_region(lambda r: stack[r.slices], whole(limits), limits)
        assert enhanced is not None, "nobody asked it to stop"
        return enhanced if map_block.ndim == 3 else enhanced[:, 0]

    def enhance_region(
        self,
        read_forest_map: ReadMap,
        region: Region,
        limits: Spot,
        *,
        scale_range: tuple[float, float] | None = None,
        rescale: float = 1.0,
        stop: Stop = never,
    ) -> np.ndarray | None:
        """Enhance one region of a map that is read piece by piece.

        Parameters
        ----------
        read_forest_map : callable
            Gives the (Z, Y, X) float32 map, in [0, 1], of a region inside the image. Asked for the
            region and a halo, a tile at a time.
        region : Region
            What is wanted.
        limits : tuple of int
            Size of the image, (Z, Y, X).
        scale_range : (float, float), optional
            The map's least and largest value over the **whole image**; the map is stretched from
            it to [0, 1], unless they are closer than 0.3. None, the default, leaves the map as it
            is: enhancers are trained on maps that were not stretched, whatever their RDF says.
        rescale : float
            Zoom applied to the map before the network and undone after it, so that objects have
            the size of the training's; along y and x, for a 3D enhancer along z too.
        stop : callable
            Asked before every tile.

        Returns
        -------
        (K, Z, Y, X) ndarray of float32, in [0, 1], or None
            None: `stop` said so.

        Raises
        ------
        UserError
            If there is not enough memory for a tile.

        Notes
        -----
        A 2D enhancer takes a stack slice by slice. At the image's border the map is reflected by
        one step of the network. Tiles equal the whole image, up to rounding, for every network
        without instance or group norm; for those, see `seam`.
        """
        read = _stretched(read_forest_map, scale_range)
        if rescale == 1.0:
            return self.run_region(lambda part: read(part)[np.newaxis], region, limits, stop)
        zoom = self._zoom(rescale, limits)
        zoomed = self.run_region(
            lambda part: zoom.read(read, part)[np.newaxis],
            zoom.needed(region),
            zoom.zoomed_limits,
            stop,
        )
        return None if zoomed is None else zoom.undo(zoomed, region)

    def needed_map(self, region: Region, limits: Spot, *, rescale: float = 1.0) -> Region:
        """Return the part of the forest's map that `enhance_region` reads for a region."""
        if rescale == 1.0:
            return self.needed(region, limits)
        zoom = self._zoom(rescale, limits)
        return zoom.source(self.needed(zoom.needed(region), zoom.zoomed_limits))

    def _zoom(self, rescale: float, limits: Spot) -> Zoom:
        return Zoom((rescale if self.card.ndim == 3 else 1.0, rescale, rescale), limits)

    def seam(self) -> float:
        """Measure how much tiles may differ along their seams.

        Returns
        -------
        float
            0 for a network whose tiles equal the whole. Otherwise the largest difference, on a
            made-up map, between a tile and the same place in one that is twice as long.
        """
        if self.card.tiles_exactly:
            return 0.0
        tile = self._seam_tile()
        twice = made_up_map([*tile[:-1], 2 * tile[-1]])[np.newaxis, np.newaxis]
        # What the halo spoils at the cut is not kept of a tile either.
        kept = tile[-1] - self._axes[-1].reach
        together = self.model.runner(twice)[..., :kept]
        alone = self.model.runner(twice[..., : tile[-1]])[..., :kept]
        return float(np.abs(together - alone).max())

    def _seam_tile(self) -> list[int]:
        """Return a tile for `seam`: with room for a halo, and small where the network allows it."""
        known = self.model.network is not None
        axes = self._axes[-self.card.ndim :]
        sides = [
            max(ceil_to(side, axis.step), 0 if known else axis.least)
            for side, axis in zip(SEAM_TILES[self.card.ndim], axes, strict=True)
        ]
        sides[-1] = max(sides[-1], axes[-1].reach + axes[-1].step)
        return sides


def _stretched(read: ReadMap, scale_range: tuple[float, float] | None) -> ReadMap:
    """Return a reader of the map stretched from `scale_range` to [0, 1]."""
    if scale_range is None or scale_range[1] - scale_range[0] < FLAT_RANGE:
        return read
    low, high = scale_range

    def stretched(region: Region) -> np.ndarray:
        stretched_map: np.ndarray = np.clip((read(region) - low) / (high - low), 0, 1)
        return stretched_map

    return stretched


def merge_enhanced(forest_map: np.ndarray, foreground_map: np.ndarray, k: int) -> np.ndarray:
    """Put an enhanced foreground into a forest's map.

    Parameters
    ----------
    forest_map : (K, ...) ndarray of float32
        Class probabilities, sum 1.
    foreground_map : (...) ndarray of float32, in [0, 1]
        Replaces class `k`.
    k : int
        Class index; 1 is the first foreground class.

    Returns
    -------
    (K, ...) ndarray of float32
        Sum 1: the other classes share what is left in their old proportions, evenly where they
        had nothing.

    Raises
    ------
    UserError
        If there is no class `k`.
    """
    n_classes = len(forest_map)
    if not 0 <= k < n_classes:
        raise UserError(
            f"Class {k} cannot be enhanced; the forest has the classes 0 to {n_classes - 1}."
        )
    merged = np.array(forest_map, np.float32)
    merged[k] = 0
    rest = merged.sum(axis=0)
    nothing = rest <= 1e-6
    merged *= (1 - foreground_map) / np.where(nothing, 1, rest)
    merged[:, nothing] = (1 - foreground_map[nothing]) / (n_classes - 1)
    merged[k] = foreground_map
    return merged
