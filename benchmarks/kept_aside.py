"""Try settings without the test images: score them on target train images that were kept aside.

    python benchmarks/kept_aside.py PAIR CELL [--set KEY=VALUE ...] [--seed N]

The same runs and scores as in `adaptation.py`, but every sixth of the target's train images is
taken out of the training and scored instead of the test images. This is how settings are chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from adaptation import CONTESTS, WORK, learn, paint, score
from pairs import CACHE, Pair, pair


def without_test_images(whole: Pair) -> Pair:
    """Return a pair whose test images are a sixth of the target train images of `whole`."""
    folder = CACHE.parent / "kept aside" / whole.name
    if folder.is_dir():
        return Pair(whole.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent))
    images = sorted((whole.folder / "target" / "images").iterdir())
    aside = {path.stem for path in images[2::6]}
    for kind in (whole.folder / "target").iterdir():
        for path in kind.iterdir():
            part = making / ("test" if path.stem in aside else "target") / kind.name
            part.mkdir(parents=True, exist_ok=True)
            (part / path.name).symlink_to(path.resolve())
    if source := whole.part("source"):
        (making / "source").symlink_to(source.resolve())
    if table := whole.image_labels:
        head, *rows = table.read_text().splitlines()
        kept = [row for row in rows if row.split(",")[0] not in aside]
        (making / table.name).write_text("\n".join([head, *kept]) + "\n")
    with suppress(OSError):  # another process was quicker
        making.rename(folder)
    shutil.rmtree(making, ignore_errors=True)
    return Pair(whole.name, folder)


def main() -> None:
    """Train one cell of the table, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", choices=[contest.pair for contest in CONTESTS])
    parser.add_argument("cell")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    contest = next(contest for contest in CONTESTS if contest.pair == options.pair)
    data = without_test_images(pair(options.pair))
    folder = WORK.parent / "kept aside runs" / options.pair
    if options.cell == "pseudo-label":
        paint("enhanced", contest, data, options.seed, _made(folder / f"enhanced {options.seed}"))
    run = folder / " ".join([options.cell, *options.set, str(options.seed)])
    if run.is_dir():
        print(f"Going on with what is in {run}; delete it to train with settings as they are now.")
    _made(run)
    changes = [f"{options.cell}:{setting}" for setting in options.set]
    scores = score(learn(options.cell, contest, data, options.seed, run, changes), contest, data)
    print(options.pair, options.cell, *options.set, json.dumps(scores))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
