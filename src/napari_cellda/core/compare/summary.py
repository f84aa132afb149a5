"""What the figures of many images come to, and how two models differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.compare.detection import Detections
from napari_cellda.core.compare.matching import instance_dice
from napari_cellda.core.compare.pixels import PixelCounts, ratio
from napari_cellda.core.compare.scoring import KEYS, LOWER_IS_BETTER, PIXEL_KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.compare.scoring import ClassResult, Figures, ImageResult


@dataclass(frozen=True, eq=False)
class ModelResult:
    """The figures of one model over all images."""

    name: str
    images: tuple[ImageResult, ...]
    n_parameters: int | None = None
    """Trained parameters; None when unknown."""

    def values(self, key: str) -> NDArray[np.float64]:
        """Return one figure of every image; nan where undefined."""
        return np.array([image.figures[key] for image in self.images])

    @property
    def mean(self) -> Figures:
        """Mean over the images where a figure is defined.

        The AP figures and the instance Dice are those of all images pooled, as their papers have
        it.
        """
        means = _means([image.figures for image in self.images])
        scored = [image.detections for image in self.images if image.detections is not None]
        if scored:
            means |= Detections.pool(scored).figures
        if np.isfinite(means["instance_dice"]):
            sums = sum((image.dice_sums for image in self.images), start=np.zeros((2, 2)))
            means["instance_dice"] = instance_dice(sums)
        return means

    @property
    def std(self) -> Figures:
        """Standard deviation (population) over the images where a figure is defined."""
        return _deviations([image.figures for image in self.images])

    @property
    def undefined(self) -> dict[str, int]:
        """In how many images a figure is undefined, or not given by the kind of comparison."""
        return _missing([image.figures for image in self.images])

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON; undefined figures are None."""
        classes = sorted({index for image in self.images for index in image.classes})
        return {
            "images": [image_json(image) for image in self.images],
            "mean": plain(self.mean),
            "std": plain(self.std),
            "undefined": self.undefined,
            "classes": {str(index): self._class_json(index) for index in classes},
        }

    def _class_json(self, index: int) -> dict[str, Any]:
        results = [image.classes[index] for image in self.images if index in image.classes]
        figures = [result.figures for result in results]
        # Then its figures are those of the images.
        alone = all(set(image.classes) == {index} for image in self.images)
        pooled = sum((result.counts for result in results), PixelCounts()).scores
        return {
            **plain(self.mean if alone else _means(figures)),
            "std": plain(_deviations(figures)),
            "undefined": _missing(figures),
            "pooled": {key: getattr(pooled, key) for key in PIXEL_KEYS},
            **contents(results),
            "size_histogram": {
                "unit": self.images[0].size_unit,
                **size_histogram(results),
            },
        }


@dataclass(frozen=True)
class Difference:
    """One figure of one model minus that of another, image by image."""

    mean: float
    std: float
    """Population standard deviation."""
    n: int
    """Images where both are defined."""
    better: int
    """Images where the first is better; for distances and entropies lower is better."""
    worse: int


def paired_differences(first: ModelResult, second: ModelResult) -> dict[str, Difference]:
    """Compare two models on the images that they share.

    Returns
    -------
    dict of figure to Difference
        `first` minus `second`; figures without an image where both are defined are left out.
    """
    found = {}
    for key in KEYS:
        change = first.values(key) - second.values(key)
        change = change[np.isfinite(change)]
        if len(change):
            gain = -change if key in LOWER_IS_BETTER else change
            found[key] = Difference(
                float(change.mean()),
                float(change.std()),
                len(change),
                int((gain > 0).sum()),
                int((gain < 0).sum()),
            )
    return found


def image_json(image: ImageResult) -> dict[str, Any]:
    """Return one image's figures as plain JSON."""
    found: dict[str, Any] = {"image": image.name, **plain(image.figures), "unit": image.unit}
    found["classes"] = {
        str(index): plain(result.figures) | contents([result])
        for index, result in image.classes.items()
    }
    if image.slices:
        found["slices"] = [{"slice": i, **plain(f)} for i, f in enumerate(image.slices)]
        found["undefined_slices"] = _missing(image.slices)
    return found


def contents(results: Sequence[ClassResult]) -> dict[str, Any]:
    """Return how much of the images a class fills, and its number of objects."""
    counts = sum((result.counts for result in results), PixelCounts())
    return {
        "area_fraction": {
            "prediction": ratio(counts.predicted, counts.scored, 0.0),
            "truth": ratio(counts.truth, counts.scored, 0.0),
        },
        "objects": {
            "prediction": sum(len(result.predicted_sizes) for result in results),
            "truth": sum(len(result.truth_sizes) for result in results),
        },
    }


def size_histogram(results: Sequence[ClassResult]) -> dict[str, list[Any]]:
    """Count objects by size, in bins that double in width.

    Returns
    -------
    dict
        "edges" (N + 1), in the images' `size_unit`, and the numbers of objects "prediction" (N)
        and "truth" (N).
    """
    sides = [[r.predicted_sizes for r in results], [r.truth_sizes for r in results]]
    predicted, truth = (np.concatenate([np.zeros(0), *side]) for side in sides)
    everything = np.concatenate([predicted, truth])
    if not len(everything):
        return {"edges": [], "prediction": [], "truth": []}
    lowest, highest = (
        int(np.floor(np.log2(size))) for size in (everything.min(), everything.max())
    )
    edges = 2.0 ** np.arange(lowest, highest + 2)
    counted = {
        "prediction": np.histogram(predicted, edges)[0],
        "truth": np.histogram(truth, edges)[0],
    }
    return {"edges": edges.tolist()} | {side: n.tolist() for side, n in counted.items()}


def plain(figures: Figures) -> dict[str, float | None]:
    """Write undefined figures as None, as JSON has no nan."""
    return {key: value if np.isfinite(value) else None for key, value in figures.items()}


def _defined(figures: Sequence[Figures], key: str) -> list[float]:
    return [f[key] for f in figures if np.isfinite(f[key])]


def _means(figures: Sequence[Figures]) -> Figures:
    defined = {key: _defined(figures, key) for key in KEYS}
    return {key: float(np.mean(v)) if v else float("nan") for key, v in defined.items()}


def _deviations(figures: Sequence[Figures]) -> Figures:
    defined = {key: _defined(figures, key) for key in KEYS}
    return {key: float(np.std(v)) if v else float("nan") for key, v in defined.items()}


def _missing(figures: Sequence[Figures]) -> dict[str, int]:
    return {key: len(figures) - len(_defined(figures, key)) for key in KEYS}
