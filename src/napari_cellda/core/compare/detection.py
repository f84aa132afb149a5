"""Average precision of scored objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.compare.matching import ObjectMatches

AP_THRESHOLDS = tuple(hundredth / 100 for hundredth in range(50, 100, 5))
"""0.50, 0.55 ... 0.95, over which mAP is the mean."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The scored objects of one image, or of several pooled."""

    score: NDArray[np.float64]
    """(P,) of each predicted object."""
    iou: NDArray[np.float64]
    """(P,) with its true partner, 0 without."""
    n_truth: int
    """True objects."""

    @classmethod
    def of(cls, matches: ObjectMatches, scores: Mapping[int, float]) -> Detections:
        """Look up the score of every predicted object; one without counts as 0."""
        found = [scores.get(int(label), 0.0) for label in matches.predicted_ids]
        return cls(np.array(found, np.float64), matches.predicted_iou, len(matches.truth_ids))

    @classmethod
    def pool(cls, images: Sequence[Detections]) -> Detections:
        """Put the objects of several images into one list."""
        return cls(
            np.concatenate([np.zeros(0), *(image.score for image in images)]),
            np.concatenate([np.zeros(0), *(image.iou for image in images)]),
            sum(image.n_truth for image in images),
        )

    def average_precision(self, threshold: float) -> float:
        """Return the average precision at an IoU threshold of at least 0.5.

        Returns
        -------
        float
            sum_k T_k P_k / C over the objects in falling order of score [1]_ (those of equal score
            in their order here): T_k is 1 where the IoU is above (>) the threshold, P_k the
            precision of the first k, C the number of true objects. No interpolation. nan without
            true objects.

        Notes
        -----
        The paper lets each object in turn take its best true object that is still free. Above an
        IoU of 0.5 there is at most one, and nobody else can take it, so the order of taking does
        not matter and the partners of `ObjectMatches` serve for all thresholds.

        References
        ----------
        .. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing",
           Eq. 9.
        """
        if threshold < 0.5:
            raise ValueError(f"average precision is defined from an IoU of 0.5, not {threshold}")
        if not self.n_truth:
            return float("nan")
        hits = self.iou[np.argsort(-self.score, kind="stable")] > threshold
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        return float(precision[hits].sum() / self.n_truth)

    @property
    def figures(self) -> dict[str, float]:
        """AP at 0.50 and 0.75, and its mean over 0.50, 0.55 ... 0.95."""
        found = {threshold: self.average_precision(threshold) for threshold in AP_THRESHOLDS}
        mean = float(np.mean(list(found.values())))
        return {"ap50": found[0.5], "ap75": found[0.75], "map": mean}
