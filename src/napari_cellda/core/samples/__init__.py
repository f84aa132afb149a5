"""Samples without a download: generated fields with truth, and one real stained section."""

from napari_cellda.core.samples.fields import (
    Sample,
    ihc_sample,
    nuclei_field,
    organelles_field,
    phase_field,
)

__all__ = ["Sample", "ihc_sample", "nuclei_field", "organelles_field", "phase_field"]
