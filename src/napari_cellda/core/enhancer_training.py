"""Train a Prediction Enhancer: forests' maps in, truth out [1]_.

.. [1] Matskevych et al., "From Shallow to Deep: Exploiting Feature-Based Classifiers for Domain
   Adaptation in Semantic Segmentation", Frontiers in Computer Science, 2022.
   https://doi.org/10.3389/fcomp.2022.805166
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field

from napari_cellda.core.augment import (
    Deformation,
    MapNoise,
    deform,
    disturb_maps,
    flip_and_turn,
)
from napari_cellda.core.enhancer_forests import ForestMix, make_maps
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Preview, Score, Stage, Step, Task
from napari_cellda.core.jobs import write_safely
from napari_cellda.core.loop import (
    Progress,
    Stop,
    Store,
    cosine_rate,
    prepare,
    set_learning_rate,
    train,
)
from napari_cellda.core.losses import mixed_loss
from napari_cellda.core.metrics import pixel_scores
from napari_cellda.core.nets.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.source_planes import SourcePlane

Preset = Literal["cpu", "gpu", "published"]


class EnhancerParams(ForestMix):
    """How an enhancer is trained."""

    width: int = Field(16, ge=4, le=64)
    """Channels of the network's first level."""
    depth: int = Field(4, ge=2, le=5)
    """Levels of the network: how far around a pixel it looks."""
    patch: int = Field(192, ge=32, le=1024)
    """Side of the crops it is trained on, in pixels."""
    batch: int = Field(8, ge=1, le=256)
    """Crops per step."""
    steps: int = Field(3000, ge=1, le=1_000_000)
    """Optimisation steps."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    """Peak learning rate of AdamW; it falls along a cosine."""
    weight_decay: float = Field(1e-4, ge=0, le=1)
    """Pull of the weights towards 0."""
    bce: float = Field(0.3, ge=0, le=10)
    """Share of the binary cross entropy in the loss."""
    dice: float = Field(1.0, ge=0, le=10)
    """Share of the Dice loss, which keeps rare structures from being called background."""
    noise: float = Field(0.2, ge=0, le=1)
    """Largest standard deviation of the noise added to maps in training."""
    contrast: float = Field(0.6, ge=0, le=3)
    """How much maps are made surer or vaguer in training."""
    rotation: float = Field(20.0, ge=0, le=180)
    """Largest rotation of a crop in degrees, besides quarter turns and flips."""
    zoom: float = Field(1.3, ge=1, le=4)
    """Largest magnification of a crop in training, and reduction by as much."""
    validate_every: int = Field(250, ge=1)
    """Steps between two validations."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Share of the planes (the last by name) kept for choosing the checkpoint."""

    id: str = Field("enhancer", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the package, in small letters without spaces."""
    shows: str = "structure"
    """What the source shows, e.g. nuclei; enhancers warn when they are used on something else."""
    licence: str = "CC-BY-4.0"
    """Licence of the package, as an SPDX name; the source's licence decides what is allowed."""
    attribution: str = ""
    """Who made the source, and under which terms; shown on the model's card."""
    doi: str = ""
    """DOI of the source, e.g. 10.1038/s41592-019-0612-7."""

    @property
    def mix(self) -> ForestMix:
        """The part that decides which forests there are."""
        return ForestMix(**self.model_dump(include=set(ForestMix.model_fields)))


PRESETS: dict[Preset, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "forests": 256,
        "maps_per_forest": 8,
        "map_size": 512,
        "width": 32,
        "patch": 256,
        "batch": 16,
        "steps": 12_000,
        "learning_rate": 1e-3,
        "validate_every": 500,
    },
    # As in the paper, with BatchNorm for its GroupNorm (tiles would show) and batches to feed it.
    "published": {
        "forests": 500,
        "maps_per_forest": 10,
        "map_size": 768,
        "stroke_share": 0.0,
        "worst_tile_share": 0.0,
        "ilastik_share": 0.0,
        "spoiled_share": 0.0,
        "rescaled_share": 0.0,
        "width": 64,
        "patch": 512,
        "batch": 4,
        "steps": 100_000,
        "learning_rate": 2e-4,
        "weight_decay": 1e-5,
        "bce": 1.0,
        "dice": 0.0,
        "validate_every": 1000,
    },
}


def enhancer_params(
    preset: Preset = "cpu", overrides: dict[str, Any] | None = None
) -> EnhancerParams:
    """Return a preset's settings with some of them replaced.

    Raises
    ------
    UserError
        If there is no such preset or setting, or a value is out of its range.
    """
    from pydantic import ValidationError

    if preset not in PRESETS:
        raise UserError(f"There is no preset '{preset}'; expected one of {', '.join(PRESETS)}.")
    try:
        return EnhancerParams.model_validate({**PRESETS[preset], **(overrides or {})})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"Setting '{name}' = {first['input']!r}: {first['msg'].lower()}.") from None


@dataclass(frozen=True)
class TrainedEnhancer:
    """A trained network and what is worth saying about it."""

    network: UNet
    """In eval mode, on the CPU."""
    progress: Progress
    scores: dict[str, float]
    """Validation Dice of the forests' own maps and of the enhanced ones, per output."""
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
    stop: Stop = lambda: False,
    threads: int | None = None,
) -> Task[TrainedEnhancer]:
    """Train many forests, cache their maps, and train a U-Net to turn maps into truth.

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
    held = max(1, round(params.validation_share * len(planes)))
    training, validation = list(planes[:-held]), list(planes[-held:])
    if len(training) < 2:  # forests must not predict their own plane
        training = list(planes)
        yield Note(
            f"There are only {len(planes)} annotated planes, so the checkpoint is chosen on planes "
            "that training saw too: scores will look better than they are."
        )
    yield from _fill_cache(training, validation, params, maps_folder, seed, stop, threads)
    maps = _MapCache.open(maps_folder, "train")
    held_out = _MapCache.open(maps_folder, "validation")
    n_outputs = len(planes[0].outputs)
    trainer = _Trainer(maps, held_out, n_outputs, planes[0].outputs, params, seed, device)
    yield Stage("Train the enhancer", params.steps)
    progress = yield from train(
        trainer.step,
        trainer.batch,
        steps=params.steps,
        parts={"network": trainer.network, "optimiser": trainer.optimiser},
        store=store,
        stop=stop,
        seed=seed,
        validate=trainer.validate,
        validate_every=params.validate_every,
        select=SELECT,
    )
    best = store.load("best")
    if best is not None:
        trainer.network.load_state_dict(best["parts"]["network"])
    network = trainer.network.cpu().eval()
    return TrainedEnhancer(network, progress, trainer.scores(), maps.histogram())


SELECT = "validation dice"
"""Name of the score that chooses the checkpoint."""


def _fill_cache(
    training: list[SourcePlane],
    validation: list[SourcePlane],
    params: EnhancerParams,
    folder: Path,
    seed: int,
    stop: Stop,
    threads: int | None,
) -> Task[None]:
    """Make the maps that are not there yet; each forest is a function of the seed and its index."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [("validation", i) for i in range(params.validation_forests)]
    jobs += [("train", i) for i in range(params.forests)]
    yield Stage("Train forests and predict with them", len(jobs))
    for done, (kind, index) in enumerate(jobs, 1):
        path = folder / f"{kind}_{index:05d}.npy"
        if not path.exists():
            if stop():
                return
            rng = np.random.default_rng([seed, kind == "validation", index])
            if kind == "train":
                made = make_maps(training, training, params.mix, rng, threads=threads)
            else:
                made = make_maps(
                    training, validation, params.mix, rng, style="strokes", threads=threads
                )
            write_safely(path, _as_npy(made))
        yield Step(done)


def _as_npy(array: NDArray[np.uint8]) -> bytes:
    from io import BytesIO

    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


@dataclass(frozen=True)
class _MapCache:
    """The maps of many forests, memory-mapped; each (N, 2, S, S) uint8."""

    forests: tuple[NDArray[np.uint8], ...]

    @classmethod
    def open(cls, folder: Path, kind: str) -> _MapCache:
        paths = sorted(folder.glob(f"{kind}_*.npy"))
        if not paths:
            raise UserError("The run was stopped before the first forest was ready.")
        return cls(tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in paths))

    def crop(self, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Cut (2, side, side) out of a random map, half of the time around foreground."""
        forest = self.forests[rng.integers(len(self.forests))]
        pair = forest[rng.integers(len(forest))]
        size, side = pair.shape[-1], min(side, pair.shape[-1])
        corner = rng.integers(size - side + 1, size=2)
        if rng.random() < 0.5:
            spots = np.flatnonzero(pair[1])
            if len(spots):
                spot = np.unravel_index(spots[rng.integers(len(spots))], pair[1].shape)
                corner = np.clip(np.array(spot) - side // 2, 0, size - side)
        return np.asarray(pair[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side])

    def histogram(self) -> tuple[float, ...]:
        """Shares of ten equal bins of the map values, from every forest."""
        counts = sum(np.bincount(f[:, 0].ravel(), minlength=256) for f in self.forests)
        bins = np.add.reduceat(counts, np.round(np.arange(10) * 25.6).astype(int))
        return tuple(float(round(share, 4)) for share in bins / bins.sum())


class _Trainer:
    """The network, its optimiser, and one step."""

    def __init__(
        self,
        maps: _MapCache,
        held_out: _MapCache,
        n_outputs: int,
        outputs: tuple[str, ...],
        params: EnhancerParams,
        seed: int,
        device: str,
    ) -> None:
        torch.manual_seed(seed)
        self.maps, self.held_out, self.params, self.seed = maps, held_out, params, seed
        self.outputs, self.n_outputs = outputs, n_outputs
        self.network = UNet(1, n_outputs, params.width, params.depth, norm="batch")
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), params.learning_rate, weight_decay=params.weight_decay
        )
        self.fabric, self.model, self.stepper = prepare(self.network, self.optimiser, device)
        self.noise = MapNoise(noise=params.noise, contrast=params.contrast)
        self.deformation = Deformation(rotation=params.rotation, scale=params.zoom)

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the crops of one step: a function of the seed and the step."""
        rng = np.random.default_rng([self.seed, 2, index])
        room = round(self.params.patch * max(1.25, self.params.zoom))
        crops = np.stack([self.maps.crop(room, rng) for _ in range(self.params.batch)])
        maps = torch.from_numpy(crops[:, :1].astype(np.float32) / 255)
        truth = _unpack(torch.from_numpy(crops[:, 1:]), self.n_outputs)
        maps, truth = deform(maps, truth, self.params.patch, self.deformation, rng)
        maps, truth = flip_and_turn(maps, truth, rng)
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
        return {name: float(term.detach()) for name, term in terms.items()}

    def validate(self, index: int) -> Iterator[Event]:
        """Score the enhanced maps of forests and planes that training never saw."""
        scores = self.scores()
        value = float(np.mean([scores[f"enhanced {name}"] for name in self.outputs]))
        yield Score(SELECT, value, index + 1)
        yield Score("validation dice of the forests", scores["forest"], index + 1)
        pair = self.held_out.forests[0][0]
        enhanced = self._enhance(pair[None, 0])[0]
        yield Preview(
            "forest, enhanced", np.concatenate([pair[:1] / np.float32(255), enhanced]), index + 1
        )

    def scores(self) -> dict[str, float]:
        """Mean Dice at 0.5 over the held-out maps: the forests' own, and enhanced per output."""
        found: dict[str, list[float]] = {f"enhanced {name}": [] for name in self.outputs}
        found["forest"] = []
        for forest in self.held_out.forests:
            truth = _unpack(torch.from_numpy(forest[:, 1:].copy()), self.n_outputs).numpy() > 0
            enhanced = self._enhance(forest[:, 0])
            for one, out, true in zip(forest, enhanced, truth, strict=True):
                found["forest"].append(pixel_scores(one[0] > 127, true[0]).dice)
                for k, name in enumerate(self.outputs):
                    found[f"enhanced {name}"].append(pixel_scores(out[k] > 0.5, true[k]).dice)
        return {name: float(np.mean(values)) for name, values in found.items()}

    @torch.inference_mode()
    def _enhance(self, maps: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Enhance (N, S, S) maps with the network as it is; (N, K, S, S)."""
        self.model.eval()
        x = torch.from_numpy(maps[:, None].astype(np.float32) / 255)
        parts = [
            self.model(self.fabric.to_device(part)).float().sigmoid() for part in torch.split(x, 4)
        ]
        return torch.cat(parts).cpu().numpy()


def _unpack(bits: torch.Tensor, n_outputs: int) -> torch.Tensor:
    """Turn (N, 1, S, S) bit fields into (N, K, S, S) floats, output k from bit k."""
    return torch.cat([(bits >> k) & 1 for k in range(n_outputs)], dim=1).float()
