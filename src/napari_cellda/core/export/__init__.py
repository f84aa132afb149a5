"""Maps, masks and tables to files: whole or not at all, of any size."""

from napari_cellda.core.export.files import (
    FileFormat,
    open_writer,
    write_objects,
    write_ome_zarr,
    write_png,
    write_tiff,
)

__all__ = [
    "FileFormat",
    "open_writer",
    "write_objects",
    "write_ome_zarr",
    "write_png",
    "write_tiff",
]
