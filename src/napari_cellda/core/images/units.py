"""Units of length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNITS = {
    "angstrom": ("angstrom", "å", "a"),
    "nanometer": ("nanometer", "nanometre", "nm"),
    "micrometer": ("micrometer", "micrometre", "micron", "microns", "um", "µm", "μm", "\\u00b5m"),
    "millimeter": ("millimeter", "millimetre", "mm"),
    "centimeter": ("centimeter", "centimetre", "cm"),
    "meter": ("meter", "metre", "m"),
    "inch": ("inch", "in"),
}
"""Lengths as OME-Zarr spells them, with other spellings."""
METRES = dict(zip(UNITS, (1e-10, 1e-9, 1e-6, 1e-3, 1e-2, 1.0, 0.0254), strict=True))
"""What each unit measures in metres."""
SYMBOLS = dict(zip(UNITS, ("Å", "nm", "µm", "mm", "cm", "m", "in"), strict=True))
"""As OME-TIFF spells them."""


def standard_unit(unit: str | None) -> str:
    """Return the OME-Zarr spelling of a unit of length; "pixel" when there is none."""
    wanted = (unit or "").strip().lower()
    for name, spellings in UNITS.items():
        if wanted in spellings:
            return name
    return "pixel"


def sound(size: float) -> float:
    """Return a pixel size, or 1 where a file or layer gives nonsense."""
    return abs(size) if math.isfinite(size) and size else 1.0


def extents(pixel_size: Iterable[float] | None) -> tuple[float, float, float]:
    """Return sound pixel sizes along (z, y, x), given the last of them; 1 where there is none."""
    sizes = () if pixel_size is None else pixel_size
    z, y, x = (1.0, 1.0, 1.0, *(sound(float(size)) for size in sizes))[-3:]
    return z, y, x
