"""Measure how fast the bundled enhancers are, next to the same networks in plain torch.

A forest's map of a real image, 1024 x 1024, is enhanced whole: by `Enhancer`, with reading,
reflecting at the border and cutting, and by the bare network in torch's eager mode, float32, in
turns and with as many threads. Every way that `Enhancer` may run a network is timed; the one that
it chooses here has the bar. The difference is that of the enhanced maps to the same enhancer run
eagerly in float32.

    python benchmarks/enhancer_speed.py

The table goes to benchmarks/results/enhancer_speed.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import timing
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.forest import ForestParams, fit_forest
from napari_cellda.core.modelzoo import list_bundled
from napari_cellda.core.modelzoo.network import OnnxRunner, Runner, TorchRunner, has_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 2
PAINTED = 5000
BAR, BAR_WITHOUT = 0.5, 0.7
LARGEST_DIFFERENCE = 0.01


def forest_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the (Y, X) map of class 1 by a forest that was shown a few pixels of each class."""
    rng = np.random.default_rng(0)
    low, high = np.percentile(image, [1, 99.8])
    features = compute_features((image[None] - low) / (high - low), FeatureSpec(), threads=THREADS)
    painted = features[:, : truth.shape[0], : truth.shape[1]].reshape(len(features), -1)
    picks = rng.choice(truth.size, PAINTED, replace=False)
    labels = truth.ravel()[picks]
    forest = fit_forest(painted[:, picks].T, labels, int(truth.max()) + 1, ForestParams(trees=50))
    return forest.predict(features)[1]


def ways(enhancer: Enhancer) -> dict[str, Runner]:
    """All ways to run an enhancer's network here."""
    network, card = enhancer.model.network, enhancer.card
    sigmoid = card.sigmoid_outside
    found: dict[str, Runner] = {}
    for entry in card.weights:
        if entry.format == "onnx":
            path = card.folder / entry.source
            found["onnxruntime, float32"] = OnnxRunner(path, sigmoid=sigmoid, threads=THREADS)
    if has_bfloat16():
        found["torch, bfloat16"] = TorchRunner(network, sigmoid=sigmoid, dtype=torch.bfloat16)
    found["torch, float32"] = TorchRunner(network, sigmoid=sigmoid)
    return found


def timed(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: timing.seconds(work)


def rows(name: str, maps: dict[str, np.ndarray], rounds: int) -> list[str]:
    """Return one enhancer's lines: times on the first map, differences over all."""
    enhancer = Enhancer.open(name)
    eager = TorchRunner(enhancer.model.network, sigmoid=enhancer.card.sigmoid_outside, fast=False)
    variants = {
        way: Enhancer(replace(enhancer.model, runner=runner))
        for way, runner in ways(enhancer).items()
    }
    reference = Enhancer(replace(enhancer.model, runner=eager))
    apart = dict.fromkeys(["chosen", *variants], 0.0)
    for map_ in maps.values():
        expected = reference.enhance(map_)
        for way, variant in {"chosen": enhancer, **variants}.items():
            apart[way] = max(apart[way], float(np.abs(variant.enhance(map_) - expected).max()))
    first = next(iter(maps.values()))
    batch = first[np.newaxis, np.newaxis]
    contestants = {
        "plain": timed(lambda: eager(batch)),
        "chosen": timed(lambda: enhancer.enhance(first)),
    }
    for way, variant in variants.items():
        contestants[way] = timed(lambda variant=variant: variant.enhance(first))
    times = timing.medians(contestants, rounds)
    plain, config = times.pop("plain"), enhancer.model.network.config
    bar = BAR if has_bfloat16() or "onnxruntime, float32" in variants else BAR_WITHOUT
    size = f"{config['width']} wide, {config['depth']} deep"
    lines = []
    for way, time in times.items():
        ratio = time / plain
        chosen = way == "chosen"
        title = f"**chosen: {enhancer.model.runner.name}**" if chosen else way
        met = "met" if ratio <= bar and apart[way] <= LARGEST_DIFFERENCE else "**missed**"
        lines.append(
            f"| {name} ({size}) | {title} | {1000 * time:.0f} | {1000 * plain:.0f} | {ratio:.2f} "
            f"| {apart[way]:.1g} | {f'{bar}, {LARGEST_DIFFERENCE}' if chosen else ''} "
            f"| {met if chosen else ''} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "enhancer_speed.md")
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    maps = {
        name: forest_map(image, truth) for name, (image, truth) in timing.images(asked.size).items()
    }
    bfloat16 = "with" if has_bfloat16() else "without"
    text = [
        "# Enhancers",
        "",
        f"`python benchmarks/enhancer_speed.py`; {timing.where('torch', 'onnxruntime', 'numpy')}, "
        f"{bfloat16} native bfloat16. {THREADS} threads. Medians of {asked.rounds} interleaved "
        f"rounds on a forest's map of {asked.size} x {asked.size} pixels ({next(iter(maps))}); "
        "plain is the bare network in torch's eager float32, without the border that the enhancer "
        f"adds. Largest difference of any pixel over {len(maps)} maps ({', '.join(maps)}).",
        "",
        "| enhancer | way | ms | plain, ms | ratio | difference | bar | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in list_bundled():
        text += rows(name, maps, asked.rounds)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
