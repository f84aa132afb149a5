"""Measure how long a brushstroke takes to become a map, next to plain scikit-learn.

On real images, about 5000 pixels are painted by a simulated annotator. The features (ilastik's 49)
are there, as while painting. Then, in turns and in one process:

- scikit-learn: fit on the painted pixels, resampled to equal class counts, and predict_proba of all
  pixels, with its own layout of the features (pixel by pixel) prepared beforehand;
- napari-cellda as the painting panel uses it: resample, a first forest of 20 trees and its map of
  512 x 512 pixels in view, then the whole forest and the map of the whole image. With
  scikit-learn-intelex (the extra [fast]) and without.
- The prediction alone, of the very same trees as scikit-learn's, whose map it must equal.

    python benchmarks/painting.py

The table goes to benchmarks/results/painting.md. Images from outside the project are left out where
they are not there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

import timing
from napari_cellda.core.annotator import random_strokes
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import ForestParams, grow_forest, traversal
from napari_cellda.core.forest import fit as forest_module
from napari_cellda.core.forest.from_sklearn import export_forest
from napari_cellda.core.sampling import balance

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 2
PAINTED = 5000
VIEW = 512
TREES = 100
PARAMS = ForestParams(trees=TREES, jobs=THREADS)
BARS = {
    "full, fast": 0.25,
    "full, plain": 0.65,
    "view, fast": 0.10,
    "view, plain": 0.20,
    "prediction, vectors": 0.35,
    "prediction, numba": 0.50,
}
TITLES = {
    "full, fast": "stroke to full map, with [fast]",
    "full, plain": "stroke to full map, without",
    "view, fast": f"stroke to first map of {VIEW} x {VIEW}, with [fast]",
    "view, plain": f"stroke to first map of {VIEW} x {VIEW}, without",
    "prediction, vectors": "prediction alone",
    "prediction, numba": "prediction alone, plain numba float32",
}


def paint(truth: np.ndarray) -> np.ndarray:
    """Draw strokes of all classes until about 5000 pixels are painted."""
    strokes = np.zeros(truth.shape, np.uint8)
    rng = np.random.default_rng(0)
    while np.count_nonzero(strokes) < PAINTED:
        new = random_strokes(truth, 1, rng=rng)
        strokes = np.where(new > 0, new, strokes)
    return strokes


class Job:
    """One image with its strokes and features, and who competes on it."""

    def __init__(self, image: np.ndarray, truth: np.ndarray) -> None:
        image = (image - image.mean()) / image.std()
        self.features = compute_features(image[None], FeatureSpec(), threads=THREADS)
        strokes = paint(truth)
        rows, columns = np.nonzero(strokes)
        self.labels = (strokes[rows, columns] - 1).astype(np.intp)
        self.samples = np.ascontiguousarray(self.features[:, rows, columns].T)
        self.n_classes = int(self.labels.max()) + 1
        self.by_pixel = np.ascontiguousarray(self.features.reshape(len(self.features), -1).T)
        chosen = balance(self.labels, seed=PARAMS.seed)
        self.resampled = self.samples[chosen], self.labels[chosen]
        start = (image.shape[0] - VIEW) // 2
        self.view = (slice(None), slice(start, start + VIEW), slice(start, start + VIEW))
        self.model: Any = None
        self.forest: Any = None
        self.trained_on: Any = None

    def _training(self) -> tuple[np.ndarray, np.ndarray, int]:
        return self.samples, self.labels, self.n_classes

    def scikit_learn(self) -> dict[str, float]:
        """Fit and predict as one would without this project."""

        def fit() -> None:
            self.model = RandomForestClassifier(TREES, random_state=PARAMS.seed, n_jobs=THREADS)
            self.model.fit(*self.resampled)

        def predict() -> None:
            self.expected = self.model.predict_proba(self.by_pixel)

        times = {"fit": timing.seconds(fit), "predict": timing.seconds(predict)}
        return times | {"job": sum(times.values())}

    def painting(self, fast: bool) -> dict[str, float]:
        """Do what the painting panel does after a stroke."""
        find = forest_module.fast_classifier
        if not fast:
            forest_module.fast_classifier = lambda: None
        try:
            growing = grow_forest(*self._training(), PARAMS)
            view = timing.seconds(
                lambda: next(growing).predict(self.features[self.view], threads=THREADS)
            )
            rest = timing.seconds(lambda: next(growing).predict(self.features, threads=THREADS))
        finally:
            forest_module.fast_classifier = find
        return {"view": view, "full": view + rest}

    def prediction(self, vectorised: bool) -> float:
        """Predict with the trees that scikit-learn trained last."""
        if self.trained_on is not self.model:
            self.forest, self.trained_on = (
                export_forest(self.model, *self.resampled, self.n_classes),
                self.model,
            )
        layout = self.forest.layout

        def predict() -> None:
            self.got = traversal.predict(
                layout, self.features, threads=THREADS, vectorised=vectorised
            )

        return timing.seconds(predict)

    def difference(self) -> float:
        """Compare with predict_proba of the same trees."""
        self.prediction(vectorised=True)
        return float(np.abs(self.got.reshape(self.n_classes, -1).T - self.expected).max())


def measure(job: Job, rounds: int) -> dict[str, float]:
    contestants: dict[str, Callable[[], Any]] = {
        "scikit-learn": job.scikit_learn,
        "plain": lambda: job.painting(fast=False),
        "prediction, vectors": lambda: job.prediction(vectorised=True),
        "prediction, numba": lambda: job.prediction(vectorised=False),
    }
    if forest_module.fast_classifier() is not None:
        contestants["fast"] = lambda: job.painting(fast=True)
    found = timing.medians(contestants, rounds)
    for kind in ("fast", "plain"):
        for part in ("full", "view"):
            if f"{kind} {part}" in found:
                found[f"{part}, {kind}"] = found.pop(f"{kind} {part}")
    return found


def rival(row: str) -> str:
    return "scikit-learn predict" if row.startswith("prediction") else "scikit-learn job"


def table(name: str, job: Job, found: dict[str, float], difference: float) -> str:
    size = job.features.shape[1:]
    fit, predict = found["scikit-learn fit"], found["scikit-learn predict"]
    lines = [
        f"## {name}, {size[0]} x {size[1]}",
        "",
        f"{len(job.labels)} painted pixels of {job.n_classes} classes "
        f"({', '.join(map(str, np.bincount(job.labels)))}), {len(job.forest.feature) / TREES:.0f} "
        f"branchings per tree. scikit-learn: fit {1000 * fit:.0f} ms + predict_proba "
        f"{1000 * predict:.0f} ms. Largest difference from predict_proba of the same trees: "
        f"{difference:.0e}.",
        "",
        "| step | ms | scikit-learn, ms | ratio | bar | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row, bar in BARS.items():
        if row in found:
            own, other = found[row], found[rival(row)]
            verdict = "held" if own / other <= bar else "MISSED"
            lines.append(
                f"| {TITLES[row]} | {1000 * own:.0f} | {1000 * other:.0f} | {own / other:.2f} | "
                f"{bar:.2f} | {verdict} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only images whose name holds this")
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "painting.md")
    asked = parser.parse_args()
    packages = ["numpy", "numba", "scikit-learn"]
    if forest_module.fast_classifier() is not None:
        packages.append("scikit-learn-intelex")
    text = [
        "# Stroke to map",
        "",
        f"`python benchmarks/painting.py`; {timing.where(*packages)}. {THREADS} threads, "
        f"{TREES} trees, 49 features. Medians of {asked.rounds} interleaved rounds; the machine's "
        "load changes the milliseconds, the ratios are what counts.",
        "",
    ]
    for size in asked.sizes:
        for name, (image, truth) in timing.images(size).items():
            if asked.only in name:
                job = Job(image, truth)
                found = measure(job, asked.rounds)
                text.append(table(name, job, found, job.difference()))
                print(text[-1], flush=True)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
