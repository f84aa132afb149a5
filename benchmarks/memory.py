"""Measure memory and time of `predict` on OME-Zarr images from 2k to 16k pixels wide.

A forest and the bundled nuclei enhancer, saved as a project, run on fields made of a real image,
repeated; the results go to OME-Zarr. Each size is a fresh `napari-cellda predict` as a user would
start it. Memory is the largest resident set of the process and all its children, sampled twenty
times a second, and of the process by the kernel's own count, whichever is more; the pages of mapped
files are in it.

    python benchmarks/memory.py [--sizes 2048 4096 8192 16384] [--workdir DIR]

The table goes to benchmarks/results/memory.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

import timing
from napari_cellda.core.batch import ClassifyJob, classify_batch, insist
from napari_cellda.core.events import run_quietly
from napari_cellda.core.export import open_writer

BAR_MIB = 2048
BAR_SLOPE = 1.25
"""How much longer a pixel may take in the largest image than in the smallest, start-up apart."""


def field(size: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Return a real image as uint8, mirrored to (size, size), and the classes of a part of it."""
    image, truth = timing.tissue()
    low, high = np.percentile(image, [0.1, 99.9])
    bytes_ = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return timing.enlarge(bytes_, size), truth


def save_project(folder: Path) -> Path:
    """Train a forest on lines through the classes of one field; return the project."""
    image, truth = field()
    strokes = np.zeros(image.shape, np.uint8)
    strokes[40 : truth.shape[0] : 60, : truth.shape[1]] = truth[40::60].clip(max=1) + 1
    tifffile.imwrite(folder / "field.tif", image)
    tifffile.imwrite(folder / "field_strokes.tif", strokes)
    job = ClassifyJob(enhancer="nuclei", save=folder / "field.cellda")
    files = [folder / "field.tif"], [folder / "field_strokes.tif"]
    run_quietly(insist(classify_batch(*files, folder / "out", job)))
    return folder / "field.cellda"


def write_image(path: Path, size: int) -> None:
    """Write an OME-Zarr of (size, size) pixels, tile by tile."""
    tile, _ = field()
    with open_writer(path, (size, size), "yx", np.uint8, file_format="ome-zarr") as writer:
        for y in range(0, size, len(tile)):
            for x in range(0, size, len(tile)):
                part = tile[: size - y, : size - x]
                writer.write((slice(y, y + len(part)), slice(x, x + part.shape[1])), part)


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and all its children."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measure(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, processor seconds and the peak of its resident bytes."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    process, peak = psutil.Process(child.pid), 0
    while True:
        done, status, usage = os.wait4(child.pid, os.WNOHANG)
        if done:
            child.returncode = os.waitstatus_to_exitcode(status)
            break
        try:
            peak = max(peak, resident(process))
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    worked = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started, worked, max(peak, usage.ru_maxrss * 1024)


def rows(sizes: list[int], folder: Path, options: list[str]) -> list[str]:
    project = save_project(folder)
    lines, found = [], []
    for size in sizes:
        image = folder / f"image_{size}.zarr"
        write_image(image, size)
        command = [sys.executable, "-m", "napari_cellda.cli", "predict", str(project), str(image)]
        command += ["--format", "ome-zarr", "-o", str(folder / f"out_{size}"), *options]
        taken, worked, peak = measure(command)
        found.append((size**2 / 1e6, worked))
        slope = ""
        if len(found) > 1:
            (a, b), (c, d) = found[-2:]
            slope = f"{(d - b) / (c - a):.2f}"
        mib = peak / 2**20
        held = "held" if mib < BAR_MIB else "**missed**"
        lines.append(f"| {size} | {taken:.0f} | {worked:.0f} | {slope} | {mib:.0f} | {held} |")
        print(lines[-1], flush=True)
        shutil.rmtree(image)
        shutil.rmtree(folder / f"out_{size}")
    if len(found) > 2:
        ratio = growth(found)
        held = "held" if ratio <= BAR_SLOPE else "**missed**"
        lines += [
            "",
            "Processor seconds per further megapixel, last step to first: "
            f"{ratio:.2f} (bar {BAR_SLOPE}): {held}.",
        ]
    return lines


def growth(found: list[tuple[float, float]]) -> float:
    """Return the slope of the last step of (megapixels, seconds) over that of the first."""
    (a, b), (c, d), *_ = found
    *_, (e, f), (g, h) = found
    return ((h - f) / (g - e)) / ((d - b) / (c - a))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--workdir", type=Path, help="Where the images are made; None: temporary.")
    parser.add_argument("-o", "--output", type=Path, default=timing.RESULTS / "memory.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.workdir) as folder:
        lines = rows(asked.sizes, Path(folder), [])
    text = [
        "# Memory",
        "",
        f"`python benchmarks/memory.py`; {timing.where('numpy', 'onnxruntime', 'zarr')}. "
        "`predict` with a forest of 100 trees on 49 features and the bundled enhancer nuclei; "
        "OME-Zarr (uint8) in, OME-Zarr (probability, forest and mask, with their pyramids) out. "
        f"Bar: {BAR_MIB} MiB resident, children and mapped files included. "
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} running processes.",
        "",
        "| pixels wide | s | processor s | processor s per further megapixel | peak, MiB | |",
        "|--:|--:|--:|--:|--:|---|",
        *lines,
    ]
    asked.output.write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
