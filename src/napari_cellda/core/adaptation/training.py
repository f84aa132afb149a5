"""How every method runs its trainer: one loop, and the best checkpoint at its end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from napari_cellda.core.checkpoints import load_parts
from napari_cellda.core.loop import Progress, Stateful, train

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from napari_cellda.core.adaptation.job import AdaptJob
    from napari_cellda.core.events import Event, Task


class Trainer(Protocol):
    """The networks of a method, their optimisers, and one step."""

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """All state by name; a checkpoint holds nothing else."""

    def batch(self, index: int) -> Any:
        """Return the crops of a step: a function of the job's seed and the step alone."""

    def step(self, index: int, batch: Any) -> dict[str, float]:
        """Take one step and return its losses."""

    def validate(self, index: int) -> Iterator[Event]:
        """Yield scores and previews after a step."""


def train_job(
    job: AdaptJob,
    trainer: Trainer,
    *,
    steps: int,
    validate_every: int,
    select: str | None,
    select_from: int = 0,
    first: int = 0,
) -> Task[Progress]:
    """Train until `steps`, from the job's last checkpoint if there is one.

    Parameters
    ----------
    job : AdaptJob
    trainer : Trainer
    steps, validate_every, select, select_from, first
        See `core.loop.train`.

    Yields
    ------
    See `core.loop.train`.
    """
    return (
        yield from train(
            trainer.step,
            trainer.batch,
            steps=steps,
            parts=trainer.parts,
            store=job.store,
            stop=job.stop,
            seed=job.seed,
            validate=trainer.validate,
            validate_every=validate_every,
            select=select,
            select_from=select_from,
            first=first,
        )
    )


def load_best(job: AdaptJob, **networks: Stateful) -> int | None:
    """Load the best checkpoint into networks, each under its name among the trainer's parts.

    Returns
    -------
    int or None
        Its step; None when there is no such checkpoint: the networks stay as they are.
    """
    best = job.store.load("best")
    if best is None:
        return None
    load_parts(best, networks)
    return int(best["step"])


def load_chosen(
    job: AdaptJob,
    progress: Progress,
    rule: str,
    *,
    otherwise: str = "there was no score to choose by",
    **networks: Stateful,
) -> str:
    """Load the best checkpoint, if one was chosen, and tell how for `Adapted.selection`.

    Parameters
    ----------
    job : AdaptJob
    progress : Progress
    rule : str
        What chooses, such as "The highest Dice on the validation masks".
    otherwise : str
        Why the networks are those of the last step when nothing was chosen, as in a run that was
        stopped early.
    **networks : Stateful
        See `load_best`.

    Returns
    -------
    str
        The rule or why it was not kept to, and the step; without a full stop.
    """
    step = load_best(job, **networks)
    return (
        f"The last step, {progress.steps}: {otherwise}" if step is None else f"{rule}, step {step}"
    )


@contextmanager
def held_still(network: torch.nn.Module) -> Iterator[None]:
    """Let what a network says inside have no gradient by its weights.

    They learn again afterwards, also when a step breaks off and is taken again with less memory.
    """
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
