"""StyleFilter: show the target in the source's style, and learn from filtered pseudo-labels.

Three stages of one run: contrastive unpaired translation (CUT) learns to draw target images in the
style of the source; a segmenter is trained on the source; then it goes on with its own labels of
the stylised target, in which classes that an image is said not to show give way to the next best.

References
----------
.. [1] Seletkov, Reiss, Freytag, Seibold, Stiefelhagen, "Style transfer and pseudo-label filtering
   improve transferability in cell organelle segmentation scenarios", ISBI 2024.
   https://openreview.net/forum?id=fkm09HFY9E
.. [2] Park, Efros, Zhang, Zhu, "Contrastive learning for unpaired image-to-image translation",
   ECCV 2020. https://arxiv.org/abs/2007.15651
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field

from napari_cellda.core.adaptation.domain import Domain, Plane
from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method, MethodParams
from napari_cellda.core.adaptation.predict import mean_dice, predict_plane, preview_pixels
from napari_cellda.core.adaptation.training import load_best, train_job
from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Preview, Score, Stage, Step, Task
from napari_cellda.core.loop import (
    Progress,
    Stateful,
    cosine_rate,
    make_fabric,
    set_learning_rate,
    setup,
)
from napari_cellda.core.nets.styled import StyledSegmenter
from napari_cellda.methods._cut import StyleBatch, StyleTrainer
from napari_cellda.methods._stylefilter_losses import (
    class_maps,
    cross_entropy,
    disturb_greys,
    filtered_labels,
    presence_f1,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

PRESENCE = "present classes F1"
VALIDATION = "validation dice"
GUARD = 0.8
"""A checkpoint is not chosen when its Dice on the source falls below this share of what it was
before the adaptation."""
WARM_UP = 50
"""Steps over which the learning rate of the adaptation rises."""
CHECKED_SOURCE, CHECKED_TARGET = 8, 40
"""Planes, at most, on which the checks are done."""


class Params(MethodParams):
    """The three stages: style, source, adaptation."""

    steps: int = Field(2700, ge=1, le=10_000_000)
    """Training steps of all three stages together."""
    style_share: float = Field(0.37, ge=0, le=1)
    """Share of the steps that learns the style; 0 leaves the style out."""
    source_share: float = Field(0.44, ge=0, le=1)
    """Share of the steps that trains on the source alone; the rest adapts."""
    style_mode: Literal["fastcut", "cut"] = "fastcut"
    """fastcut: no identity term, a tenfold contrast, flips; cut: the larger original."""
    style_crop: int = Field(128, ge=32, le=1024)
    """Side of the crops that the style is learned on, in pixels."""
    style_batch: int = Field(1, ge=1, le=64)
    """Crops per domain and step while the style is learned."""
    style_width: int = Field(16, ge=4, le=128)
    """Channels of the generator's and the discriminator's first level."""
    style_blocks: int = Field(4, ge=1, le=16)
    """Residual blocks of the generator."""
    style_rate: float = Field(2e-4, gt=0, le=1)
    """Learning rate of the style networks; it falls to 0 along the last part of their stage."""
    patches: int = Field(64, ge=2, le=4096)
    """Places per layer at which an image and its translation are compared."""
    width: int = Field(16, ge=4, le=128)
    """Channels of the U-Net's first level."""
    depth: int = Field(4, ge=1, le=6)
    """Number of times the U-Net halves the image."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Learning rate of the segmenter on the source."""
    rate_falls: bool = True
    """Whether that rate falls along half a cosine; the paper keeps it constant."""
    adaptation_rate: float = Field(1e-4, gt=0, le=1)
    """Learning rate of the segmenter while it adapts, constant after a short rise."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """Weight decay of the segmenter."""
    noise: float = Field(0.05, ge=0, le=0.5)
    """Largest standard deviation of the noise added to crops, as a share of the grey range."""
    jitter: float = Field(0.2, ge=0, le=0.9)
    """Largest change of brightness and contrast."""
    student_input: Literal["stylised", "original", "both"] = "stylised"
    """What the segmenter learns the pseudo-labels on. With "original" it predicts on original
    images too, else on stylised ones."""
    confidence: float = Field(0.0, ge=0, lt=1)
    """Pseudo-labels that are less certain are left out; 0 keeps all."""
    present_pixels: int = Field(16, ge=1)
    """Pixels from which on a class counts as found in an image, when the checkpoint is chosen."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of source planes, and of target planes with image-level labels, kept aside to check."""
    validate_every: int = Field(100, ge=1)
    """Steps between two checks."""

    @property
    def stage_ends(self) -> tuple[int, int, int]:
        """Step at which each stage is done."""
        style = round(self.style_share * self.steps)
        source = min(self.steps, style + round(self.source_share * self.steps))
        return style, source, self.steps


def adapt(job: AdaptJob, params: Params) -> Task[Adapted]:
    """Learn the style, train on the source, adapt.

    Yields
    ------
    Stage, Step, Score, Preview
        Steps count over all stages. Losses: ``generator``, ``contrast``, ``discriminator``; then
        ``source``, and with it ``target``. Previews: ``stylised``, ``classes`` or ``foreground``,
        ``pseudo-labels``, ``filtered labels``, ``confidence``.

    Raises
    ------
    UserError
        If there is no annotated source.
    """
    trainer = _Trainer(job, params)
    kept = job.store.load("last")
    done = 0 if kept is None else int(kept["step"])
    style, source, end = params.stage_ends
    stages = ((0, style, "Learn the style of the source"), (style, source, "Train on the source"))
    progress = Progress(0, False, None, None)
    for first, last, title in (*stages, (source, end, "Adapt to the target")):
        if first == last or progress.stopped:
            continue
        if first == source and not (yield from trainer.stylise_target()):
            progress = replace(progress, stopped=True)
            break
        if done < last:
            yield Stage(title, end)
        progress = yield from train_job(
            job,
            trainer,
            steps=last,
            # In the last stage every step asks, so that the very first one is checked as well.
            validate_every=1
            if first == source
            else gcd(params.validate_every, params.preview_every),
            select=trainer.select if first == source else None,
            first=first,
        )
    if load_best(job, network=trainer.network):
        selection = f"The highest {trainer.selected_by}, step {progress.best_step}."
    else:
        selection = f"The last step, {progress.steps}: no target label took part in the choice."
    return Adapted(
        network=trainer.final_network(),
        progress=progress,
        selection=selection,
        kind=job.map_kind,
        output_names=job.map_names,
        scores={} if progress.best_score is None else {str(trainer.select): progress.best_score},
    )


class SegmentBatch(NamedTuple):
    """What the segmenter sees in one step; images in [0, 1], None before the adaptation."""

    source: Tensor
    source_labels: Tensor
    clean: Tensor | None = None
    """Stylised target crops, from which pseudo-labels are made."""
    student: Tensor | None = None
    """The same crops, disturbed; with "both" the original ones after them."""
    present: Tensor | None = None
    """(N, K) bool: the classes that each target crop's image shows."""


class _Remembered:
    """One number that a checkpoint keeps."""

    def __init__(self) -> None:
        self.value = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = float(state["value"])


class _Trainer:
    """All networks, their optimisers, and one step of each stage."""

    def __init__(self, job: AdaptJob, params: Params) -> None:
        if job.source is None or not job.source.is_annotated:
            raise UserError("StyleFilter needs annotated source images; none were given.")
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        self.ends = params.stage_ends
        share = params.validation_share
        self.source, checked = job.source.annotated().split(share, job.seed)
        self.source_check = _thinned(checked, CHECKED_SOURCE)
        self._split_target(share)
        self.fabric = make_fabric(job.device)
        self._build_networks()
        self.shown = preview_pixels(job.target)
        self.drawn: tuple[Plane, ...] = ()
        self.guard = _Remembered()

    def _split_target(self, share: float) -> None:
        """Choose the target planes to adapt to, those to check, and the rule for the checkpoint."""
        n = len(self.job.target)
        self.adapted_to, self.checked_target = list(range(n)), list[int]()
        self.select: str | None = None
        self.selected_by = ""
        weak = [i for i in range(n) if self.job.target.planes[i].present_mask is not None]
        if self.job.validation is not None:
            self.select = VALIDATION
            self.selected_by = "Dice on the validation masks of target images that were given"
        elif len(weak) > 1:
            order = np.random.default_rng([self.job.seed, 7]).permutation(weak)
            aside = order[: min(max(1, round(share * len(weak))), len(weak) - 1)].tolist()
            self.adapted_to = [i for i in range(n) if i not in set(aside)]
            self.checked_target = sorted(aside[:CHECKED_TARGET])
            self.select = PRESENCE
            self.selected_by = (
                f"F1 of the classes found in {len(self.checked_target)} target image(s) with "
                "image-level labels that were kept aside"
            )

    def _build_networks(self) -> None:
        job, params = self.job, self.params
        channels = job.target.n_channels
        self.network = StyledSegmenter(
            channels, job.n_classes, params.width, params.depth, params.style_width,
            params.style_blocks if self.ends[0] else 0,
        )  # fmt: skip
        self.s, self.s_adam = setup(
            self.fabric,
            self.network.segmenter,
            torch.optim.AdamW(
                self.network.segmenter.parameters(), params.learning_rate,
                weight_decay=params.weight_decay,
            ),
        )  # fmt: skip
        self.style: StyleTrainer | None = None
        if self.network.generator is None:
            return
        self.style = StyleTrainer(
            self.network.generator,
            self.fabric,
            width=params.style_width,
            mode=params.style_mode,
            rate=params.style_rate,
            steps=self.ends[0],
            patches=params.patches,
            seed=job.seed,
        )

    @property
    def parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {
            "network": self.network,
            "segmenter optimiser": self.s_adam,
            "guard": self.guard,
        }
        return parts | (self.style.parts if self.style else {})

    def final_network(self) -> StyledSegmenter:
        """Return what to predict with, in eval mode, on the CPU."""
        network = self.network
        if self.params.student_input == "original" and self.style:
            plain = StyledSegmenter(**{**network.config, "style_blocks": 0})
            plain.segmenter.load_state_dict(network.segmenter.state_dict())
            network = plain
        return network.cpu().eval()

    # -- what is trained on --------------------------------------------------------------------

    def batch(self, index: int) -> StyleBatch | SegmentBatch:
        """Cut and disturb the crops of one step."""
        rng = self.job.rng(index)
        params = self.params
        if index < self.ends[0]:
            pair = (
                domain.crops(rng, params.style_batch, params.style_crop).images
                for domain in (self.job.target, self.job.source)
                if domain is not None
            )
            crops = [torch.from_numpy(images).clamp(0, 1) * 2 - 1 for images in pair]
            return StyleBatch(*(flip_and_turn(c, c, rng)[0] for c in crops))
        cut = self.source.crops(rng, params.batch, params.crop)
        labels = torch.from_numpy(cut.labels)[:, None]
        images, labels = flip_and_turn(torch.from_numpy(cut.images).clamp(0, 1), labels, rng)
        images = self._disturb(images, rng)
        if index < self.ends[1]:
            return SegmentBatch(images, labels)
        return SegmentBatch(images, labels, *self._target_crops(index, rng))

    def _target_crops(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return stylised crops, what the student sees of them, and the classes they may show."""
        params, planes = self.params, self.job.target.planes
        place = [self.job.seed, 4, index]
        stylised = Domain(tuple(self.drawn[i] for i in self.adapted_to))
        cut = stylised.crops(np.random.default_rng(place), params.batch, params.crop)
        clean = original = torch.from_numpy(cut.images)
        if params.student_input != "stylised":
            raw = Domain(tuple(planes[i] for i in self.adapted_to))
            same = raw.crops(np.random.default_rng(place), params.batch, params.crop)
            original = torch.from_numpy(same.images).clamp(0, 1)
        clean, original = flip_and_turn(clean, original, rng)
        seen = {"stylised": (clean,), "original": (original,), "both": (clean, original)}
        student = torch.cat([self._disturb(x, rng) for x in seen[params.student_input]])
        masks = [planes[self.adapted_to[i]].present_mask for i in cut.planes]
        every = np.ones(self.job.n_classes, bool)
        present = np.stack([every if mask is None else mask for mask in masks])
        return clean, student, torch.from_numpy(present)

    def _disturb(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        return disturb_greys(images, rng, self.params.noise, self.params.jitter)

    def stylise_target(self) -> Task[bool]:
        """Draw every target plane in the style of the source, once, and keep it on disk.

        Returns
        -------
        bool
            Whether it got to the end; False when it was asked to stop.
        """
        planes = self.job.target.planes
        yield Stage("Draw the target in the style of the source", len(planes))
        folder = self.job.scratch / f"stylised-{_fingerprint(self.network.generator)}"
        self.network.eval()
        drawn = []
        for i, plane in enumerate(planes):
            if self.job.stop():
                return False
            path = folder / f"{i}.npy"
            if not path.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                with write_atomically(path) as aside, aside.open("wb") as file:
                    np.save(file, self._stylised(plane.pixels))
            drawn.append(replace(plane, pixels=np.load(path, mmap_mode="r")))
            yield Step(i + 1)
        self.drawn = tuple(drawn)
        return True

    def _stylised(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return predict_plane(self.network.stylise, pixels, self.fabric)

    # -- one step ------------------------------------------------------------------------------

    def step(self, index: int, batch: StyleBatch | SegmentBatch) -> dict[str, float]:
        """Take one step of the stage that `index` is in."""
        if isinstance(batch, StyleBatch):
            assert self.style is not None, "only that stage makes such batches"
            terms = self.style.step(index, batch)
        else:
            terms = self._segment_step(index, batch)
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        return dict(zip(terms, values, strict=True))

    def _segment_step(self, index: int, batch: SegmentBatch) -> dict[str, Tensor]:
        """Train on source labels and, in the last stage, on filtered pseudo-labels alike."""
        if index == self.ends[1]:
            # Gradients grow when the norms are frozen: Adam must forget how small they were.
            self.s_adam.state.clear()
        set_learning_rate(self.s_adam, self._rate(index))
        source, labels = (self.fabric.to_device(t) for t in (batch.source, batch.source_labels))
        images = [source]
        pseudo = None
        if batch.clean is not None and batch.student is not None:
            pseudo = self._pseudo_labels(batch)
            images.append(self.fabric.to_device(batch.student))
        self.s.train()
        if pseudo is not None:
            _freeze_norms(self.network.segmenter)
        logits = self.s(torch.cat(images).to(memory_format=torch.channels_last)).float()
        terms = {"source": cross_entropy(logits[: len(source)], labels)}
        if pseudo is not None:
            repeats = (len(logits) - len(source)) // len(pseudo)
            terms["target"] = cross_entropy(logits[len(source) :], pseudo.repeat(repeats, 1, 1, 1))
        terms["loss"] = torch.stack(list(terms.values())).sum()
        self.s_adam.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        self.s_adam.step()
        return terms

    def _rate(self, index: int) -> float:
        if index >= self.ends[1]:
            return self.params.adaptation_rate * min(1.0, (index - self.ends[1] + 1) / WARM_UP)
        done, steps = index - self.ends[0], self.ends[1] - self.ends[0]
        peak = self.params.learning_rate
        return cosine_rate(done, steps, peak) if self.params.rate_falls else peak

    @torch.no_grad()
    def _pseudo_labels(self, batch: SegmentBatch) -> Tensor:
        clean, present = (self.fabric.to_device(t) for t in (batch.clean, batch.present))
        self.s.eval()
        maps = class_maps(self.s(clean.to(memory_format=torch.channels_last)).float())
        return filtered_labels(maps, present, self.params.confidence)

    # -- checks and previews -------------------------------------------------------------------

    def validate(self, index: int) -> Iterator[Event]:
        done = index + 1
        self.network.eval()
        # After one tiny step the network is still that of the source: adapting has to beat it.
        at_end = done in (*self.ends, self.ends[1] + 1)
        if done > self.ends[0] and (at_end or done % self.params.validate_every == 0):
            yield from self._scores(done)
        if self.params.preview_every and (at_end or done % self.params.preview_every == 0):
            yield from self._previews(done)

    def _scores(self, done: int) -> Iterator[Event]:
        dice = mean_dice(self.source_check, lambda p: self._segment(np.clip(p.pixels, 0, 1)))
        yield Score("source dice", dice, done)
        if done == self.ends[1]:
            self.guard.value = GUARD * dice
        if done <= self.ends[1]:
            return
        if self.job.validation is not None:
            yield Score(VALIDATION, mean_dice(self.job.validation, self._predict), done)
        elif self.select:
            score = self._presence_score()
            yield Score(PRESENCE, score if dice >= self.guard.value else 0.0, done)

    def _presence_score(self) -> float:
        planes = self.job.target.planes
        found, truth = [], []
        for i in self.checked_target:
            original = self.params.student_input == "original"
            maps = self._segment(
                np.clip(planes[i].pixels, 0, 1) if original else self.drawn[i].pixels
            )
            counts = np.bincount(_argmax(maps).ravel(), minlength=self.job.n_classes)
            found.append(counts >= self.params.present_pixels)
            truth.append(planes[i].present_mask)
        return presence_f1(np.stack(found), np.stack([t for t in truth if t is not None]))

    def _segment(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return predict_plane(self.network.segmenter, pixels, self.fabric)

    def _predict(self, plane: Plane) -> NDArray[np.float32]:
        if self.params.student_input == "original":
            return self._segment(np.clip(plane.pixels, 0, 1))
        return predict_plane(self.network, plane.pixels, self.fabric)

    def _previews(self, done: int) -> Iterator[Event]:
        stylised = self._stylised(self.shown)
        yield Preview("stylised", stylised[0] if len(stylised) == 1 else stylised, done)
        if done <= self.ends[0]:
            return
        maps = self._segment(stylised)
        yield Preview("foreground" if len(maps) == 1 else "classes", maps, done)
        every = class_maps(torch.from_numpy(maps)[None])
        present = self.job.target.planes[0].present_mask
        mask = np.ones(self.job.n_classes, bool) if present is None else present
        for name, allowed in (("pseudo-labels", np.ones_like(mask)), ("filtered labels", mask)):
            labels = filtered_labels(every, torch.from_numpy(allowed)[None])
            yield Preview(name, labels[0, 0].numpy().astype(np.uint8), done)
        yield Preview("confidence", every[0].amax(dim=0).numpy(), done)


def _freeze_norms(network: torch.nn.Module) -> None:
    """Let batch norms use the statistics of the source, and keep them.

    Pseudo-labels are made with these statistics. Were the student normalised by its batch instead,
    labels and maps would drift apart, and the dominant class would soon swallow the others.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def _argmax(maps: NDArray[np.float32]) -> NDArray[np.intp]:
    found: NDArray[np.intp] = (
        (maps[0] > 0.5).astype(np.intp) if len(maps) == 1 else maps.argmax(axis=0)
    )
    return found


def _thinned(domain: Domain, most: int) -> Domain:
    """Return at most so many planes, spread over all."""
    return Domain(domain.planes[:: -(-len(domain) // most)])


def _fingerprint(network: torch.nn.Module | None) -> str:
    """Tell one set of weights from another."""
    digest = hashlib.sha256()
    for tensor in () if network is None else network.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


METHODS = [
    Method(
        name="stylefilter",
        title="Your images in the style of annotated ones, and labels that fit what each shows",
        params=cast("Any", Params),
        adapt=adapt,
        paper="https://openreview.net/forum?id=fkm09HFY9E",
        presets={
            "gpu": {
                "steps": 28_000, "style_share": 5 / 7, "source_share": 1 / 7, "style_width": 64,
                "style_blocks": 6, "style_crop": 256, "patches": 256, "width": 32, "crop": 256,
                "batch": 2, "learning_rate": 3e-4,
            },
            "published": {
                "steps": 1_100_000, "style_share": 0.6, "source_share": 0.2, "style_mode": "cut",
                "style_width": 64, "style_blocks": 9, "style_crop": 256, "patches": 256,
                "width": 64, "crop": 512, "batch": 1, "learning_rate": 1e-4, "rate_falls": False,
            },
        },
        needs=("target_images", "source_images", "source_masks"),
        takes=("image_labels",),
        multiclass=True,
        classes_by_default=True,
    )
]  # fmt: skip
