"""Measure steps per second of training, against the plainest correct loop of the same networks.

    python benchmarks/training.py [--rounds N] [--steps N]

The rival is torch's eager float32 with the losses of torch.nn.functional and crops that lie in
memory already; ours cuts, turns and moves its crops, clips nothing away and logs its losses.
"without data" gives ours the same crops again and again, to tell training from loading.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.methods import culpico, pseudo_label, supervised
from timing import RESULTS, medians, seconds, where

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 512


def domain(seed: int, planes: int = 8) -> Domain:
    """Noise to train on: what is on the crops does not matter for the time."""
    rng = np.random.default_rng(seed)
    unit = Normalisation(offset=(0.0,), factor=(1.0,))
    made = []
    for i in range(planes):
        pixels = rng.random((1, SIDE, SIDE), np.float32)
        p = rng.random((SIDE, SIDE)).astype(np.float32)
        labels = (p > 0.5).astype(np.int32)
        made.append(Plane(f"{i}", pixels, unit, labels=labels, pseudo_map=np.stack([1 - p, p])))
    return Domain(tuple(made))


def plain_supervised(job: AdaptJob, params: supervised.Params) -> Callable[[], None]:
    network = Segmenter(1, 2, width=params.width, depth=params.depth).train()
    adam = torch.optim.AdamW(network.parameters(), params.learning_rate)
    x, y = crops(params)

    def step() -> None:
        logits = network(x)
        p = torch.sigmoid(logits)
        dice = 1 - 2 * (p * y).sum() / (p**2 + y**2).sum()
        loss = F.binary_cross_entropy_with_logits(logits, y) + dice
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def plain_culpico(job: AdaptJob, params: culpico.Params) -> Callable[[], None]:
    m, n = (
        Segmenter(1, 2, width=params.width, depth=params.depth, growth=8).train() for _ in range(2)
    )
    adams = [torch.optim.Adam(net.parameters(), params.learning_rate) for net in (m, n)]
    x_s, y = crops(params)
    x_t, _ = crops(params)

    def step() -> None:
        loss = sum(F.binary_cross_entropy_with_logits(net(x_s), y) for net in (m, n))
        a, b = m(x_t), n(x_t)
        p, q = torch.sigmoid(a).detach(), torch.sigmoid(b).detach()
        w = 1 - (p - q).abs()
        loss = loss + F.binary_cross_entropy_with_logits(a, (q > 0.5).float(), weight=w)
        loss = loss + F.binary_cross_entropy_with_logits(b, (p > 0.5).float(), weight=w)
        for adam in adams:
            adam.zero_grad()
        loss.backward()
        for adam in adams:
            adam.step()

    return step


def plain_pseudo_label(job: AdaptJob, params: pseudo_label.Params) -> Callable[[], None]:
    student, teacher = (Segmenter(1, 2, width=params.width, depth=params.depth) for _ in range(2))
    student.train()
    teacher.eval().requires_grad_(False)
    adam = torch.optim.Adam(student.parameters(), params.learning_rate)
    x, y = crops(params)
    eta = torch.ones(2)

    def step() -> None:
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.lerp_(theirs, 0.001)
            p_g = teacher(x)
        logits = student(x)
        p = torch.sigmoid(logits).detach()
        w1, w0 = 1 - (p - eta[1]).abs(), 1 - (1 - p - eta[0]).abs()
        labels = -(w1 * y * F.logsigmoid(logits) + w0 * (1 - y) * F.logsigmoid(-logits)).mean()
        loss = labels + F.binary_cross_entropy_with_logits(logits, p_g)
        eta[1] = 0.99 * eta[1] + 0.01 * p[y >= 0.5].mean()
        eta[0] = 0.99 * eta[0] + 0.01 * (1 - p)[y <= 0.5].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def crops(params: object) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (params.batch, 1, params.crop, params.crop)
    return torch.rand(shape), (torch.rand(shape) > 0.5).float()


def ours(module: object, params: object, folder: Path, *, data: bool) -> Callable[[], None]:
    job = AdaptJob(
        target=domain(1), source=domain(0), store=MemoryStore(), scratch=folder, device="auto"
    )
    if module is pseudo_label:
        trainer = module._Trainer(job, params, job.target)
    elif module is supervised:
        trainer = module._Trainer(AdaptJob(**{**vars(job), "target": unlabelled()}), params)
    else:
        trainer = module._Trainer(job, params)
    index = iter(range(10**9))
    kept = trainer.batch(0)

    def step() -> None:
        i = next(index)
        trainer.step(i, trainer.batch(i) if data else kept)

    return step


def unlabelled() -> Domain:
    planes = domain(1).planes
    return Domain(tuple(Plane(p.name, p.pixels, p.normalisation) for p in planes))


METHODS = {
    "supervised": (supervised, plain_supervised),
    "culpico": (culpico, plain_culpico),
    "pseudo-label": (pseudo_label, plain_pseudo_label),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    rows = ["| method | ours, steps/s | ours without data | plain loop | ratio | without data |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, (module, plain) in METHODS.items():
            params = module.Params()
            runs = {
                "ours": ours(module, params, Path(folder), data=True),
                "still": ours(module, params, Path(folder), data=False),
                "plain": plain(None, params),
            }

            def timed(step: Callable[[], None]) -> Callable[[], float]:
                return lambda: seconds(lambda: [step() for _ in range(options.steps)])

            found = medians({key: timed(step) for key, step in runs.items()}, options.rounds)
            rate = {key: options.steps / value for key, value in found.items()}
            rows.append(
                f"| {name} | {rate['ours']:.2f} | {rate['still']:.2f} | {rate['plain']:.2f} | "
                f"**{rate['ours'] / rate['plain']:.2f}** | {rate['still'] / rate['plain']:.2f} |"
            )
            print(rows[-1], flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = "\n".join(rows)
    (RESULTS / "training.md").write_text(
        f"# Training speed\n\n`python benchmarks/training.py`; cpu preset, on {device}.\n\n"
        f"{where('torch', 'lightning-fabric', 'numpy')}\n\n{text}\n"
    )


if __name__ == "__main__":
    main()
