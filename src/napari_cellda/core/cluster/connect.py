"""Finding a cluster, and whether its workers can do the work."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_cellda import __version__
from napari_cellda.core.cluster.maps import ClusterMaps
from napari_cellda.core.cluster.tasks import RemoteModel, worker_version
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cellda.core.batch.models import Recipe
    from napari_cellda.core.pipeline import MapMaker

PATIENCE = 30
"""Seconds to wait for a scheduler, and for its first worker."""


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
