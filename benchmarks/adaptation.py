"""Measure whether adapting helps: every method on its pairs of real images, against both bounds.

    python benchmarks/adaptation.py [--pairs NAME ...] [--seeds N] [--set METHOD:KEY=VALUE ...]

Each cell of the table is a run that anyone can type: `adapt`, then `predict` on the target's test
images, then `evaluate`. Lower bound (source-only), upper bound (target-only), forest and enhanced
map are shared by the methods of a pair. Finished cells are kept, so a stopped benchmark goes on
where it was; seed 0 of all pairs comes first, and cells that are missing are named in the table.
Rows that another machine wrote stay until as many seeds are done here.
Test masks are for scoring only: every checkpoint is the one that its method chose without them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
import tifffile

from napari_cellda.core.annotator import random_strokes
from napari_cellda.core.images.readers import read_labels
from napari_cellda.core.jobs import Run
from page import as_row, read_rows
from pairs import CACHE, Pair, pair
from timing import DATA, RESULTS, where

if TYPE_CHECKING:
    from pathlib import Path

WORK = CACHE.parent / "adaptation"
OUR = (sys.executable, "-m", "napari_cellda.cli")
TABLE = RESULTS / "adaptation.md"
STROKES = 8
"""Per class, on each of two target train images."""
LABELLED_SHARE = 0.25
"""Share of the target train images whose masks CellSegSSDA gets."""


@dataclass(frozen=True)
class Contest:
    """The methods that are tried on one pair, beside the bounds."""

    pair: str
    cells: tuple[str, ...]
    score: str = "dice"
    enhancer: str = ""
    """Whose maps are the pseudo-labels; "" for pairs without."""
    diameter: float | None = None
    settings: tuple[str, ...] = ()
    """KEY=VALUE for every method of this pair that knows the key."""


BOUNDS = ("source-only", "target-only")
MAPS = ("forest", "enhanced")
CONTESTS = (
    Contest("vnc-isbi", (*BOUNDS, *MAPS, "pseudo-label"), enhancer="membranes"),
    Contest(
        "fluo-tissue",
        (*BOUNDS, *MAPS, "pseudo-label", "cellseguda", "cellsegssda", "culpico", "culpico alone"),
        enhancer="nuclei",
    ),
    Contest("tissue-fluo", (*BOUNDS, "cellseguda", "cellsegssda", "culpico", "culpico alone")),
    Contest("usiigaci-livecell", (*BOUNDS, "culpico", "culpico alone")),
    Contest("livecell-usiigaci", (*BOUNDS, "culpico", "culpico alone")),
    Contest("organelles", (*BOUNDS, "stylefilter", "stylefilter labels")),
    Contest("fluo-points", ("cks-masks", "cks", "cks no prior"), "ap50", diameter=20),
    Contest("usiigaci-points", ("cks-masks", "cks"), "ap50", diameter=60),
)
METHOD = {
    "source-only": "supervised",
    "target-only": "supervised",
    "stylefilter labels": "stylefilter",
    "cks no prior": "cks",
    "culpico alone": "culpico",
}
"""Of a cell whose name is not its method's."""
FROM_SOURCE = ("supervised", "culpico", "cellseguda", "cellsegssda", "stylefilter")
EXTRA = {"cks no prior": ("prior=off",), "culpico alone": ("steps=800", "warmup=800")}
"""Settings of a cell. culpico alone: the same networks and loss, which never exchange anything."""
CLASSES = {"organelles": "membrane,mitochondria,other"}


def inputs(cell: str, contest: Contest, data: Pair, folder: Path) -> list[str]:
    """Return the options that give a cell what it may see."""
    target = data.folder / "target"
    words = ["--target-images", target / "images"]
    source = ["--source-images", data.folder / "source" / "images"]
    source += ["--source-masks", data.folder / "source" / "masks"]
    if METHOD.get(cell, cell) in FROM_SOURCE and cell != "target-only":
        words += source
    if cell in ("target-only", "cks-masks"):
        words += ["--target-masks", target / "masks"]
    if cell == "cellsegssda":
        words += ["--target-masks", some_masks(target / "masks", folder / "some masks")]
    if cell == "stylefilter labels":
        words += ["--image-labels", data.image_labels]
    if cell == "pseudo-label":
        words += [
            "--pseudo-labels",
            folder.parent / f"enhanced {folder.name.split()[-1]}" / "train",
        ]
    if cell.startswith("cks") and cell != "cks-masks":
        words += ["--points", points_of(target, folder / "points")]
    if contest.diameter and cell.startswith("cks"):
        words += ["--diameter", contest.diameter]
    if contest.pair in CLASSES:
        words += ["--classes", CLASSES[contest.pair]]
    return [str(word) for word in words]


def some_masks(masks: Path, folder: Path) -> Path:
    """Link every fourth mask."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(masks.iterdir())[:: round(1 / LABELLED_SHARE)]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder


def points_of(target: Path, folder: Path) -> Path:
    """Return the folder of points: the data set's own, or the centres of the true objects."""
    if (target / "points").is_dir():
        return target / "points"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (target / "masks").iterdir():
        labels = read_labels(path)
        ids = np.unique(labels[labels > 0])
        rows = [np.argwhere(labels == k).mean(axis=0) for k in ids]
        lines = ["row,col", *(f"{r:.2f},{c:.2f}" for r, c in rows)]
        (folder / f"{path.stem}.csv").write_text("\n".join(lines) + "\n")
    return folder


def call(words: list[str], log: Path) -> None:
    """Run one command; what it says goes to a file beside its results."""
    with log.open("a") as out:
        out.write(" ".join(map(str, words)) + "\n")
        out.flush()
        done = subprocess.run([*OUR, *map(str, words)], stdout=out, stderr=out, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}; see {log}")


def do_cell(cell: str, contest: Contest, seed: int, changes: list[str]) -> dict[str, float]:
    """Train, predict and score one cell; what is there already is not done again."""
    data = pair(contest.pair)
    folder = WORK / contest.pair / f"{cell} {seed}"
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "scores.json"
    if result.exists():
        return json.loads(result.read_text())
    started = time.monotonic()
    if cell in MAPS:
        predicted = paint(cell, contest, data, seed, folder)
    else:
        predicted = learn(cell, contest, data, seed, folder, changes)
    scores = score(predicted, contest, data)
    scores["seconds"] = time.monotonic() - started
    result.write_text(json.dumps(scores))
    return scores


def learn(
    cell: str, contest: Contest, data: Pair, seed: int, folder: Path, changes: list[str]
) -> Path:
    """Train in a folder, and predict the test images; return where the predictions are."""
    train(cell, contest, data, seed, folder, changes)
    # As in the paper; the limit that a training chooses is for the F1 of places.
    more = ["--instances", "--least-score", "0.25"] if contest.score == "ap50" else []
    images = data.folder / "test" / "images"
    call(["predict", folder / "run", images, *more, "-o", folder / "test"], folder / "log.txt")
    return folder / "test"


def train(
    cell: str, contest: Contest, data: Pair, seed: int, folder: Path, changes: list[str]
) -> None:
    run, log = folder / "run", folder / "log.txt"
    if (run / "run.yaml").exists():
        if Run(run).state != "done":
            call(["adapt", "--resume", "-o", run], log)
        return
    method = METHOD.get(cell, cell)
    wanted = [*contest.settings, *EXTRA.get(cell, ())]
    wanted += [c.split(":", 1)[1] for c in changes if c.split(":", 1)[0] in (cell, method)]
    settings = [word for setting in wanted for word in ("--set", setting)]
    words = ["adapt", method, *inputs(cell, contest, data, folder)]
    call([*words, "--seed", seed, *settings, "-o", run], log)


def paint(cell: str, contest: Contest, data: Pair, seed: int, folder: Path) -> Path:
    """Paint on two target train images and classify; the enhanced maps are pseudo-labels, too."""
    target, log = data.folder / "target", folder / "log.txt"
    strokes = folder / "strokes"
    strokes.mkdir(exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    painted = 0
    for path in rng.permutation(sorted((target / "masks").iterdir())):
        labels = read_labels(path)
        truth = (labels > (127 if labels.max() == 255 else 0)).astype(np.int8)
        if painted < 2 and 0.01 < truth.mean() < 0.99:
            made = random_strokes(truth, STROKES, rng=rng)
            tifffile.imwrite(strokes / f"{path.stem}_strokes.tif", made)
            painted += 1
    enhancer = ["--enhancer", contest.enhancer] if cell == "enhanced" else []
    project = folder / "project.cellda"
    words = ["classify", target / "images", "--strokes", strokes, "--seed", seed, *enhancer]
    call([*words, "--save", project, "-o", folder / "train"], log)
    call(["predict", project, data.folder / "test" / "images", "-o", folder / "test"], log)
    return folder / "test"


def score(predicted: Path, contest: Contest, data: Pair) -> dict[str, float]:
    """Return the mean score over the test images, and how many there are."""
    from napari_cellda.cli import main

    kind = "instances" if contest.score == "ap50" else "semantic"
    truth = data.folder / "test" / "masks"
    is_class = contest.pair in CLASSES
    reference = "classes" if is_class else "instances" if has_instances(truth) else "binary"
    said = io.StringIO()
    words = ["evaluate", "--prediction", predicted, "--reference", truth, "--kind", kind]
    with redirect_stdout(said):
        code = main([str(word) for word in [*words, "--reference-type", reference]])
    if code:
        raise RuntimeError(f"{predicted} could not be evaluated")
    found = json.loads(said.getvalue())
    return {contest.score: found["mean"][contest.score], "images": len(found["images"])}


def has_instances(masks: Path) -> bool:
    labels = imageio.imread(sorted(masks.iterdir())[0])
    return len(np.unique(labels)) > 2


def table(seeds: int) -> str:
    """Return the whole table as Markdown, from the cells that are done."""
    rows = ["| pair | score | cell | mean | sd | seeds | against source-only | minutes |",
            "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    missing = []
    before = {(row["pair"], row["cell"]): row for row in read_rows(TABLE)}
    for contest in CONTESTS:
        bound: dict[int, float] = {}
        for cell in contest.cells:
            files = {s: WORK / contest.pair / f"{cell} {s}" / "scores.json" for s in range(seeds)}
            done = {s: json.loads(f.read_text()) for s, f in files.items() if f.exists()}
            values = {s: found[contest.score] for s, found in done.items()}
            known = before.get((contest.pair, cell), {"seeds": "0"})
            if len(done) < int(known["seeds"]):
                rows.append(as_row(known.values()))
                values = dict.fromkeys(range(int(known["seeds"])), float(known["mean"]))
            elif done:
                lower = values if cell == "source-only" else bound
                gains = [values[s] - lower[s] for s in values if s in lower]
                minutes = np.mean([found["seconds"] for found in done.values()]) / 60
                row = [contest.pair, contest.score, cell, f"{np.mean([*values.values()]):.3f}"]
                row += [f"{np.std([*values.values()]):.3f}", f"{len(values)}"]
                row += [f"{np.mean(gains):+.3f}" if gains else "", f"{minutes:.1f}"]
                rows.append(as_row(row))
            missing += [f"{contest.pair}: {cell}, seed {s}" for s in files if s not in values]
            if cell == "source-only":
                bound = values
    text = "\n".join(rows)
    return text + ("\n\nNot run: " + "; ".join(missing) + ".\n" if missing else "\n")


def write(seeds: int) -> None:
    words = where("torch", "numpy", "lightning-fabric")
    TABLE.write_text(
        "# Adaptation on real images\n\n"
        "`python benchmarks/adaptation.py`; cpu preset, checkpoints chosen without target truth, "
        "scores on all test images. Finished cells are kept: each is of this commit or an earlier "
        "one. A gain against source-only is over the seeds that both have. "
        "Minutes are the clock's, with whatever else the machine did."
        f"\n\n{words}\n\n{table(seeds)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", help="all of them when none is named")
    parser.add_argument("--cells", nargs="*", help="all of them when none is named")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="METHOD:KEY=VALUE")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"There is no folder of real images at {DATA}.")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for seed in range(options.seeds):
        for contest in CONTESTS:
            if options.pairs and contest.pair not in options.pairs:
                continue
            for cell in contest.cells:
                if options.cells and cell not in options.cells:
                    continue
                try:
                    scores = do_cell(cell, contest, seed, options.set)
                    print(contest.pair, cell, seed, scores, flush=True)
                except RuntimeError as error:
                    print(contest.pair, cell, seed, f"failed: {error}", flush=True)
                write(options.seeds)
    print(table(options.seeds))


if __name__ == "__main__":
    main()
