"""Measure how often the warning about an enhancer (`core.enhancer.trust`) is right.

Forests are trained on simulated strokes (rounds 1 and 3 of benchmarks/enhancer.py) on one train
image and predict a window of another one. Then the bundled enhancers are applied as they should be,
and as they should not: to another structure, to objects three times as large or as small, to an
image with noise and nothing else. Half of the seeds were used to choose the thresholds; the table
is about the other half. Classes have no telling name here: what the name gives away is not counted.

    python benchmarks/trust.py --data ../shared/data

Forests' maps are kept in benchmarks/cache/trust. The table goes to benchmarks/results/trust.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

import enhancer as quality
import timing
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.compare import pixel_scores
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.enhancer.trust import check_trust
from napari_cellda.core.features import compute_features
from napari_cellda.core.images import open_image
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.tiles import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SIDE = 512
ZOOM = 3.0
ROUNDS = (1, 3)
CHOSEN_ON = (0, 1, 2)
"""Seeds on which the thresholds were chosen; the others are reported."""
HARM = 0.05
"""Loss of F1 from which on an enhancer does harm."""


@dataclass(frozen=True)
class Target:
    """Images of one structure."""

    name: str
    structure: str
    folder: str
    masks: str
    split: str


TARGETS = (
    Target("nuclei, fluorescence", "nuclei", "dsb2018_fluo", "masks", "prefix"),
    Target("nuclei, tissue", "nuclei", "dsb2018_purple_tissue", "masks", "every fourth"),
    Target("mitochondria, vnc", "mitochondria", "vnc_sstem", "masks/mito", "vnc"),
    Target("mitochondria, epfl", "mitochondria", "epfl_hippo_mito_slices", "masks", "all"),
    Target("membranes, vnc", "membranes", "vnc_sstem", "masks/membrane", "vnc"),
    Target("membranes, isbi", "membranes", "isbi2012_membrane", "masks", "every fourth"),
)
ENHANCERS = ("nuclei", "mitochondria", "membranes")


@dataclass(frozen=True)
class Case:
    """A forest's map that an enhancer is applied to."""

    target: str
    structure: str
    seed: int
    round: int
    kind: str
    """"as it is", "smaller", "larger" or "empty"."""
    forest_map: np.ndarray
    truth_mask: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What became of a case, and what the warning said."""

    use: str
    """The case's kind, or "another structure"."""
    enhancer: str
    target: str
    seed: int
    due: bool
    warned: bool
    said: list[str]


def window(data: Path, target: Target, name: str, rng: np.random.Generator) -> quality.Field:
    """Read a random window of an image, with features."""
    folder = data / target.folder
    source = Normalised.measure(open_image(folder / "images" / name))
    block, _ = source.read(whole(source.image.limits))
    labels = read_labels(folder / target.masks / name)
    truth = labels > (127 if labels.max() == 255 else 0)
    corner = [int(rng.integers(max(1, n - SIDE + 1))) for n in truth.shape]
    part = tuple(slice(c, c + SIDE) for c in corner)
    inner = np.ascontiguousarray(block[:, 0][(slice(None), *part)])
    return quality.Field(name, inner[0], truth[part], compute_features(inner, quality.SPEC))


def noise(field: quality.Field, rng: np.random.Generator) -> np.ndarray:
    """Make the features of an image that is as bright and noisy as the background, and no more."""
    background = field.image[~field.truth_mask]
    fine = field.image - ndimage.gaussian_filter(field.image, 1.0)
    made = np.median(background) + 1.5 * fine.std() * rng.standard_normal(field.image.shape)
    return compute_features(made[None].astype(np.float32), quality.SPEC)


def cases(data: Path, target: Target, seed: int, cache: Path) -> Iterator[Case]:
    """Yield the forests' maps of one target and seed, made on first use."""
    kept = cache / f"{target.name.replace(', ', '_')}_{seed}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(kept, **make(data, target, seed))
    arrays = np.load(kept)
    for number in ROUNDS:
        maps, truth = arrays[f"map {number}"] / np.float32(255), arrays["truth"]

        def case(kind: str, forest_map: np.ndarray, mask: np.ndarray, number: int = number) -> Case:
            return Case(target.name, target.structure, seed, number, kind, forest_map, mask)

        yield case("as it is", maps, truth)
        yield case("smaller", *zoomed(maps, truth, 1 / ZOOM))
        side = [slice(0, int(n / ZOOM)) for n in maps.shape]
        yield case("larger", *zoomed(maps[tuple(side)], truth[tuple(side)], ZOOM))
        yield case("empty", arrays[f"empty {number}"] / np.float32(255), np.zeros_like(truth))


def make(data: Path, target: Target, seed: int) -> dict[str, np.ndarray]:
    """Paint on one train image and predict another, and noise."""
    names = sorted(path.name for path in (data / target.folder / "images").iterdir())
    train = names if target.split == "all" else quality.split(data / target.folder, target.split)[0]
    rng = np.random.default_rng([seed, 7])
    fields = []
    for index in rng.permutation(len(train)):
        field = window(data, target, train[index], rng)
        if 0.02 < field.truth_mask.mean() < 0.98:
            fields.append(field)
        if len(fields) == 2:
            break
    painted, other = fields
    made = {"truth": other.truth_mask}
    nothing = noise(other, rng)
    for number, forest, _ in quality.paint([painted], seed, ROUNDS):
        made[f"map {number}"] = np.round(forest.predict(other.features)[1] * 255).astype(np.uint8)
        made[f"empty {number}"] = np.round(forest.predict(nothing)[1] * 255).astype(np.uint8)
    return made


def zoomed(maps: np.ndarray, truth: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    smooth = ndimage.gaussian_filter(maps, 0.4 / factor) if factor < 1 else maps
    return (
        np.clip(ndimage.zoom(smooth, factor, order=1), 0, 1),
        ndimage.zoom(truth.astype(np.uint8), factor, order=0).astype(bool),
    )


def judge(case: Case, enhancer: Enhancer) -> Verdict:
    """Apply an enhancer and note what the warning said, and what became of the map."""
    enhanced = enhancer.enhance(case.forest_map)[0]
    said = check_trust(enhancer.card, case.forest_map, enhanced)
    before, after = (
        pixel_scores(found > 0.5, case.truth_mask).dice for found in (case.forest_map, enhanced)
    )
    due = case.kind == "empty" or after < before - HARM
    right = enhancer.card.id == case.structure
    use = case.kind if right else "another structure"
    return Verdict(use, enhancer.card.id, case.target, case.seed, due, bool(said), said)


def verdicts(data: Path, cache: Path, seeds: range) -> Iterator[Verdict]:
    """Judge every case: other structures as they are, the right one in every way."""
    enhancers = [Enhancer.open(name) for name in ENHANCERS]
    for seed in seeds:
        for target in TARGETS:
            for case in cases(data, target, seed, cache):
                for enhancer in enhancers:
                    if enhancer.card.id == case.structure or case.kind == "as it is":
                        yield judge(case, enhancer)
            print(target.name, seed, flush=True)


def table(found: list[Verdict], where: str) -> str:
    """Return the table in Markdown."""
    lines = [
        "# When to doubt an enhancer",
        "",
        f"`python benchmarks/trust.py`; {where}.",
        "",
        "A warning is due when the enhanced map's F1 is lower than the forest's by more than "
        f"{HARM}, and on an empty image. {len(found)} maps, seeds "
        f"{sorted({v.seed for v in found})}; the thresholds were chosen on seeds "
        f"{sorted(CHOSEN_ON)}. All images are train images.",
        "",
        "| use | enhancer | maps | warned | due | warned when due | silent otherwise |",
        "|---|---|---|---|---|---|---|",
    ]
    for use in ("as it is", "another structure", "smaller", "larger", "empty"):
        for name in ENHANCERS:
            lines.append(_line(use, name, [v for v in found if (v.use, v.enhancer) == (use, name)]))
    lines.append(_line("all", "", found))
    agree = float(np.mean([v.warned == v.due for v in found]))
    lines += ["", f"Right on {agree:.0%} of the maps."]
    return "\n".join(lines) + "\n"


def _line(use: str, name: str, found: list[Verdict]) -> str:
    def share(chosen: list[bool]) -> str:
        return f"{sum(chosen)} of {len(chosen)}" if chosen else ""

    cells = [
        use,
        name,
        str(len(found)),
        str(sum(v.warned for v in found)),
        str(sum(v.due for v in found)),
        share([v.warned for v in found if v.due]),
        share([not v.warned for v in found if not v.due]),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=timing.DATA)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--cache", type=Path, default=HERE / "cache" / "trust")
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "trust.md")
    asked = parser.parse_args()
    seeds = range(len(CHOSEN_ON), max(asked.seeds, len(CHOSEN_ON) + 1))
    found = list(verdicts(asked.data, asked.cache, seeds))
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(table(found, timing.where("numpy", "torch")), encoding="utf-8")
    print(asked.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
