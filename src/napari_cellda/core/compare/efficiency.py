"""What a model's size buys: the performance efficiency of CULPICO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


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
