"""Choose which annotated pixels a forest is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def balance(
    labels: NDArray[np.integer], *, seed: int, max_per_class: int | None = None
) -> NDArray[np.intp]:
    """Resample to equal class counts.

    Class weights would do the same, but scikit-learn-intelex falls back to plain scikit-learn when
    given weights: resampling keeps both equal.

    Parameters
    ----------
    labels : (N,) ndarray of int
        The class of every sample.
    seed : int
        The same labels and seed give the same indices.
    max_per_class : int, optional
        Take at most this many of each class; None for no limit.

    Returns
    -------
    (M,) ndarray of int
        Sorted indices into `labels`. Each class counts as many samples as all on average,
        drawn without repetition where it has enough; a smaller class keeps every sample and
        repeats them evenly, so that none is used more than once more often than another.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 0:
        return np.zeros(0, np.intp)
    # Rounded up, so that tiny classes beside each other are not thrown away.
    target = -(-len(labels) // len(classes))
    if max_per_class is not None:
        target = min(target, max_per_class)
    rng = np.random.default_rng(seed)
    chosen = []
    for label, count in zip(classes, counts, strict=True):
        own = np.flatnonzero(labels == label)
        repeats, rest = divmod(target, int(count))
        chosen += [np.repeat(own, repeats), rng.permutation(own)[:rest]]
    return np.sort(np.concatenate(chosen))
