"""Measure whether the bundled enhancers help on images they never saw.

For every pair of source and target, a simulated annotator paints on at most two of the target's
train images: 8 strokes per class of about 40 x 3 pixels at random (round 1), then 2 per class in
the largest errors of the forest (rounds 2 to 5). Forest and enhanced map are scored on all test
images after rounds 1 and 5.

    python benchmarks/enhancer.py --data ../shared/data

Kept in benchmarks/cache/enhancer: forests' maps, so that another model costs only its own share,
and finished cells, with pictures beside them (image, truth, forest, enhanced, difference). The
table goes to benchmarks/results/enhancer.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from scipy import ndimage

from napari_cellda.core.annotator import error_strokes, random_strokes
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.compare import best_threshold, pixel_scores, variation_of_information
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import Forest, ForestParams, fit_forest
from napari_cellda.core.images import open_image
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.sampling import balance
from napari_cellda.core.tiles import whole

HERE = Path(__file__).parent
ROUNDS = 5
REPORTED = (1, 5)
SPEC = FeatureSpec()
COMPARED = 5
GRID = np.s_[::3, ::3]
"""Test images, and pixels of them, on which plain scikit-learn predicts, too."""


@dataclass(frozen=True)
class Pair:
    """One line of the table: an enhancer and the images it is tried on."""

    name: str
    enhancer: str
    target: str
    masks: str = "masks"
    mask_is_boundary: bool = False
    split: str = "every fourth"
    least_gain: float | None = None
    """The bar: gain in F1 at 0.5 after both rounds; for membranes with a lower VI, too."""


PAIRS = (
    Pair("nuclei, fluorescence", "nuclei", "dsb2018_fluo", split="prefix", least_gain=-0.01),
    Pair("nuclei, fluorescence -> tissue", "nuclei", "dsb2018_purple_tissue", least_gain=0.05),
    Pair(
        "mitochondria, vnc", "mitochondria", "vnc_sstem", "masks/mito",
        split="vnc", least_gain=0.10,
    ),
    Pair(
        "mitochondria, vnc -> epfl 1", "mitochondria", "epfl_hippo_mito_slices",
        split="first",
    ),
    Pair(
        "mitochondria, vnc -> epfl 2", "mitochondria", "epfl_hippo_mito_slices",
        split="second",
    ),
    Pair("membranes, vnc", "membranes", "vnc_sstem", "masks/membrane", True, "vnc"),
    Pair(
        "membranes, vnc -> isbi", "membranes", "isbi2012_membrane", "masks", True,
        least_gain=0.03,
    ),
)  # fmt: skip
EPFL = Pair(
    "mitochondria, vnc -> epfl, mean", "mitochondria", "epfl_hippo_mito_slices", least_gain=0.05
)


@dataclass(frozen=True)
class Field:
    """One image in memory, with its features."""

    name: str
    image: np.ndarray
    truth_mask: np.ndarray
    features: np.ndarray | None = None


def split(folder: Path, rule: str) -> tuple[list[str], list[str]]:
    """Return the names of the train and of the test images."""
    names = sorted(path.name for path in (folder / "images").iterdir())
    match rule:
        case "prefix":
            train = [n for n in names if n.startswith("train_")]
            return train, [n for n in names if n.startswith("test_")]
        case "vnc":
            return names[:15], names[15:]
        case "first" | "second":
            one, two = names if rule == "first" else names[::-1]
            return [one], [two]
    return (
        [n for i, n in enumerate(names) if i % 4 != 3],
        [n for i, n in enumerate(names) if i % 4 == 3],
    )


def load(data: Path, pair: Pair, name: str, *, features: bool = True) -> Field:
    folder = data / pair.target
    source = Normalised.measure(open_image(folder / "images" / name))
    block, _ = source.read(whole(source.image.limits))
    labels = read_labels(folder / pair.masks / name)
    truth = labels > (127 if labels.max() == 255 and pair.masks != "masks" else 0)
    return Field(
        name, block[0, 0], truth, compute_features(block[:, 0], SPEC) if features else None
    )


def train_names(data: Path, pair: Pair, seed: int) -> list[str]:
    """Draw at most two train images that show foreground and background."""
    names, _ = split(data / pair.target, pair.split)
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    chosen = []
    for index in order:
        labels = read_labels(data / pair.target / pair.masks / names[index])
        if 0.01 < (labels > 0).mean() < 0.99:
            chosen.append(names[index])
        if len(chosen) == 2:
            break
    return chosen


def paint(
    fields: list[Field], seed: int, reported: tuple[int, ...] = REPORTED
) -> list[tuple[int, Forest, list[np.ndarray]]]:
    """Paint round by round and return the forests and strokes of the reported ones."""
    rng = np.random.default_rng([seed, 2])
    share = 8 // len(fields)
    strokes = [random_strokes(f.truth_mask.astype(np.int8), share, rng=rng) for f in fields]
    found = []
    for number in range(1, max(reported) + 1):
        forest = fit(fields, strokes, seed)
        if number in reported:
            found.append((number, forest, [s.copy() for s in strokes]))
        if number == max(reported):
            break
        for field, painted in zip(fields, strokes, strict=True):
            wrong = forest.predict(field.features).argmax(axis=0)
            new = error_strokes(field.truth_mask.astype(np.int8), wrong, 2 // len(fields), rng)
            painted[new > 0] = new[new > 0]
    return found


def samples(fields: list[Field], strokes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(zip(fields, strokes, strict=True))
    return (
        np.concatenate([f.features[:, s > 0].T for f, s in pairs]),
        np.concatenate([s[s > 0].astype(np.intp) - 1 for _, s in pairs]),
    )


def fit(fields: list[Field], strokes: list[np.ndarray], seed: int) -> Forest:
    return fit_forest(*samples(fields, strokes), 2, ForestParams(seed=seed))


def plain_scikit_learn(fields: list[Field], strokes: list[np.ndarray], seed: int):
    """Return what a plain scikit-learn forest predicts, on a grid, after the same strokes."""
    from sklearn.ensemble import RandomForestClassifier

    features, labels = samples(fields, strokes)
    chosen = balance(labels, seed=seed)
    model = RandomForestClassifier(100, random_state=seed, n_jobs=2)
    model.fit(features[chosen], labels[chosen])

    def predict(stack: np.ndarray) -> np.ndarray:
        grid = stack[(slice(None), *GRID)]
        return model.predict_proba(grid.reshape(len(grid), -1).T)[:, 1].reshape(grid.shape[1:])

    return predict


def paint_and_predict(data: Path, pair: Pair, seed: int) -> dict[str, np.ndarray]:
    """Train the forests of one cell; return their maps of painted and of test images, by name."""
    fields = [load(data, pair, name) for name in train_names(data, pair, seed)]
    painted = paint(fields, seed)
    plain = plain_scikit_learn(fields, painted[-1][2], seed)
    made = {}
    for number, forest, _ in painted:
        for field in fields:
            made[f"{number} train {field.name}"] = forest.predict(field.features)[1]
    for index, name in enumerate(split(data / pair.target, pair.split)[1]):
        field = load(data, pair, name)
        for number, forest, _ in painted:
            made[f"{number} test {name}"] = forest.predict(field.features)[1]
        if index < COMPARED:
            made[f"plain {name}"] = plain(field.features)
    return {key: value.astype(np.float16) for key, value in made.items()}


def cell(
    data: Path, pair: Pair, seed: int, enhancer: Enhancer, maps: Path, pictures: Path
) -> list[dict]:
    """Compute one cell of the table: one pair and seed, both reported rounds."""
    if not maps.exists():
        maps.parent.mkdir(parents=True, exist_ok=True)
        np.savez(maps, **paint_and_predict(data, pair, seed))
    found = {key: value.astype(np.float32) for key, value in np.load(maps).items()}
    return [score(data, pair, seed, number, enhancer, found, pictures) for number in REPORTED]


def score(
    data: Path,
    pair: Pair,
    seed: int,
    number: int,
    enhancer: Enhancer,
    found: dict[str, np.ndarray],
    pictures: Path,
) -> dict:
    """Score forest and enhanced map on all test images after one round."""
    train = [
        (load(data, pair, key.split(" ", 2)[2], features=False).truth_mask, value)
        for key, value in found.items()
        if key.startswith(f"{number} train ")
    ]
    truths = [truth for truth, _ in train]
    t_forest = best_threshold([m for _, m in train], truths)
    t_pe = best_threshold([enhancer.enhance(m)[0] for _, m in train], truths)
    images = {}
    for index, name in enumerate(split(data / pair.target, pair.split)[1]):
        field = load(data, pair, name, features=False)
        forest_map = found[f"{number} test {name}"]
        pe_map = enhancer.enhance(forest_map)[0]
        one = {
            "forest": f1(forest_map, field.truth_mask),
            "pe": f1(pe_map, field.truth_mask),
            "forest best": f1(forest_map, field.truth_mask, t_forest),
            "pe best": f1(pe_map, field.truth_mask, t_pe),
        }
        if number == ROUNDS and f"plain {name}" in found:
            one["scikit-learn"] = f1(found[f"plain {name}"], field.truth_mask[GRID])
            one["forest beside it"] = f1(forest_map[GRID], field.truth_mask[GRID])
        if pair.mask_is_boundary:
            one["forest vi"] = vi(forest_map, field)
            one["pe vi"] = vi(pe_map, field)
        images[name] = one
        if index < 3:
            stem = f"{pair.name.replace(' ', '_').replace('>', '')}_{seed}_{number}_{name}"
            draw(pictures / f"{Path(stem).stem}.png", field, forest_map, pe_map)
    keys = sorted({key for one in images.values() for key in one})
    mean = {k: float(np.mean([one[k] for one in images.values() if k in one])) for k in keys}
    own = {"pair": pair.name, "seed": seed, "round": number, "n": len(images)}
    return {**own, **mean, "images": images}


def f1(probability_map: np.ndarray, truth_mask: np.ndarray, threshold: float = 0.5) -> float:
    return pixel_scores(probability_map > threshold, truth_mask).dice


def vi(boundary_map: np.ndarray, field: Field) -> float:
    """Variation of information after multicut; membrane pixels of the truth are ignored."""
    from napari_cellda.core.instances import instances_from_maps

    labels = instances_from_maps(None, boundary_map, method="multicut")
    truth, _ = ndimage.label(~field.truth_mask)
    return float(sum(variation_of_information(labels, truth)))


def draw(path: Path, field: Field, forest_map: np.ndarray, pe_map: np.ndarray) -> None:
    """Write image, truth, forest, enhanced and their difference (red: more, blue: less)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = [np.clip(field.image, 0, 1), field.truth_mask, forest_map, pe_map]
    panels = [np.repeat((np.asarray(g) * 255).astype(np.uint8)[..., None], 3, -1) for g in grey]
    change = np.zeros_like(panels[0])
    change[..., 0] = np.clip((pe_map - forest_map) * 255, 0, 255)
    change[..., 2] = np.clip((forest_map - pe_map) * 255, 0, 255)
    imageio.imwrite(path, np.hstack([*panels, change])[::2, ::2])


def table(rows: list[dict]) -> str:
    """Return the table in Markdown: means over seeds, with the gain of the enhancer."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
    ).stdout.strip()
    lines = [
        "# Enhancers against the forests they repair",
        "",
        f"`python benchmarks/enhancer.py`, commit {commit}, {platform.machine()}, Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}. F1 of pixels per image, then "
        "mean over test images, then over seeds (smallest and largest gain of a seed in brackets). "
        "*Best*: at the threshold that was best on the painted train images. *scikit-learn*: a "
        "plain forest on the same strokes beside ours, round 5, every ninth pixel of the first "
        f"{COMPARED} test images.",
        "",
        "| pair | round | seeds | forest | PE | gain | bar | forest, best | PE, best | gain, best "
        "| VI forest | VI PE | scikit-learn - ours |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for pair in PAIRS:
        for number in REPORTED:
            found = [r for r in rows if r["pair"] == pair.name and r["round"] == number]
            lines += [_line(pair, number, found)] if found else []
        if pair.name.endswith("epfl 2"):
            lines += [_line(EPFL, n, both) for n in REPORTED if (both := _both_ways(rows, n))]
    seeds = sorted({r["seed"] for r in rows})
    missing = [
        f"{pair.name} (seed {seed})"
        for pair in PAIRS
        for seed in seeds
        if not any((r["pair"], r["seed"]) == (pair.name, seed) for r in rows)
    ]
    lines += ["", f"Missing: {', '.join(missing) or 'nothing'} of seeds {seeds}."]
    return "\n".join(lines) + "\n"


def _both_ways(rows: list[dict], number: int) -> list[dict]:
    """Mean of painting one epfl image and scoring the other, seed by seed, where both are there."""
    found = []
    for seed in sorted({r["seed"] for r in rows}):
        pair = [
            r for r in rows if " epfl " in r["pair"] and (r["seed"], r["round"]) == (seed, number)
        ]
        if len(pair) == 2:
            keys = [k for k, v in pair[0].items() if isinstance(v, float)]
            found.append({k: (pair[0][k] + pair[1][k]) / 2 for k in keys})
    return found


def _line(pair: Pair, number: int, found: list[dict]) -> str:
    def mean(key: str) -> float | None:
        values = [r[key] for r in found if key in r]
        return float(np.mean(values)) if values else None

    def show(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.3f}"

    gains = [r["pe"] - r["forest"] for r in found]
    best = [r["pe best"] - r["forest best"] for r in found]
    plain = mean("scikit-learn")
    beside = mean("forest beside it")
    cells = [
        pair.name,
        str(number),
        str(len(found)),
        show(mean("forest")),
        show(mean("pe")),
        f"**{np.mean(gains):+.3f}** ({min(gains):+.3f} to {max(gains):+.3f})",
        _bar(pair, float(np.mean(gains)), mean("forest vi"), mean("pe vi")),
        show(mean("forest best")),
        show(mean("pe best")),
        f"{np.mean(best):+.3f}",
        show(mean("forest vi")),
        show(mean("pe vi")),
        "" if plain is None or beside is None else show(plain - beside, "+"),
    ]
    return "| " + " | ".join(cells) + " |"


def _bar(pair: Pair, gain: float, forest_vi: float | None, pe_vi: float | None) -> str:
    if pair.least_gain is None:
        return ""
    met = gain >= pair.least_gain
    if forest_vi is not None and pe_vi is not None:
        met = met and pe_vi < forest_vi
    return f"{pair.least_gain:+.2f}: {'met' if met else '**missed**'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="only pairs whose name holds this")
    parser.add_argument(
        "--model", type=Path, help="an enhancer's folder instead of the bundled one"
    )
    parser.add_argument("--cache", type=Path, default=HERE / "cache" / "enhancer")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "enhancer.md")
    asked = parser.parse_args()
    rows: list[dict] = []
    for seed in range(asked.seeds):
        for pair in PAIRS:
            if asked.only not in pair.name:
                continue
            source = asked.model or bundled_folder(pair.enhancer)
            if source is None:
                print(f"{pair.name}: there is no enhancer '{pair.enhancer}'")
                continue
            weights = (Path(source) / "weights.pt").read_bytes()
            key = hashlib.blake2b(weights, digest_size=6).hexdigest()
            kept = asked.cache / f"{PAIRS.index(pair)}_{seed}_{key}.json"
            if not kept.exists():
                started = time.monotonic()
                enhancer = Enhancer.open(source)
                maps = asked.cache / f"maps_{PAIRS.index(pair)}_{seed}.npz"
                made = cell(asked.data, pair, seed, enhancer, maps, asked.cache / f"pictures_{key}")
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(made))
                print(f"{pair.name}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
            new = json.loads(kept.read_text())
            for row in new:
                shown = {k: v for k, v in row.items() if k != "images"}
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()})
            rows += new
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
