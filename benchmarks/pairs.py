"""Source and target folders for the adaptation benchmarks, from the real images in DATA.

    python benchmarks/pairs.py [NAME ...]

Every pair is a folder of its own in a cache outside the project, laid out as the command line wants
its inputs: ``source/``, ``target/`` (train images) and ``test/``, each with ``images/`` and
``masks/``. Target train masks are there for the upper bound and for methods that may see a part of
them; test masks are for scoring only. Splits follow the README of DATA. Images are grey when
source and target differ in their colours.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
from scipy import ndimage

from timing import DATA, grey

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = Path.home() / ".cache" / "napari-cellda" / "pairs"
ORGANELLES = ("membrane", "mitochondria", "other")
"""Foreground classes of the multi-class pair; cytoplasm is the background."""
TILE = 128
"""At 256 px only a fifth of the tiles lack a class, too few to try the filter on."""
GAMMA, BLUR, NOISE = 2.5, 2.0, 0.1
"""The change of the multi-class pair's target: contrast, pixels, share of the grey range."""


@dataclass(frozen=True)
class Pair:
    """Where the parts of a pair lie; what it does not have is None."""

    name: str
    folder: Path

    def part(self, *path: str) -> Path | None:
        """Return one part, such as ``part("source", "masks")``."""
        found = self.folder.joinpath(*path)
        return found if found.exists() else None

    @property
    def image_labels(self) -> Path | None:
        """The table of the classes in every target image."""
        return self.part("image_labels.csv")


@dataclass(frozen=True)
class Data:
    """One folder of DATA: where its masks are, and which of its files are for testing."""

    folder: str
    is_test: Callable[[int, str], bool]
    """Of a file's place in the sorted list, and its name."""
    masks: str = "masks"


def _fourth(index: int, name: str) -> bool:
    return index % 4 == 3


def _late(index: int, name: str) -> bool:
    return index >= 15


def _named(index: int, name: str) -> bool:
    return name.startswith("test_")


SETS = {
    "fluo": Data("dsb2018_fluo", _named),
    "tissue": Data("dsb2018_purple_tissue", _fourth),
    "vnc mito": Data("vnc_sstem", _late, "masks/mito"),
    "vnc membrane": Data("vnc_sstem", _late, "masks/membrane"),
    "epfl 1": Data("epfl_hippo_mito_slices", lambda i, _: i == 1),
    "epfl 2": Data("epfl_hippo_mito_slices", lambda i, _: i == 0),
    "isbi": Data("isbi2012_membrane", _fourth),
    "usiigaci": Data("usiigaci_t98g_phase", _fourth),
    "livecell": Data("livecell_mini", _fourth),
}
PAIRS: dict[str, tuple[str | None, str]] = {
    "fluo-tissue": ("fluo", "tissue"),
    "tissue-fluo": ("tissue", "fluo"),
    "vnc-epfl-1": ("vnc mito", "epfl 1"),
    "vnc-epfl-2": ("vnc mito", "epfl 2"),
    "vnc-isbi": ("vnc membrane", "isbi"),
    "usiigaci-livecell": ("usiigaci", "livecell"),
    "livecell-usiigaci": ("livecell", "usiigaci"),
    "fluo-points": (None, "fluo"),
    "usiigaci-points": (None, "usiigaci"),
    "livecell-points": (None, "livecell"),
}
"""Source and target; "organelles" is made by `organelles`."""


def pair(name: str, cache: Path = CACHE, data: Path = DATA) -> Pair:
    """Return a pair, made on first use.

    Parameters
    ----------
    name : str
        Of `PAIRS`, or "organelles".
    cache : Path
        What is there already is not made again.
    data : Path
        The folder of real images.
    """
    folder = cache / name
    if not folder.is_dir():
        making = cache / f".{name}"
        shutil.rmtree(making, ignore_errors=True)
        if name == "organelles":
            organelles(making, data)
        else:
            _link(making, name, data)
        making.rename(folder)
    return Pair(name, folder)


def _link(folder: Path, name: str, data: Path) -> None:
    source, target = PAIRS[name]
    parts = [(SETS[target], "target", False), (SETS[target], "test", True)]
    parts += [(SETS[source], "source", False)] if source else []
    colours = {_is_colour(data / of.folder) for of, _, _ in parts}
    for of, part, test in parts:
        files = sorted((data / of.folder / "images").iterdir())
        for index, path in enumerate(files):
            if of.is_test(index, path.name) == test:
                _put(path, folder / part / "images", as_grey=len(colours) > 1)
                for more in (of.masks, "points"):
                    for companion in (data / of.folder / more).glob(f"{path.stem}.*"):
                        _put(companion, folder / part / more.split("/")[0])


def _is_colour(folder: Path) -> bool:
    return imageio.imread(min((folder / "images").iterdir())).ndim == 3


def _put(path: Path, folder: Path, *, as_grey: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if as_grey:
        imageio.imwrite(
            folder / f"{path.stem}.png", np.round(grey(imageio.imread(path))).astype(np.uint8)
        )
    else:
        (folder / path.name).symlink_to(path.resolve())


# -- several organelles -----------------------------------------------------------------------


def organelles(folder: Path, data: Path = DATA) -> None:
    """Make the multi-class pair: tiles of sections, each with image-level labels of its own.

    Source: sections 00-09; target: 10-14, test: 15-19, both under the same change of contrast,
    blur and noise.
    """
    table = []
    for section in range(20):
        part = "source" if section < 10 else "target" if section < 15 else "test"
        image = imageio.imread(data / "vnc_sstem" / "images" / f"{section:02d}.png")
        classes = merged(
            imageio.imread(data / "vnc_sstem" / "masks" / "labels9" / f"{section:02d}.png")
        )
        if part != "source":
            image = changed(image, seed=section)
        for name, tile, truth in _tiles(section, image, classes):
            for kind, array in (("images", tile), ("masks", truth)):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
                imageio.imwrite(folder / part / kind / f"{name}.png", array)
            if part == "target":
                table.append([name, *(int((truth == k).any()) for k in (1, 2, 3))])
    with (folder / "image_labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["image", *ORGANELLES], *table])


def merged(labels9: np.ndarray) -> np.ndarray:
    """Merge the nine grey values to cytoplasm 0, membrane 1, mitochondria 2, other 3."""
    classes = np.zeros(labels9.shape, np.uint8)
    classes[labels9 <= 128] = 1
    classes[labels9 == 191] = 2
    classes[(labels9 == 159) | (labels9 == 223)] = 3
    return classes


def changed(image: np.ndarray, seed: int) -> np.ndarray:
    """Change a section's contrast, blur it and add noise."""
    values = (grey(image) / 255) ** GAMMA
    values = ndimage.gaussian_filter(values, BLUR)
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    values += np.random.default_rng([seed, 11]).normal(0, NOISE, values.shape)
    return np.round(np.clip(0.2 + 0.6 * values, 0, 1) * 255).astype(np.uint8)


def _tiles(
    section: int, image: np.ndarray, classes: np.ndarray
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    cut = []
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            here = np.s_[top : top + TILE, left : left + TILE]
            name = f"s{section:02d}_{top // TILE}_{left // TILE}"
            cut.append((name, image[here], classes[here]))
    return cut


def lacking(table: Path) -> float:
    """Return the share of images that lack a class, by their table."""
    with table.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return float(np.mean(["0" in row[1:] for row in rows]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="all of them when none is named")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for wanted in options.names or [*PAIRS, "organelles"]:
        made = pair(wanted, options.cache, options.data)
        if made.image_labels:
            print(f"{wanted}: {lacking(made.image_labels):.0%} of the tiles lack a class")
        else:
            print(f"{wanted}: {made.folder}")
