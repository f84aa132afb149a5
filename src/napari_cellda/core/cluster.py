"""Images on a `dask.distributed` cluster: one graph of tiles, written by this process alone.

Workers are told where an image is and how to open the model; they read their own regions, and
what crosses the network is tiles of maps. An enhanced tile depends on the forest's tiles around
it. This process hands the tiles out as results come in, so that neither it nor the workers hold
more than a few rows of tiles, and writes them as it writes its own: the files are the same, bit
for bit, where the processors are.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda import __version__
from napari_cellda.core.batch.models import Recipe
from napari_cellda.core.classifier import Normalised, never
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.core.images import open_image
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.network_pipeline import NetworkPipeline
from napari_cellda.core.pipeline import (
    Pipeline,
    block_range,
    common_range,
    note_flat,
    note_invalid,
    write_enhanced,
)
from napari_cellda.core.threads import THREADS_VARIABLE
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack

    from napari_cellda.core.classifier import Stop
    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker, Maps
    from napari_cellda.core.tiles import Region

PATIENCE = 30
"""Seconds to wait for a scheduler, and for its first worker."""
AHEAD = 2
"""Tiles handed out per thread of the cluster."""

Tile = tuple[np.ndarray, int]
"""A forest's map of a piece, (K, Z, Y, X), and how many of its pixels are invalid."""
Enhanced = tuple[np.ndarray, np.ndarray | None]


# -- what runs on the workers ---------------------------------------------------------------------


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
            return cls(Recipe(path.name, recipe.channels), path.read_bytes())
        return cls(Recipe(str(path.resolve()) if path.exists() else recipe.model, recipe.channels))

    def open(self) -> MapMaker:
        """Open it on this machine."""
        if not self.project:
            return self.recipe.open()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.recipe.model
            path.write_bytes(self.project)
            return Recipe(str(path), self.recipe.channels).open()


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
) -> Enhanced:
    """Compute a network's maps of one piece."""
    pipeline, opened = _opened(model, image)
    found: Enhanced = pipeline.map_piece(Normalised(opened, normalisation), piece)
    return found


def worker_version() -> str:
    """Return the version of this package on a worker."""
    return __version__


def same(value: Any) -> Any:
    """Return what is given: a task whose result the scheduler can make again."""
    return value


# -- what runs here -------------------------------------------------------------------------------


@contextmanager
def on_cluster(pipeline: MapMaker, recipe: Recipe, address: str) -> Iterator[ClusterMaps]:
    """Lend a map maker whose tiles are computed by a cluster.

    Parameters
    ----------
    pipeline : MapMaker
        As opened here.
    recipe : Recipe
        How the workers open it.
    address : str
        Of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    UserError
        If `distributed` is not installed, nobody answers, or the workers run another version.
    """
    try:
        import distributed
    except ImportError as error:
        raise UserError(
            "--scheduler needs the package distributed: install 'napari-cellda[cluster]'."
        ) from error
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # of an address that is none, too
        raise UserError(
            f"--scheduler is '{address}', and no dask scheduler answers there; expected an "
            "address such as tcp://10.0.0.1:8786."
        ) from error
    with client:
        _check_workers(client, address)
        yield ClusterMaps(pipeline, RemoteModel.of(recipe), client)


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise UserError(f"The scheduler at '{address}' has no workers.") from error
    try:
        versions = client.run(worker_version)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The workers of '{address}' lack {error.name}; expected the same napari-cellda as "
            "here on every one."
        ) from error
    for worker, version in versions.items():
        if version != __version__:
            raise UserError(
                f"The worker {worker} has napari-cellda {version}; expected {__version__} as here."
            )


@dataclass(frozen=True)
class ClusterMaps:
    """Makes the maps of a pipeline on a cluster; see `pipeline.MapMaker`."""

    pipeline: MapMaker
    model: RemoteModel
    client: Any
    """A `distributed.Client`."""

    @property
    def channels(self) -> Channels:
        """What `Image.select` is to be given."""
        return self.pipeline.channels

    def images_at_once(self, example: Path) -> int:
        """Return how many images like this one it takes to keep all workers busy."""
        try:
            image = open_image(example, channels=self.channels)
        except UserError:
            return 1
        wanted = _tiles_ahead(self.client)
        return max(1, wanted // len(_known(self.pipeline).pieces(image)))

    def compute(
        self,
        image: Image,
        stack: ExitStack,
        folder: Path,
        *,
        normalisation: Normalisation | None = None,
        stop: Stop = never,
    ) -> Task[Maps]:
        """Compute all maps of an image; see `MapMaker`."""
        pipeline = _known(self.pipeline)
        source = pipeline.prepare(image, normalisation)
        maps = pipeline.new_maps(image, stack, folder)
        remote = RemoteImage.of(image, self.channels)
        graph = _Graph(self.client, self.model, remote, source.normalisation)
        stack.callback(graph.cancel)
        if isinstance(pipeline, NetworkPipeline):
            yield from _run_network(graph, pipeline, image, maps, stop)
            return replace(maps, drawn=pipeline.drawn_objects(source, stack, folder))
        if source.normalisation.is_flat:
            yield Note(f"'{image.name}' is constant, so its map is flat.")
        if pipeline.enhancer is None:
            yield from _run_forest(graph, pipeline, image, maps, stop)
        else:
            yield from _run_enhancer(graph, pipeline, image, maps, stop)
        return maps


def _known(pipeline: MapMaker) -> Pipeline | NetworkPipeline:
    if not isinstance(pipeline, Pipeline | NetworkPipeline):
        raise TypeError(f"{type(pipeline).__name__} cannot be run by a cluster")
    return pipeline


def _tiles_ahead(client: Any) -> int:
    return int(AHEAD * max(1, sum(client.nthreads().values())) + 1)


@dataclass
class _Graph:
    """The tiles of one image on their way through the cluster."""

    client: Any
    model: RemoteModel
    image: RemoteImage
    normalisation: Normalisation
    waiting: dict[Any, int] = field(default_factory=dict)
    """Futures whose results are awaited, and the index of their pieces."""

    def __post_init__(self) -> None:
        self.remote_model = self.submit(same, self.model)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Add one task; arguments that are futures become what it depends on."""
        return self.client.submit(function, *arguments, pure=False)

    def tile(self, piece: Region, function: Callable[..., Any] = forest_tile) -> Any:
        """Add a task that reads the image."""
        return self.submit(function, self.remote_model, self.image, self.normalisation, piece)

    def results(
        self, tasks: Iterator[Any], stop: Stop, finished: Callable[[int], None] = lambda _: None
    ) -> Iterator[tuple[int, Any]]:
        """Hand out tasks and yield (index, result) in the order in which they end.

        A few tasks per thread are under way at a time: what this process has not yet written
        would else pile up on the workers. Ends early when stopped.
        """
        ahead = _tiles_ahead(self.client)
        numbered = enumerate(tasks)
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        while not stop():
            while len(self.waiting) < ahead and (following := next(numbered, None)) is not None:
                index, future = following
                self.waiting[future] = index
                future.add_done_callback(ended.put)
            if not self.waiting:
                return
            with contextlib.suppress(queue.Empty):
                future = ended.get(timeout=0.5)
                index = self.waiting.pop(future)
                result = _result(future)
                finished(index)
                yield index, result

    def cancel(self) -> None:
        """Leave nothing of this image on the cluster."""
        if self.waiting:
            self.client.cancel(list(self.waiting))
            self.waiting.clear()


def _result(future: Any) -> Any:
    """Return a future's result; say plainly when workers died or went away over it."""
    import distributed
    from distributed.client import FutureCancelledError

    try:
        return future.result()
    except distributed.KilledWorker as error:
        raise UserError(
            "The cluster's workers died again and again over one tile; memory may have run out."
        ) from error
    except FutureCancelledError as error:
        raise UserError("The cluster went away while it computed.") from error


class _ForestTiles:
    """The forest's tiles that enhanced tiles still need; the others are let go."""

    def __init__(self, graph: _Graph, pieces: Sequence[Region], needs: list[list[int]]) -> None:
        self.graph, self.pieces, self.needs = graph, pieces, needs
        self.users = Counter(index for need in needs for index in need)
        self.futures: dict[int, Any] = {}

    def around(self, index: int) -> list[Any]:
        """Return the tiles that piece `index` needs, handing them out if they were not yet."""
        for need in self.needs[index]:
            if need not in self.futures:
                self.futures[need] = self.graph.tile(self.pieces[need])
        return [self.futures[need] for need in self.needs[index]]

    def let_go(self, index: int) -> None:
        """Note that piece `index` is enhanced."""
        for need in self.needs[index]:
            self.users[need] -= 1
            if not self.users[need]:
                self.futures.pop(need, None)


def _run_forest(
    graph: _Graph, pipeline: Pipeline, image: Image, maps: Maps, stop: Stop
) -> Task[None]:
    pieces = pipeline.pieces(image)
    yield Stage(f"Forest on {image.name}", len(pieces))
    not_finite = 0
    results = graph.results(map(graph.tile, pieces), stop)
    for done, (index, (found, invalid)) in enumerate(results, 1):
        write_region(image, maps.probability, pieces[index], found)
        not_finite += invalid
        yield Step(done)
    yield from note_invalid(image, not_finite)


def _run_enhancer(
    graph: _Graph, pipeline: Pipeline, image: Image, maps: Maps, stop: Stop
) -> Task[None]:
    pieces = pipeline.pieces(image)
    value_range = None
    if pipeline.options.scale_range:
        value_range = yield from _whole_range(graph, pipeline, image, stop)
        if stop():
            return
    needs = _neighbours(pipeline, image, pieces)
    tiles = _ForestTiles(graph, pieces, needs)

    def task(index: int) -> Any:
        around = tiles.around(index)
        own = tiles.futures[index]
        near = [pieces[i] for i in needs[index]]
        rest = pieces[index], value_range, own, near, around
        return graph.submit(enhanced_tile, graph.remote_model, graph.image, *rest)

    yield Stage(f"Forest and enhancer on {image.name}", len(pieces))
    not_finite = 0
    results = graph.results(map(task, range(len(pieces))), stop, tiles.let_go)
    for done, (index, ((forest, invalid), enhanced)) in enumerate(results, 1):
        write_region(image, maps.forest, pieces[index], forest)
        write_enhanced(image, maps, pieces[index], enhanced)
        not_finite += invalid
        yield Step(done)
    yield from note_invalid(image, not_finite)


def _whole_range(
    graph: _Graph, pipeline: Pipeline, image: Image, stop: Stop
) -> Task[tuple[float, float] | None]:
    """Measure the range of the forest's map; its tiles are computed again afterwards.

    Keeping them would take as much memory on the cluster as the whole map.
    """
    pieces, k = pipeline.pieces(image), pipeline.options.class_index
    yield Stage(f"Range of the forest's map of {image.name}", len(pieces))
    ranges = []
    tasks = (graph.submit(tile_range, graph.tile(piece), k) for piece in pieces)
    for _, found in graph.results(tasks, stop):
        ranges.append(found)
        yield Step(len(ranges))
    value_range = common_range(ranges) if ranges else None
    if not stop():
        yield from note_flat(image, value_range)
    return value_range


def _neighbours(pipeline: Pipeline, image: Image, pieces: Sequence[Region]) -> list[list[int]]:
    """Return, for every piece, the indices of the pieces that its enhanced map depends on."""
    assert pipeline.enhancer is not None
    numbers = {piece: index for index, piece in enumerate(pieces)}
    found = []
    for piece in pieces:
        needed = pipeline.enhancer.needed_map(piece, image.limits, rescale=pipeline.options.rescale)
        near = grid(image.limits, pipeline.piece, piece.t, within=needed)
        found.append([numbers[other] for other in near])
    return found


def _run_network(
    graph: _Graph, pipeline: NetworkPipeline, image: Image, maps: Maps, stop: Stop
) -> Task[None]:
    pieces = pipeline.pieces(image)
    yield Stage(f"{pipeline.network.card.name} on {image.name}", len(pieces))
    tasks = (graph.tile(piece, network_tile) for piece in pieces)
    for done, (index, found) in enumerate(graph.results(tasks, stop), 1):
        write_enhanced(image, maps, pieces[index], found)
        yield Step(done)
