"""The Prediction Enhancer: a network that repairs a forest's map, tile by tile."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.model import Model, open_model
from napari_cellda.core.network_tiles import Span, TileAxis, cut_axis
from napari_cellda.core.tiles import Region, reflect_pad, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.modelzoo.model import Consent

    ReadMap = Callable[[Region], np.ndarray]

MAX_TILE_2D = 1024
MAX_TILE_3D = (64, 256, 256)


def _never() -> bool:
    return False


class Enhancer:
    """A model that takes a forest's map of one class and returns a better one [1]_.

    Parameters
    ----------
    model : Model
        One input channel.

    References
    ----------
    .. [1] Matskevych, Wolny, Pape, Kreshuk, "From shallow to deep: exploiting feature-based
       classifiers for domain adaptation in semantic segmentation", Front. Comput. Sci. 2022.
       https://doi.org/10.3389/fcomp.2022.805166
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        if self.card.n_inputs != 1:
            raise UserError(
                f"{self.card.name} takes {self.card.n_inputs} channels; an enhancer takes one, the "
                "forest's map of a class."
            )

    @classmethod
    def open(cls, source: str | Path, *, consent: Consent = False) -> Enhancer:
        """Open an enhancer from wherever `open_model` can open it."""
        return cls(open_model(source, consent=consent))

    @property
    def card(self) -> ModelCard:
        """What the package says about itself."""
        return self.model.card

    @property
    def halo(self) -> int:
        """Pixels around a region that its enhanced map depends on, the largest over the axes."""
        return max(max(self.card.halo), max(self.card.receptive_field or (0,)))

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
        limits: tuple[int, int, int],
        *,
        scale_range: tuple[float, float] | None = None,
        rescale: float = 1.0,
        stop: Callable[[], bool] = _never,
    ) -> np.ndarray | None:
        """Enhance one region of a map that is read piece by piece.

        Parameters
        ----------
        read_forest_map : callable
            Gives the (Z, Y, X) float32 map of a region inside the image.
        region : Region
            What is wanted.
        limits : tuple of int
            Size of the image, (Z, Y, X).
        scale_range : (float, float), optional
            The map's least and largest value over the whole image; it is stretched to [0, 1].
        rescale : float
            Zoom applied to the map before the network and undone after it.
        stop : callable
            Asked before every tile.

        Returns
        -------
        (K, Z, Y, X) ndarray of float32, or None
            None: `stop` said so.
        """
        enhanced = np.empty((self.card.n_outputs, *region.shape), np.float32)
        axes = [
            cut_axis(part.start, part.stop, limit, axis)
            for part, limit, axis in zip(region.slices, limits, self._axes(), strict=True)
        ]
        for spans in product(*axes):
            if stop():
                return None
            block = _read_block(read_forest_map, region.t, spans, limits)
            core = Region(region.t, *(slice(s.core_start, s.core_stop) for s in spans))
            inner = tuple(slice(s.core_start - s.start, s.core_stop - s.start) for s in spans)
            enhanced[(slice(None), *core.inside(region))] = self._run(block)[(slice(None), *inner)]
        return enhanced

    def _axes(self) -> list[TileAxis]:
        card = self.card
        field = card.receptive_field or (0,) * card.ndim
        most = MAX_TILE_3D if card.ndim == 3 else (MAX_TILE_2D,) * 2
        axes = [
            TileAxis(step or least, least, max(halo, reach), size, step == 0, step or 0)
            for step, least, halo, reach, size in zip(
                card.step, card.min_shape, card.halo, field, most, strict=True
            )
        ]
        return axes if card.ndim == 3 else [TileAxis(1, 1, 0, 1), *axes]

    def _run(self, block: np.ndarray) -> np.ndarray:
        """Return the (K, Z, Y, X) output for one (Z, Y, X) block."""
        if self.card.ndim == 3:
            (volume,) = self.model.runner(block[np.newaxis, np.newaxis])
            return np.asarray(volume)
        planes = [self.model.runner(plane[np.newaxis, np.newaxis])[0] for plane in block]
        return np.stack(planes, axis=1)


def _read_block(
    read: ReadMap, t: int, spans: tuple[Span, ...], limits: tuple[int, int, int]
) -> np.ndarray:
    """Read one block; what lies outside the image is reflected."""
    clipped = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(spans, limits, strict=True)]
    block = np.asarray(read(Region(t, *clipped)), np.float32)
    before = [part.start - s.start for part, s in zip(clipped, spans, strict=True)]
    after = [s.stop - part.stop for part, s in zip(clipped, spans, strict=True)]
    return reflect_pad(block, before, after)


def merge_enhanced(forest_map: np.ndarray, foreground_map: np.ndarray, k: int) -> np.ndarray:
    """Put an enhanced foreground into a forest's map.

    Parameters
    ----------
    forest_map : (K, ...) ndarray of float32
        Class probabilities, sum 1.
    foreground_map : (...) ndarray of float32, in [0, 1]
        Replaces class `k`.
    k : int
        Class index, 1 is the first foreground class.

    Returns
    -------
    (K, ...) ndarray of float32
        Sum 1: the other classes share what is left in their old proportions, evenly where they
        had nothing.
    """
    n_classes = len(forest_map)
    if not 0 <= k < n_classes:
        raise UserError(
            f"Class {k} cannot be enhanced; the forest has classes 0 to {n_classes - 1}."
        )
    merged = np.array(forest_map, np.float32)
    merged[k] = 0
    rest = merged.sum(axis=0)
    nothing = rest <= 1e-6
    merged *= (1 - foreground_map) / np.where(nothing, 1, rest)
    merged[:, nothing] = (1 - foreground_map[nothing]) / (n_classes - 1)
    merged[k] = foreground_map
    return merged
