"""What a model's size buys: the performance efficiency of CULPICO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.compare.scoring import LOWER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.compare.summary import ModelResult


@dataclass(frozen=True)
class Standing:
    """A model's score and what its size buys."""

    n_parameters: int
    score: float
    """Mean over the images."""
    efficiency: float
    """See `performance_efficiency`; nan when the upper bound's size is unknown."""


def standings(
    models: Mapping[str, ModelResult], key: str, upper_bound: str | None = None
) -> dict[str, Standing]:
    """Hold the models' mean of one figure against their size (CULPICO Fig. 4).

    Parameters
    ----------
    models : mapping of name to ModelResult
    key : str
        Of `scoring.KEYS`.
    upper_bound : str, optional
        None: the model that is best in this figure.

    Returns
    -------
    dict of name to Standing
        Models of unknown size, or where the figure is undefined, are left out; empty unless two
        are left.
    """
    sizes = {name: m.n_parameters for name, m in models.items() if m.n_parameters is not None}
    scores = {name: mean for name in sizes if np.isfinite(mean := models[name].mean[key])}
    if len(scores) < 2:
        return {}
    best = min if key in LOWER_IS_BETTER else max
    target = upper_bound or best(scores, key=lambda name: scores[name])
    found = performance_efficiency(scores, sizes, target)
    rated = {name: found.get(name, float("nan")) for name in scores}
    return {name: Standing(sizes[name], scores[name], rated[name]) for name in scores}


def performance_efficiency(
    scores: Mapping[str, float], n_parameters: Mapping[str, int], upper_bound: str
) -> dict[str, float]:
    """Rate models by how near they come to the upper bound in score and size.

    Parameters
    ----------
    scores : mapping of model to float
        One figure, averaged over images; models whose score is nan are left out.
    n_parameters : mapping of model to int
        Trained parameters; models without are left out.
    upper_bound : str
        The model that the others are measured against, such as one trained on the target's masks.

    Returns
    -------
    dict of model to float
        1 for the upper bound, 0 for the model farthest from it. Score and size are z-scored over
        the models (population standard deviation; 0 where all are alike), the Euclidean distance
        to the upper bound is scaled to [0, 1] over the models and subtracted from 1 [1]_. It
        depends on which models take part, so figures of different sets cannot be compared. Empty
        when the upper bound or everybody else is left out.

    References
    ----------
    .. [1] Miyaki et al., "Cell segmentation without annotation by unsupervised domain adaptation
       based on cooperative self-learning".
    """
    names = [name for name in scores if name in n_parameters and np.isfinite(scores[name])]
    if upper_bound not in names or len(names) < 2:
        return {}
    columns = ([scores[name] for name in names], [n_parameters[name] for name in names])
    places = np.stack([_z_scores(np.array(column, np.float64)) for column in columns], axis=1)
    distance = np.linalg.norm(places - places[names.index(upper_bound)], axis=1)
    farthest = distance.max() or 1.0  # the nearest is the upper bound itself, at 0
    return {name: float(1 - d / farthest) for name, d in zip(names, distance, strict=True)}


def _z_scores(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread else np.zeros_like(values)
