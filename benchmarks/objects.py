"""Measure how long it takes to separate objects, next to scikit-image's watersheds.

2,000 touching blobs on 2048 x 2048 pixels, with a noisy foreground and a noisy boundary map, go
through both of our watersheds and through scikit-image's on the same maps, in turns; and membrane
maps of 1024 x 1024 through the multicut. What comes out is held against the blobs, so that nobody
is quick by doing less.

    python benchmarks/objects.py

The table goes to benchmarks/results/objects.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import find_boundaries, relabel_sequential, watershed

import timing
from napari_cellda.core.compare.matching import ObjectMatches
from napari_cellda.core.instances import InstanceParams, instances_from_maps
from napari_cellda.core.samples.shapes import cell_walls, scatter_blobs, smooth_noise

SIZE, OBJECTS, TRIES = 2048, 2000, 4200
MULTICUT_SIZE = 1024
WATERSHED_BAR, MULTICUT_BAR = 1.5, 5.0
PARAMS = InstanceParams()
LEAST_DISTANCE = 5
"""Between two peaks of scikit-image's distance watershed, in pixels; it found most blobs."""


# -- maps ----------------------------------------------------------------------------------------


def noisy(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur a mask and let it waver, as a network's map does."""
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.2)
    return np.clip(soft + 0.06 * smooth_noise(mask.shape, 2.0, rng), 0, 1).astype(np.float32)


def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the true labels of touching blobs, and their foreground and boundary maps."""
    rng = np.random.default_rng(0)
    truth = scatter_blobs((SIZE, SIZE), TRIES, (12, 19), (1.0, 1.6), 0.15, rng)
    truth[truth > OBJECTS] = 0
    rim = find_boundaries(truth, mode="inner")
    return truth, noisy(truth > 0, rng), noisy(ndimage.binary_dilation(rim), rng)


def membranes() -> dict[str, np.ndarray]:
    """Return membrane maps by title: generated cells, and real membranes if they are there."""
    rng = np.random.default_rng(1)
    shape = (MULTICUT_SIZE, MULTICUT_SIZE)
    _, distance = cell_walls(shape, 40, rng)
    maps = {"generated cells": noisy(distance < 3, rng)}
    if (timing.DATA / "vnc_sstem").is_dir():
        real = timing.enlarge(timing.electron()[1] == 1, MULTICUT_SIZE)
        maps["membranes of a fly's nerve cord"] = noisy(real, rng)
    return maps


# -- rivals --------------------------------------------------------------------------------------


def tidy(labels: np.ndarray) -> np.ndarray:
    found: np.ndarray = relabel_sequential(
        remove_small_objects(labels, max_size=PARAMS.min_size - 1)
    )[0]
    return found


def grown_by_scikit_image(foreground: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    seeds = label(foreground - boundary > PARAMS.threshold, connectivity=1)
    return tidy(watershed(boundary, seeds, mask=foreground > PARAMS.threshold))


def split_by_scikit_image(foreground: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    mask = foreground > PARAMS.threshold
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=LEAST_DISTANCE, labels=label(mask))
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return tidy(watershed(-distance, seeds, mask=mask))


def grown_by_us(foreground: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    return instances_from_maps(foreground, boundary, PARAMS, method="watershed")


def split_by_us(foreground: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    return instances_from_maps(foreground, None, PARAMS, method="distance")


WATERSHEDS = {
    "from the boundary map": (grown_by_us, grown_by_scikit_image),
    "of the distance": (split_by_us, split_by_scikit_image),
}


# -- tables --------------------------------------------------------------------------------------


def recovered(labels: np.ndarray, truth: np.ndarray) -> str:
    """Say how many objects there are, and how many of the true ones they cover by half."""
    return f"{int(labels.max())}, F1 {ObjectMatches.compute(labels, truth).at(0.5).f1:.2f}"


def watershed_rows(rounds: int) -> list[str]:
    truth, foreground, boundary = blobs()
    rows = []
    for title, (ours, theirs) in WATERSHEDS.items():
        found = timing.medians(
            {
                name: lambda run=run: timing.seconds(lambda: run(foreground, boundary))
                for name, run in (("ours", ours), ("theirs", theirs))
            },
            rounds,
        )
        ratio = found["ours"] / found["theirs"]
        rows.append(
            f"| {title} | {1000 * found['ours']:.0f} | {1000 * found['theirs']:.0f} | {ratio:.2f} "
            f"| {WATERSHED_BAR} | {'held' if ratio <= WATERSHED_BAR else '**missed**'} "
            f"| {recovered(ours(foreground, boundary), truth)} "
            f"| {recovered(theirs(foreground, boundary), truth)} |"
        )
    return [
        f"{truth.max()} blobs on {SIZE} x {SIZE} pixels; objects: how many, and F1 at an IoU of "
        "0.5 against the blobs.",
        "",
        "| watershed | ms | scikit-image's, ms | ratio | bar | | objects | scikit-image's |",
        "|---|--:|--:|--:|--:|---|---|---|",
        *rows,
    ]


def multicut_rows(rounds: int) -> list[str]:
    rows = []
    for title, boundary in membranes().items():
        run = lambda boundary=boundary: instances_from_maps(  # noqa: E731
            None, boundary, PARAMS, method="multicut"
        )
        seconds = timing.medians({"": lambda run=run: timing.seconds(run)}, rounds)[""]
        verdict = "held" if seconds < MULTICUT_BAR else "**missed**"
        rows.append(
            f"| {title} | {int(run().max())} | {seconds:.2f} | < {MULTICUT_BAR:.0f} | {verdict} |"
        )
    return [
        f"Multicut of membrane maps of {MULTICUT_SIZE} x {MULTICUT_SIZE} pixels:",
        "",
        "| map | objects | seconds | bar | |",
        "|---|--:|--:|--:|---|",
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "objects.md")
    asked = parser.parse_args()
    where = timing.where("numpy", "bioimage-cpp", "scikit-image", "scipy")
    tables = [*watershed_rows(asked.rounds), "", *multicut_rows(asked.rounds)]
    text = [
        "# Objects",
        "",
        f"`python benchmarks/objects.py`; {where}. Medians of {asked.rounds} interleaved rounds. "
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} running processes.",
        "",
        *tables,
    ]
    asked.output.write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
