"""Measure how long pixel features take, next to scikit-image's.

ilastik's 49 channels, as napari-cellda computes them, against the 28 channels of scikit-image's
multiscale_basic_features over the same range of scales (0.3 to 10 pixels, seven of them), in turns,
with as many threads.

    python benchmarks/features.py

The table goes to benchmarks/results/features.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from skimage.feature import multiscale_basic_features

import timing
from napari_cellda.core.features import FeatureSpec, compute_features

if TYPE_CHECKING:
    import numpy as np

THREADS = 2
BAR = 0.45
SETS = ("ilastik", "compact", "s2d")


def scikit_image(image: np.ndarray) -> np.ndarray:
    intensity = edges = texture = True
    # By position: the last one is named otherwise in older releases.
    return multiscale_basic_features(image, intensity, edges, texture, 0.3, 10, 7, THREADS)


def measure(image: np.ndarray, rounds: int) -> dict[str, float]:
    contestants = {"scikit-image": lambda: timing.seconds(lambda: scikit_image(image))}
    for name in SETS:
        spec = FeatureSpec(name=name)
        contestants[name] = lambda spec=spec: timing.seconds(
            lambda: compute_features(image[None], spec, threads=THREADS)
        )
    return timing.medians(contestants, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "features.md")
    asked = parser.parse_args()
    text = [
        "# Pixel features",
        "",
        "`python benchmarks/features.py`; "
        f"{timing.where('numpy', 'bioimage-cpp', 'scikit-image')}. {THREADS} threads. Medians of "
        f"{asked.rounds} interleaved rounds. The bar is for the set that painting uses.",
        "",
        "| image | set | channels | ms | scikit-image's 28, ms | ratio | bar | |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for size in asked.sizes:
        for title, (image, _) in timing.images(size).items():
            image = (image - image.mean()) / image.std()
            assert scikit_image(image[:64, :64]).shape[-1] == 28
            found = measure(image, asked.rounds)
            other = found["scikit-image"]
            for name in SETS:
                ratio = found[name] / other
                verdict = ("held" if ratio <= BAR else "MISSED") if name == "ilastik" else ""
                text.append(
                    f"| {title}, {size} x {size} | {name} | {FeatureSpec(name=name).count()} | "
                    f"{1000 * found[name]:.0f} | {1000 * other:.0f} | {ratio:.2f} | "
                    f"{BAR if verdict else ''} | {verdict} |"
                )
                print(text[-1], flush=True)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text("\n".join([*text, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
