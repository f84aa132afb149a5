"""A trained forest as flat arrays: prediction, saving, and checking what a stranger saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from napari_cellda.core.forest.traversal_kernel import Layout

MAX_CLASSES = 8
MAX_FEATURES = 2**20
MAX_TREES = 2000
"""More would make the fixed point sums of prediction coarser than one in a million."""


@dataclass(frozen=True, eq=False)
class Forest:
    """A trained Random Forest.

    The trees follow each other: tree t owns the branchings ``node_starts[t]:node_starts[t + 1]``
    and the leaves ``leaf_starts[t]:leaf_starts[t + 1]``, its root is its first branching (or its
    only leaf), and every branching comes after the one it hangs on.
    """

    feature: NDArray[np.int32]
    """(N,) the feature that a branching looks at."""
    threshold: NDArray[np.float32]
    """(N,) values above it go right, others left."""
    children: NDArray[np.int32]
    """(N, 2) left and right; a negative child c is the leaf ~c."""
    leaves: NDArray[np.float32]
    """(L, K) class probabilities."""
    node_starts: NDArray[np.int32]
    """(T + 1,)"""
    leaf_starts: NDArray[np.int32]
    """(T + 1,)"""
    n_features: int
    feature_names: tuple[str, ...] = ()
    """Empty when not known."""
    oob_score: float | None = None
    """Accuracy on the samples that a tree was not trained on; None when not measured."""
    importances: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(F,) mean decrease of impurity, sum 1; empty when not known."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def n_classes(self) -> int:
        """Number of classes K, background included."""
        return int(self.leaves.shape[1])

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.node_starts) - 1

    def predict(
        self, features: NDArray[np.float32], *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Predict class probabilities.

        Parameters
        ----------
        features : (F, N), (F, Y, X) or (F, Z, Y, X) ndarray of float32
            One value per feature and pixel. A cropped view is read in place, without a copy.
        threads : int, optional
            None takes the cores this process may use.

        Returns
        -------
        (K, ...) ndarray of float32
            Probabilities in [0, 1], sum 1; equal to scikit-learn's ``predict_proba`` within 1e-6.

        Raises
        ------
        UserError
            If there are more or fewer features than the forest was trained on.
        """
        from napari_cellda.core.forest.traversal import predict

        if features.ndim not in (2, 3, 4) or len(features) != self.n_features:
            raise UserError(
                f"The forest was trained on {self.n_features} features; got an array of shape "
                f"{features.shape}."
            )
        return predict(self.layout, features, threads=threads)

    @cached_property
    def layout(self) -> Layout:
        """Its trees as the compiled prediction walks them; made on first use."""
        from napari_cellda.core.forest.traversal import lay_out

        return lay_out(self)

    def truncated(self, n_trees: int) -> Forest:
        """Return the forest of the first `n_trees` trees; its score and importances are unknown."""
        n_trees = max(1, min(n_trees, self.n_trees))
        n_nodes, n_leaves = self.node_starts[n_trees], self.leaf_starts[n_trees]
        return Forest(
            self.feature[:n_nodes],
            self.threshold[:n_nodes],
            self.children[:n_nodes],
            self.leaves[:n_leaves],
            self.node_starts[: n_trees + 1],
            self.leaf_starts[: n_trees + 1],
            self.n_features,
            self.feature_names,
        )

    def save(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the forest as npz, without pickle; a path is written whole or not at all."""
        from napari_cellda.core.forest.file import save_forest

        save_forest(self, target)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | BinaryIO) -> Forest:
        """Read a forest that `save` wrote, and check every array of it.

        Raises
        ------
        UserError
            If it is no such file, was cut short, is of a newer version or is not a sound forest.
        """
        from napari_cellda.core.forest.file import load_forest

        return load_forest(source)


ARRAYS = {
    "feature": ("int32", 1),
    "threshold": ("float32", 1),
    "children": ("int32", 2),
    "leaves": ("float32", 2),
    "node_starts": ("int32", 1),
    "leaf_starts": ("int32", 1),
    "importances": ("float32", 1),
}
"""Every array's dtype and number of dimensions."""


def _require(sound: bool | np.bool_, what: str) -> None:
    if not sound:
        raise UserError(f"The forest's arrays are damaged: {what}.")


def _check(forest: Forest) -> None:
    """Refuse arrays that prediction could not walk safely and to an end."""
    for name, (dtype, ndim) in ARRAYS.items():
        array = getattr(forest, name)
        _require(array.dtype == dtype and array.ndim == ndim, f"{name} is not {dtype} {ndim}D")
    n_nodes, n_leaves = len(forest.feature), len(forest.leaves)
    # In int64, where neither differences nor complements overflow.
    nodes, leaves = (a.astype(np.int64) for a in (forest.node_starts, forest.leaf_starts))
    _require(0 < forest.n_features <= MAX_FEATURES, f"not between 1 and {MAX_FEATURES} features")
    _require(len(forest.threshold) == n_nodes, "not one threshold per branching")
    _require(forest.children.shape == (n_nodes, 2), "not two children per branching")
    _require(1 < len(nodes) <= MAX_TREES + 1, f"not between 1 and {MAX_TREES} trees")
    _require(2 <= forest.n_classes <= MAX_CLASSES, f"not between 2 and {MAX_CLASSES} classes")
    _require(len(leaves) == len(nodes), "not one range of leaves per tree")
    _require(nodes[0] == 0 and nodes[-1] == n_nodes, "the trees do not cover the branchings")
    _require(leaves[0] == 0 and leaves[-1] == n_leaves, "the trees do not cover the leaves")
    _require((np.diff(nodes) >= 0).all(), "a tree has a negative size")
    _require((np.diff(leaves) == np.diff(nodes) + 1).all(), "a tree lacks leaves")
    _require(n_nodes == 0 or forest.feature.min() >= 0, "a negative feature")
    _require(n_nodes == 0 or forest.feature.max() < forest.n_features, "a feature beyond the last")
    _require(np.isfinite(forest.threshold).all(), "a threshold that is no number")
    _require(
        bool(np.isfinite(forest.leaves).all())
        and forest.leaves.min() >= 0
        and bool(np.allclose(forest.leaves.sum(1), 1, atol=1e-4)),
        "a leaf whose probabilities do not add up to 1",
    )
    _require(len(forest.importances) in (0, forest.n_features), "not one importance per feature")
    _require(len(forest.feature_names) in (0, forest.n_features), "not one name per feature")
    _check_children(forest.children, nodes, leaves)


def _check_children(
    children: NDArray[np.int32], nodes: NDArray[np.int64], leaves: NDArray[np.int64]
) -> None:
    """Every branching but the roots, and every leaf, hangs on one earlier branching of its tree."""
    tree = np.repeat(np.arange(len(nodes) - 1), np.diff(nodes))[:, None]
    own = np.arange(len(children))[:, None]
    inner = children >= 0
    _require(np.where(inner, children > own, True).all(), "a branching leads back")
    _require(np.where(inner, children < nodes[tree + 1], True).all(), "a branching leaves its tree")
    leaf = ~children.astype(np.int64)
    within = (leaf >= leaves[tree]) & (leaf < leaves[tree + 1])
    _require(np.where(inner, True, within).all(), "a leaf of another tree")
    used = np.bincount(children[inner], minlength=len(children))
    used[nodes[:-1][np.diff(nodes) > 0]] += 1
    _require((used == 1).all(), "a branching hangs on none or on several")
    alone = leaves[:-1][np.diff(nodes) == 0]
    reached = np.bincount(np.concatenate([leaf[~inner], alone]), minlength=int(leaves[-1]))
    _require((reached == 1).all(), "a leaf hangs on none or on several")
