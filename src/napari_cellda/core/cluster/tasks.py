"""What runs on a cluster's workers: opening models and images by reference, and single tiles."""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda import __version__
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import open_image
from napari_cellda.core.pipeline import block_range
from napari_cellda.core.threads import THREADS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.batch.models import Recipe
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker
    from napari_cellda.core.tiles import Region

Tile = tuple[np.ndarray, int]
"""A forest's map of a piece, (K, Z, Y, X), and how many of its pixels are invalid."""
Enhanced = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class RemoteModel:
    """How a worker opens the map maker."""

    recipe: Recipe
    project: bytes = b""
    """Content of the recipe's project, which need not be on the worker's disk."""

    @classmethod
    def of(cls, recipe: Recipe) -> RemoteModel:
        """Take a project along; name anything else by its full path or its id."""
        path = Path(recipe.model)
        if path.suffix == ".cellda":
            return cls(replace(recipe, model=path.name), path.read_bytes())
        return cls(replace(recipe, model=str(path.resolve())) if path.exists() else recipe)

    def open(self) -> MapMaker:
        """Open it on this machine."""
        if not self.project:
            return self.recipe.open()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.recipe.model
            path.write_bytes(self.project)
            return replace(self.recipe, model=str(path)).open()


@dataclass(frozen=True)
class RemoteImage:
    """Where an image is, and what it must look like there."""

    path: str
    channels: Channels
    shape: tuple[int, ...]
    dtype: str
    token: str
    """A new one for every use, so that no worker takes an image for an older one."""

    @classmethod
    def of(cls, image: Image, channels: Channels) -> RemoteImage:
        """Refer to an image that has a file."""
        if image.path is None:
            raise UserError(f"'{image.name}' has no file that the cluster's workers could open.")
        path = os.path.abspath(image.path)
        data = image.data
        return cls(path, channels, tuple(data.shape), str(data.dtype), uuid.uuid4().hex)

    def open(self) -> Image:
        """Open it on this machine; a UserError if it is not there, or another one."""
        if not Path(self.path).exists():
            raise UserError(
                f"'{self.path}' is not on the cluster's workers; expected a folder that they share."
            )
        image = open_image(self.path, channels=self.channels)
        if (tuple(image.data.shape), str(image.data.dtype)) != (self.shape, self.dtype):
            raise UserError(f"'{self.path}' is another image on the cluster's workers than here.")
        return image


_opening = threading.Lock()


@lru_cache(maxsize=2)
def _open_model(model: RemoteModel) -> MapMaker:
    import torch

    # A worker runs as many tiles at a time as it has threads: each tile gets one.
    os.environ[THREADS_VARIABLE] = "1"
    torch.set_num_threads(1)
    return model.open()


@lru_cache(maxsize=4)
def _open_image(image: RemoteImage) -> Image:
    return image.open()


def _opened(model: RemoteModel, image: RemoteImage) -> tuple[Any, Image]:
    with _opening:
        return _open_model(model), _open_image(image)


def forest_tile(
    model: RemoteModel, image: RemoteImage, normalisation: Normalisation, piece: Region
) -> Tile:
    """Compute the forest's map of one piece."""
    pipeline, opened = _opened(model, image)
    found: Tile = pipeline.forest_piece(Normalised(opened, normalisation), piece)
    return found


def enhanced_tile(
    model: RemoteModel,
    image: RemoteImage,
    piece: Region,
    value_range: tuple[float, float] | None,
    own: Tile,
    pieces: Sequence[Region],
    tiles: Sequence[Tile],
) -> tuple[Tile, Enhanced]:
    """Enhance one piece, given the forest's tiles (of `pieces`) in its neighbourhood."""
    pipeline, opened = _opened(model, image)

    def read_forest(region: Region) -> np.ndarray:
        block = np.empty((len(own[0]), *region.shape), np.float32)
        for part, (found, _) in zip(pieces, tiles, strict=True):
            common = part.overlap(region)
            block[(slice(None), *common.inside(region))] = found[
                (slice(None), *common.inside(part))
            ]
        return block

    enhanced: Enhanced = pipeline.enhanced_piece(
        read_forest, piece, opened.limits, value_range=value_range
    )
    return own, enhanced


def tile_range(tile: Tile, k: int) -> tuple[float, float]:
    """Return the range of one class in a forest's tile."""
    return block_range(tile[0][k])


def network_tile(
    model: RemoteModel, image: RemoteImage, normalisation: Normalisation, piece: Region
) -> tuple[Enhanced, int]:
    """Compute a network's maps of one piece, and count its invalid pixels."""
    pipeline, opened = _opened(model, image)
    source = Normalised(opened, normalisation)
    return pipeline.map_piece(source, piece), source.count_invalid(piece)


def worker_version() -> str:
    """Return the version of this package on a worker."""
    return __version__


def same(value: Any) -> Any:
    """Return what is given: a task whose result the scheduler can make again."""
    return value
