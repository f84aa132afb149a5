"""Measure whether torch.compile pays in a training with the cpu preset's U-Net.

    python benchmarks/compiled.py [--rounds N] [--steps N] [--run N] [-o FILE]

It needs a C++ compiler. Ours as it is and ours with its U-Net compiled, both from the same crops in
memory, take turns; each round compiles anew, without anything that an earlier one left on the disk.
What compiling takes is what the first two steps take longer than later ones. A run of 800 steps has
to win it back. As the rest of the machine slows both down alike, look at ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._inductor.utils import fresh_cache

from napari_cellda.core import devices
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.loop import MemoryStore
from napari_cellda.methods import find_method, supervised
from timing import RESULTS, seconds, where
from training import ROWS, domain

HEAD = """\
| precision | as it is, steps/s | compiled | ratio | compiling takes, s | paid back after | a run |
|---|---|---|---|---|---|---|"""


def trainer(precision: devices.Precision) -> Any:
    supervised.make_fabric = partial(devices.make_fabric, precision=precision)
    job = AdaptJob(target=domain(1), store=MemoryStore(), scratch=Path(tempfile.gettempdir()))
    return ROWS["supervised"].trainer(job, find_method("supervised").settings("cpu"))


def per_step(one: Any, batch: Any, steps: int) -> float:
    return seconds(lambda: [one.step(i, batch) for i in range(steps)]) / steps


def race(precision: devices.Precision, steps: int) -> tuple[float, float, float]:
    """Return seconds per step, as it is and compiled, and those that compiling takes."""
    plain, compiled = trainer(precision), trainer(precision)
    batch = plain.batch(0)
    per_step(plain, batch, 2)
    torch.compiler.reset()
    with fresh_cache():
        compiled.network.compile()
        first = 2 * per_step(compiled, batch, 2)
        times = [[per_step(one, batch, steps) for one in (plain, compiled)] for _ in range(3)]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return mine, theirs, first - 2 * theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--run", type=int, default=800, help="steps of the run that has to win")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "compiled.md")
    options = parser.parse_args()
    lines = HEAD.splitlines()
    print(HEAD)
    for precision in ("bf16-mixed", "32-true"):
        rounds = []
        for _ in range(options.rounds):
            rounds.append(race(precision, options.steps))
            print(f"{precision}: {rounds[-1]} s", file=sys.stderr, flush=True)
        plain, compiled, once = (statistics.median(column) for column in zip(*rounds, strict=True))
        won = plain - compiled
        back = f"{once / won:.0f} steps" if won > 0 else "never"
        longer = (once + options.run * compiled) / (options.run * plain)
        lines.append(
            f"| {precision} | {1 / plain:.2f} | {1 / compiled:.2f} | {plain / compiled:.2f} | "
            f"{once:.0f} | {back} | {longer:.2f} x as long |"
        )
        print(lines[-1], flush=True)
    table = "\n".join(lines)
    options.output.write_text(
        f"# torch.compile\n\n`python benchmarks/compiled.py`; a run has {options.run} steps.\n\n"
        f"{where('torch', 'lightning-fabric')}\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
