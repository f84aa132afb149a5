"""How large a pixel is, by the metadata of OME-TIFF and ImageJ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.images.units import METRES, sound, standard_unit

if TYPE_CHECKING:
    from tifffile import TiffFile


def pixel_size(tif: TiffFile) -> tuple[tuple[float, float, float], str]:
    """Return the (z, y, x) pixel size and its unit; ones and "pixel" when the file tells none.

    The resolution tag alone is not believed: most writers leave the printer's 72 dots per inch.
    """
    if tif.is_ome and tif.ome_metadata:
        return ome_pixel_size(tif.ome_metadata)
    if tif.is_imagej and tif.imagej_metadata:
        return imagej_pixel_size(tif)
    return (1.0, 1.0, 1.0), "pixel"


def ome_pixel_size(xml: str) -> tuple[tuple[float, float, float], str]:
    """Read the physical sizes of the first image; y and z are converted to the unit of x."""
    import tifffile

    images = tifffile.xml2dict(xml).get("OME", {}).get("Image", {})
    pixels = (images[0] if isinstance(images, list) else images).get("Pixels", {})
    unit = standard_unit(pixels.get("PhysicalSizeXUnit", "µm"))
    if "PhysicalSizeX" not in pixels or unit == "pixel":
        return (1.0, 1.0, 1.0), "pixel"

    def size(axis: str) -> float:
        if f"PhysicalSize{axis}" not in pixels:
            return 1.0 if axis == "Z" else size("X")
        own = standard_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        value = float(pixels[f"PhysicalSize{axis}"])
        return sound(value * (METRES.get(own, METRES[unit]) / METRES[unit]))

    return (size("Z"), size("Y"), size("X")), unit


def imagej_pixel_size(tif: TiffFile) -> tuple[tuple[float, float, float], str]:
    """Read ImageJ's unit, slice spacing and resolution (pixels per unit)."""
    metadata = tif.imagej_metadata or {}
    unit = standard_unit(str(metadata.get("unit", "")))
    if unit == "pixel":
        return (1.0, 1.0, 1.0), "pixel"

    tags = tif.pages.first.tags

    def size(axis: str) -> float:
        tag = tags.get(f"{axis}Resolution")
        count, length = tag.value if tag is not None else (1, 1)
        return sound(length / count if count else 1.0)

    return (sound(float(metadata.get("spacing", 1.0))), size("Y"), size("X")), unit
