"""Arrays with an image's own axes (strokes, masks, maps), read and written by region.

Such an array has the shape ``(..., *image.label_shape)``: its last axes are the image's own without
the channels, in the order t, z, y, x, and any axes before them (classes) come along whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.images.image import Image
    from napari_cellda.core.tiles import Region


def region_index(image: Image, region: Region) -> tuple[slice | int, ...]:
    """Return the index that cuts `region` out of an array of `image.label_shape`."""
    own: dict[str, slice | int] = {"t": region.t, "z": region.z, "y": region.y, "x": region.x}
    return tuple(own[axis] for axis in image.label_axes)


def to_own_axes(image: Image, block: np.ndarray) -> np.ndarray:
    """Turn a (..., Z, Y, X) block into one along the image's own axes: without z if it has none."""
    return block if "z" in image.label_axes else block[..., 0, :, :]


def same_but_for_ones(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes are the same when axes of length 1 do not count."""
    return [n for n in shape if n > 1] == [n for n in other if n > 1]


def read_region(image: Image, array: Any, region: Region) -> np.ndarray:
    """Return the (..., Z, Y, X) block of `array` that covers `region`; numpy, zarr or dask."""
    block = np.asarray(array[(..., *region_index(image, region))])
    return block if "z" in image.label_axes else np.expand_dims(block, -3)


def write_region(image: Image, array: Any, region: Region, block: np.ndarray) -> None:
    """Put a (..., Z, Y, X) block into `array`, a numpy or zarr array, where `region` is."""
    array[(..., *region_index(image, region))] = to_own_axes(image, block)
