"""Images on a `dask.distributed` cluster: one graph of tiles, written by this process alone.

Workers are told where an image is and how to open the model; they read their own regions, and
what crosses the network is tiles of maps. An enhanced tile depends on the forest's tiles around
it. This process hands the tiles out as results come in, so that neither it nor the workers hold
more than a few rows of tiles, and writes them as it writes its own: the files are the same, bit
for bit, where the processors are.
"""

from napari_cellda.core.cluster.connect import on_cluster
from napari_cellda.core.cluster.maps import ClusterMaps

__all__ = ["ClusterMaps", "on_cluster"]
