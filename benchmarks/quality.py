"""Ask how often the traffic light of the panel Inspect is right.

A simulated annotator paints five strokes per class on an image (a crop of 512 x 512), a forest is
trained on them, and a bundled enhancer repairs its map: one that was made for such objects, or one
that was not. The light is computed without truth (`core.inspect.quality`: object size, histogram,
contradiction, self-agreement under flips). The truth then tells whether the enhancer helped.

    python benchmarks/quality.py

Four train images of each pair; thresholds as they are, nothing is tuned here. The table goes to
benchmarks/results/quality.md. Needs the data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import imageio.v3 as imageio
import numpy as np

import timing
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

IMAGES = 4
SIDE = 512
HARM = 0.02
"""A loss of Dice beyond this is harm."""
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
    """One image, repaired, and what was said about it."""

    enhancer: str
    folder: str
    forest: float
    """Dice of the forest's map."""
    enhanced: float
    verdicts: tuple[Verdict, ...]

    @property
    def gain(self) -> float:
        """What the enhancer added to the Dice."""
        return self.enhanced - self.forest


def crops(folder: str, masks: str, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    root = timing.DATA / folder
    images = sorted(p for p in (root / "images").iterdir() if p.is_file())
    train = [p for i, p in enumerate(images) if i % 4 != 3] if len(images) > 2 else images
    train = train[:15] if folder == "vnc_sstem" else train
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


def judge(enhancer: Enhancer, name: str, folder: str, image: np.ndarray, truth: np.ndarray) -> Case:
    low, high = np.percentile(image, (1, 99))
    features = compute_features(((image - low) / (high - low + 1e-6))[None], FeatureSpec())
    strokes = random_strokes(truth, 5, rng=0, n_classes=2)
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
    dice = [pixel_scores(m > 0.5, truth == 1).dice for m in (forest_map, enhanced_map)]
    return Case(name, folder, dice[0], dice[1], (*verdicts, check_agreement(scores)))


def by_level(cases: list[Case], check: str = "") -> list[str]:
    """Count, for a check or for all together, how often each level came with harm."""
    lines = ["| light | images | harmed | mean gain in Dice | mean Dice |", "|---|---|---|---|---|"]
    for level in LEVELS:
        chosen = [
            case
            for case in cases
            for found in [
                [v for v in case.verdicts if v.check == check] if check else case.verdicts
            ]
            if found and overall(found).level == level
        ]
        if chosen:
            harmed = sum(case.gain < -HARM for case in chosen)
            gain, dice = (np.mean([getattr(c, n) for c in chosen]) for n in ("gain", "enhanced"))
            lines.append(f"| {level} | {len(chosen)} | {harmed} | {gain:+.3f} | {dice:.3f} |")
    return lines


def main() -> None:
    rng = np.random.default_rng(0)
    cases: list[Case] = []
    for name, folder, masks in PAIRS:
        if not (timing.DATA / folder).is_dir():
            continue
        enhancer = Enhancer.open(name)
        for image, truth in crops(folder, masks, rng):
            cases.append(judge(enhancer, name, folder, image, truth))
            light = overall(cases[-1].verdicts).level
            print(name, folder, light, f"{cases[-1].gain:+.3f}", flush=True)
    text = [
        "# How often the traffic light is right",
        "",
        f"`python benchmarks/quality.py`; {timing.where('numpy', 'scikit-learn', 'torch')}.",
        "",
        f"{len(cases)} images. Harmed: the enhancer lost more than {HARM} of Dice.",
        "",
        "## All checks together",
        "",
        *by_level(cases),
    ]
    for check in dict.fromkeys(v.check for case in cases for v in case.verdicts):
        text += ["", f"## {check}", "", *by_level(cases, check)]
    text += [
        "",
        "## By pair",
        "",
        "| enhancer | images of | lights | gain in Dice |",
        "|---|---|---|---|",
    ]
    for name, folder, _ in PAIRS:
        own = [c for c in cases if (c.enhancer, c.folder) == (name, folder)]
        lights = ", ".join(overall(c.verdicts).level for c in own)
        gains = ", ".join(f"{c.gain:+.2f}" for c in own)
        text.append(f"| {name} | {folder} | {lights} | {gains} |")
    (timing.RESULTS / "quality.md").write_text("\n".join([*text, ""]))
    print("\n".join(text))


if __name__ == "__main__":
    main()
