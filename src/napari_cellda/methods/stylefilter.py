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

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from napari_cellda.core.adaptation.job import Adapted, AdaptJob
from napari_cellda.core.adaptation.method import Method
from napari_cellda.core.adaptation.predict import class_maps, predict_plane
from napari_cellda.core.adaptation.training import load_chosen, train_job
from napari_cellda.core.augment import flip_and_turn
from napari_cellda.core.batches import every_second, quarter
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.events import Event, Stage, Task
from napari_cellda.core.loop import Progress, Stateful, cosine_rate, set_learning_rate
from napari_cellda.core.nets.styled import StyledSegmenter
from napari_cellda.methods._cut import StyleBatch, StyleTrainer
from napari_cellda.methods._stylefilter_checks import Checks
from napari_cellda.methods._stylefilter_losses import (
    cross_entropy,
    disturb_greys,
    filtered_labels,
)
from napari_cellda.methods._stylefilter_params import Params
from napari_cellda.methods._stylefilter_target import Target, thinned
from napari_cellda.methods._stylefilter_teacher import Teacher, class_shares, class_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

WARM_UP = 50
"""Steps over which the learning rate of the adaptation rises where it does not fall."""
WEIGHED = 2**22
"""Pixels of the target, about and at most, that the classes are weighed by."""


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
        if first == source and not (yield from trainer.draw_target()):
            progress = replace(progress, stopped=True)
            break
        if done < last:
            yield Stage(title, end)
        progress = yield from train_job(
            job,
            trainer,
            steps=last,
            # In the last stage every step asks, so that the very first one is checked as well.
            validate_every=1 if first == source else params.look_every,
            select=trainer.checks.select if first == source else None,
            first=first,
        )
    return trainer.result(progress)


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

    def halved(self) -> SegmentBatch:
        """Return half of the crops, or a quarter of the only one."""
        smaller = quarter if len(self.source) == 1 else every_second
        batch = self._replace(
            source=smaller(self.source), source_labels=smaller(self.source_labels)
        )
        if self.clean is None or self.student is None or self.present is None:
            return batch
        # With "both" the student sees two batches, one after the other.
        student = torch.cat([smaller(part) for part in torch.split(self.student, len(self.clean))])
        present = self.present if smaller is quarter else every_second(self.present)
        return batch._replace(clean=smaller(self.clean), student=student, present=present)


class _Trainer:
    """All networks, their optimisers, and one step of each stage."""

    def __init__(self, job: AdaptJob, params: Params) -> None:
        annotated = job.annotated_source("StyleFilter")
        torch.manual_seed(job.seed)
        self.job, self.params = job, params
        self.ends = params.stage_ends
        self.source, checked = annotated.split(params.validation_share, job.seed)
        self.target = Target(job, params)
        self.fabric = make_fabric(job.device)
        self._build_networks()
        self.teacher = Teacher(self.network.segmenter, job.n_classes)
        self.checks = Checks(job, params, self.network, self.fabric, checked, self.target)

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
            "teacher": self.teacher,
            "guard": self.checks.guard,
        }
        return parts | (self.style.parts if self.style else {})

    def result(self, progress: Progress) -> Adapted:
        """Return what was learned, with the weights of the best checkpoint if one was chosen."""
        rule, best = f"The highest {self.checks.selected_by}", progress.best_score
        why = "no target label took part in the choice"
        chosen = load_chosen(self.job, progress, rule, otherwise=why, network=self.network)
        return Adapted(
            network=self.final_network(),
            progress=progress,
            selection=f"{chosen}.",
            kind=self.job.map_kind,
            output_names=self.job.map_names,
            scores={} if best is None else {str(self.checks.select): best},
            segments=progress.steps > self.ends[0],
        )

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
        images = disturb_greys(images, rng, params.noise, params.jitter)
        if index < self.ends[1]:
            return SegmentBatch(images, labels)
        return SegmentBatch(images, labels, *self.target.crops(index, rng))

    def draw_target(self) -> Task[bool]:
        """Draw the target in the style of the source; see `Target.draw`."""
        self.network.eval()
        drawn = partial(predict_plane, self.network.stylise, fabric=self.fabric)
        return (yield from self.target.draw(self.network.generator, drawn))

    def begin_round(self) -> None:
        """Let the network as it is make the labels from now on, each class as often as it should.

        That is as often as in the source. It has to be a part of the round's first step: what was
        done before is lost when the checkpoint is loaded.
        """
        self.teacher.begin_round(self.network.segmenter)
        if not self.params.match_shares:
            return
        pixels = []
        for i in thinned(self.target.adapted_to, self.target.planes, WEIGHED):
            maps = predict_plane(self.teacher.segmenter, self.target.drawn[i].pixels, self.fabric)
            every = class_maps(torch.from_numpy(maps)[None])[0]
            present = self.target.planes[i].present_mask
            if present is not None:
                every = every * torch.from_numpy(present)[:, None, None]
            pixels.append(every.flatten(1)[:, ::4])
        shares = class_shares(self.source, self.job.n_classes)
        self.teacher.weights.copy_(class_weights(torch.cat(pixels, dim=1), shares))

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
        if index in self.params.round_starts:
            self.begin_round()
        set_learning_rate(self.s_adam, self._rate(index))
        source, labels = (self.fabric.to_device(t) for t in (batch.source, batch.source_labels))
        images = [source]
        pseudo = None
        if batch.clean is not None and batch.student is not None:
            clean, present = (self.fabric.to_device(t) for t in (batch.clean, batch.present))
            pseudo = self._pseudo_labels(clean, present)
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
        params, starts = self.params, self.params.round_starts
        if index < self.ends[1]:
            first, last, peak = self.ends[0], self.ends[1], params.learning_rate
            return cosine_rate(index - first, last - first, peak) if params.rate_falls else peak
        if not params.rate_falls:
            return params.adaptation_rate * min(1.0, (index - self.ends[1] + 1) / WARM_UP)
        first = max(start for start in starts if start <= index)
        last = min([start for start in starts if start > index], default=self.ends[2])
        return cosine_rate(index - first, last - first, params.adaptation_rate)

    @torch.no_grad()
    def _pseudo_labels(self, clean: Tensor, present: Tensor) -> Tensor:
        """Label drawn crops, on the device, with the classes that each may show."""
        # Nothing is drawn before the network is what it is before the adaptation.
        waits = self.params.teacher == "current" or not self.target.drawn
        labeller = (self.network.segmenter if waits else self.teacher.segmenter).eval()
        with self.fabric.autocast():
            maps = class_maps(labeller(clean.to(memory_format=torch.channels_last)).float())
        maps = maps * self.teacher.weights.to(maps.device)[:, None, None]
        maps = maps / maps.sum(dim=1, keepdim=True)
        return filtered_labels(maps, present, self.params.confidence)

    # -- checks and previews -------------------------------------------------------------------

    def validate(self, index: int) -> Iterator[Event]:
        done = index + 1
        self.network.eval()
        # After one tiny step the network is still that of the source: adapting has to beat it.
        at_end = done in (*self.ends, self.ends[1] + 1)
        if done > self.ends[0] and (at_end or self.params.scores_at(done)):
            yield from self.checks.scores(done)
        if self.params.shows_at(done) or (at_end and self.params.preview_every):
            yield from self.checks.previews(done, self._pseudo_labels)


def _freeze_norms(network: torch.nn.Module) -> None:
    """Let batch norms use the statistics of the source, and keep them.

    Pseudo-labels are made with these statistics. Were the student normalised by its batch instead,
    labels and maps would drift apart, and the dominant class would soon swallow the others.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


METHODS = [
    Method(
        name="stylefilter",
        title="Your images in the style of annotated ones, and labels that fit what each shows",
        params=Params,
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
                "width": 64, "crop": 512, "batch": 1, "learning_rate": 1e-4,
                "adaptation_rate": 1e-4, "rate_falls": False,
                "match_shares": False, "teacher": "current", "rounds": 1,
            },
        },
        needs=("target_images", "source_images", "source_masks"),
        takes=("image_labels",),
        multiclass=True,
        classes_by_default=True,
    )
]  # fmt: skip
