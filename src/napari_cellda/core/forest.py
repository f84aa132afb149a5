"""Train Random Forests on annotated pixels, with scikit-learn or scikit-learn-intelex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams
from napari_cellda.core.sampling import balance
from napari_cellda.core.threads import thread_count
from napari_cellda.core.trees import MAX_CLASSES, Forest

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
    """Smallest number of painted pixels in a leaf. More make the map softer."""
    max_depth: int | None = Field(None, ge=1)
    """Longest way from root to leaf; empty for no limit."""
    max_features: Literal["sqrt", "log2", "all"] = "sqrt"
    """How many features a branching chooses from."""
    max_per_class: int | None = Field(None, ge=1)
    """Train on at most this many pixels of each class; empty for all."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The same pixels and seed give the same forest."""
    jobs: int | None = Field(None, ge=1)
    """Threads to train with; empty for all cores that this process may use."""
    out_of_bag: bool = False
    """Measure the accuracy on samples that a tree did not see; makes training slower."""


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
    if params.trees > FIRST_TREES:
        yield _fit(features, labels, n_classes, params, FIRST_TREES, feature_names)
    yield _fit(features, labels, n_classes, params, params.trees, feature_names)


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
    feature_names: Sequence[str],
) -> Forest:
    model = _classifier()(
        n_trees,
        min_samples_leaf=params.min_samples_leaf,
        max_depth=params.max_depth,
        max_features=None if params.max_features == "all" else params.max_features,
        oob_score=params.out_of_bag,
        random_state=params.seed,
        n_jobs=thread_count(params.jobs),
    )
    model.fit(features, labels)
    return _export(model, n_classes, features.shape[1], tuple(feature_names))


def _classifier() -> Any:
    """Return scikit-learn-intelex's classifier when it is installed, else scikit-learn's."""
    try:
        from sklearnex.ensemble import RandomForestClassifier
    except ImportError:
        from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier


def _export(model: Any, n_classes: int, n_features: int, feature_names: tuple[str, ...]) -> Forest:
    """Copy a fitted classifier's trees into flat arrays."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    left = np.concatenate([tree.children_left for tree in trees])
    right = np.concatenate([tree.children_right for tree in trees])
    inner = left >= 0
    # Branchings and leaves are numbered apart; both keep their order.
    code = np.where(inner, np.cumsum(inner) - 1, ~(np.cumsum(~inner) - 1))
    children = np.stack([code[(first + side)[inner]] for side in (left, right)], axis=1)
    values = np.concatenate([tree.value[:, 0] for tree in trees])[~inner]
    leaves = np.zeros((len(values), n_classes), np.float32)
    leaves[:, model.classes_.astype(int)] = values / values.sum(1, keepdims=True)
    thresholds = np.concatenate([tree.threshold for tree in trees])[inner]
    ends = np.cumsum(sizes)
    n_inner = np.concatenate([[0], np.cumsum(inner)])[np.concatenate([[0], ends])]
    return Forest(
        feature=np.concatenate([tree.feature for tree in trees])[inner].astype(np.int32),
        threshold=_round_down(thresholds),
        children=children.astype(np.int32),
        leaves=leaves,
        node_starts=n_inner.astype(np.int32),
        leaf_starts=(np.concatenate([[0], ends]) - n_inner).astype(np.int32),
        n_features=n_features,
        feature_names=feature_names,
        oob_score=float(model.oob_score_) if hasattr(model, "oob_score_") else None,
        importances=np.asarray(model.feature_importances_, dtype=np.float32),
    )


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to the largest float32 not above: then x <= threshold is the same for float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def warm_up() -> None:
    """Load scikit-learn and compile the prediction's kernel, so that the first stroke is quick."""
    rng = np.random.default_rng(0)
    features = rng.random((64, 4), dtype=np.float32)
    labels = (features[:, 0] > 0.5).astype(np.intp)
    for leaf_size in (1, 8):
        params = ForestParams(trees=2, min_samples_leaf=leaf_size)
        forest = fit_forest(features, labels, 2, params)
        forest.predict(features.T.reshape(4, 8, 8))
