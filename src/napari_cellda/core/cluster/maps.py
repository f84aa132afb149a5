"""The maps of an image from a cluster's tiles, written by this process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_cellda.core.cluster.graph import ForestTiles, Graph, tiles_ahead
from napari_cellda.core.cluster.tasks import (
    RemoteImage,
    RemoteModel,
    enhanced_tile,
    network_tile,
    tile_range,
)
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step, never
from napari_cellda.core.images import open_image
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.network_pipeline import NetworkPipeline
from napari_cellda.core.pipeline import (
    Pipeline,
    common_range,
    note_flat,
    note_invalid,
    write_enhanced,
)
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker, Maps
    from napari_cellda.core.tiles import Region


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
        wanted = tiles_ahead(self.client)
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
        graph = Graph(self.client, self.model, remote, source.normalisation)
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


def _run_forest(
    graph: Graph, pipeline: Pipeline, image: Image, maps: Maps, stop: Stop
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
    graph: Graph, pipeline: Pipeline, image: Image, maps: Maps, stop: Stop
) -> Task[None]:
    pieces = pipeline.pieces(image)
    value_range = None
    if pipeline.options.scale_range:
        value_range = yield from _whole_range(graph, pipeline, image, stop)
        if stop():
            return
    needs = _neighbours(pipeline, image, pieces)
    tiles = ForestTiles(graph, pieces, needs)

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
    graph: Graph, pipeline: Pipeline, image: Image, stop: Stop
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
    graph: Graph, pipeline: NetworkPipeline, image: Image, maps: Maps, stop: Stop
) -> Task[None]:
    pieces = pipeline.pieces(image)
    yield Stage(f"{pipeline.network.card.name} on {image.name}", len(pieces))
    not_finite = 0
    tasks = (graph.tile(piece, network_tile) for piece in pieces)
    for done, (index, (found, invalid)) in enumerate(graph.results(tasks, stop), 1):
        write_enhanced(image, maps, pieces[index], found)
        not_finite += invalid
        yield Step(done)
    yield from note_invalid(image, not_finite)
