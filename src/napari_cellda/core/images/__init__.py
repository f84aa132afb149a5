"""Images of any size and kind, opened lazily, measured once."""

from napari_cellda.core.images.image import (
    Channels,
    Image,
    check_same_channels,
    image_from_array,
    open_image,
)

__all__ = ["Channels", "Image", "check_same_channels", "image_from_array", "open_image"]
