"""What StyleFilter learns from: its loss, filtered pseudo-labels, disturbed crops.

References
----------
.. [1] Seletkov, Reiss, Freytag, Seibold, Stiefelhagen, "Style transfer and pseudo-label filtering
   improve transferability in cell organelle segmentation scenarios", ISBI 2024.
   https://openreview.net/forum?id=fkm09HFY9E
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.augment import relight

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy averaged over the annotated pixels (Eq. 1).

    Parameters
    ----------
    logits : (N, K, Y, X) Tensor
        K = 1: the foreground's, under a sigmoid; else one per class, under a softmax.
    labels : (N, 1, Y, X) Tensor of int
        `UNKNOWN` pixels are left out; without any other the loss is 0.

    Notes
    -----
    The paper also divides by the number of classes, which is a constant.
    """
    known = labels != UNKNOWN
    if logits.shape[1] == 1:
        losses = F.binary_cross_entropy_with_logits(
            logits, (labels > 0).to(logits.dtype), reduction="none"
        )
    else:
        losses = F.cross_entropy(logits, labels[:, 0].clamp_min(0), reduction="none")[:, None]
    return (losses * known).sum() / known.sum().clamp_min(1)


def filtered_labels(maps: Tensor, present: Tensor, confidence: float = 0.0) -> Tensor:
    """Make pseudo-labels of the classes that an image may show (Eq. 2 and 3).

    Parameters
    ----------
    maps : (N, K, Y, X) Tensor of float in [0, 1]
        Probabilities, the background first; not logits, whose sign would turn the filter around.
    present : (N, K) Tensor of bool
        All true: the plain pseudo-labels of Eq. 2.
    confidence : float
        Pixels whose largest filtered probability is below become `UNKNOWN`; not in the paper.

    Returns
    -------
    (N, 1, Y, X) Tensor of int
    """
    best, labels = (maps * present[:, :, None, None].to(maps.dtype)).max(dim=1, keepdim=True)
    return torch.where(best >= confidence, labels, UNKNOWN)


def presence_f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F1 of the foreground classes found in images, averaged over classes that occur.

    Parameters
    ----------
    found, truth : (N, K) ndarray of bool
        Per image and class, the background first.
    """
    hits = (found & truth).sum(axis=0)[1:]
    sizes = (found.sum(axis=0) + truth.sum(axis=0))[1:]
    return float((2 * hits[sizes > 0] / sizes[sizes > 0]).mean()) if sizes.any() else 1.0


def disturb_greys(images: Tensor, rng: np.random.Generator, noise: float, jitter: float) -> Tensor:
    """Change brightness and contrast of every crop, and add Gaussian noise.

    Parameters
    ----------
    images : (N, C, Y, X) Tensor of float in [0, 1]
    rng : Generator
    noise : float
        Largest standard deviation.
    jitter : float
        See `relight`.
    """
    relit = relight(images, jitter, rng)
    strength = rng.uniform(0, noise, (len(images), 1, 1, 1)).astype(np.float32)
    grain = strength * rng.standard_normal(images.shape, dtype=np.float32)
    return (relit + torch.from_numpy(grain)).clamp(0, 1)
