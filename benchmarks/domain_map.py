"""Ask whether the advice "nearest source" of the domain map holds.

Domains are sets of images whose cells or nuclei are annotated: fluorescent nuclei, nuclei in
stained tissue, T98G cells in phase contrast, and five cell lines of LIVECell in phase contrast (as
in CULPICO, where every line is a domain). For every target the other seven are candidate sources:

- the gap of each source to the target, by the pixel features of patches (as the window does), and
  for comparison by the mean and deviation of their grey values alone. Truth is not used;
- the transfer of each source: the F1 on the target of a model trained on that source only, once a
  forest on pixel features, and with --steps once more a small U-Net.

Advice is good when the nearest source is the best one, or nearly. Told are the rank correlation of
gap and F1 over the seven sources, and the F1 that the advice loses against the best source, next
to that of a source picked at random.

    python benchmarks/domain_map.py [--steps 400]

The table goes to benchmarks/results/domain_map.md. Needs the data sets.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
import torch

import timing
from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.compare.pixels import pixel_scores
from napari_cellda.core.events import run_quietly
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import ForestParams, fit_forest
from napari_cellda.core.images import Image, image_from_array
from napari_cellda.core.inspect.domain_map import NEAR, domain_gap, embed_patches, standardise
from napari_cellda.core.nets.unet import UNet
from pairs import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINES = ("A172", "BT474", "Huh7", "MCF7", "SKOV3")
MOST_IMAGES = 8
PATCHES = 120
PAINTED = 20_000
SAMPLED = 20_000
SPEC = FeatureSpec(name="compact")
NETWORKS = CACHE.parent / "domain_map"
"""Trained networks are kept here, so that a stopped benchmark goes on where it was."""


class Domain:
    """Images with their truth: up to eight to learn from, up to eight to be scored on."""

    def __init__(self, name: str, train: list[Path], test: list[Path], masks: Path) -> None:
        self.name = name
        self.train = [load(path, masks) for path in _some(train)]
        self.test = [load(path, masks) for path in _some(test)]


def load(path: Path, masks: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, scaled by its 1st and 99th percentile, and its foreground."""
    grey = timing.grey(imageio.imread(path))
    low, high = np.percentile(grey, (1, 99))
    stem = path.stem.split(".")[0]
    mask = imageio.imread(next(p for p in masks.iterdir() if p.stem.split(".")[0] == stem)) > 0
    return ((grey - low) / (high - low + 1e-6)).astype(np.float32), mask


def _some(paths: list[Path]) -> list[Path]:
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_IMAGES)).astype(int))
    return [paths[i] for i in chosen]


def domains() -> list[Domain]:
    found = []
    for name, folder in (
        ("nuclei, fluorescence", "dsb2018_fluo"),
        ("nuclei, stained tissue", "dsb2018_purple_tissue"),
        ("T98G, phase contrast", "usiigaci_t98g_phase"),
    ):
        root = timing.DATA / folder
        images = sorted((root / "images").iterdir())
        if folder == "dsb2018_fluo":
            train = [p for p in images if p.name.startswith("train_")]
            test = [p for p in images if p.name.startswith("test_")]
        else:
            train, test = [p for i, p in enumerate(images) if i % 4 != 3], images[3::4]
        found.append(Domain(name, train, test, root / "masks"))
    root = timing.DATA / "livecell_mini"
    for line in LINES:
        # Three or four images each: as a source all, as a target all, never the same in one pair.
        images = sorted(p for p in (root / "images").iterdir() if p.name.startswith(line))
        found.append(Domain(f"{line}, phase contrast", images, images, root / "masks"))
    return found


# -- gaps ------------------------------------------------------------------------------------------


def as_images(domain: Domain) -> list[Image]:
    return [image_from_array(i, "yx", name=domain.name) for i, _ in domain.train]


def gaps(all_domains: list[Domain]) -> dict[str, np.ndarray]:
    """Return the (target, source) gaps by each way of describing a patch."""
    by_features, by_grey = [], []
    for domain in all_domains:
        images = as_images(domain)
        patches = run_quietly(embed_patches(images, per_image=-(-PATCHES // len(images))))
        by_features.append(patches.vectors)
        flat = patches.thumbnails.reshape(len(patches.thumbnails), -1) / 255
        by_grey.append(np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1))
    return {
        "pixel features": _gap_table(by_features),
        "grey values": _gap_table(by_grey),
    }


def _gap_table(vectors: list[np.ndarray]) -> np.ndarray:
    ends = np.cumsum([len(v) for v in vectors])[:-1]
    scaled = np.split(standardise(np.concatenate(vectors)), ends)
    return np.array([[domain_gap(a, b) for b in scaled] for a in scaled])


# -- transfer --------------------------------------------------------------------------------------


def forest_transfer(all_domains: list[Domain]) -> np.ndarray:
    """Return the F1 of a forest trained on one domain (column), on each target (row)."""
    rng = np.random.default_rng(0)
    tests = [[_features(image, mask, SAMPLED, rng) for image, mask in d.test] for d in all_domains]
    table = np.zeros((len(all_domains),) * 2)
    for column, source in enumerate(all_domains):
        per_image = PAINTED // len(source.train)
        parts = [_features(image, mask, per_image, rng) for image, mask in source.train]
        features = np.ascontiguousarray(np.concatenate([f for f, _ in parts], axis=1).T)
        labels = np.concatenate([t for _, t in parts]).astype(np.int64)
        forest = fit_forest(features, labels, 2, ForestParams(min_samples_leaf=5, jobs=1))
        for row, images in enumerate(tests):
            found = [pixel_scores(forest.predict(f).argmax(axis=0) == 1, t).dice for f, t in images]
            table[row, column] = np.mean(found)
    return table


def _features(
    image: np.ndarray, mask: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    features = compute_features(image[None], SPEC)
    chosen = rng.choice(mask.size, min(count, mask.size), replace=False)
    flat = features.reshape(len(features), -1)
    return np.ascontiguousarray(flat[:, chosen]), mask.ravel()[chosen]


def network_transfer(all_domains: list[Domain], steps: int) -> np.ndarray:
    """Return the F1 of a small U-Net trained on one domain (column), on each target (row)."""
    table = np.zeros((len(all_domains),) * 2)
    for column, source in enumerate(all_domains):
        started = time.monotonic()
        network = trained_network(source, steps)
        for row, target in enumerate(all_domains):
            table[row, column] = np.mean([_dice(network, *pair) for pair in target.test])
        print(source.name, f"{time.monotonic() - started:.0f} s", flush=True)
    return table


def trained_network(source: Domain, steps: int) -> torch.nn.Module:
    """Train a small U-Net on one domain, or read the one that is kept."""
    torch.manual_seed(0)
    network = UNet(1, 1, width=8, depth=3)
    kept = NETWORKS / f"{source.name}, {steps} steps.pt"
    if kept.is_file():
        network.load_state_dict(torch.load(kept, weights_only=True))
    else:
        _train(network, source, steps)
        NETWORKS.mkdir(parents=True, exist_ok=True)
        with write_atomically(kept) as aside:
            torch.save(network.state_dict(), aside)
    return network.eval()


def _train(network: torch.nn.Module, source: Domain, steps: int) -> None:
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(steps):
        pixels, truth = zip(*(_crop(source, rng) for _ in range(4)), strict=True)
        logits = network(torch.from_numpy(np.stack(pixels)[:, None]))
        target = torch.from_numpy(np.stack(truth)[:, None]).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _crop(source: Domain, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image, mask = source.train[rng.integers(len(source.train))]
    y, x = (int(rng.integers(max(1, size - 127))) for size in image.shape)
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    found = []
    for plane in (image, mask):
        part = np.rot90(plane[y : y + 128, x : x + 128], turns)
        found.append(np.ascontiguousarray(part[::-1] if flip else part))
    return found[0], found[1]


def _dice(network: torch.nn.Module, image: np.ndarray, mask: np.ndarray) -> float:
    with torch.inference_mode():
        logits = network(torch.from_numpy(image[None, None]))[0, 0].numpy()
    return pixel_scores(logits > 0, mask).dice


# -- reading the tables ----------------------------------------------------------------------------


def rank_correlation(gap: np.ndarray, score: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(gap, score).statistic)


def advice_table(names: list[str], gap: np.ndarray, score: np.ndarray) -> list[str]:
    lines = [
        "| target | nearest source (F1) | best source (F1) | lost by the advice | lost at random | "
        "rank correlation of gap and F1 |",
        "|---|---|---|---|---|---|",
    ]
    lost, at_random, correlations, hits = [], [], [], 0
    for row, name in enumerate(names):
        others = [i for i in range(len(names)) if i != row]
        nearest = min(others, key=lambda i: gap[row, i])
        best = max(others, key=lambda i: score[row, i])
        lost.append(score[row, best] - score[row, nearest])
        at_random.append(score[row, best] - score[row, others].mean())
        correlations.append(rank_correlation(gap[row, others], score[row, others]))
        hits += nearest == best
        lines.append(
            f"| {name} | {names[nearest]} ({score[row, nearest]:.3f}) | "
            f"{names[best]} ({score[row, best]:.3f}) | {lost[-1]:.3f} | {at_random[-1]:.3f} | "
            f"{correlations[-1]:+.2f} |"
        )
    lines.append(
        f"| **mean** | the best in {hits} of {len(names)} | | {np.mean(lost):.3f} | "
        f"{np.mean(at_random):.3f} | {np.mean(correlations):+.2f} |"
    )
    return lines


def matrix(names: list[str], table: np.ndarray) -> list[str]:
    lines = ["| target \\ source | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in zip(names, table, strict=True):
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    return lines


def in_short(names: list[str], gap: np.ndarray, transfers: dict[str, np.ndarray]) -> list[str]:
    """Tell what the advice by pixel features is worth, for targets with and without a near set."""
    lines = [
        "| model | targets | nearest is the best | lost by the advice | lost at random | "
        "mean rank correlation |",
        "|---|---|---|---|---|---|",
    ]
    others = [[i for i in range(len(names)) if i != row] for row in range(len(names))]
    nearest = [min(others[row], key=lambda i: gap[row, i]) for row in range(len(names))]
    near = [gap[row, nearest[row]] < NEAR for row in range(len(names))]
    for model, score in transfers.items():
        for title, wanted in (
            (f"with a set nearer than {NEAR}", True),
            ("without one", False),
        ):
            rows = [row for row in range(len(names)) if near[row] == wanted]
            best = [score[row, others[row]].max() for row in rows]
            lost = [b - score[row, nearest[row]] for b, row in zip(best, rows, strict=True)]
            random = [b - score[row, others[row]].mean() for b, row in zip(best, rows, strict=True)]
            rank = [rank_correlation(gap[r, others[r]], score[r, others[r]]) for r in rows]
            hits = sum(one == 0 for one in lost)
            lines.append(
                f"| {model} | {len(rows)} {title} | {hits} of {len(rows)} | {np.mean(lost):.3f} | "
                f"{np.mean(random):.3f} | {np.mean(rank):+.2f} |"
            )
    return lines


def kept(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return a table that is kept, made on first use."""
    path = NETWORKS / f"{name}.npy"
    if not path.is_file():
        NETWORKS.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as aside, aside.open("wb") as file:
            np.save(file, make())
    return np.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="of each U-Net; 0 trains none")
    steps = parser.parse_args().steps
    all_domains = domains()
    gap = gaps(all_domains)
    transfers = {"forest": kept("forest", lambda: forest_transfer(all_domains))}
    write(all_domains, gap, transfers, steps)
    if steps:
        table = kept(f"network, {steps} steps", lambda: network_transfer(all_domains, steps))
        transfers[f"U-Net ({steps} steps)"] = table
        write(all_domains, gap, transfers, steps)


def write(
    all_domains: list[Domain],
    gap: dict[str, np.ndarray],
    transfers: dict[str, np.ndarray],
    steps: int,
) -> None:
    """Write and print what is known so far."""
    names = [domain.name for domain in all_domains]
    text = [
        "# Does the nearest source make the best model?",
        "",
        f"`python benchmarks/domain_map.py --steps {steps}`; "
        f"{timing.where('numpy', 'scikit-learn', 'torch')}.",
        "",
        "A correlation of -1 means that the nearer source was always the better one. 'At random' "
        "is the mean over the other seven sources.",
        "",
        "## In short",
        "",
        "Gaps by pixel features, as in the window.",
        "",
        *in_short(names, gap["pixel features"], transfers),
        "",
    ]
    for by, gaps_by in gap.items():
        for model, scores in transfers.items():
            text += [f"## Gap by {by}, transfer of a {model}", ""]
            text += [*advice_table(names, gaps_by, scores), ""]
    text += ["## Gaps by pixel features", "", *matrix(names, gap["pixel features"]), ""]
    for model, scores in transfers.items():
        text += [f"## F1 of a {model}", "", *matrix(names, scores), ""]
    (timing.RESULTS / "domain_map.md").write_text("\n".join(text))
    print("\n".join(text), flush=True)


if __name__ == "__main__":
    main()
