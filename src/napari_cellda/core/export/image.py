"""Export what the user chose of one image: mask, objects, probabilities, in one of the formats."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.atomic import make_folder
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.export.files import (
    open_ome_zarr_writer,
    open_tiff_writer,
    scratch_array,
    write_objects,
    write_ome_zarr,
    write_png,
)
from napari_cellda.core.images.label_arrays import (
    read_region,
    region_index,
    to_own_axes,
    write_region,
)
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.instances.whole_image import find_instances
from napari_cellda.core.pipeline import PIECE_2D, pieces_of
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export.files import RegionWriter
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import MapMaker, Maps

Format = Literal["imagej", "ome-tiff", "png", "ome-zarr", "ome-zarr-image"]
ENDINGS = {"imagej": ".tif", "ome-tiff": ".ome.tif", "png": ".png", "ome-zarr": ".zarr"}


@dataclass(frozen=True)
class ExportChoice:
    """What to write, where and how."""

    folder: Path
    mask: bool = True
    instances: bool = True
    probabilities: bool = False
    table: bool = True
    """Whether to write the table of objects."""
    file_format: Format = "imagej"
    instance_params: InstanceParams = field(default_factory=InstanceParams)

    def check(self, image: Image) -> None:
        """Raise a UserError, before anything is computed, if the choice cannot be written."""
        if not (self.mask or self.instances or self.probabilities or self.table):
            raise UserError("Nothing is chosen for export; tick at least one of the boxes.")
        planes = image.n_times * image.limits[0]
        if self.file_format == "png" and planes > 1:
            raise UserError(f"'{image.name}' has {planes} planes and PNG holds one; choose TIFF.")
        if self.file_format == "png" and self.probabilities:
            raise UserError("PNG cannot hold probabilities; choose TIFF or OME-Zarr for them.")


@dataclass(frozen=True)
class Exported:
    """What became of one image."""

    image: Image
    paths: tuple[Path, ...]
    instances: np.ndarray | None = None
    """uint32, of the image's `label_shape`; 0 = background."""
    table: dict[str, Any] | None = None
    """Columns, one row per object."""


class _Stopped(Exception):
    """Unwinds the open files, so that none of them appears."""


def export_image(
    pipeline: MapMaker,
    image: Image,
    choice: ExportChoice,
    *,
    normalisation: Normalisation | None = None,
    stop: Stop,
) -> Task[Exported | None]:
    """Compute one image plane by plane, tile by tile, and write what was chosen.

    Parameters
    ----------
    pipeline : MapMaker
    image : Image
        With its channels selected; all its planes and time points are exported.
    choice : ExportChoice
    normalisation : Normalisation, optional
        None: measured on this image.
    stop : callable
        Asked between tiles.

    Yields
    ------
    Stage, Step, Note

    Returns
    -------
    Exported or None
        None when stopped; then no file of this image was written.

    Raises
    ------
    UserError
        If the choice does not fit the image, or the disk is full.
    """
    choice.check(image)
    make_folder(choice.folder)
    with ExitStack() as stack:
        maps = yield from pipeline.compute(
            image, stack, choice.folder, normalisation=normalisation, stop=stop
        )
        instances, table = None, None
        if not stop() and (choice.instances or choice.table):
            instances = stack.enter_context(
                scratch_array(image.label_shape, np.uint32, choice.folder)
            )
            table = yield from find_instances(
                image, maps, choice.instance_params, instances, stop=stop
            )
        try:
            paths = yield from _write(image, maps, instances, table, choice, stop)
        except _Stopped:
            return None
    return Exported(image, tuple(paths), instances, table)


def _write(
    image: Image,
    maps: Maps,
    instances: np.ndarray | None,
    table: dict[str, Any] | None,
    choice: ExportChoice,
    stop: Stop,
) -> Task[list[Path]]:
    if stop():
        raise _Stopped
    if choice.file_format in ("png", "ome-zarr-image"):
        paths = yield from _write_at_once(image, maps, instances, choice, stop)
        # Probabilities are no labels of the image: they get groups of their own.
        choice = replace(choice, file_format="ome-zarr", mask=False, instances=False)
    else:
        paths = []
    paths += yield from _write_by_regions(image, maps, instances, choice, stop)
    if choice.table and table is not None:
        paths.append(choice.folder / f"{image.stem}_objects.csv")
        write_objects(paths[-1], table)
    return paths


@dataclass(frozen=True)
class _Output:
    """One array on its way to a file."""

    name: str
    dtype: type
    read: Callable[[Any], np.ndarray]
    """Takes a region, returns its (..., Z, Y, X) block."""
    classes: tuple[int, ...] = ()
    """Sizes of the axes before the image's own."""


def _outputs(
    image: Image, maps: Maps, instances: np.ndarray | None, choice: ExportChoice
) -> list[_Output]:
    found = []
    if choice.mask:
        found.append(_Output("mask", np.uint8, partial(maps.classes, image)))
    if choice.instances and instances is not None:
        found.append(_Output("instances", np.uint32, lambda r: read_region(image, instances, r)))
    if choice.probabilities:
        for name in ("probability", "forest", "boundary"):
            array = getattr(maps, name)
            if array is not None:
                classes = array.shape[: array.ndim - len(image.label_axes)]
                found.append(_Output(name, np.float32, _reader(image, array), tuple(classes)))
    return found


def _reader(image: Image, array: Any) -> Callable[[Any], np.ndarray]:
    return lambda region: read_region(image, array, region)


def _write_by_regions(
    image: Image,
    maps: Maps,
    instances: np.ndarray | None,
    choice: ExportChoice,
    stop: Stop,
) -> Task[list[Path]]:
    """Write TIFF or OME-Zarr region by region; all files appear, or none if stopped."""
    outputs = _outputs(image, maps, instances, choice)
    paths = [_path(image, output.name, choice) for output in outputs]
    pieces = pieces_of(image)
    if outputs:
        yield Stage(f"Writing {image.name}", len(pieces))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(_open(image, path, output, choice))
            for path, output in zip(paths, outputs, strict=True)
        ]
        for done, piece in enumerate(pieces if outputs else (), 1):
            if stop():
                raise _Stopped
            index = region_index(image, piece)
            for output, writer in zip(outputs, writers, strict=True):
                block = to_own_axes(image, output.read(piece))
                writer.write((*(slice(None),) * len(output.classes), *index), block)
            yield Step(done)
    return paths


def _open(
    image: Image, path: Path, output: _Output, choice: ExportChoice
) -> AbstractContextManager[RegionWriter]:
    shape = (*output.classes, *image.label_shape)
    axes = "c" * len(output.classes) + image.label_axes
    size, unit = image.pixel_size, image.unit
    if choice.file_format == "ome-zarr":
        labels = output.dtype is not np.float32
        return open_ome_zarr_writer(
            path, shape, axes, output.dtype, pixel_size=size, unit=unit, labels=labels
        )
    kind: Literal["ome", "auto"] = "ome" if choice.file_format == "ome-tiff" else "auto"
    return open_tiff_writer(path, shape, axes, output.dtype, pixel_size=size, unit=unit, kind=kind)


def _write_at_once(
    image: Image,
    maps: Maps,
    instances: np.ndarray | None,
    choice: ExportChoice,
    stop: Stop,
) -> Task[list[Path]]:
    """Write PNG files, or one OME-Zarr of the image with its labels."""
    with ExitStack() as stack:
        whole_numbers = replace(choice, probabilities=False)
        labels: dict[str, Any] = {}
        for output in _outputs(image, maps, instances, whole_numbers):
            labels[output.name] = array = stack.enter_context(
                scratch_array(image.label_shape, output.dtype, choice.folder)
            )
            for t in range(image.n_times):
                for piece in grid(image.limits, PIECE_2D, t):
                    write_region(image, array, piece, output.read(piece))
        yield Stage(f"Writing {image.name}")
        if stop():
            raise _Stopped
        if choice.file_format == "png":
            paths = [_path(image, name, choice) for name in labels]
            for path, array in zip(paths, labels.values(), strict=True):
                write_png(path, array)
            return paths
        path = choice.folder / f"{image.stem}.zarr"
        raw, axes = _own_axes(image)
        write_ome_zarr(path, raw, axes, pixel_size=image.pixel_size, unit=image.unit, labels=labels)
        return [path]


def _own_axes(image: Image) -> tuple[Any, str]:
    """Return the lazy image without the axes that it does not have, and those that it has."""
    axes = "".join(
        axis
        for axis in "tczyx"
        if axis in image.label_axes or (axis == "c" and image.n_channels > 1)
    )
    index = tuple(slice(None) if axis in axes else 0 for axis in "tczyx")
    return image.data[index], axes


def result_paths(stem: str, choice: ExportChoice) -> list[Path]:
    """Return where the results of an image may lie; not every model makes all of them."""
    names = ["mask"] * choice.mask + ["instances"] * choice.instances
    names += ["probability", "forest", "boundary"] * choice.probabilities
    paths = [choice.folder / f"{stem}_{name}{ENDINGS[choice.file_format]}" for name in names]
    return paths + [choice.folder / f"{stem}_objects.csv"] * choice.table


def _path(image: Image, name: str, choice: ExportChoice) -> Path:
    return choice.folder / f"{image.stem}_{name}{ENDINGS[choice.file_format]}"
