"""How long the figures of one large image take, next to scikit-image's and scipy's part of them.

    python benchmarks/metrics.py [--size 2048] [--objects 2000] [--rounds 7] [--out FILE.md]

Overlap figures: IoU, Dice, precision, recall, F1 at IoU, instance Dice, AP50, AP75 and mAP. The
rivals do only the first step of such figures: one contingency table, two distance transforms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.metrics import contingency_table

from napari_cellda.core.compare import (
    ObjectMatches,
    asd,
    hd95,
    instance_overlay,
    pixel_overlay,
    pixel_scores,
    surface_distances,
    variation_of_information,
)
from napari_cellda.core.compare.scoring import object_figures
from timing import RESULTS, medians, seconds, where

Labels = np.ndarray


def field(size: int, n_objects: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Draw round cells that touch, and a prediction with shifted, lost, cut and joined ones."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n_objects)))
    pitch = size / side
    y, x = np.mgrid[:size, :size]

    def cells(shift: float) -> Labels:
        centres = (np.mgrid[:side, :side] + 0.5) * pitch
        centres = centres + rng.normal(0, shift, centres.shape)
        row, column = (np.minimum((a / pitch).astype(int), side - 1) for a in (y, x))
        dy, dx = y - centres[0][row, column], x - centres[1][row, column]
        labels = np.where(dy**2 + dx**2 < (0.49 * pitch) ** 2, row * side + column + 1, 0)
        return np.where(labels <= n_objects, labels, 0).astype(np.int32)

    truth, predicted = cells(1), cells(2)
    chance = rng.random(n_objects + 1)
    predicted[chance[predicted] < 0.05] = 0
    cut = (chance[predicted] > 0.95) & (x % pitch > pitch / 2)
    predicted[cut] += n_objects
    return predicted, truth


def contestants(predicted: Labels, truth: Labels) -> dict:
    predicted_mask, truth_mask = predicted > 0, truth > 0
    scores = {int(label): 1 / int(label) for label in np.unique(predicted) if label}
    matches = ObjectMatches.compute(predicted, truth)

    def overlap() -> None:
        pixel_scores(predicted_mask, truth_mask)
        object_figures([ObjectMatches.compute(predicted, truth)], scores)

    def surfaces() -> None:
        found = surface_distances(predicted_mask, truth_mask)
        hd95(found), asd(found)

    def table() -> None:
        contingency_table(truth, predicted)

    def transforms() -> None:
        distance_transform_edt(~predicted_mask)
        distance_transform_edt(~truth_mask)

    def everything() -> None:
        overlap()
        surfaces()

    def rivals() -> None:
        table()
        transforms()

    def timed(work) -> object:
        return lambda: seconds(work)

    return {
        "scikit-image's contingency table": timed(table),
        "overlap figures": timed(overlap),
        "that table and two scipy distance transforms": timed(rivals),
        "overlap figures, HD95 and ASD": timed(everything),
        "VI": timed(lambda: variation_of_information(predicted, truth)),
        "a new IoU threshold": timed(lambda: matches.at(0.6)),
        "overlay of objects at a new threshold": timed(lambda: instance_overlay(matches, 0.6)),
        "overlay of pixels": timed(lambda: pixel_overlay(predicted_mask, truth_mask)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "metrics.md")
    options = parser.parse_args()
    predicted, truth = field(options.size, options.objects)
    found = medians(contestants(predicted, truth), options.rounds)
    n_truth, n_predicted = (len(np.unique(labels)) - 1 for labels in (truth, predicted))
    bars = {
        "overlap figures": ("scikit-image's contingency table", 2.0),
        "overlap figures, HD95 and ASD": ("that table and two scipy distance transforms", 1.3),
    }
    lines = [
        "# Speed of the figures",
        "",
        f"{options.size} x {options.size} pixels, {n_truth} true and {n_predicted} predicted "
        f"objects; median of {options.rounds} rounds in turns; all of it runs in one thread.",
        "",
        where("numpy", "scipy", "scikit-image", "bioimage-cpp"),
        "",
        "| what | ms | of the rival above | bar |",
        "|---|---:|---:|---:|",
    ]
    for name, time in found.items():
        rival, bar = bars.get(name, ("", 0.0))
        ratio = f"{time / found[rival]:.2f} x | {bar:g} x" if rival else " | "
        lines.append(f"| {name} | {1e3 * time:.2f} | {ratio} |")
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
