"""Interactive domain adaptation of cell and organelle segmentation."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-cellda")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
