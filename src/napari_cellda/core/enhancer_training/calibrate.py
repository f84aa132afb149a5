"""The calibration with which an enhancer's training ends: 0.5 becomes a threshold to rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.nets.unet import UNet

THRESHOLDS = np.round(np.arange(0.05, 1, 0.05), 2)
"""What is tried."""


def steady_threshold(dice: NDArray[np.floating]) -> int:
    """Choose a threshold from the scores of a few forests, without reading too much into them.

    Parameters
    ----------
    dice : (F, T) ndarray of float
        Dice of each of F forests at each of `THRESHOLDS`.

    Returns
    -------
    int
        Index of the threshold nearest to 0.5 among those whose mean Dice lies within one standard
        error (over forests) of the best one's: a dozen forests cannot tell these apart, and a
        shift that only they ask for makes the maps of others worse. One forest alone has no
        standard error, and its best threshold is taken.
    """
    best = int(dice.mean(axis=0).argmax())
    loss = dice[:, best, np.newaxis] - dice
    error = loss.std(axis=0, ddof=1) / np.sqrt(len(dice)) if len(dice) > 1 else 0.0
    good = np.flatnonzero(loss.mean(axis=0) <= error)
    return int(good[np.argmin(np.abs(THRESHOLDS[good] - 0.5))])


def shift_logits(network: UNet, thresholds: Sequence[float]) -> None:
    """Move the bias of the last layer so that what was `thresholds[k]` in output k becomes 0.5.

    A network trained on Dice and cross entropy may be most useful at another threshold than 0.5,
    which is the one that everybody uses.
    """
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias -= torch.logit(torch.tensor(thresholds, dtype=torch.float32))
