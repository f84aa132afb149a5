"""Copy the trees of a fitted scikit-learn forest into flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.forest.trees import Forest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIXED = 1e-6
"""Gini impurity above which a leaf holds samples of several classes."""


class HiddenLeaves(Exception):
    """The classes in some leaves cannot be told from what the trees show."""


@dataclass(frozen=True)
class _Nodes:
    """The nodes of all trees behind each other, as scikit-learn numbers them."""

    sizes: NDArray[np.intp]
    """(T,) nodes of every tree"""
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    impurity: NDArray[np.float64]
    n_samples: NDArray[np.float64]
    """Bootstrap samples that reach a node, repeated ones as often as they were drawn."""
    values: NDArray[np.float64]
    """(nodes, K) class shares"""

    @classmethod
    def of(cls, trees: Sequence[Any]) -> _Nodes:
        def join(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(tree, name) for tree in trees])

        return cls(
            np.array([tree.node_count for tree in trees]),
            join("children_left"),
            join("children_right"),
            join("feature"),
            join("threshold"),
            join("impurity"),
            join("weighted_n_node_samples"),
            join("value")[:, 0],
        )

    @property
    def first(self) -> NDArray[np.intp]:
        """The number of the first node of every node's tree."""
        return np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)


def export_forest(
    model: Any,
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    n_classes: int,
    feature_names: tuple[str, ...] = (),
) -> Forest:
    """Copy a fitted classifier's trees.

    Parameters
    ----------
    model : RandomForestClassifier
        Of scikit-learn or scikit-learn-intelex.
    features : (N, F) ndarray of float32
    labels : (N,) ndarray of int
        What it was fitted on.
    n_classes : int
        Classes of the forest; those that no sample has get probability 0.
    feature_names : tuple of str

    Raises
    ------
    HiddenLeaves
        If a leaf of scikit-learn-intelex holds three classes or more (see Notes).

    Notes
    -----
    scikit-learn-intelex shows a leaf's majority class as if it were alone, though it predicts with
    the shares. Its Gini impurity tells the shares of two classes, so these are restored.
    """
    trees = [estimator.tree_ for estimator in model.estimators_]
    nodes = _Nodes.of(trees)
    values = _restore_shares(nodes, trees, features, np.searchsorted(model.classes_, labels))
    inner = nodes.left >= 0
    leaves = np.zeros((np.count_nonzero(~inner), n_classes), np.float32)
    shares = values[~inner]
    leaves[:, model.classes_.astype(int)] = shares / shares.sum(1, keepdims=True)
    # Branchings and leaves are numbered apart; both keep their order.
    code = np.where(inner, np.cumsum(inner) - 1, ~(np.cumsum(~inner) - 1))
    offset = nodes.first[inner]
    children = np.stack([code[offset + side[inner]] for side in (nodes.left, nodes.right)], 1)
    ends = np.concatenate([[0], np.cumsum(nodes.sizes)])
    node_starts = np.concatenate([[0], np.cumsum(inner)])[ends]
    return Forest(
        feature=nodes.feature[inner].astype(np.int32),
        threshold=_round_down(nodes.threshold[inner]),
        children=children.astype(np.int32),
        leaves=leaves,
        node_starts=node_starts.astype(np.int32),
        leaf_starts=(ends - node_starts).astype(np.int32),
        n_features=features.shape[1],
        feature_names=feature_names,
        oob_score=float(model.oob_score_) if hasattr(model, "oob_score_") else None,
        importances=_importances(nodes, features.shape[1]),
    )


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to the largest float32 not above: then x <= threshold is the same for float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _importances(nodes: _Nodes, n_features: int) -> NDArray[np.float32]:
    """Mean decrease of impurity by each feature, sum 1; scikit-learn's, without its thread pool."""
    inner = nodes.left >= 0
    weighted = nodes.n_samples * nodes.impurity
    offset = nodes.first[inner]
    decrease = weighted[inner] - sum(
        weighted[offset + side[inner]] for side in (nodes.left, nodes.right)
    )
    tree = np.repeat(np.arange(len(nodes.sizes)), nodes.sizes)[inner]
    place = tree * n_features + nodes.feature[inner]
    table = np.bincount(place, decrease, len(nodes.sizes) * n_features)
    table = table.reshape(-1, n_features)
    total = table.sum(1, keepdims=True)
    # A tree without a branching tells nothing and does not count.
    table = table[total[:, 0] > 0] / total[total[:, 0] > 0]
    mean = table.mean(0) if len(table) else np.zeros(n_features)
    return (mean / mean.sum() if mean.sum() > 0 else mean).astype(np.float32)


def _restore_shares(
    nodes: _Nodes,
    trees: Sequence[Any],
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return every node's class shares, restored where only the majority class is shown."""
    hidden = (nodes.left < 0) & (nodes.impurity > MIXED) & (nodes.values.max(1) == 1)
    if not hidden.any():
        return nodes.values
    majority = nodes.values[hidden].argmax(1)
    present = _classes_present(nodes, trees, features, labels)[hidden]
    present[np.arange(len(present)), majority] = True
    if (present.sum(1) > 2).any():
        raise HiddenLeaves
    # Gini impurity g = 1 - p^2 - (1 - p)^2, and p is a whole number of samples.
    count = nodes.n_samples[hidden]
    share = (1 + np.sqrt(np.maximum(0, 1 - 2 * nodes.impurity[hidden]))) / 2
    share = np.round(share * count) / count
    present[np.arange(len(present)), majority] = False
    shares = present * (1 - share)[:, None]
    shares[np.arange(len(shares)), majority] = share
    values = nodes.values.copy()
    values[hidden] = shares
    return values


def _classes_present(
    nodes: _Nodes,
    trees: Sequence[Any],
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Mark the classes of the samples that reach each leaf, drawn for its tree or not."""
    present = np.zeros(nodes.values.shape, bool)
    if nodes.values.shape[1] == 2:
        present[:] = True
        return present
    for tree, first in zip(trees, np.cumsum(nodes.sizes) - nodes.sizes, strict=True):
        present[first + tree.apply(features), labels] = True
    return present
