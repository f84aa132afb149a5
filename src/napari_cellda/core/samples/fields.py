"""Sample images that need no download: generated fields with truth, and one real stained section.

Every generated field comes in two domains, "a" and "b": the same structures under another stain,
microscope or setting, so that a whole adaptation can be tried on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from napari_cellda.core.annotator import random_strokes
from napari_cellda.core.samples.shapes import cell_walls, scatter_blobs, smooth_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

Domain = Literal["a", "b"]


@dataclass(frozen=True)
class Sample:
    """An image, its truth and a few strokes on it."""

    name: str
    image: NDArray[np.uint8]
    """(Y, X) grey or (Y, X, 3) RGB."""
    strokes: NDArray[np.uint8]
    """(Y, X): 0 = not annotated, 1 = background, 2 = foreground."""
    labels: NDArray[np.int32] | None = None
    """(Y, X) true instances, 0 = background; None where the truth is not known."""
    boundary_mask: NDArray[np.bool_] | None = None
    """(Y, X) true cell membranes, where the sample shows them."""
    class_names: tuple[str, ...] = ("background", "foreground")


def nuclei_field(
    shape: tuple[int, int] = (512, 512), seed: int = 0, domain: Domain = "a"
) -> Sample:
    """Generate nuclei: fluorescent on a dark ground ("a") or stained in tissue, RGB ("b").

    Parameters
    ----------
    shape : (Y, X)
    seed : int
        The same seed gives the same pixels.
    domain : "a" or "b"

    Returns
    -------
    Sample
        uint8, with instances and strokes.
    """
    rng = np.random.default_rng([seed, 1])
    count = max(3, round(np.prod(shape) / 1300))
    labels = scatter_blobs(shape, count, (7, 13), (1.0, 1.7), 0.12, rng)
    chromatin = smooth_noise(shape, 2.0, rng)
    brightness = _per_object(labels, rng.lognormal(0, 0.35, labels.max() + 1))
    if domain == "a":
        signal = np.where(labels > 0, brightness * (0.5 + 0.06 * chromatin), 0)
        light = 1 + 0.25 * smooth_noise(shape, max(shape) / 3, rng)
        grey = 0.08 * light + ndimage.gaussian_filter(signal, 1.2) * light
        image = _to_uint8(_shot_noise(grey, 60, rng))
    else:
        image = _stain(labels, np.clip(brightness, 0.6, 1.4), chromatin, rng)
    return _sample(f"nuclei {domain}", image, labels, seed, names=("background", "nuclei"))


def organelles_field(
    shape: tuple[int, int] = (512, 512), seed: int = 0, domain: Domain = "a"
) -> Sample:
    """Generate an electron micrograph: double membranes, mitochondria with cristae, vesicles.

    Parameters
    ----------
    shape : (Y, X)
    seed : int
        The same seed gives the same pixels.
    domain : "a" or "b"
        High contrast and fine noise (thin sections), or soft, darker and blurred (block face).

    Returns
    -------
    Sample
        uint8; the instances are mitochondria, `boundary_mask` the membranes between cells.
    """
    rng = np.random.default_rng([seed, 2])
    _, distance = cell_walls(shape, 80, rng)
    room = distance > 7
    mito = scatter_blobs(shape, max(4, round(np.prod(shape) / 4500)), (9, 17), (1.0, 2.6), 0.1, rng)
    mito *= _kept(mito, room)
    depth = ndimage.distance_transform_edt(mito > 0)
    stripes = np.sin(_cristae_phase(mito, rng) + 1.2 * smooth_noise(shape, 6, rng))
    image = 0.68 + 0.05 * smooth_noise(shape, 12, rng) + 0.07 * smooth_noise(shape, 2.0, rng)
    vesicles = scatter_blobs(shape, round(np.prod(shape) / 1500), (2.0, 4.0), (1.0, 1.2), 0.05, rng)
    image -= 0.25 * ndimage.gaussian_filter(
        ((vesicles > 0) & room & (mito == 0)).astype(float), 0.8
    )
    image = np.where(mito > 0, 0.46 + 0.09 * stripes + 0.03 * smooth_noise(shape, 2, rng), image)
    image -= 0.30 * np.exp(-((distance - 2.2) ** 2) / 1.2)  # the two leaves beside a lighter cleft
    image -= 0.26 * np.exp(-((depth - 1.5) ** 2) / 1.5) * (mito > 0)
    if domain == "a":
        image = _to_uint8(image + 0.06 * rng.standard_normal(shape))
    else:
        soft = ndimage.gaussian_filter(0.12 + 0.62 * image, 1.0)
        image = _to_uint8(soft + 0.03 * smooth_noise(shape, 1.0, rng))
    names = ("background", "mitochondria")
    return _sample(f"organelles {domain}", image, mito, seed, names=names, boundary=distance < 3.5)


def phase_field(shape: tuple[int, int] = (512, 512), seed: int = 0, domain: Domain = "a") -> Sample:
    """Generate cells in phase contrast, with their halo.

    Parameters
    ----------
    shape : (Y, X)
    seed : int
        The same seed gives the same pixels.
    domain : "a" or "b"
        Dark cells with a strong bright halo, or paler, grainier ones out of focus.

    Returns
    -------
    Sample
        uint8, with instances and strokes.
    """
    rng = np.random.default_rng([seed, 3])
    count = max(3, round(np.prod(shape) / 4200))
    labels = scatter_blobs(shape, count, (11, 22), (1.0, 3.0), 0.22, rng, gap=1)
    mask = (labels > 0).astype(float)
    grain = smooth_noise(shape, 1.8, rng)
    brightness = _per_object(labels, rng.normal(0, 1, labels.max() + 1))
    strong, focus, level = (1.0, 0.9, 0.5) if domain == "a" else (0.55, 1.8, 0.38)
    halo = ndimage.gaussian_filter(mask, 4) * (1 - mask)
    rim = ndimage.gaussian_filter(mask, 1.2) - ndimage.gaussian_filter(mask, 3.0)
    inside = mask * (-0.10 + 0.03 * brightness + (0.05 if domain == "a" else 0.09) * grain)
    image = level + strong * (0.5 * halo - 0.25 * rim) + inside
    image += 0.04 * smooth_noise(shape, max(shape) / 4, rng)
    image = ndimage.gaussian_filter(image, focus) + 0.025 * rng.standard_normal(shape)
    names = ("background", "cells")
    return _sample(f"phase contrast {domain}", _to_uint8(image), labels, seed, names=names)


def ihc_sample() -> Sample:
    """Return scikit-image's immunohistochemistry field with strokes drawn by hand.

    Returns
    -------
    Sample
        RGB (512, 512, 3) uint8; strokes 1 = background (brown cytoplasm, stroma, lumen), 2 = the
        blue nuclei. There is no truth.
    """
    return Sample(
        name="immunohistochemistry",
        image=_ihc_image(),
        strokes=_ihc_strokes(),
        class_names=("background", "nuclei"),
    )


@cache
def _ihc_image() -> NDArray[np.uint8]:
    from skimage import data

    image = np.asarray(data.immunohistochemistry())
    image.flags.writeable = False
    return image


def _ihc_strokes() -> NDArray[np.uint8]:
    from imageio.v3 import imread

    raw = (files("napari_cellda") / "data" / "ihc_strokes.png").read_bytes()
    return np.asarray(imread(raw, extension=".png"), np.uint8)


def _sample(
    name: str,
    image: NDArray[np.uint8],
    labels: NDArray[np.int32],
    seed: int,
    *,
    names: tuple[str, ...],
    boundary: NDArray[np.bool_] | None = None,
) -> Sample:
    """Put a sample together, with six short strokes per class."""
    strokes = random_strokes((labels > 0).astype(np.int8), 6, rng=np.random.default_rng([seed, 9]))
    return Sample(name, image, strokes, labels, boundary, names)


def _stain(
    labels: NDArray[np.int32],
    brightness: NDArray[np.float64],
    chromatin: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Colour nuclei blue-violet in pink tissue, by Beer-Lambert absorption of two dyes."""
    shape = (labels.shape[0], labels.shape[1])
    fibres = smooth_noise(shape, 3, rng) + 0.7 * smooth_noise(shape, 10, rng)
    eosin = np.clip(0.45 + 0.16 * fibres, 0.05, None)
    haematoxylin = np.where(
        labels > 0, brightness * (0.75 + 0.16 * chromatin), 0.05 * (fibres > 1.2)
    )
    haematoxylin = ndimage.gaussian_filter(haematoxylin, 1.0)
    eosin = ndimage.gaussian_filter(np.where(labels > 0, 0.6 * eosin, eosin), 0.8)
    absorbed = haematoxylin[..., None] * (1.1, 1.3, 0.55) + eosin[..., None] * (0.12, 0.9, 0.45)
    return _to_uint8(0.95 * np.exp(-absorbed) + 0.015 * rng.standard_normal((*shape, 3)))


def _cristae_phase(
    labels: NDArray[np.int32], rng: np.random.Generator, period: float = 5.5
) -> NDArray[np.float64]:
    """Phase of parallel stripes, turned differently in every mitochondrion."""
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    angle = _per_object(labels, rng.uniform(0, np.pi, labels.max() + 1))
    return np.asarray(2 * np.pi / period * (y * np.sin(angle) + x * np.cos(angle)))


def _kept(labels: NDArray[np.int32], room: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the objects that lie mostly inside `room`, clipped to it."""
    total = np.maximum(np.bincount(labels.ravel()), 1)
    inside = np.bincount(labels[room], minlength=len(total))
    return np.asarray((inside / total > 0.75)[labels] & room)


def _per_object(labels: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread one value per label over its pixels."""
    return np.asarray(values[labels])


def _shot_noise(
    image: NDArray[np.floating], photons: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Count photons: Poisson noise, `photons` at value 1."""
    return np.asarray(rng.poisson(np.clip(image, 0, None) * photons) / photons)


def _to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image * 255, 0, 255).round().astype(np.uint8))
