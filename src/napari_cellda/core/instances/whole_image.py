"""The objects of a whole image: separated and measured piece by piece, one time after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.events import Stage, never
from napari_cellda.core.images.label_arrays import read_region, write_region
from napari_cellda.core.instances.objects import ObjectTally
from napari_cellda.core.instances.tiled import label_tiles
from napari_cellda.core.pipeline import PIECE_2D
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.instances.separate import InstanceParams
    from napari_cellda.core.pipeline import Maps
    from napari_cellda.core.tiles import Region


def find_instances(
    image: Image, maps: Maps, params: InstanceParams, instances: Any, *, stop: Stop = never
) -> Task[dict[str, np.ndarray]]:
    """Separate the objects of every time point and measure them, with bounded memory.

    Parameters
    ----------
    image : Image
    maps : Maps
    params : InstanceParams
    instances : array of uint32, of `image.label_shape`
        Zeros, such as a scratch array; receives the objects. Numbers go on from one time point to
        the next.
    stop : callable

    Returns
    -------
    dict of columns
        One row per object, see `measure_objects`; with a column t for several time points.
    """
    sizes = np.asarray(image.pixel_size)
    tables: list[dict[str, np.ndarray]] = []
    free = 1
    for t in range(image.n_times):
        first = free
        if maps.drawn is not None:
            yield Stage("Draw objects")
            free = maps.drawn.draw(instances, params, t=t, first=first, stop=stop)
            tables.append(_measure(image, maps, instances, t))
            continue
        free = yield from label_tiles(
            lambda region: _object_maps(image, maps, params, region),
            lambda region: read_region(image, instances, region),
            lambda region, labels: write_region(image, instances, region, labels),
            image.limits,
            params,
            t=t,
            first=first,
            spacing=tuple(sizes / sizes[-1]),
            stop=stop,
        )
        tables.append(_measure(image, maps, instances, t))
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}


def _object_maps(
    image: Image, maps: Maps, params: InstanceParams, region: Region
) -> tuple[np.ndarray | None, np.ndarray | None]:
    probability = read_region(image, maps.probability, region)
    boundary = None if maps.boundary is None else read_region(image, maps.boundary, region)
    return object_maps(probability, boundary, params, of_membranes=maps.of_membranes)


def object_maps(
    probability: np.ndarray,
    boundary: np.ndarray | None,
    params: InstanceParams,
    *,
    of_membranes: bool = False,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the foreground and the boundary map that objects are made from.

    Parameters
    ----------
    probability : (K, Z, Y, X) ndarray of float32
        Background first.
    boundary : (Z, Y, X) ndarray of float32, optional
    params : InstanceParams
    of_membranes : bool
        The foreground is the membranes: then there is no foreground map.
    """
    foreground = 1 - probability[0]
    if of_membranes or (params.method == "multicut" and boundary is None):
        return None, foreground
    return foreground, boundary


def _measure(image: Image, maps: Maps, instances: Any, t: int) -> dict[str, np.ndarray]:
    flat = image.limits[0] == 1
    tally = ObjectTally(2 if flat else 3)
    for piece in grid(image.limits, PIECE_2D, t):
        probability = read_region(image, maps.probability, piece)
        score = probability[0] if maps.of_membranes else 1 - probability[0]
        if maps.drawn is not None:
            score = read_region(image, maps.drawn.scores, piece)
        blocks = (read_region(image, instances, piece), probability.argmax(axis=0), score)
        origin = tuple(part.start for part in piece.slices)
        labels, classes, scores = (block[0] if flat else block for block in blocks)
        tally.add(labels, classes, scores, origin[1:] if flat else origin)
    table = tally.table(image.pixel_size, image.unit)
    return table | {"t": np.full(len(table["label"]), t)} if image.n_times > 1 else table
