"""The cache of forests' maps on disk: made once, drawn from in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.enhancer_training.forests import make_maps
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step, Task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.enhancer_training.forests import ForestMix
    from napari_cellda.core.enhancer_training.source import SourcePlane
    from napari_cellda.core.events import Stop


LEAST_CONTRAST = 0.1
"""A forest is of use when its map is at least this much higher on the structure than beside it."""


def fill_cache(
    training: list[SourcePlane],
    validation: list[SourcePlane],
    mix: ForestMix,
    folder: Path,
    seed: int,
    stop: Stop,
    threads: int | None,
) -> Task[None]:
    """Make the maps that are not there yet; each forest is a function of the seed and its index.

    Parameters
    ----------
    training, validation : list of SourcePlane
        Where forests are trained, and where those for validation predict.
    mix : ForestMix
    folder : Path
        One file per forest, ``train_00000.npy`` or ``validation_00000.npy``.
    seed : int
    stop : callable
        Asked before every forest.
    threads : int, optional

    Yields
    ------
    Stage, Step
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [("validation", i) for i in range(mix.validation_forests)]
    jobs += [("train", i) for i in range(mix.forests)]
    yield Stage("Train forests and predict with them", len(jobs))
    for done, (kind, index) in enumerate(jobs, 1):
        path = folder / f"{kind}_{index:05d}.npy"
        if not path.exists():
            if stop():
                return
            rng = np.random.default_rng([seed, kind == "validation", index])
            if kind == "train":
                made = make_maps(training, training, mix, rng, threads=threads)
            else:
                made = make_maps(training, validation, mix, rng, style="strokes", threads=threads)
            with write_atomically(path) as aside:
                np.save(aside, made, allow_pickle=False)
        yield Step(done)


def map_contrast(forest: NDArray[np.uint8]) -> float:
    """Return how much higher a forest's maps (N, 2, S, S) are on the structure than beside it."""
    on, values = (forest[:, 1] & 1).astype(bool), forest[:, 0]
    if on.all() or not on.any():
        return 0.0
    return float(values[on].mean() - values[~on].mean()) / 255


@dataclass(frozen=True)
class MapCache:
    """The maps of many forests, memory-mapped; each (N, 2, S, S) uint8."""

    forests: tuple[NDArray[np.uint8], ...]

    @classmethod
    def open(cls, folder: Path, kind: str) -> MapCache:
        """Open the maps of one kind, "train" or "validation".

        Forests that cannot tell the structure from its surroundings are left out: nobody would go
        on with such a map, and all it teaches is to answer "background".
        """
        paths = sorted(folder.glob(f"{kind}_*.npy"))
        if not paths:
            raise UserError("The run was stopped before the first forest was ready.")
        forests = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        useful = [forest for forest in forests if map_contrast(forest) >= LEAST_CONTRAST]
        return cls(tuple(useful or forests))

    def crop(self, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Cut (2, side, side) out of a random map, half of the time around foreground."""
        forest = self.forests[rng.integers(len(self.forests))]
        pair = forest[rng.integers(len(forest))]
        size, side = pair.shape[-1], min(side, pair.shape[-1])
        corner = rng.integers(size - side + 1, size=2)
        if rng.random() < 0.5:
            spots = np.flatnonzero(pair[1])
            if len(spots):
                spot = np.unravel_index(spots[rng.integers(len(spots))], pair[1].shape)
                corner = np.clip(np.array(spot) - side // 2, 0, size - side)
        return np.asarray(pair[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side])

    def histogram(self) -> tuple[float, ...]:
        """Shares of ten equal bins of the map values, from every forest."""
        counts = sum(np.bincount(f[:, 0].ravel(), minlength=256) for f in self.forests)
        bins = np.add.reduceat(counts, np.round(np.arange(10) * 25.6).astype(int))
        return tuple(float(round(share, 4)) for share in bins / bins.sum())
