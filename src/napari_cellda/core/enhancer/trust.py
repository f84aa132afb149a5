"""When to doubt an enhancer: it paints what it was trained on, asked for or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.enhancer.options import FLAT_RANGE
from napari_cellda.core.modelzoo.structures import known_structure

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.card import ModelCard


@dataclass(frozen=True)
class TrustThresholds:
    """From where on a warning is given; benchmarks/trust.py tells how often it is right."""

    jump: float = 0.5
    """Smallest change of a pixel's probability, across 0.5, that contradicts the forest."""
    contradicted: float = 0.5
    """Contradicted area, as a share of what either map calls foreground."""
    unsure: float = 0.75
    """Share of what the enhancer draws that it is not sure of."""
    least_area: float = 0.01
    """Smaller contradictions, as a share of the region, are left alone."""
    size_factor: float = 2.0
    """Objects may be this much smaller or larger than the training's."""
    least_objects: int = 5
    """Fewer objects say nothing about their size."""
    flat_range: float = FLAT_RANGE
    """A forest's map with a smaller range holds no structure to enhance."""


THRESHOLDS = TrustThresholds()


def check_trust(
    card: ModelCard,
    forest_map: np.ndarray,
    enhanced_map: np.ndarray | None = None,
    *,
    rescale: float = 1.0,
    class_name: str = "",
    thresholds: TrustThresholds = THRESHOLDS,
) -> list[str]:
    """Find reasons to doubt an enhanced map.

    Parameters
    ----------
    card : ModelCard
        Of the enhancer.
    forest_map : (Y, X) or (Z, Y, X) ndarray of float32, in [0, 1]
        The forest's map of the enhanced class.
    enhanced_map : ndarray of the same shape, optional
        The enhancer's foreground. None checks only whether the forest's map suits the enhancer.
    rescale : float
        The zoom that is applied before the enhancer.
    class_name : str
        What the user calls the class; "" when it has no telling name.
    thresholds : TrustThresholds

    Returns
    -------
    list of str
        Plain sentences, the gravest first; [] when nothing speaks against it.
    """
    flat = _flat(forest_map, thresholds)
    if flat:
        return [flat]
    found = [_wrong_structure(card, class_name)]
    if enhanced_map is not None:
        found.append(_contradiction(forest_map, enhanced_map, thresholds))
        found.append(_unsure(enhanced_map, thresholds))
    found.append(_wrong_size(card, forest_map, enhanced_map, rescale, thresholds))
    return [sentence for sentence in found if sentence]


def contradiction(
    forest_map: np.ndarray, enhanced_map: np.ndarray, jump: float = THRESHOLDS.jump
) -> tuple[float, float]:
    """Measure where an enhancer says the opposite of the forest.

    Parameters
    ----------
    forest_map, enhanced_map : ndarray of float, same shape, in [0, 1]
    jump : float
        Smallest difference that counts; the two must also lie on different sides of 0.5.

    Returns
    -------
    invented, erased : float
        Shares of the area that only the enhancer, or only the forest, calls foreground.
    """
    apart = np.abs(enhanced_map - forest_map) >= jump
    in_forest, in_enhanced = forest_map > 0.5, enhanced_map > 0.5
    return (
        float(np.mean(apart & in_enhanced & ~in_forest)),
        float(np.mean(apart & in_forest & ~in_enhanced)),
    )


def unsureness(enhanced_map: np.ndarray) -> float:
    """Return the share, of what an enhancer draws, that it is not sure of.

    Parameters
    ----------
    enhanced_map : ndarray of float, in [0, 1]

    Returns
    -------
    float, in [0, 1]
        Pixels from 0.2 to 0.8 as a share of all from 0.2 on; 0 when there are none. Networks that
        see what they know decide for nearly 0 or 1 everywhere but along edges.
    """
    drawn = enhanced_map > 0.2
    return float(np.mean(enhanced_map[drawn] < 0.8)) if drawn.any() else 0.0


def object_diameter(forest_map: np.ndarray) -> tuple[float, int]:
    """Estimate the size of the objects in a forest's map.

    Parameters
    ----------
    forest_map : (Y, X) or (Z, Y, X) ndarray of float, in [0, 1]
        Of a stack, the plane with most foreground is taken.

    Returns
    -------
    diameter : float
        Equivalent diameter in pixels, the median over the foreground's area; 0 without objects.
    n_objects : int

    Notes
    -----
    Objects are what lies above 0.5. Touching ones are counted by the peaks of the distance to the
    background; specks below 9 pixels are left out.
    """
    from scipy import ndimage

    plane = forest_map if forest_map.ndim == 2 else max(forest_map, key=lambda p: (p > 0.5).sum())
    mask = plane > 0.5
    labels, n_components = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=n_components + 1)[1:]
    if not np.any(areas >= 9):
        return 0.0, 0
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    window = 2 * int(np.ceil(0.75 * np.percentile(depth[mask], 95))) + 1
    peaks = mask & (depth == ndimage.maximum_filter(depth, size=max(3, window)))
    # A peak may be a plateau of a few pixels.
    plateaus, n_plateaus = ndimage.label(peaks, structure=np.ones((3, 3)))
    owners = ndimage.maximum(labels, plateaus, np.arange(1, n_plateaus + 1)).astype(int)
    n_peaks = np.bincount(owners, minlength=n_components + 1)[1:].clip(min=1)
    kept = areas >= 9
    sizes, counts = areas[kept] / n_peaks[kept], n_peaks[kept]
    order = np.argsort(sizes)
    covered = np.cumsum((sizes * counts)[order])
    middle = sizes[order][np.searchsorted(covered, covered[-1] / 2)]
    return float(np.sqrt(4 * middle / np.pi)), int(counts.sum())


def _flat(forest_map: np.ndarray, thresholds: TrustThresholds) -> str:
    low, high = float(forest_map.min()), float(forest_map.max())
    if high - low >= thresholds.flat_range:
        return ""
    return (
        f"The forest's map is nearly flat here ({low:.2f} to {high:.2f}): there is nothing to "
        "enhance, and the enhancer may invent objects."
    )


def _wrong_structure(card: ModelCard, class_name: str) -> str:
    made_for, asked = known_structure(card.structure), known_structure(class_name)
    if not made_for or not asked or made_for == asked:
        return ""
    return (
        f"This enhancer was trained on {card.structure}, and the class is called '{class_name}': "
        f"it will turn it into something like {made_for}."
    )


def _contradiction(
    forest_map: np.ndarray, enhanced_map: np.ndarray, thresholds: TrustThresholds
) -> str:
    invented, erased = contradiction(forest_map, enhanced_map, thresholds.jump)
    either = float(np.mean((forest_map > 0.5) | (enhanced_map > 0.5)))
    area = invented + erased
    if area < thresholds.least_area or area < thresholds.contradicted * either:
        return ""
    how = "adds objects that the forest does not show"
    if erased > invented:
        how = "removes objects that the forest shows"
    return (
        f"The enhancer contradicts the forest on {area:.0%} of this area, mostly because it {how}: "
        "compare the two maps before you trust it."
    )


def _unsure(enhanced_map: np.ndarray, thresholds: TrustThresholds) -> str:
    share = unsureness(enhanced_map)
    if share < thresholds.unsure or np.mean(enhanced_map > 0.2) < thresholds.least_area:
        return ""
    return (
        f"The enhancer is unsure of {share:.0%} of what it draws here: this may not be the kind or "
        "the size of structure that it knows."
    )


def _wrong_size(
    card: ModelCard,
    forest_map: np.ndarray,
    enhanced_map: np.ndarray | None,
    rescale: float,
    thresholds: TrustThresholds,
) -> str:
    """Doubt the size where both maps do: errors of the forest are small, and not objects."""
    if card.object_diameter is None:
        return ""
    diameter, n_objects = object_diameter(forest_map)
    if n_objects < thresholds.least_objects:
        return ""
    if enhanced_map is not None:
        repaired, n_repaired = object_diameter(enhanced_map)
        if n_repaired >= thresholds.least_objects:
            # Whichever speaks less against the enhancer.
            ratios = {
                d: abs(np.log(d * rescale / card.object_diameter)) for d in (diameter, repaired)
            }
            diameter = min(ratios, key=lambda d: ratios[d])
    ratio = diameter * rescale / card.object_diameter
    if 1 / thresholds.size_factor <= ratio <= thresholds.size_factor:
        return ""
    return (
        f"Objects here are about {diameter * rescale:.0f} px across, and the enhancer was trained "
        f"on {card.object_diameter:.0f} px: rescale by {card.object_diameter / diameter:.2g}."
    )
