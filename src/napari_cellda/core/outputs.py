"""The files that one image becomes: maps, mask, instances and a table of objects."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.classifier import never
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.export import open_writer, write_objects
from napari_cellda.core.instances import instances_from_maps
from napari_cellda.core.label_arrays import read_region, region_index, to_own_axes, write_region
from napari_cellda.core.objects import measure_objects
from napari_cellda.core.pipeline import PIECE_2D
from napari_cellda.core.tiles import grid, whole

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_cellda.core.classifier import Stop
    from napari_cellda.core.events import Task
    from napari_cellda.core.export import FileFormat, RegionWriter
    from napari_cellda.core.images import Image
    from napari_cellda.core.instances import InstanceParams
    from napari_cellda.core.pipeline import Maps

ENDINGS = {"tif": ".tif", "ome-zarr": ".zarr"}


def write_outputs(
    image: Image,
    maps: Maps,
    output: Path,
    file_format: FileFormat = "tif",
    instances: InstanceParams | None = None,
    *,
    stop: Stop = never,
) -> Task[list[Path]]:
    """Write one image's results; all of them, or none if stopped or failed.

    Parameters
    ----------
    image : Image
    maps : Maps
    output : Path
        Folder; the files are called after the image's stem.
    file_format : "tif" or "ome-zarr"
    instances : InstanceParams, optional
        None: no instances.
    stop : callable

    Returns
    -------
    list of Path
        ``_probability`` (K, ...) float32, ``_mask`` (...) uint8 class ids and, where there are
        any, ``_forest`` (K, ...), ``_boundary`` (...), ``_instances`` (...) uint32 and
        ``_objects.csv``.
    """
    arrays: dict[str, Any] = {"probability": maps.probability}
    if maps.forest is not None:
        arrays["forest"] = maps.forest
    if maps.boundary is not None:
        arrays["boundary"] = maps.boundary
    table = None
    if instances is not None:
        arrays["instances"], table = yield from find_instances(image, maps, instances)
    if stop():
        return []
    paths = {
        name: output / f"{image.name}_{name}{ENDINGS[file_format]}" for name in (*arrays, "mask")
    }
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                _open(image, paths[name], array.dtype, file_format, _classes(image, array))
            )
            for name, array in arrays.items()
        }
        mask = stack.enter_context(_open(image, paths["mask"], np.dtype(np.uint8), file_format))
        yield from _copy(image, arrays, writers, mask)
    written = list(paths.values())
    if table is not None:
        written.append(output / f"{image.name}_objects.csv")
        write_objects(written[-1], table)
    return written


def _classes(image: Image, array: Any) -> tuple[int, ...]:
    """Return the sizes of an array's axes before the image's own."""
    return tuple(array.shape[: array.ndim - len(image.label_axes)])


def _open(
    image: Image,
    path: Path,
    dtype: np.dtype[Any],
    file_format: FileFormat,
    classes: tuple[int, ...] = (),
) -> AbstractContextManager[RegionWriter]:
    return open_writer(
        path,
        (*classes, *image.label_shape),
        "c" * len(classes) + image.label_axes,
        dtype,
        pixel_size=image.pixel_size,
        unit=image.unit,
        file_format=file_format,
        labels=dtype.kind == "u",
    )


def _copy(
    image: Image, arrays: dict[str, Any], writers: dict[str, RegionWriter], mask: RegionWriter
) -> Task[None]:
    pieces = [p for t in range(image.n_times) for p in grid(image.limits, PIECE_2D, t)]
    yield Stage(f"Writing {image.name}", len(pieces))
    for done, piece in enumerate(pieces, 1):
        index = region_index(image, piece)
        for name, writer in writers.items():
            block = to_own_axes(image, read_region(image, arrays[name], piece))
            writer.write((slice(None), *index) if block.ndim > len(index) else index, block)
        probability = read_region(image, arrays["probability"], piece)
        classes = probability.argmax(axis=0).astype(np.uint8)  # the first wins: ties to background
        mask.write(index, to_own_axes(image, classes))
        yield Step(done)


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
