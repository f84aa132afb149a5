"""Train Random Forests on annotated pixels, with scikit-learn or scikit-learn-intelex."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.forest.from_sklearn import HiddenLeaves, export_forest
from napari_cellda.core.forest.trees import MAX_CLASSES, Forest
from napari_cellda.core.params import BaseParams
from napari_cellda.core.sampling import balance
from napari_cellda.core.threads import thread_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Forest", "ForestParams", "fit_forest", "grow_forest", "warm_up"]

FIRST_TREES = 20
"""Trees of the first, quick answer while painting."""


class ForestParams(BaseParams):
    """How a forest is trained."""

    trees: int = Field(100, ge=1, le=1000)
    """Number of trees. More make the map smoother and take longer."""
    min_samples_leaf: int = Field(1, ge=1)
    """Smallest number of painted pixels in a leaf. More make the map softer. With three classes or
    more, a value above 1 is trained by plain scikit-learn even where the fast one is installed."""
    max_depth: int | None = Field(None, ge=1)
    """Longest way from root to leaf; empty for no limit. Trained as min_samples_leaf above 1 is."""
    max_features: Literal["sqrt", "log2", "all"] = "sqrt"
    """How many features a branching chooses from."""
    max_per_class: int | None = Field(None, ge=1)
    """Train on at most this many pixels of each class; empty for all."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The same pixels and seed give the same forest."""
    jobs: int | None = Field(None, ge=1)
    """Threads to train with; empty for all cores that this process may use."""
    out_of_bag: bool = False
    """Measure the accuracy on samples that a tree did not see; makes training slower. Neighbouring
    pixels are alike, so it flatters: good for comparing settings, not for reporting."""


def fit_forest(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    params: ForestParams,
    *,
    feature_names: Sequence[str] = (),
) -> Forest:
    """Train a forest on pixels resampled to equal class counts.

    Parameters
    ----------
    features : (N, F) ndarray of float32
        One row per annotated pixel.
    labels : (N,) ndarray of int
        Class index of every row, 0 is background.
    n_classes : int, 2 to 8
        Number of classes, painted or not.
    params : ForestParams
        How to train.
    feature_names : sequence of str
        Names of the features, kept with the forest.

    Returns
    -------
    Forest
        Trained by scikit-learn-intelex when it is installed, else by scikit-learn.

    Raises
    ------
    UserError
        If there is no sample, only one class among them, or more than 8 classes.
    """
    _check_samples(features, labels, n_classes)
    features, labels = _balanced(features, labels, params)
    return _fit(features, labels, n_classes, params, params.trees, feature_names)


def grow_forest(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    params: ForestParams,
    *,
    feature_names: Sequence[str] = (),
) -> Iterator[Forest]:
    """Train a forest and hand out its first trees early; see `fit_forest`.

    Yields
    ------
    Forest
        A first one of 20 trees, then the whole one, which is what `fit_forest` returns. Only the
        whole one when it has no more than 20 trees.
    """
    _check_samples(features, labels, n_classes)
    features, labels = _balanced(features, labels, params)
    if params.trees > FIRST_TREES and len(_classifiers(params, len(np.unique(labels)))) == 1:
        yield from _grow(features, labels, n_classes, params, feature_names)
        return
    # The fast classifier cannot go on from a small forest, but is quick enough to start again.
    for n_trees in sorted({min(FIRST_TREES, params.trees), params.trees}):
        yield _fit(features, labels, n_classes, params, n_trees, feature_names)


def _grow(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    params: ForestParams,
    names: Sequence[str],
) -> Iterator[Forest]:
    """Add trees to the first ones, with scikit-learn; draws what a forest fitted at once draws."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(warm_start=True, **_settings(params))
    for n_trees in (FIRST_TREES, params.trees):
        scored = params.out_of_bag and n_trees == params.trees
        model.set_params(n_estimators=n_trees, oob_score=scored)
        _fit_model(model, features, labels)
        yield export_forest(model, features, labels, n_classes, tuple(names))


def _check_samples(
    features: NDArray[np.float32], labels: NDArray[np.integer], n_classes: int
) -> None:
    if not 2 <= n_classes <= MAX_CLASSES:
        raise UserError(f"A forest tells 2 to {MAX_CLASSES} classes apart; got {n_classes}.")
    if len(labels) == 0:
        raise UserError("Nothing is painted; expected strokes of at least two classes.")
    if len(features) != len(labels):
        raise UserError(f"Got {len(features)} samples but {len(labels)} labels.")
    found = np.unique(labels)
    if found[0] < 0 or found[-1] >= n_classes:
        raise UserError(
            f"The classes range from {found[0]} to {found[-1]}; expected 0 to {n_classes - 1}."
        )
    if len(found) == 1:
        raise UserError(
            f"Only one class is painted (number {found[0] + 1}); expected strokes of at least two."
        )
    if not np.isfinite(features).all():
        raise UserError("Some features of the painted pixels are not finite numbers.")


def _balanced(
    features: NDArray[np.float32], labels: NDArray[np.integer], params: ForestParams
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    chosen = balance(labels, seed=params.seed, max_per_class=params.max_per_class)
    return np.ascontiguousarray(features[chosen], dtype=np.float32), labels[chosen]


def _fit(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    params: ForestParams,
    n_trees: int,
    names: Sequence[str],
) -> Forest:
    for classifier in _classifiers(params, len(np.unique(labels))):
        model = classifier(n_trees, oob_score=params.out_of_bag, **_settings(params))
        _fit_model(model, features, labels)
        with suppress(HiddenLeaves):
            return export_forest(model, features, labels, n_classes, tuple(names))
    raise AssertionError("scikit-learn hides no leaf")


def _fit_model(model: Any, features: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
    if not model.oob_score:
        model.fit(features, labels)
        return
    with warnings.catch_warnings():
        # With few trees some samples are in all of them; the score is of the others then.
        warnings.filterwarnings("ignore", "Some inputs do not have OOB scores", UserWarning)
        model.fit(features, labels)


def _settings(params: ForestParams) -> dict[str, Any]:
    return {
        "min_samples_leaf": params.min_samples_leaf,
        "max_depth": params.max_depth,
        "max_features": None if params.max_features == "all" else params.max_features,
        "random_state": params.seed,
        "n_jobs": thread_count(params.jobs),
    }


def _classifiers(params: ForestParams, n_found: int) -> list[Any]:
    """List the classes to train with, in the order to try: the fast one first, if installed."""
    from sklearn.ensemble import RandomForestClassifier

    # Its leaves of three classes or more cannot be exported: do not try where there will be some.
    grown_out = params.min_samples_leaf == 1 and params.max_depth is None
    fast = fast_classifier() if grown_out or n_found == 2 else None
    return [RandomForestClassifier] if fast is None else [fast, RandomForestClassifier]


def fast_classifier() -> Any | None:
    """Return scikit-learn-intelex's forest; None where it is not installed."""
    try:
        from sklearnex.ensemble import RandomForestClassifier
    except ImportError:
        return None
    return RandomForestClassifier


def warm_up() -> None:
    """Load scikit-learn and compile the prediction's kernel, so that the first stroke is quick."""
    rng = np.random.default_rng(0)
    features = rng.random((64, 4), dtype=np.float32)
    labels = (features[:, 0] > 0.5).astype(np.intp)
    for leaf_size in (1, 8):
        params = ForestParams(trees=2, min_samples_leaf=leaf_size)
        forest = fit_forest(features, labels, 2, params)
        forest.predict(features.T.reshape(4, 8, 8))
