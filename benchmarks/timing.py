"""What the speed benchmarks share: interleaved rounds, real images, and where it all ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DATA = HERE.parents[1] / "shared" / "data"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(
    contestants: Mapping[str, Callable[[], float | dict[str, float]]], rounds: int
) -> dict[str, float]:
    """Run every contestant once to warm up, then in turns; each returns its time or several.

    The order turns around with every round, so that nobody always runs after the same other.
    """
    for run in contestants.values():
        run()
    found: dict[str, list[float]] = {}
    for i in range(rounds):
        for name in list(contestants)[:: 1 if i % 2 == 0 else -1]:
            times = contestants[name]()
            for part, value in (times if isinstance(times, dict) else {"": times}).items():
                found.setdefault(f"{name} {part}".strip(), []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def where(*packages: str) -> str:
    """Say on which commit and machine, and with which versions this runs."""
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "../src"], capture_output=True, text=True, check=False
    )
    here = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"commit {commit.stdout.strip() or 'unknown'}{' and changes' if changed.stdout else ''}; "
        f"{cpu()}, {len(here)} cores; Python {platform.python_version()}, {versions}"
    )


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(
            line.split(":", 1)
            for line in info.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        wide = next((w for w in ("avx512bw", "avx2") if w in fields.get("flags", "")), "no AVX2")
        name = fields.get("model name", platform.machine())
        return f"{name} (family {fields.get('cpu family')}, {wide})"
    return platform.processor() or platform.machine()


# -- real images ---------------------------------------------------------------------------------


def grey(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    return image if image.ndim == 2 else image @ np.float32([0.2126, 0.7152, 0.0722])


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Cut to (size, size), mirrored where the image ends before."""
    missing = [(0, max(0, size - n)) for n in image.shape]
    return np.pad(image, missing, mode="symmetric")[:size, :size]


def tissue() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's immunohistochemistry field: stroma, blue nuclei, brown stain.

    The classes come from the colours, the features see the grey value only.
    """
    from scipy.ndimage import gaussian_filter
    from skimage import color, data, filters

    image = data.immunohistochemistry()
    hed = color.rgb2hed(image)
    nuclei, stain = (gaussian_filter(hed[..., c], 1.5) for c in (0, 2))
    truth = np.where(nuclei > filters.threshold_otsu(nuclei), 1, 0)
    truth[stain > filters.threshold_otsu(stain)] = 2
    return grey(image), truth


def retina() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's retina: background and vessels, by the contrast of the green channel."""
    from scipy.ndimage import gaussian_filter
    from skimage import data

    green = data.retina()[..., 1].astype(np.float32)
    contrast = gaussian_filter(green, 12) - gaussian_filter(green, 1.5)
    return green, (contrast > 6).astype(int)


def electron(sections: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Sections of a fly's nerve cord: cytoplasm, membranes, mitochondria, by hand; see DATA."""
    import imageio.v3 as imageio

    folder = DATA / "vnc_sstem"
    images, truths = [], []
    for i in range(sections):
        mitochondria, membranes = (
            imageio.imread(next((folder / "masks" / kind).glob(f"{i:02d}*"))) > 0
            for kind in ("mito", "membrane")
        )
        images.append(grey(imageio.imread(folder / "images" / f"{i:02d}.png")))
        truths.append(np.where(mitochondria, 2, np.where(membranes, 1, 0)))
    side = int(np.sqrt(sections))
    tiled = [
        np.block([a[i * side : (i + 1) * side] for i in range(side)]) for a in (images, truths)
    ]
    return tiled[0], tiled[1]


def phase() -> tuple[np.ndarray, np.ndarray]:
    """Cells in phase contrast: background and cells, by hand; see DATA."""
    import imageio.v3 as imageio

    folder = DATA / "usiigaci_t98g_phase"
    image = sorted((folder / "images").iterdir())[0]
    mask = next((folder / "masks").glob(f"{image.stem}*"))
    return grey(imageio.imread(image)), (imageio.imread(mask) > 0).astype(int)


def images(size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load all images that are there: name to (Y, X) grey values and the classes of a part."""
    found = {"tissue stain": tissue(), "retina": retina()}
    if (DATA / "vnc_sstem").is_dir():
        found["electron microscopy"] = electron(1 if size <= 1024 else 4)
    if (DATA / "usiigaci_t98g_phase").is_dir():
        found["phase contrast"] = phase()
    return {
        name: (enlarge(image, size), truth[:size, :size]) for name, (image, truth) in found.items()
    }
