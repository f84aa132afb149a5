"""The objects of a whole image: separated and measured time point by time point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.events import Stage, Step
from napari_cellda.core.instances import instances_from_maps
from napari_cellda.core.label_arrays import read_region, write_region
from napari_cellda.core.objects import measure_objects
from napari_cellda.core.tiles import whole

if TYPE_CHECKING:
    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.instances import InstanceParams
    from napari_cellda.core.pipeline import Maps


def find_instances(
    image: Image, maps: Maps, params: InstanceParams
) -> Task[tuple[np.ndarray, dict[str, Any]]]:
    """Separate the objects of every time point and measure them.

    Returns
    -------
    instances : array of uint32, of `image.label_shape`
        0 = background; numbers go on from one time point to the next.
    table : dict of columns
        One row per object.
    """
    instances = np.zeros(image.label_shape, np.uint32)
    yield Stage(f"Objects of {image.name}", image.n_times)
    tables: list[dict[str, Any]] = []
    highest = 0
    for t in range(image.n_times):
        region = whole(image.limits, t)
        probability = read_region(image, maps.probability, region)
        boundary = None if maps.boundary is None else read_region(image, maps.boundary, region)
        foreground = 1 - probability[0]
        labels = instances_from_maps(foreground, boundary, params).astype(np.uint32)
        labels[labels > 0] += highest
        highest = max(highest, int(labels.max()))
        table = measure_objects(
            labels, probability.argmax(axis=0), foreground, image.pixel_size, image.unit
        )
        if image.n_times > 1:
            table["t"] = np.full(len(table["label"]), t)
        tables.append(table)
        write_region(image, instances, region, labels)
        yield Step(t + 1)
    return instances, {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
