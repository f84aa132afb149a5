"""Whether to believe a result when there is no truth: green, amber or red, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cellda.core.compare.pixels import pixel_scores
from napari_cellda.core.enhancer.trust import contradiction, object_diameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_cellda.core.modelzoo.card import ModelCard

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")
"""From good to bad."""
Predict = Callable[[np.ndarray], np.ndarray]
"""From a (C, Y, X) block, or a (Y, X) map, to a (Y, X) foreground map in [0, 1]."""


@dataclass(frozen=True)
class Limits:
    """Where green ends and where red begins.

    On the images of ``benchmarks/quality.py`` only a network that disagrees with itself was mostly
    wrong; the other checks are reasons to look twice, and never red by themselves.
    """

    size: tuple[float, float] = (1.5, inf)
    """Factor between the objects here and those of the training."""
    histogram: tuple[float, float] = (0.3, inf)
    """Total variation between the map's histogram and the training's."""
    contradiction: tuple[float, float] = (0.2, inf)
    """Contradicted area, as a share of what either map calls foreground."""
    disagreement: tuple[float, float] = (0.1, 0.25)
    """One less the Dice score between a result and that of the altered input."""
    remaining: tuple[float, float] = (0.8, 0.95)
    """Discrepancy at the end of a training, as a share of its peak."""
    least_objects: int = 5
    """Fewer objects say nothing about their size."""


LIMITS = Limits()


@dataclass(frozen=True)
class Verdict:
    """One check and what came of it."""

    check: str
    """Its title, such as "Object size"."""
    level: Level
    reason: str
    """One plain sentence."""
    value: float = float("nan")
    """What was measured; see `Limits`."""


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the gravest of some verdicts; of equally grave ones the first.

    Parameters
    ----------
    verdicts : sequence of Verdict
        At least one.
    """
    return max(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def check_enhancer(
    card: ModelCard,
    forest_map: np.ndarray,
    enhanced_map: np.ndarray | None = None,
    *,
    rescale: float = 1.0,
    limits: Limits = LIMITS,
) -> list[Verdict]:
    """Check whether an enhancer works inside the range that it was trained for.

    Parameters
    ----------
    card : ModelCard
        Of the enhancer.
    forest_map : (Y, X) or (Z, Y, X) ndarray of float in [0, 1]
        What it is given.
    enhanced_map : ndarray of the same shape, optional
        What it makes of it.
    rescale : float
        The zoom before the enhancer.
    limits : Limits

    Returns
    -------
    list of Verdict
        Of what the package allows to check: object size, histogram of the map, contradiction.
    """
    found = [
        _check_size(card, forest_map, rescale, limits),
        _check_histogram(card, forest_map, limits),
    ]
    if enhanced_map is not None:
        found.append(_check_contradiction(forest_map, enhanced_map, limits))
    return [verdict for verdict in found if verdict is not None]


def _check_size(
    card: ModelCard, forest_map: np.ndarray, rescale: float, limits: Limits
) -> Verdict | None:
    diameter, n_objects = object_diameter(forest_map)
    if card.object_diameter is None or n_objects < limits.least_objects:
        return None
    here = diameter * rescale
    factor = max(here / card.object_diameter, card.object_diameter / here)
    level = _level(factor, limits.size)
    told = "like those of its training" if level == "green" else "unlike those of its training"
    return Verdict(
        "Object size",
        level,
        f"Objects are about {here:.0f} px across, {told} ({card.object_diameter:.0f} px).",
        factor,
    )


def _check_histogram(card: ModelCard, forest_map: np.ndarray, limits: Limits) -> Verdict | None:
    trained = card.training.get("map_histogram")
    if not trained:
        return None
    counts, _ = np.histogram(forest_map, bins=len(trained), range=(0, 1))
    shares = np.asarray(trained, float) / max(float(np.sum(trained)), 1e-9)
    distance = float(np.abs(counts / max(counts.sum(), 1) - shares).sum() / 2)
    level = _level(distance, limits.histogram)
    told = "resembles" if level == "green" else "differs from"
    return Verdict(
        "Forest's map",
        level,
        f"The forest's map {told} those that the enhancer was trained on: "
        f"{distance:.0%} of the pixels would have to change their value.",
        distance,
    )


def _check_contradiction(
    forest_map: np.ndarray, enhanced_map: np.ndarray, limits: Limits
) -> Verdict | None:
    either = float(np.mean((forest_map > 0.5) | (enhanced_map > 0.5)))
    if either == 0:
        return None
    invented, erased = contradiction(forest_map, enhanced_map)
    share = (invented + erased) / either
    verb = "adds" if invented > erased else "removes"
    return Verdict(
        "Contradiction",
        _level(share, limits.contradiction),
        f"Where either sees foreground, the enhancer contradicts the forest on {share:.0%}; "
        f"mostly it {verb}.",
        share,
    )


# -- networks --------------------------------------------------------------------------------------

BRIGHTNESS = {"darker": 1.25, "brighter": 0.8}
"""Exponents applied to an image scaled to [0, 1]; a plain gain would be normalised away."""


def self_agreement(
    predict: Predict, block: np.ndarray, *, brightness: bool = True
) -> dict[str, float]:
    """Measure whether a network agrees with itself on inputs that show the same thing.

    Parameters
    ----------
    predict : callable
        From a block to its (Y, X) foreground map in [0, 1].
    block : (C, Y, X) ndarray of float, or a (Y, X) map in [0, 1]
        What the network is given.
    brightness : bool
        Whether to change the brightness too; not for enhancers, whose input is a probability.

    Returns
    -------
    dict of str to float in [0, 1]
        Dice between the result and that of the altered input (turned back), by what was altered;
        1 is full agreement.
    """
    plain = predict(block) > 0.5
    found = {
        name: pixel_scores(np.flip(predict(np.flip(block, axis).copy()), axis) > 0.5, plain).dice
        for name, axis in (("upside down", -2), ("mirrored", -1))
    }
    if brightness:
        low, high = float(block.min()), float(block.max())
        unit = (block - low) / max(high - low, 1e-9)
        for name, exponent in BRIGHTNESS.items():
            altered = (unit**exponent * (high - low) + low).astype(block.dtype)
            found[name] = pixel_scores(predict(altered) > 0.5, plain).dice
    return found


def check_agreement(scores: dict[str, float], limits: Limits = LIMITS) -> Verdict:
    """Judge `self_agreement` by its worst case."""
    name, score = min(scores.items(), key=lambda item: item[1])
    level = _level(1 - score, limits.disagreement)
    told = (
        "The network stays with its answer" if level == "green" else "The network changes its mind"
    )
    return Verdict(
        "Self-agreement",
        level,
        f"{told} when the image is altered: Dice {score:.2f} at worst ({name}).",
        1 - score,
    )


def check_discrepancy(means: Iterable[float], limits: Limits = LIMITS) -> Verdict | None:
    """Judge whether the discrepancy of two networks fell during a training.

    Parameters
    ----------
    means : iterable of float in [0, 1]
        The mean curve, in the order of the epochs.
    limits : Limits

    Returns
    -------
    Verdict or None
        None when the curve has fewer than two points, or is 0 throughout.

    Notes
    -----
    Two new networks begin by agreeing, on nothing; so the end is held against the peak. The curve
    is noisy: both are means over a tenth of it.
    """
    curve = np.asarray(list(means), float)
    if len(curve) < 2 or not curve.any():
        return None
    length = max(1, len(curve) // 10)
    calm = np.convolve(curve, np.full(length, 1 / length), mode="valid")
    peak, end = float(calm.max()), float(calm[-1])
    share = end / peak
    level = _level(share, limits.remaining)
    told = {"green": "fell", "amber": "hardly fell", "red": "did not fall"}[level]
    return Verdict(
        "Discrepancy",
        level,
        f"The two networks' discrepancy {told}, from {peak:.3f} at its peak to {end:.3f}.",
        share,
    )


def _level(value: float, limits: tuple[float, float]) -> Level:
    """Green up to the first limit, amber up to the second, red beyond."""
    return LEVELS[int(value > limits[0]) + int(value > limits[1])]
