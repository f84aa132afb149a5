"""Measure steps per second of training, against the plainest correct loop of the same networks.

    python benchmarks/training.py [--methods NAME ...] [--preset cpu] [--rounds N] [--steps N]

The rival is `plain_loops.py`: eager float32 and crops that lie in memory already; ours cuts, turns
and moves its crops, sets its learning rate and reads its losses. "without data" gives ours the same
crops again and again, to tell training from loading. Both begin with the same weights and crops,
and the script ends with an error if their first losses are not the same.

A table of all methods (a quarter of an hour on two cores that do nothing else) goes to
benchmarks/results/training.md, with another preset to training_PRESET.md; one of some methods is
printed only.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import plain_loops
from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.batches import made_ahead
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.loop import MemoryStore
from napari_cellda.methods import (
    _cks_trainer,
    cellseguda,
    culpico,
    find_method,
    pseudo_label,
    stylefilter,
    supervised,
)
from timing import RESULTS, medians, seconds, where

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.adaptation.method import MethodParams
    from napari_cellda.core.params import Preset

SIDE, PLANES = 512, 8
DIAMETER, SPACING = 28, 40
"""Of the round cells on a grid, in pixels: as large as CKS zooms cells to, and rather crowded."""
LIKE = 0.02
"""How far, in parts, the first losses may be apart: one of them was computed in bfloat16."""


def domain(seed: int) -> Domain:
    """Noise to train on: what is on the crops does not matter for the time."""
    rng = np.random.default_rng(seed)
    unit = Normalisation(offset=(0.0,), factor=(1.0,))
    points = np.mgrid[SPACING // 2 : SIDE : SPACING, SPACING // 2 : SIDE : SPACING]
    points = points.reshape(2, -1).T.astype(float)
    made = []
    for i in range(PLANES):
        pixels = rng.random((1, SIDE, SIDE), np.float32)
        p = rng.random((SIDE, SIDE)).astype(np.float32)
        made.append(
            Plane(
                f"{i}", pixels, unit, labels=discs(points), points=points,
                pseudo_map=np.stack([1 - p, p]),
            )
        )  # fmt: skip
    return Domain(tuple(made))


def discs(points: np.ndarray) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), np.int32)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for i, (row, column) in enumerate(points, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 < (DIAMETER / 2) ** 2] = i
    return labels


# -- the trainers ----------------------------------------------------------------------------------


def with_source(module: Any) -> Callable[[AdaptJob, Any], Any]:
    def trainer(job: AdaptJob, params: Any) -> Any:
        job = replace(job, source=job.target.foreground(), target=unlabelled(job.target))
        return module._Trainer(job, params)

    return trainer


def with_labels(job: AdaptJob, params: Any) -> Any:
    domain = job.target.foreground()
    return cellseguda._Trainer(replace(job, source=domain, target=domain), params)


def with_maps(job: AdaptJob, params: Any) -> Any:
    return pseudo_label._Trainer(job, params, job.target)


def adapting(job: AdaptJob, params: Any) -> Any:
    trainer = with_source(stylefilter)(job, params)
    with suppress(StopIteration):
        drawing = trainer.draw_target()
        while True:
            next(drawing)
    return trainer


def with_points(job: AdaptJob, params: Any) -> Any:
    target = unmapped(unlabelled(job.target))
    return _cks_trainer.Trainer(job, params, target, DIAMETER, with_masks=False)


def with_masks(job: AdaptJob, params: Any) -> Any:
    return _cks_trainer.Trainer(job, params, unmapped(job.target), DIAMETER, with_masks=True)


def unlabelled(domain: Domain) -> Domain:
    return Domain(tuple(replace(plane, labels=None) for plane in domain.planes))


def unmapped(domain: Domain) -> Domain:
    return Domain(tuple(replace(plane, pseudo_map=None) for plane in domain.planes))


@dataclass(frozen=True)
class Row:
    """One line of the table: a method, or a stage of it."""

    method: str
    trainer: Callable[[AdaptJob, Any], Any]
    plain: Callable[[Any, Any], plain_loops.Step]
    first: Callable[[Any], int] = lambda params: params.steps // 2
    """The step that is measured from; by half of a training, all losses count."""


ROWS = {
    "supervised": Row("supervised", with_source(supervised), plain_loops.supervised),
    "culpico": Row("culpico", with_source(culpico), plain_loops.culpico),
    "pseudo-label": Row("pseudo-label", with_maps, plain_loops.pseudo_label),
    "cellseguda": Row("cellseguda", with_source(cellseguda), plain_loops.cellseguda),
    "cellsegssda": Row("cellsegssda", with_labels, plain_loops.cellsegssda),
    "stylefilter, style": Row(
        "stylefilter", with_source(stylefilter), plain_loops.style, lambda params: 0
    ),
    "stylefilter, segmentation": Row(
        "stylefilter",
        with_source(stylefilter),
        plain_loops.segmentation,
        lambda params: params.stage_ends[0],
    ),
    # Its first step draws nothing and labels nothing anew, which the other steps of a round do not.
    "stylefilter, adaptation": Row(
        "stylefilter", adapting, plain_loops.adaptation, lambda params: params.stage_ends[1] + 1
    ),
    "cks": Row("cks", with_points, plain_loops.cks),
    "cks-masks": Row("cks-masks", with_masks, plain_loops.cks_masks),
}
METHODS = sorted({row.method for row in ROWS.values()})


# -- the race --------------------------------------------------------------------------------------


def race(row: Row, params: MethodParams, folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """Return the steps per second of ours, of ours without data ("still") and of the plain loop."""
    job = AdaptJob(target=domain(1), store=MemoryStore(), scratch=folder)
    trainer = row.trainer(job, params)
    start = row.first(params)
    kept = on(trainer.fabric.device, trainer.batch(start))
    plain = row.plain(trainer, kept)
    compare(trainer, plain, start, kept)

    def timed(
        step: Callable[[int, Any], object], batch: Callable[[int], Any]
    ) -> Callable[[], float]:
        def run() -> None:
            # As a run does it: the next batch is made while this one is in use.
            for index, ready in made_ahead(batch, start, start + steps):
                step(index, ready)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return lambda: seconds(run)

    runs = {
        "ours": timed(trainer.step, trainer.batch),
        "still": timed(trainer.step, lambda index: kept),
        "plain": timed(lambda index, batch: plain(index), lambda index: kept),
    }
    return {name: steps / value for name, value in medians(runs, rounds).items()}


def compare(trainer: Any, plain: plain_loops.Step, start: int, kept: Any) -> None:
    """Take the first step of both and refuse a plain loop that computes something else."""
    torch.manual_seed(0)
    mine = trainer.step(start, kept)
    torch.manual_seed(0)
    theirs = float(plain(start).detach())
    # The style stage has no sum among its losses.
    loss = mine.get("loss", mine.get("total"))
    loss = mine["generator"] + 10 * mine["contrast"] if loss is None else loss
    if abs(theirs - loss) > LIKE * abs(loss):
        raise SystemExit(f"The plain loop's first loss is {theirs:g}, ours {loss:g}: {mine}")


def on(device: torch.device, batch: Any) -> Any:
    parts = (part.to(device) if isinstance(part, torch.Tensor) else part for part in batch)
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


def table(names: list[str], preset: Preset, steps: int, rounds: int) -> str:
    lines = [
        "| method | ours, steps/s | ours without data | plain loop | ratio | without data |",
        "|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    for name in names:
        row = ROWS[name]
        with tempfile.TemporaryDirectory() as folder:
            params = find_method(row.method).settings(preset)
            rate = race(row, params, Path(folder), steps, rounds)
        lines.append(
            f"| {name} | {rate['ours']:.2f} | {rate['still']:.2f} | {rate['plain']:.2f} | "
            f"**{rate['ours'] / rate['plain']:.2f}** | {rate['still'] / rate['plain']:.2f} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=METHODS)
    parser.add_argument("--preset", default="cpu", choices=("cpu", "gpu", "published"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    chosen = options.methods or METHODS
    names = [name for name, row in ROWS.items() if row.method in chosen]
    text = table(names, options.preset, options.steps, options.rounds)
    if options.methods:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = "training.md" if options.preset == "cpu" else f"training_{options.preset}.md"
    (RESULTS / name).write_text(
        f"# Training speed\n\n`python benchmarks/training.py --preset {options.preset}`, "
        f"on {device}.\n\n{where('torch', 'lightning-fabric', 'numpy')}\n\n{text}\n"
    )


if __name__ == "__main__":
    main()
