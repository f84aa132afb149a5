"""Images of any kind as one lazy (T, C, Z, Y, X) array, read region by region."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.lazy import (
    CANONICAL,
    as_float,
    compute,
    lazy_canonical,
    luminance,
    take_channels,
)
from napari_cellda.core.images.units import extents
from napari_cellda.core.paths import safe_stem, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.tiles import Region, Spot

Channels = str | tuple[int, ...]
"""Which channels count: "grey", "all" or channel indices."""


@dataclass(frozen=True, eq=False)
class Image:
    """One image, lazily.

    The array may be far larger than memory: go through `read`, which loads one region only.
    """

    name: str
    """Stem of the file, or name of the layer."""
    data: Any = field(repr=False)
    """(T, C, Z, Y, X) numpy, memory-mapped or dask array, singleton where the file has no axis."""
    axes: str
    """Its own axes as found, lower case, such as "yx", "zyx", "yxc", "tczyx"."""
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Extent of a pixel along (z, y, x), in `unit`."""
    unit: str = "pixel"
    """As OME-Zarr spells it, such as "micrometer"; "pixel" when unknown."""
    path: Path | None = None
    levels: tuple[Any, ...] = field(default=(), repr=False)
    """Coarser versions with the same canonical axes, coarsest last."""
    rgb: bool = False
    """Whether the three channels are red, green and blue."""
    others: int = 0
    """Further images in its file, which are not read."""

    @property
    def stem(self) -> str:
        """What files made from it are called: as its own file, or by the name of its layer."""
        is_file = self.path is not None and self.name == stem(self.path)
        return self.name if is_file else safe_stem(self.name)

    @property
    def limits(self) -> Spot:
        """Size along (Z, Y, X) in pixels."""
        nz, ny, nx = (int(size) for size in self.data.shape[2:])
        return nz, ny, nx

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[1])

    @property
    def n_times(self) -> int:
        """Number of time points."""
        return int(self.data.shape[0])

    @property
    def label_axes(self) -> str:
        """Axes of its strokes, masks and labels: its own of t, z, y, x, in this order."""
        return "".join(axis for axis in "tzyx" if axis in self.axes)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of its strokes, masks and labels, along `label_axes`."""
        sizes = dict(zip(CANONICAL, self.data.shape, strict=True))
        return tuple(int(sizes[axis]) for axis in self.label_axes)

    def label_index(self, t: int, z: int) -> tuple[int, ...]:
        """Return the index that cuts the (Y, X) plane at (t, z) out of a label array."""
        return tuple({"t": t, "z": z}[axis] for axis in self.label_axes if axis in "tz")

    def read(self, region: Region) -> np.ndarray:
        """Read one region.

        Parameters
        ----------
        region : Region

        Returns
        -------
        (C, Z, Y, X) ndarray of float32
            A fresh array in the image's own values. NaN and infinity are kept; numbers beyond
            the range of float32 become infinite.

        Raises
        ------
        UserError
            If this part of the file is damaged or gone.
        """
        time = slice(region.t, region.t + 1)
        block = self.load((time, slice(None), *region.slices))
        return as_float(block[0])

    def load(self, box: tuple[slice, ...], level: int | None = None) -> np.ndarray:
        """Load a box of the canonical array (or of one of the `levels`) in the file's own dtype."""
        data = self.data if level is None else self.levels[level]
        try:
            return compute(data[box])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            if self.path is None:
                raise
            raise UserError(f"'{self.path}' has a part that cannot be read ({error}).") from error

    def select(
        self, channels: Channels = "grey", advice: str = "name the ones to use, or all"
    ) -> Image:
        """Choose the channels that count.

        Parameters
        ----------
        channels : "grey", "all" or tuple of int
            "grey": the luminance of an RGB image (float32, in its own range), or the only channel.
            Indices count from 0.
        advice : str
            What a message asks for where "grey" is not enough.

        Returns
        -------
        Image
            A lazy view. A grey one has no channel axis.

        Raises
        ------
        UserError
            If the image has several channels that are not RGB and "grey" is asked for, or an
            index that it does not have.
        """
        if channels == "all":
            return self
        if channels == "grey":
            axes = self.axes.replace("c", "")
            if self.n_channels == 1:
                return replace(self, axes=axes, rgb=False)
            if self.rgb:
                return self._map_levels(luminance, axes=axes, rgb=False)
            raise UserError(
                f"'{self.path or self.name}' has {self.n_channels} channels that are not RGB; "
                f"{advice}."
            )
        return self._pick(channels)

    def _pick(self, channels: Channels) -> Image:
        indices = [] if isinstance(channels, str) else [int(index) for index in channels]
        if not indices or any(not 0 <= index < self.n_channels for index in indices):
            raise UserError(
                f"'{self.path or self.name}' has {self.n_channels} channel(s), counted from 0, and "
                f"'{', '.join(map(str, indices)) or channels}' was asked for; "
                "expected grey, all or a choice of them."
            )
        rgb = self.rgb and indices == [0, 1, 2]
        return self._map_levels(lambda data: take_channels(data, indices), rgb=rgb)

    def _map_levels(self, function: Any, **changes: Any) -> Image:
        levels = tuple(function(level) for level in self.levels)
        return replace(self, data=function(self.data), levels=levels, **changes)


def image_from_array(
    array: Any,
    axes: str,
    *,
    name: str,
    pixel_size: Sequence[float] | None = None,
    unit: str = "pixel",
    rgb: bool = False,
    path: Path | None = None,
    levels: Sequence[Any] = (),
) -> Image:
    """Wrap an array, such as a napari layer's data, without reading it.

    Parameters
    ----------
    array : numpy, dask or zarr array
        Boolean, integer or real, with the axes named by `axes`.
    axes : str
        One letter per axis out of t, c, z, y, x, in any order; y and x must be there.
    name : str
        What messages call the image.
    pixel_size : sequence of float, optional
        Extent of a pixel along the last of (z, y, x), as many as given. None: 1. A sign (a flipped
        layer) is dropped, and what is no size is 1.
    unit : str
        Of `pixel_size`.
    rgb : bool
        Whether the channels are red, green, blue; a fourth (alpha) is dropped.
    path : Path, optional
        The file it comes from.
    levels : sequence of arrays
        Coarser versions with the same axes, coarsest last.

    Returns
    -------
    Image

    Raises
    ------
    UserError
        If the axes do not fit, or the array is empty or holds no real numbers.
    """
    axes = axes.lower()
    check_array(array, axes, name)
    views = [lazy_canonical(level, axes) for level in (array, *levels)]
    if rgb:
        views = [view[:, :3] for view in views]
    return Image(
        name=name,
        data=views[0],
        axes=axes,
        pixel_size=extents(pixel_size),
        unit=unit,
        path=path,
        levels=tuple(views[1:]),
        rgb=rgb,
    )


def check_array(array: Any, axes: str, name: str) -> None:
    """Raise a UserError unless `array` is a non-empty real array with these axes."""
    legal = len(set(axes)) == len(axes) and set("yx") <= set(axes) <= set(CANONICAL)
    if not legal or len(axes) != len(array.shape):
        raise UserError(
            f"'{name}' has shape {tuple(array.shape)} with the axes '{axes}'; "
            "expected y and x and at most one each of t, c and z."
        )
    if 0 in array.shape:
        raise UserError(f"'{name}' is empty: its shape is {tuple(array.shape)}.")
    if np.dtype(array.dtype).kind not in "buif":
        raise UserError(f"'{name}' holds {array.dtype} values; expected real numbers or booleans.")


def open_image(path: str | Path, *, channels: Channels = "grey") -> Image:
    """Open an image file lazily.

    Parameters
    ----------
    path : str or Path
        TIFF, OME-TIFF, ImageJ TIFF, PNG, JPEG, OME-Zarr 0.4 or 0.5, or a plain zarr array.
    channels : "grey", "all" or tuple of int
        See `Image.select`.

    Returns
    -------
    Image

    Raises
    ------
    UserError
        If the file is missing, truncated, foreign, empty or has not those channels.
    """
    from napari_cellda.core.images.readers import read_file

    path = Path(path)
    found = read_file(path)
    image = image_from_array(
        found.array,
        found.axes,
        name=stem(path),
        pixel_size=found.pixel_size,
        unit=found.unit,
        rgb=found.rgb,
        path=path,
        levels=found.levels,
    )
    if found.alpha:
        image = image.select(tuple(range(image.n_channels - 1)))
    return replace(image, others=found.others).select(channels)


def check_same_channels(images: Sequence[Image]) -> None:
    """Raise a UserError unless all images have as many channels in use."""
    for image in images[1:]:
        if image.n_channels != images[0].n_channels:
            raise UserError(
                f"'{images[0].name}' has {images[0].n_channels} channel(s) in use and "
                f"'{image.name}' {image.n_channels}; choose channels that both of them have."
            )
