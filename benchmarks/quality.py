"""Ask how often the traffic light of the panel Inspect is right.

Two kinds of results are judged without truth (`core.inspect.quality`), then the truth tells:

- a simulated annotator paints five strokes per class on an image (a crop of 512 x 512), a forest is
  trained on them, and a bundled enhancer repairs its map: one that was made for such objects, or
  one that was not. Checked are object size, histogram, contradiction, self-agreement under flips;
- the U-Nets of domain_map.py, each trained on one domain, are tried on the middle of the test
  images of all eight. Checked is the self-agreement under flips and changes of brightness.

A warning (amber or red) is right when the result is poor (Dice below 0.5), or the enhancer lost
more than 0.02 of Dice.

    python benchmarks/quality.py [--seeds 1 2] [--networks STEPS]

Four train images of each pair and seed. The limits were set on seed 0, so it is left out. The table
goes to benchmarks/results/quality.md. Needs the data sets; the U-Nets are made when they are not
there yet.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np

import timing
from domain_map import domains, trained_network
from napari_cellda.core.annotator import random_strokes
from napari_cellda.core.compare.pixels import pixel_scores
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import ForestParams, fit_forest
from napari_cellda.core.inspect.quality import (
    LEVELS,
    Verdict,
    check_agreement,
    check_enhancer,
    overall,
    self_agreement,
)
from napari_cellda.core.inspect.trained import middle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

IMAGES = 4
SIDE = 512
HARM = 0.02
"""A loss of Dice beyond this is harm."""
POOR = 0.5
"""Results with a lower Dice are poor."""
PAIRS = (
    ("nuclei", "dsb2018_fluo", "masks"),
    ("nuclei", "dsb2018_purple_tissue", "masks"),
    ("nuclei", "usiigaci_t98g_phase", "masks"),
    ("nuclei", "livecell_mini", "masks"),
    ("nuclei", "vnc_sstem", "masks/mito"),
    ("mitochondria", "vnc_sstem", "masks/mito"),
    ("mitochondria", "epfl_hippo_mito_slices", "masks"),
    ("mitochondria", "dsb2018_purple_tissue", "masks"),
    ("mitochondria", "usiigaci_t98g_phase", "masks"),
)


@dataclass(frozen=True)
class Case:
    """One result and what was said about it."""

    maker: str
    """The enhancer, or the domain that a network was trained on."""
    target: str
    """What its image shows."""
    dice: float
    verdicts: tuple[Verdict, ...]
    forest: float | None = None
    """Dice of the forest's map, which an enhancer should not fall behind."""

    @property
    def gain(self) -> float:
        """What the enhancer added to the Dice; nan of networks."""
        return float("nan") if self.forest is None else self.dice - self.forest

    @property
    def bad(self) -> bool:
        """Whether a warning is due."""
        return self.dice < POOR or self.gain < -HARM


# -- enhancers -------------------------------------------------------------------------------------


def crops(folder: str, masks: str, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    root = timing.DATA / folder
    images = sorted(p for p in (root / "images").iterdir() if p.is_file())
    train = [p for i, p in enumerate(images) if i % 4 != 3] if len(images) > 2 else images
    train = train[:15] if folder == "vnc_sstem" else train
    if folder == "dsb2018_fluo":
        train = [p for p in images if p.name.startswith("train_")]
    by_stem = {p.stem.split(".")[0]: p for p in (root / masks).iterdir()}
    found = []
    for i in rng.permutation(len(train)):
        image = timing.grey(imageio.imread(train[i]))
        truth = (imageio.imread(by_stem[train[i].stem.split(".")[0]]) > 0).astype(int)
        y, x = (int(rng.integers(max(1, size - SIDE + 1))) for size in image.shape)
        part = (slice(y, y + SIDE), slice(x, x + SIDE))
        if 0.01 < truth[part].mean() < 0.9:
            found.append((image[part], truth[part]))
        if len(found) == IMAGES:
            break
    return found


def judge(
    enhancer: Enhancer, name: str, folder: str, image: np.ndarray, truth: np.ndarray, seed: int
) -> Case:
    low, high = np.percentile(image, (1, 99))
    features = compute_features(((image - low) / (high - low + 1e-6))[None], FeatureSpec())
    strokes = random_strokes(truth, 5, rng=seed, n_classes=2)
    rows, columns = np.nonzero(strokes)
    forest = fit_forest(
        np.ascontiguousarray(features[:, rows, columns].T),
        strokes[rows, columns].astype(np.int64) - 1,
        2,
        ForestParams(jobs=1),
    )
    forest_map = forest.predict(features)[1]
    enhanced_map = enhancer.enhance(forest_map)[0]
    scores = self_agreement(lambda m: enhancer.enhance(m)[0], forest_map, brightness=False)
    verdicts = check_enhancer(enhancer.card, forest_map, enhanced_map)
    before, after = (pixel_scores(m > 0.5, truth == 1).dice for m in (forest_map, enhanced_map))
    return Case(name, folder, after, (*verdicts, check_agreement(scores)), before)


def enhancer_cases(seeds: Sequence[int]) -> list[Case]:
    cases = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for name, folder, masks in PAIRS:
            enhancer = Enhancer.open(name)
            for image, truth in crops(folder, masks, rng):
                cases.append(judge(enhancer, name, folder, image, truth, seed))
                print(seed, _told(cases[-1]), flush=True)
    return cases


# -- networks --------------------------------------------------------------------------------------


def network_cases(steps: int) -> list[Case]:
    cases = []
    everything = domains()
    for source in everything:
        predict = _predictor(trained_network(source, steps))
        for target in everything:
            for image, truth in target.test:
                block, truth = middle(image[None]), middle(truth)  # as the panel does
                dice = pixel_scores(predict(block) > 0.5, truth).dice
                light = check_agreement(self_agreement(predict, block))
                cases.append(Case(source.name, target.name, dice, (light,)))
        print(_told(cases[-1]), flush=True)
    return cases


def _predictor(network: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def predict(block: np.ndarray) -> np.ndarray:
        # As the domains are loaded: what a change of brightness does is normalised first.
        low, high = np.percentile(block, (1, 99))
        scaled = ((block - low) / (high - low + 1e-6)).astype(np.float32)
        with torch.inference_mode():
            return torch.sigmoid(network(torch.from_numpy(scaled[None])))[0, 0].numpy()

    return predict


# -- reading ---------------------------------------------------------------------------------------


def _told(case: Case) -> str:
    return f"{case.maker} on {case.target}: {overall(case.verdicts).level}, Dice {case.dice:.3f}"


def by_level(cases: Sequence[Case], check: str = "") -> list[str]:
    """Count, for a check or for all together, how often each level came with a bad result."""
    lines = [
        "| light | results | bad | mean gain in Dice | mean Dice |",
        "|---|---|---|---|---|",
    ]
    for level, chosen in _of_levels(cases, check).items():
        if chosen:
            bad = sum(case.bad for case in chosen)
            dice = np.mean([case.dice for case in chosen])
            gain = np.mean([case.gain for case in chosen])
            told = f"{gain:+.3f}" if np.isfinite(gain) else ""
            lines.append(f"| {level} | {len(chosen)} | {bad} | {told} | {dice:.3f} |")
    return lines


def _of_levels(cases: Sequence[Case], check: str) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {level: [] for level in LEVELS}
    for case in cases:
        verdicts = [v for v in case.verdicts if not check or v.check == check]
        if verdicts:
            found[overall(verdicts).level].append(case)
    return found


def in_words(cases: Sequence[Case]) -> str:
    """Say how often each light was right."""
    levels = _of_levels(cases, "")
    parts = []
    for level in LEVELS:
        n, bad = len(levels[level]), sum(case.bad for case in levels[level])
        right = n - bad if level == "green" else bad
        parts.append(f"{level} was right on {right} of {n}" + (f" ({right / n:.0%})" if n else ""))
    return f"{'; '.join(parts)}. Bad were {sum(case.bad for case in cases)} of {len(cases)}."


def section(title: str, cases: Sequence[Case]) -> list[str]:
    checks = list(dict.fromkeys(v.check for case in cases for v in case.verdicts))
    text = [f"## {title}", "", *by_level(cases)]
    if len(checks) > 1:
        for check in checks:
            text += ["", f"### {check}", "", *by_level(cases, check)]
    return [*text, "", "### By pair", "", *_by_pair(cases), ""]


def _by_pair(cases: Sequence[Case]) -> list[str]:
    lines = [
        "| made by | images of | green, amber, red | bad | mean Dice |",
        "|---|---|---|---|---|",
    ]
    key = lambda case: (case.maker, case.target)  # noqa: E731
    for (maker, target), group in groupby(sorted(cases, key=key), key):
        own = list(group)
        lights = ", ".join(str(len(chosen)) for chosen in _of_levels(own, "").values())
        dice = np.mean([case.dice for case in own])
        bad = sum(case.bad for case in own)
        lines.append(f"| {maker} | {target} | {lights} | {bad} | {dice:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", type=int, default=400, help="steps of the U-Nets; 0: none")
    options = parser.parse_args()
    words = timing.where("numpy", "scikit-learn", "torch")
    groups = {"Enhanced maps": enhancer_cases(options.seeds)}
    if options.networks:
        title = f"Networks ({options.networks} steps) on their own and on other domains"
        groups[title] = network_cases(options.networks)
    text = [
        "# How often the traffic light is right",
        "",
        f"`python benchmarks/quality.py`; {words}.",
        "",
        f"Bad: a Dice below {POOR}, or, of an enhancer, a loss of more than {HARM} against the "
        f"forest's map. Seeds {options.seeds}; the limits were set on seed 0.",
        "",
        "## In short",
        "",
        *(f"- **{title}**: {in_words(cases)}" for title, cases in groups.items()),
        "",
    ]
    for title, cases in groups.items():
        text += section(title, cases)
    (timing.RESULTS / "quality.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
