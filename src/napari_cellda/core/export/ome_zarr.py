"""OME-Zarr 0.5: multiscale images and labels, written region by region."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.export.tiff import RegionWriter, fit_type, stored_type
from napari_cellda.core.images.lazy import CANONICAL, blocks
from napari_cellda.core.images.units import METRES, extents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import zarr
    from numpy.typing import DTypeLike

VERSION = "0.5"
CHUNK = {"t": 1, "c": 1, "z": 1, "y": 512, "x": 512}
SMALLEST_LEVEL = 512
"""The pyramid ends with the first level whose longer side is at most this many pixels."""
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


class ZarrRegionWriter(RegionWriter):
    """Takes an array region by region and keeps it in the order that OME-Zarr demands."""

    def __init__(self, array: zarr.Array[Any], name: str, order: Sequence[int]) -> None:
        super().__init__(array, name)
        self.order = tuple(order)

    def write(self, index: tuple[slice | int, ...], block: np.ndarray) -> None:
        """Write one region; see `RegionWriter.write`."""
        block = fit_type(np.asarray(block), self.array.dtype, self.name)
        index = (*index, *(slice(None),) * (len(self.order) - len(index)))
        kept = [axis for axis, part in enumerate(index) if isinstance(part, slice)]
        block = block.transpose([kept.index(axis) for axis in self.order if axis in kept])
        self.array[tuple(index[axis] for axis in self.order)] = block


@contextmanager
def open_ome_zarr_writer(
    path: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    chunks: Sequence[int] | None = None,
    labels: bool = False,
) -> Iterator[ZarrRegionWriter]:
    """Write an OME-Zarr 0.5 image of any size region by region; the pyramid is built at the end.

    Parameters
    ----------
    path : str or Path
        The folder to make.
    shape : sequence of int
    axes : str
        Out of "tczyx", one letter per axis. They are stored in this canonical order, as the
        specification demands, whatever the order here; regions are written in the order given.
    dtype : dtype
    pixel_size : sequence of float, optional
        Extent of a pixel along the last of (z, y, x), in `unit`.
    unit : str
    chunks : sequence of int, optional
        One per axis. None: planes of 512 x 512.
    labels : bool
        Whether the numbers are labels: they are thinned out, not averaged, and the image is
        marked as a label image.

    Yields
    ------
    ZarrRegionWriter

    Raises
    ------
    UserError
        If the disk is full or the place is taken by other files.
    """
    import zarr

    sizes = extents(pixel_size)
    with write_atomically(path) as aside:
        group = zarr.create_group(aside, zarr_format=3)
        with fill_image(
            group, str(path), shape, axes, dtype, sizes, unit, chunks=chunks, labels=labels
        ) as writer:
            yield writer


@contextmanager
def fill_image(
    group: zarr.Group,
    name: str,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    sizes: Sequence[float],
    unit: str,
    *,
    chunks: Sequence[int] | None = None,
    labels: bool = False,
) -> Iterator[ZarrRegionWriter]:
    """Make a group a multiscale image; see `open_ome_zarr_writer`."""
    order = sorted(range(len(axes)), key=lambda i: CANONICAL.index(axes[i]))
    axes = "".join(axes[i] for i in order)
    shape = [int(shape[i]) for i in order]
    chunks = [chunks[i] for i in order] if chunks else [CHUNK[axis] for axis in axes]
    level = add_level(group, 0, shape, axes, chunks, stored_zarr_type(dtype))
    yield ZarrRegionWriter(level, name, order)
    count = 1
    while max(level.shape[-2:]) > SMALLEST_LEVEL:
        level = halve(group, count, level, axes, chunks, labels=labels)
        count += 1
    metadata: dict[str, Any] = {
        "version": VERSION,
        "multiscales": [describe(Path(name).stem, axes, sizes, unit, count)],
    }
    if labels:
        metadata["image-label"] = {"version": VERSION}
    group.attrs.update({"ome": metadata})


def stored_zarr_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the type in which the array is kept: as it is, but booleans as uint8."""
    return stored_type(dtype) if np.dtype(dtype).kind == "b" else np.dtype(dtype).newbyteorder("=")


def add_level(
    group: zarr.Group,
    index: int,
    shape: Sequence[int],
    axes: str,
    chunks: Sequence[int],
    dtype: np.dtype[Any],
) -> zarr.Array[Any]:
    """Add the empty array of one resolution level."""
    return group.create_array(
        str(index),
        shape=tuple(shape),
        chunks=tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True)),
        dtype=dtype,
        dimension_names=list(axes),
        fill_value=0,
    )


def halve(
    group: zarr.Group,
    index: int,
    finer: zarr.Array[Any],
    axes: str,
    chunks: Sequence[int],
    *,
    labels: bool,
) -> zarr.Array[Any]:
    """Add a level with half the size along y and x, one chunk at a time."""
    shape = (*finer.shape[:-2], *(-(-size // 2) for size in finer.shape[-2:]))
    coarser = add_level(group, index, shape, axes, chunks, finer.dtype)
    for box in blocks(coarser, max_values=2**20):
        source = (*box[:-2], *(slice(2 * part.start, 2 * part.stop) for part in box[-2:]))
        coarser[box] = halve_block(np.asarray(finer[source]), labels=labels)
    return coarser


def halve_block(block: np.ndarray, *, labels: bool) -> np.ndarray:
    """Halve the last two axes: the mean of 2 x 2 pixels, or for labels the first of them.

    A last odd row or column counts twice.
    """
    if labels:
        return block[..., ::2, ::2]
    odd = [(0, 0)] * (block.ndim - 2) + [(0, size % 2) for size in block.shape[-2:]]
    padded = np.pad(block, odd, mode="edge")
    rows, columns = padded.shape[-2] // 2, padded.shape[-1] // 2
    quads = padded.reshape(*padded.shape[:-2], rows, 2, columns, 2)
    mean = quads.mean(axis=(-3, -1), dtype=np.float64 if block.dtype.kind in "ui" else None)
    halved: np.ndarray = np.rint(mean) if block.dtype.kind in "ui" else mean
    return halved.astype(block.dtype)


def describe(name: str, axes: str, sizes: Sequence[float], unit: str, count: int) -> dict[str, Any]:
    """Return the multiscale metadata.

    The middle of a coarse pixel is not the middle of the first fine one in it: hence the
    translation.
    """
    size = dict(zip("zyx", sizes, strict=True))
    known = unit in METRES

    def level(index: int) -> dict[str, Any]:
        zoom = {axis: 2.0**index if axis in "yx" else 1.0 for axis in axes}
        scale = [size.get(axis, 1.0) * zoom[axis] for axis in axes]
        shift = [size.get(axis, 1.0) * (zoom[axis] - 1) / 2 for axis in axes]
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if index:
            transformations.append({"type": "translation", "translation": shift})
        return {"path": str(index), "coordinateTransformations": transformations}

    return {
        "name": name,
        "axes": [
            {"name": axis, "type": TYPES[axis]}
            | ({"unit": unit} if known and TYPES[axis] == "space" else {})
            for axis in axes
        ],
        "datasets": [level(index) for index in range(count)],
    }
