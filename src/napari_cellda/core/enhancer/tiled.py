"""A network over arrays of any size: block by block, with what every block needs around itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.enhancer.tile_axes import tile_axes
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import never
from napari_cellda.core.memory import ran_out_of_memory
from napari_cellda.core.network_tiles import Span, cut_axis
from napari_cellda.core.tiles import Region, Spot, reflect_pad

if TYPE_CHECKING:
    from napari_cellda.core.events import Stop
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.modelzoo.model import Model

ReadChannels = Callable[[Region], np.ndarray]
"""Gives the (C, Z, Y, X) float32 block of a region inside the image."""


class TiledNetwork:
    """An opened model, run in tiles.

    Parameters
    ----------
    model : Model
        Of any number of channels; a 2D one takes a stack slice by slice.

    Notes
    -----
    All methods may be called from any thread.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._axes = tile_axes(model)

    @property
    def card(self) -> ModelCard:
        """What the package says about itself."""
        return self.model.card

    @property
    def halo(self) -> int:
        """Pixels around a region that its answer depends on, the largest over the axes."""
        return max(axis.reach for axis in self._axes)

    def run_region(
        self,
        read: ReadChannels,
        region: Region,
        limits: Spot,
        stop: Stop = never,
    ) -> np.ndarray | None:
        """Run the network over one region.

        Parameters
        ----------
        read : callable
            See `ReadChannels`. Asked for the region and a halo, a tile at a time.
        region : Region
            What is wanted.
        limits : tuple of int
            Size of the image, (Z, Y, X).
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
        """
        answer = np.empty((self.card.n_outputs, *region.shape), np.float32)
        for spans in product(*self._cuts(region, limits)):
            if stop():
                return None
            block = self._run(_read_block(read, region.t, spans, limits))
            core = Region(region.t, *(s.core for s in spans))
            inside = (s.core_inside for s in spans)
            answer[(slice(None), *core.inside(region))] = block[(slice(None), *inside)]
        # Some published networks end without an activation, and rounding may overshoot.
        np.clip(answer, 0, 1, out=answer)
        return answer

    def needed(self, region: Region, limits: Spot) -> Region:
        """Return the part of the image that `run_region` reads for a region."""
        return Region(
            region.t,
            *(
                slice(max(min(s.start for s in spans), 0), min(max(s.stop for s in spans), limit))
                for spans, limit in zip(self._cuts(region, limits), limits, strict=True)
            ),
        )

    def _cuts(self, region: Region, limits: Spot) -> list[list[Span]]:
        return [
            cut_axis(part.start, part.stop, limit, axis)
            for part, limit, axis in zip(region.slices, limits, self._axes, strict=True)
        ]

    def _run(self, block: np.ndarray) -> np.ndarray:
        """Return the (K, Z, Y, X) answer to one (C, Z, Y, X) block."""
        # 2D networks get one plane: their z axis has cores of one pixel and no halo.
        batch = block[np.newaxis] if self.card.ndim == 3 else block[np.newaxis, :, 0]
        try:
            answer: np.ndarray = self.model.runner(batch)[0]
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            raise UserError(
                f"There is not enough memory to run {self.card.name} on {block.shape[1:]} pixels."
            ) from error
        return answer if self.card.ndim == 3 else answer[:, np.newaxis]


def _read_block(read: ReadChannels, t: int, spans: tuple[Span, ...], limits: Spot) -> np.ndarray:
    """Read one (C, Z, Y, X) block; what lies outside the image is reflected."""
    inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(spans, limits, strict=True)]
    block = np.asarray(read(Region(t, *inside)), np.float32)
    before = [part.start - s.start for part, s in zip(inside, spans, strict=True)]
    after = [s.stop - part.stop for part, s in zip(inside, spans, strict=True)]
    return reflect_pad(block, before, after)
