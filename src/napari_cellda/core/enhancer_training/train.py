"""Train a Prediction Enhancer: forests' maps in, truth out [1]_.

.. [1] Matskevych et al., "From Shallow to Deep: Exploiting Feature-Based Classifiers for Domain
   Adaptation in Semantic Segmentation", Frontiers in Computer Science, 2022.
   https://doi.org/10.3389/fcomp.2022.805166
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_cellda.core.augment import (
    Deformation,
    MapNoise,
    deform,
    disturb_maps,
    flip_and_turn,
)
from napari_cellda.core.averaging import MovingAverage
from napari_cellda.core.compare import pixel_scores
from napari_cellda.core.devices import prepare
from napari_cellda.core.enhancer_training.begin import begin_network
from napari_cellda.core.enhancer_training.calibrate import (
    THRESHOLDS,
    shift_logits,
    steady_threshold,
)
from napari_cellda.core.enhancer_training.centre import centre_maps
from napari_cellda.core.enhancer_training.maps import MapCache, fill_cache
from napari_cellda.core.enhancer_training.source import SourcePlane, hold_out
from napari_cellda.core.events import Event, Note, Preview, Score, Stage, Stop, Task, never
from napari_cellda.core.loop import Progress, Stateful, Store, cosine_rate, set_learning_rate, train
from napari_cellda.core.losses import mixed_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.enhancer_training.params import EnhancerParams
    from napari_cellda.core.nets.unet import UNet


@dataclass(frozen=True)
class TrainedEnhancer:
    """A trained network and what is worth saying about it."""

    network: UNet
    """In eval mode, on the CPU."""
    progress: Progress
    scores: dict[str, float]
    """Validation Dice of the forests' own maps and of the enhanced ones, per output."""
    thresholds: dict[str, float]
    """Per output, the threshold chosen in validation; it lies at 0.5 since."""
    histogram: tuple[float, ...]
    """Shares of ten equal bins of the forests' map values."""


def train_enhancer(
    planes: Sequence[SourcePlane],
    params: EnhancerParams,
    maps_folder: Path,
    store: Store,
    *,
    seed: int = 0,
    device: str = "auto",
    stop: Stop = never,
    threads: int | None = None,
) -> Task[TrainedEnhancer]:
    """Train many forests, cache their maps, and train a U-Net to turn maps into truth.

    In the end the U-Net is calibrated: 0.5 becomes the threshold that was chosen in validation.

    Parameters
    ----------
    planes : sequence of SourcePlane
        The annotated source; at least two.
    params : EnhancerParams
    maps_folder : Path
        Where the forests' maps are kept, one file per forest. Those found here are not made again.
    store : Store
        Where checkpoints are kept; a ``"last"`` found here is gone on from.
    seed : int
        The same seed gives the same forests, batches and (on the CPU) network.
    device : str
        "auto", "cpu", "cuda" or "mps".
    stop : callable
        Asked before every forest and step; the network so far comes back.
    threads : int, optional
        Threads of features and forests; None takes all cores.

    Yields
    ------
    Stage, Step, Score, Preview, Note

    Raises
    ------
    UserError
        If no forest could be trained before it was stopped, or a loss is not finite.
    """
    training, validation = hold_out(list(planes), params.validation_share, params.hold_out)
    if len(training) < 2:  # a forest needs another plane to predict
        training = list(planes)
        yield Note(
            f"There are only {len(planes)} annotated planes, so the checkpoint is chosen on planes "
            "that training saw too: scores will look better than they are."
        )
    yield from fill_cache(training, validation, params.mix, maps_folder, seed, stop, threads)
    maps = MapCache.open(maps_folder, "train")
    held_out = MapCache.open(maps_folder, "validation")
    n_outputs = len(planes[0].outputs)
    trainer = _Trainer(maps, held_out, n_outputs, planes[0].outputs, params, seed, device)
    yield Stage("Train the enhancer", params.steps)
    progress = yield from train(
        trainer.step,
        trainer.batch,
        steps=params.steps,
        parts=trainer.parts,
        store=store,
        stop=stop,
        seed=seed,
        validate=trainer.validate,
        validate_every=params.validate_every,
        select=SELECT,
    )
    best = store.load("best")
    if best is not None:
        trainer.average.load_state_dict(best["parts"]["average"])
    scores, thresholds = trainer.judge()
    network = trainer.average.network.cpu()
    shift_logits(network, list(thresholds.values()))
    return TrainedEnhancer(network, progress, scores, thresholds, maps.histogram())


SELECT = "validation dice"
"""Name of the score that chooses the checkpoint."""


class _Trainer:
    """The network, its optimiser, and one step."""

    def __init__(
        self,
        maps: MapCache,
        held_out: MapCache,
        n_outputs: int,
        outputs: tuple[str, ...],
        params: EnhancerParams,
        seed: int,
        device: str,
    ) -> None:
        torch.manual_seed(seed)
        self.maps, self.held_out, self.params, self.seed = maps, held_out, params, seed
        self.outputs, self.n_outputs = outputs, n_outputs
        self.network = begin_network(params, n_outputs)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), params.learning_rate, weight_decay=params.weight_decay
        )
        self.fabric, self.model, self.stepper = prepare(self.network, self.optimiser, device)
        # What is validated and given out is the average: it is as good as a long decay of the
        # learning rate, at any time.
        self.average = MovingAverage(self.network, params.average)
        self.noise = MapNoise(noise=params.noise, contrast=params.contrast, shift=params.shift)
        self.deformation = Deformation(
            rotation=params.rotation,
            scale=params.zoom,
            bend=params.bend,
            share=params.deformed_share,
        )

    @property
    def parts(self) -> dict[str, Stateful]:
        """Everything that a checkpoint must hold."""
        return {"network": self.network, "optimiser": self.optimiser, "average": self.average}

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the crops of one step: a function of the seed and the step."""
        rng = np.random.default_rng([self.seed, 2, index])
        room = round(self.params.patch * max(1.25, self.params.zoom))
        crops = np.stack([self.maps.crop(room, rng) for _ in range(self.params.batch)])
        maps = torch.from_numpy(crops[:, :1].astype(np.float32) / 255)
        truth = _unpack(torch.from_numpy(crops[:, 1:]), self.n_outputs)
        maps, truth = deform(maps, truth, self.params.patch, self.deformation, rng)
        maps, truth = flip_and_turn(maps, truth, rng)
        maps = centre_maps(maps, truth[:, :1], self.params.centred, rng)
        return disturb_maps(maps, self.noise, rng), truth

    def step(self, index: int, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
        """Do one step of AdamW on BCE and Dice."""
        maps, truth = (self.fabric.to_device(t) for t in batch)
        rate = cosine_rate(index, self.params.steps, self.params.learning_rate)
        set_learning_rate(self.optimiser, rate)
        self.model.train()
        logits = self.model(maps.to(memory_format=torch.channels_last)).float()
        terms = mixed_loss(logits, truth, bce=self.params.bce, dice=self.params.dice)
        self.stepper.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        self.fabric.clip_gradients(self.model, self.stepper, max_norm=5.0)
        self.stepper.step()
        self.average.follow(self.network)
        return {name: float(term.detach()) for name, term in terms.items()}

    def validate(self, index: int) -> Iterator[Event]:
        """Score the enhanced maps of forests and planes that training never saw."""
        scores, _ = self.judge()
        value = float(np.mean([scores[enhanced(name)] for name in self.outputs]))
        yield Score(SELECT, value, index + 1)
        for name, score in scores.items():
            yield Score(f"dice, {name}", score, index + 1)
        pair = self.held_out.forests[0][0]
        after = self._enhance(pair[None, 0])[0]
        yield Preview(
            "forest, enhanced", np.concatenate([pair[:1] / np.float32(255), after]), index + 1
        )

    def judge(self) -> tuple[dict[str, float], dict[str, float]]:
        """Judge the average so far on the held-out maps.

        Returns
        -------
        scores : dict of str to float
            Mean Dice over forests: of their own maps at 0.5, and of each output at the threshold
            below. All windows of a forest are taken together, because a window without
            structure has no Dice worth averaging.
        thresholds : dict of str to float
            Of each output, see `steady_threshold`.
        """
        own: list[float] = []
        curves: list[list[list[float]]] = []
        for forest in self.held_out.forests:
            truth = _unpack(torch.from_numpy(forest[:, 1:].copy()), self.n_outputs).numpy() > 0
            maps = self._enhance(forest[:, 0])
            own.append(pixel_scores(forest[:, 0] > 127, truth[:, 0]).dice)
            outputs = range(self.n_outputs)
            curves.append([_dice_curve(maps[:, k], truth[:, k]) for k in outputs])
        scores, thresholds = {"forest": float(np.mean(own))}, {}
        for k, name in enumerate(self.outputs):
            dice = np.array([curve[k] for curve in curves])
            chosen = steady_threshold(dice)
            thresholds[name] = float(THRESHOLDS[chosen])
            scores[enhanced(name)] = float(dice[:, chosen].mean())
        return scores, thresholds

    @torch.inference_mode()
    def _enhance(self, maps: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Enhance (N, S, S) maps with the average so far; (N, K, S, S)."""
        network = self.average.network
        x = torch.from_numpy(maps[:, None].astype(np.float32) / 255)
        with self.fabric.autocast():
            parts = [
                network(self.fabric.to_device(part)).float().sigmoid() for part in torch.split(x, 4)
            ]
        return torch.cat(parts).cpu().numpy()


def enhanced(output: str) -> str:
    """Name the score of one enhanced output."""
    return f"enhanced {output}"


def _dice_curve(maps: NDArray[np.floating], mask: NDArray[np.bool_]) -> list[float]:
    return [pixel_scores(maps > threshold, mask).dice for threshold in THRESHOLDS]


def _unpack(bits: torch.Tensor, n_outputs: int) -> torch.Tensor:
    """Turn (N, 1, S, S) bit fields into (N, K, S, S) floats, output k from bit k."""
    return torch.cat([(bits >> k) & 1 for k in range(n_outputs)], dim=1).float()
