"""Measure how two single-threaded workers compare with one, on many images.

Images of 1024 x 1024, cut from real ones, go through a forest and the bundled nuclei enhancer with
`napari-cellda predict --workers N`, with one thread for each worker. Timed is from when every
worker has done its first image until the last one is done, so that the start of the processes,
some seconds once, is told apart; and, in a second column, the whole command. The runs take turns.

    python benchmarks/batch.py [--images 200] [--rounds 1]

The table goes to benchmarks/results/batch.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

import memory
import timing
from napari_cellda.core.batch_record import FOLDER
from napari_cellda.core.threads import LIBRARIES, THREADS_VARIABLE

SIZE = 1024
BAR = 1.7


def write_images(folder: Path, count: int) -> None:
    """Write different images: one real field, turned, mirrored and shifted."""
    folder.mkdir()
    field, _ = memory.field(SIZE)
    for i in range(count):
        turned = np.rot90(field, i % 4)
        mirrored = turned[::-1] if i // 4 % 2 else turned
        tifffile.imwrite(folder / f"image_{i:03d}.tif", np.roll(mirrored, 37 * i, axis=1))


def run(project: Path, images: Path, output: Path, workers: int) -> tuple[float, float]:
    """Return images per second once all workers are at work, and of the whole command."""
    command = [sys.executable, "-m", "napari_cellda.cli", "predict", project, images, "-o", output]
    threads = dict.fromkeys((THREADS_VARIABLE, *LIBRARIES), "1")
    started = time.time()
    subprocess.run(
        [*map(str, command), "--workers", str(workers), "--overwrite"],
        env=os.environ | threads,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    taken = time.time() - started
    ends = sorted(path.stat().st_mtime for path in (output / FOLDER).iterdir())
    # By then every worker has started and done about one image.
    steady = (len(ends) - workers) / (ends[-1] - ends[workers - 1])
    return steady, len(ends) / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "batch.md")
    asked = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = memory.save_project(folder)
        write_images(folder / "images", asked.images)
        for number in range(asked.rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                found[workers].append(
                    run(project, folder / "images", folder / f"out_{workers}", workers)
                )
        same = all(
            path.read_bytes() == (folder / "out_2" / path.name).read_bytes()
            for path in (folder / "out_1").glob("*.tif")
        )
    text = report(found, asked.images, asked.rounds, same)
    asked.output.write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


def report(
    found: dict[int, list[tuple[float, float]]], images: int, rounds: int, same: bool
) -> list[str]:
    median = {
        workers: [statistics.median(column) for column in zip(*runs, strict=True)]
        for workers, runs in found.items()
    }
    lines = [
        "# Batch",
        "",
        f"`python benchmarks/batch.py`; {timing.where('numpy', 'onnxruntime')}. {images} images of "
        f"{SIZE} x {SIZE} through a forest of 100 trees on 49 features and the enhancer nuclei, to "
        f"TIFF; median of {rounds} round(s). Load of the machine at the end: "
        f"{os.getloadavg()[0]:.1f} running processes. Files of one and two workers: "
        f"{'equal, byte for byte' if same else '**different**'}.",
        "",
        "| workers, one thread each | images/s | with their start | ratio to one | bar | |",
        "|--:|--:|--:|--:|--:|---|",
    ]
    for workers, (steady, whole) in median.items():
        ratio = steady / median[1][0]
        held = "" if workers == 1 else ("held" if ratio >= BAR else "**missed**")
        bar = "" if workers == 1 else f"{BAR}"
        lines.append(f"| {workers} | {steady:.3f} | {whole:.3f} | {ratio:.2f} | {bar} | {held} |")
    return lines


if __name__ == "__main__":
    main()
