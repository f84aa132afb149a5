"""Maps, masks and tables to files: whole or not at all, of any size."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.atomic import scratch_array, write_atomically
from napari_cellda.core.errors import UserError
from napari_cellda.core.export.ome_zarr import fill_image, open_ome_zarr_writer
from napari_cellda.core.export.tiff import RegionWriter, TiffKind, fit_type, open_tiff_writer
from napari_cellda.core.images.lazy import blocks, compute
from napari_cellda.core.images.units import extents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import DTypeLike

__all__ = [
    "FileFormat",
    "RegionWriter",
    "open_ome_zarr_writer",
    "open_tiff_writer",
    "open_writer",
    "scratch_array",
    "write_atomically",
    "write_objects",
    "write_ome_zarr",
    "write_png",
    "write_tiff",
]

FileFormat = Literal["tif", "ome-zarr"]


def open_writer(
    path: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: DTypeLike,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    file_format: FileFormat = "tif",
    chunks: Sequence[int] | None = None,
    labels: bool = False,
) -> AbstractContextManager[RegionWriter]:
    """Open a file that takes an array region by region.

    Parameters
    ----------
    path : str or Path
    shape, axes, dtype
        Of the array; axes out of "tczyx", one letter per axis.
    pixel_size : sequence of float, optional
        Extent of a pixel along the last of (z, y, x), in `unit`.
    unit : str
        As OME-Zarr spells it, such as "micrometer"; "pixel" when unknown.
    file_format : {"tif", "ome-zarr"}
    chunks : sequence of int, optional
        Of OME-Zarr, one per axis. None: planes of 512 x 512.
    labels : bool
        Whether the numbers are labels (for OME-Zarr: the pyramid must not average them).

    Returns
    -------
    context manager of RegionWriter
        `writer.write(index, block)`. The file appears when the context ends well; otherwise
        nothing is left and an older file stays.
    """
    if file_format == "tif":
        return open_tiff_writer(path, shape, axes, dtype, pixel_size=pixel_size, unit=unit)
    return open_ome_zarr_writer(
        path, shape, axes, dtype, pixel_size=pixel_size, unit=unit, chunks=chunks, labels=labels
    )


def write_tiff(
    path: str | Path,
    array: Any,
    axes: str,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    kind: TiffKind = "auto",
) -> None:
    """Write an array, lazy or not, as TIFF; see `open_tiff_writer`."""
    with open_tiff_writer(
        path, array.shape, axes, array.dtype, pixel_size=pixel_size, unit=unit, kind=kind
    ) as writer:
        copy_blocks(array, writer)


def write_ome_zarr(
    path: str | Path,
    array: Any,
    axes: str,
    *,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    labels: Mapping[str, Any] | bool = False,
) -> None:
    """Write an array, lazy or not, as an OME-Zarr 0.5 multiscale image.

    Parameters
    ----------
    path, array, axes, pixel_size, unit
        See `open_ome_zarr_writer`.
    labels : bool or mapping of str to array
        True: `array` itself holds labels. A mapping: label images that belong to the image; they
        are written into its `labels` group under these names, with the image's axes without c.
    """
    import zarr

    if isinstance(labels, bool):
        with open_ome_zarr_writer(
            path, array.shape, axes, array.dtype, pixel_size=pixel_size, unit=unit, labels=labels
        ) as writer:
            copy_blocks(array, writer)
        return
    sizes = extents(pixel_size)
    with write_atomically(path) as aside:
        group = zarr.create_group(aside, zarr_format=3)
        with fill_image(group, str(path), array.shape, axes, array.dtype, sizes, unit) as writer:
            copy_blocks(array, writer)
        add_labels(group, labels, axes.replace("c", ""), sizes, unit)


def add_labels(
    group: Any, labels: Mapping[str, Any], axes: str, sizes: Sequence[float], unit: str
) -> None:
    """Write label images into the `labels` group of an image."""
    folder = group.create_group("labels")
    folder.attrs.update({"ome": {"version": "0.5", "labels": list(labels)}})
    for name, array in labels.items():
        inside = folder.create_group(name)
        with fill_image(
            inside, name, array.shape, axes, array.dtype, sizes, unit, labels=True
        ) as writer:
            copy_blocks(array, writer)
        described = dict(inside.attrs["ome"])
        described["image-label"] = {"version": "0.5", "source": {"image": "../../"}}
        inside.attrs.update({"ome": described})


def copy_blocks(array: Any, writer: RegionWriter) -> None:
    """Copy an array block by block, so that a lazy one is never in memory as a whole."""
    for box in blocks(array):
        writer.write(box, compute(array[box]))


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write a mask, labels or colours as PNG.

    Parameters
    ----------
    path : str or Path
    array : (Y, X) ndarray of bool or integer in [0, 65535], or (Y, X, 3|4) ndarray of uint8
        Booleans become 0 and 255. Numbers are kept in 8 bits, or in 16 where they need it.

    Raises
    ------
    UserError
        For fractions, stacks and larger numbers, which PNG cannot hold.
    """
    import imageio.v3 as imageio

    array = np.asarray(array)
    is_colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if array.dtype.kind not in "bui" or not (array.ndim == 2 or is_colour):
        raise UserError(
            f"'{path}' cannot be written: PNG takes one plane of whole numbers, "
            f"not {array.dtype} of shape {array.shape}; choose TIFF."
        )
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    wide = array.size and array.max() > 255
    array = fit_type(array, np.dtype(np.uint16 if wide else np.uint8), str(path))
    encoded = imageio.imwrite("<bytes>", array, extension=".png", plugin="pillow")
    with write_atomically(path) as aside:
        aside.write_bytes(encoded)


def write_objects(path: str | Path, table: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write a table of objects as CSV.

    Parameters
    ----------
    path : str or Path
    table : mapping of str to sequence
        Columns of one length, as `measure_objects` returns them.
    """
    columns = [np.asarray(column).tolist() for column in table.values()]
    with write_atomically(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(table)
        rows.writerows(zip(*columns, strict=True))
