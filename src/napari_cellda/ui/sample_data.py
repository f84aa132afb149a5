"""Sample data for napari's menu: one real image with strokes, and generated fields with truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cellda.core.samples import Sample

    LayerData = tuple[Any, dict[str, Any], str]


def immunohistochemistry() -> list[LayerData]:
    """Open scikit-image's immunohistochemistry field with strokes."""
    from napari_cellda.core.samples import ihc_sample

    return _layers(replace(ihc_sample(), name="tissue"))  # the list of layers is narrow


def nuclei_a() -> list[LayerData]:
    """Generate fluorescent nuclei."""
    from napari_cellda.core.samples import nuclei_field

    return _layers(nuclei_field(domain="a"))


def nuclei_b() -> list[LayerData]:
    """Generate nuclei in stained tissue."""
    from napari_cellda.core.samples import nuclei_field

    return _layers(nuclei_field(domain="b"))


def organelles_a() -> list[LayerData]:
    """Generate mitochondria and membranes in a thin section."""
    from napari_cellda.core.samples import organelles_field

    return _layers(organelles_field(domain="a"))


def organelles_b() -> list[LayerData]:
    """Generate mitochondria and membranes in a block face."""
    from napari_cellda.core.samples import organelles_field

    return _layers(organelles_field(domain="b"))


def phase_a() -> list[LayerData]:
    """Generate cells in phase contrast."""
    from napari_cellda.core.samples import phase_field

    return _layers(phase_field(domain="a"))


def phase_b() -> list[LayerData]:
    """Generate cells in phase contrast, out of focus."""
    from napari_cellda.core.samples import phase_field

    return _layers(phase_field(domain="b"))


def _layers(sample: Sample) -> list[LayerData]:
    """Show the image, its strokes and, hidden, its truth."""
    is_colour = sample.image.ndim == 3
    layers: list[LayerData] = [(sample.image, {"name": sample.name, "rgb": is_colour}, "image")]
    if sample.labels is not None:
        truth = {"name": f"Truth · {sample.name}", "visible": False}
        layers.append((sample.labels, truth, "labels"))
    strokes = {"name": f"Strokes · {sample.name}", "metadata": {"classes": sample.class_names}}
    return [*layers, (sample.strokes, strokes, "labels")]
