"""The scores of a layer's objects, which average precision needs: with the layer, or its file."""

from __future__ import annotations

from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SCORE = "score"
NUMBERS = ("index", "label")
"""Features that hold an object's number: napari's own, and that of tables of objects."""


def scores_of(layer: Any) -> Callable[[], dict[int, float]] | None:
    """Return what reads the scores of a layer's objects, in any thread; None if it has none.

    Parameters
    ----------
    layer : napari Labels or Image layer
        Its features have a column `score`, as those of exported objects; or it was opened from
        a file ``*_instances`` with its ``*_objects.csv`` beside it, as `evaluate` wants it.
    """
    features = getattr(layer, "features", None)
    if features is not None and SCORE in features:
        return partial(_from_features, features.copy())
    if layer.source.path is None:
        return None
    from napari_cellda.core.compare.pairing import objects_beside, read_scores

    table = objects_beside(Path(layer.source.path))
    return None if table is None else partial(read_scores, table)


def _from_features(features: Any) -> dict[int, float]:
    """Read a table whose rows, where they hold no number, count objects from 0, as in napari."""
    numbers = next((features[name] for name in NUMBERS if name in features), range(len(features)))
    rows = [
        (_number(number), _number(score))
        for number, score in zip(numbers, features[SCORE], strict=True)
    ]
    return {int(number): score for number, score in rows if isfinite(number) and isfinite(score)}


def _number(value: Any) -> float:
    """Return nan for what is no number: other plugins write such tables, too."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return nan
