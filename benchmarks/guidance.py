"""Measure whether strokes where the guide points need fewer pixels than strokes anywhere.

A simulated annotator begins with one random stroke per class and then goes from place to place. At
each place it paints what is in the ring (radius 15 px): one stroke of 40 px in all, shared among
the classes that fill at least a twentieth of the ring. The places are chosen by one of these:

- random: any pixel of the image;
- random, class by class: a random pixel of each class in turn, which balances the classes but asks
  the annotator to know where the rare one is;
- uncertainty: where the forest is least sure (`core.inspect.guidance`, the key U);
- uncertainty and contradiction: where, besides, the bundled enhancer contradicts the forest;
- errors: the deepest point of the largest error of the mask, which only somebody who knows the
  truth can do. It tells how much there is to win.

After every place the forest (compact features, 100 trees) is trained anew and scored by its F1, on
all test images (mean over images, 10,000 random pixels each) and on the painted image.

    python benchmarks/guidance.py

Three data sets, three seeds; strokes on train images only (the first two). The table goes to
benchmarks/results/guidance.md, every curve to guidance.json beside it. Needs the data sets.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio
import numpy as np
from scipy import ndimage

import timing
from napari_cellda.core.annotator import random_strokes, stroke_at
from napari_cellda.core.compare.pixels import pixel_scores
from napari_cellda.core.confidence import RADIUS, uncertainty_map
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import Forest, ForestParams, fit_forest
from napari_cellda.core.inspect.guidance import TREES, plane_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEEDS = (0, 1, 2)
PLACES = 24
SAMPLED = 10_000
SPEC = FeatureSpec(name="compact")


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
    choose: Callable[[Forest, np.ndarray, np.random.Generator], tuple[int, int]],
    seed: int,
) -> Curve:
    """Let the annotator paint stroke after stroke."""
    rng = np.random.default_rng(seed)
    strokes = random_strokes(one.truth, 1, rng=rng, n_classes=2)
    own = one.sample(np.random.default_rng(99))
    curve = Curve()
    for _ in range(PLACES):
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
        new = paint_ring(one, choose(forest, strokes, rng), rng)
        strokes = np.where(strokes > 0, strokes, new)
    return curve


def paint_ring(one: Field, spot: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Paint what is in the ring around a place, as the module's text says."""
    height, width = one.truth.shape
    rows, columns = np.ogrid[:height, :width]
    ring = (rows - spot[0]) ** 2 + (columns - spot[1]) ** 2 <= RADIUS**2
    shares = [np.mean(one.truth[ring] == k) for k in (0, 1)]
    present = [k for k in (0, 1) if shares[k] >= 0.05]
    strokes = np.zeros(one.truth.shape, np.uint8)
    box = tuple(slice(max(0, c - RADIUS), c + RADIUS + 1) for c in spot)
    for k in present:
        inside = np.pad(ring[box] & (one.truth[box] == k), 1)
        depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        start = np.array(np.unravel_index(depth.argmax(), depth.shape)) + [b.start for b in box]
        new = stroke_at(one.truth, (int(start[0]), int(start[1])), rng, length=40 / len(present))
        strokes = np.where(strokes > 0, strokes, new)
    return strokes


def strategies(one: Field, enhancer: Enhancer | None) -> Iterator[tuple[str, Any]]:
    """Return who chooses the next place from forest, strokes and chance, by name."""
    places = [np.argwhere(one.truth == k) for k in (0, 1)]

    def anywhere(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> Any:
        return tuple(int(rng.integers(size)) for size in one.truth.shape)

    turn = itertools.count()

    def in_turn(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> Any:
        return tuple(int(i) for i in rng.choice(places[next(turn) % 2]))

    def guided(*names: str) -> Any:
        def choose(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> Any:
            found = forest.truncated(TREES).predict(one.features)
            signals = {"uncertainty": uncertainty_map(found)}
            if "contradiction" in names and enhancer is not None:
                signals["contradiction"] = np.abs(enhancer.enhance(found[1])[0] - found[1])
            place = plane_candidates(signals, 0, 0, strokes > 0, 1)[0]
            return place.y, place.x

        return choose

    def errors(forest: Forest, strokes: np.ndarray, rng: np.random.Generator) -> Any:
        predicted = forest.truncated(TREES).predict(one.features).argmax(axis=0)
        regions, _ = ndimage.label(predicted != one.truth)
        largest = regions == np.bincount(regions.ravel())[1:].argmax() + 1
        depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
        return tuple(int(i) for i in np.unravel_index(depth.argmax(), depth.shape))

    yield "random", anywhere
    yield "random, class by class", in_turn
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

    Single forests jump, so the median of three counts.
    """
    below = np.flatnonzero(calm(curve[score]) < goal)
    first = below[-1] + 1 if len(below) else 0
    return float(curve["pixels"][first]) if first < len(curve["pixels"]) else float("nan")


def calm(values: list[float]) -> np.ndarray:
    padded = np.pad(values, 1, mode="edge")
    return np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)


def table(results: dict[str, dict[str, list[dict[str, list[float]]]]], score: str) -> list[str]:
    """Compare, seed by seed, with the F1 that random places have in the end."""
    lines = [
        "| data set | places | mean F1 on the way | F1 in the end | pixels until random's final "
        "F1 is kept | ratio to random |",
        "|---|---|---|---|---|---|",
    ]
    for title, by_name in results.items():
        goals = [float(calm(c[score])[-5:].min()) for c in by_name["random"]]
        base = [needed(c, score, g) for c, g in zip(by_name["random"], goals, strict=True)]
        for name, curves in by_name.items():
            way = [float(np.mean(c[score])) for c in curves]
            late = [float(np.mean(c[score][-5:])) for c in curves]
            found = [needed(c, score, g) for c, g in zip(curves, goals, strict=True)]
            lines.append(
                f"| {title} | {name} | {_spread(way)} | {_spread(late)} | "
                f"{', '.join(_told(f, '.0f') for f in found)} | "
                f"{', '.join(_told(f / b, '.2f') for f, b in zip(found, base, strict=True))} |"
            )
    return lines


def summary(results: dict[str, dict[str, list[dict[str, list[float]]]]], score: str) -> str:
    """Count the sessions in which guided places needed fewer pixels than random ones."""
    fewer = total = 0
    better = []
    for by_name in results.values():
        for random, guided in zip(by_name["random"], by_name["uncertainty"], strict=True):
            goal = float(calm(random[score])[-5:].min())
            fewer += needed(guided, score, goal) < needed(random, score, goal)
            total += 1
            better.append(np.mean(guided[score]) - np.mean(random[score]))
    return (
        f"Places of high uncertainty needed fewer pixels than random ones in {fewer} of {total} "
        f"sessions; their F1 on the way was {np.mean(better):+.3f} higher on average, and higher "
        f"in {sum(b > 0 for b in better)} of {total}."
    )


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _told(value: float, form: str) -> str:
    return "never" if np.isnan(value) else format(value, form)


def report(results: dict[str, dict[str, list[dict[str, list[float]]]]], where: str) -> str:
    lines = [
        "# Guided strokes against random ones",
        "",
        f"`python benchmarks/guidance.py`; {where}.",
        "",
        f"{PLACES - 1} strokes (40 x 3 px) after one per class; seeds "
        f"{', '.join(map(str, SEEDS))}. "
        "The goal of a seed is the F1 that its random strokes keep over the last five forests "
        "(each the median of three); 'never': not kept within this budget. A ratio below 1: fewer "
        "painted pixels than random ones.",
        "",
        "## On all test images",
        "",
        *table(results, "test_f1"),
        "",
        summary(results, "test_f1"),
        "",
        "## On the painted image",
        "",
        *table(results, "image_f1"),
        "",
        summary(results, "image_f1"),
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
