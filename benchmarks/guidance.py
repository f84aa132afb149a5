"""Measure whether strokes where the guide points need fewer pixels than strokes anywhere.

A simulated annotator begins with one random stroke per class and then adds strokes one by one, of
the same length and width, each at a place that one of these chose:

- random: any pixel of the image;
- uncertainty: where the forest is least sure (`core.inspect.guidance`, the key U);
- uncertainty and contradiction: where, besides, the bundled enhancer contradicts the forest;
- errors: in the largest error of the mask, which only somebody who knows the truth can do. It
  tells how much there is to win.

In all cases the annotator paints the class that is there. After every stroke the forest (compact
features, 100 trees) is trained anew and scored by its F1, on all test images (mean over images,
10,000 random pixels each) and on the unpainted rest of the painted image.

    python benchmarks/guidance.py

Three data sets, three seeds; strokes on train images only (the first two). The table goes to
benchmarks/results/guidance.md, every curve to guidance.json beside it. Needs the data sets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np

import timing
from napari_cellda.core.annotator import error_strokes, random_strokes, stroke_at
from napari_cellda.core.compare.pixels import pixel_scores
from napari_cellda.core.confidence import uncertainty_map
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import Forest, ForestParams, fit_forest
from napari_cellda.core.inspect.guidance import TREES, plane_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEEDS = (0, 1, 2)
STROKES = 24
SAMPLED = 10_000
SPEC = FeatureSpec(name="compact")
STRATEGIES = ("random", "uncertainty", "uncertainty and contradiction", "errors")


@dataclass(frozen=True)
class DataSet:
    """Images, their masks, and the bundled enhancer that suits them."""

    title: str
    folder: str
    masks: str
    enhancer: str | None


DATA_SETS = (
    DataSet("mitochondria, ssTEM", "vnc_sstem", "masks/mito", "mitochondria"),
    DataSet("nuclei, stained tissue", "dsb2018_purple_tissue", "masks", "nuclei"),
    DataSet("cells, phase contrast", "usiigaci_t98g_phase", "masks", None),
)


def pairs(data: DataSet) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """Return the (image, mask) files of the train and of the test part."""
    folder = timing.DATA / data.folder
    images = sorted(p for p in (folder / "images").iterdir() if p.is_file())
    masks = {p.stem.split(".")[0]: p for p in sorted((folder / data.masks).iterdir())}
    found = [(image, masks[image.stem.split(".")[0]]) for image in images]
    if data.folder == "vnc_sstem":
        return found[:15], found[15:20]
    return [p for i, p in enumerate(found) if i % 4 != 3], found[3::4]


class Field:
    """An image with its truth and features."""

    def __init__(self, image: Path, mask: Path) -> None:
        grey = timing.grey(imageio.imread(image))
        low, high = np.percentile(grey, (1, 99))
        self.truth = (imageio.imread(mask) > 0).astype(np.int64)
        self.features = compute_features(((grey - low) / (high - low + 1e-6))[None], SPEC)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the features (F, N) and the truth (N,) of random pixels."""
        chosen = rng.choice(self.truth.size, min(SAMPLED, self.truth.size), replace=False)
        flat = self.features.reshape(len(self.features), -1)
        return np.ascontiguousarray(flat[:, chosen]), self.truth.ravel()[chosen]


@dataclass
class Curve:
    """One session: painted pixels and scores after every stroke."""

    pixels: list[int] = field(default_factory=list)
    test_f1: list[float] = field(default_factory=list)
    image_f1: list[float] = field(default_factory=list)


def f1(forest: Forest, features: np.ndarray, truth: np.ndarray) -> float:
    return pixel_scores(forest.predict(features).argmax(axis=0) == 1, truth == 1).dice


def paint(
    one: Field,
    tests: list[tuple[np.ndarray, np.ndarray]],
    next_stroke: Callable[[Forest, np.ndarray, np.random.Generator], np.ndarray],
    seed: int,
) -> Curve:
    """Let the annotator paint stroke after stroke."""
    rng = np.random.default_rng(seed)
    strokes = random_strokes(one.truth, 1, rng=rng, n_classes=2)
    own = one.sample(np.random.default_rng(99))
    curve = Curve()
    for _ in range(STROKES):
        rows, columns = np.nonzero(strokes)
        labels = strokes[rows, columns].astype(np.int64) - 1
        forest = fit_forest(
            np.ascontiguousarray(one.features[:, rows, columns].T),
            labels,
            2,
            ForestParams(seed=seed, jobs=1),
        )
        curve.pixels.append(len(rows))
        curve.test_f1.append(float(np.mean([f1(forest, *test) for test in tests])))
        curve.image_f1.append(f1(forest, *own))
        new = next_stroke(forest, strokes, rng)
        strokes = np.where(strokes > 0, strokes, new)
    return curve


def strategies(
    one: Field, enhancer: Enhancer | None
) -> Iterator[tuple[str, Callable[[Forest, np.ndarray, np.random.Generator], np.ndarray]]]:
    """Return who chooses the next stroke, by name."""
    shape = one.truth.shape

    def anywhere(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        start = (int(rng.integers(shape[0])), int(rng.integers(shape[1])))
        return stroke_at(one.truth, start, rng)

    def guided(*names: str) -> Callable[..., np.ndarray]:
        def choose(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            found = forest.truncated(TREES).predict(one.features)
            signals = {"uncertainty": uncertainty_map(found)}
            if "contradiction" in names:
                assert enhancer is not None
                signals["contradiction"] = np.abs(enhancer.enhance(found[1])[0] - found[1])
            place = plane_candidates(signals, 0, 0, strokes > 0, 1)[0]
            return stroke_at(one.truth, (place.y, place.x), rng)

        return choose

    def errors(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        predicted = forest.truncated(TREES).predict(one.features).argmax(axis=0)
        new = error_strokes(one.truth, predicted, 1, rng)
        # One stroke at a time, as the others: the class whose error is the larger one.
        counts = [np.sum((one.truth == k) & (predicted != k)) for k in (0, 1)]
        return np.where(new == int(np.argmax(counts)) + 1, new, 0)

    yield "random", anywhere
    yield "uncertainty", guided("uncertainty")
    if enhancer is not None:
        yield "uncertainty and contradiction", guided("uncertainty", "contradiction")
    yield "errors", errors


def sessions(data: DataSet) -> dict[str, list[Curve]]:
    train, test = pairs(data)
    rng = np.random.default_rng(7)
    tests = [Field(*pair).sample(rng) for pair in test]
    enhancer = Enhancer.open(data.enhancer) if data.enhancer else None
    found: dict[str, list[Curve]] = {}
    for seed in SEEDS:
        one = Field(*train[seed % 2])
        for name, choose in strategies(one, enhancer):
            found.setdefault(name, []).append(paint(one, tests, choose, seed))
            print(data.title, seed, name, round(found[name][-1].test_f1[-1], 3), flush=True)
    return found


# -- reading the curves ----------------------------------------------------------------------------


def needed(curve: dict[str, list[float]], score: str, goal: float) -> float:
    """Return the painted pixels from which on the score stays at the goal; nan for never.

    "Stays" is judged on the median of three strokes, since single forests jump.
    """
    values = np.array(curve[score])
    padded = np.pad(values, 1, mode="edge")
    calm = np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    reached = np.flatnonzero(calm >= goal)
    return float(curve["pixels"][reached[0]]) if len(reached) else float("nan")


def table(results: dict[str, dict[str, list[dict[str, list[float]]]]], score: str) -> list[str]:
    """Compare, seed by seed, with the best F1 that random strokes keep in the end."""
    lines = [
        "| data set | strokes | F1 after 8 strokes | F1 after all | pixels to random's final F1 | "
        "ratio to random, per seed |",
        "|---|---|---|---|---|---|",
    ]
    for title, by_name in results.items():
        goals = [float(np.mean(c[score][-5:])) for c in by_name["random"]]
        base = [needed(c, score, g) for c, g in zip(by_name["random"], goals, strict=True)]
        for name, curves in by_name.items():
            early = np.mean([c[score][7] for c in curves])
            late = np.mean([c[score][-1] for c in curves])
            found = [needed(c, score, g) for c, g in zip(curves, goals, strict=True)]
            ratios = [f / b for f, b in zip(found, base, strict=True)]
            told = ", ".join("never" if np.isnan(r) else f"{r:.2f}" for r in ratios)
            pixels = ", ".join("never" if np.isnan(f) else f"{f:.0f}" for f in found)
            lines.append(f"| {title} | {name} | {early:.3f} | {late:.3f} | {pixels} | {told} |")
    return lines


def report(results: dict[str, dict[str, list[dict[str, list[float]]]]], where: str) -> str:
    lines = [
        "# Guided strokes against random ones",
        "",
        f"`python benchmarks/guidance.py`; {where}.",
        "",
        f"{STROKES - 1} strokes (40 x 3 px) after one per class; seeds "
        f"{', '.join(map(str, SEEDS))}. "
        "The goal of a seed is the mean F1 of the last five forests of its random strokes; "
        "'never' means not within this budget. A ratio below 1: fewer painted pixels than random.",
        "",
        "## On all test images",
        "",
        *table(results, "test_f1"),
        "",
        "## On the painted image",
        "",
        *table(results, "image_f1"),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="write the table from guidance.json")
    raw = timing.RESULTS / "guidance.json"
    if parser.parse_args().again:
        kept = json.loads(raw.read_text())
    else:
        found = {data.title: sessions(data) for data in DATA_SETS}
        kept = {
            "where": timing.where("numpy", "scikit-learn", "bioimage-cpp"),
            "results": {
                title: {name: [vars(c) for c in curves] for name, curves in by_name.items()}
                for title, by_name in found.items()
            },
        }
        raw.write_text(json.dumps(kept))
    (timing.RESULTS / "guidance.md").write_text(report(kept["results"], kept["where"]))
    print(report(kept["results"], kept["where"]))


if __name__ == "__main__":
    main()
