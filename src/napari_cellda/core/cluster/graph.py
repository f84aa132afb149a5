"""The graph of an image's tiles: handed out as results come in, never all at once."""

from __future__ import annotations

import contextlib
import queue
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_cellda.core.cluster.tasks import RemoteImage, RemoteModel, forest_tile, same
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_cellda.core.events import Stop
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.tiles import Region

AHEAD = 2
"""Tiles handed out per thread of the cluster."""


def tiles_ahead(client: Any) -> int:
    """Return how many tiles keep all threads of a cluster busy."""
    return int(AHEAD * max(1, sum(client.nthreads().values())) + 1)


@dataclass
class Graph:
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
        ahead = tiles_ahead(self.client)
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


class ForestTiles:
    """The forest's tiles that enhanced tiles still need; the others are let go."""

    def __init__(self, graph: Graph, pieces: Sequence[Region], needs: list[list[int]]) -> None:
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
