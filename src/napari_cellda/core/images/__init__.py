"""Images of any size and kind, opened lazily, measured once."""

from napari_cellda.core.images.image import Channels, Image, image_from_array, open_image

__all__ = ["Channels", "Image", "image_from_array", "open_image"]
