"""The one training loop: steps, scores, checkpoints, stop and resume.

A method writes one ``step(index, batch)``; what a batch holds is a function of the seed and the
index alone, so a resumed run goes on exactly where an uninterrupted one would be.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from napari_cellda.core.batches import (
    can_shrink,
    crop_shapes,
    halved,
    made_ahead,
    within_free_memory,
)
from napari_cellda.core.checkpoints import load_parts
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Score, Step, Stop, Task
from napari_cellda.core.memory import give_back, ran_out_of_memory
from napari_cellda.core.processes import agree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

Batch = TypeVar("Batch")

CHECKPOINT_SECONDS = 60.0
CHECKPOINT_SHARE = 0.02


class Stateful(Protocol):
    """Anything with a state to keep: a module, an optimiser, a moving average."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and plain containers of them."""

    def load_state_dict(self, state: Any) -> Any:
        """Take a state back."""


class Store(Protocol):
    """Where checkpoints are kept: a run's folder, or nothing at all."""

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a state under a name, replacing an earlier one."""

    def load(self, name: str) -> dict[str, Any] | None:
        """Return the state kept under a name, None when there is none."""


class MemoryStore:
    """Checkpoints in memory: for tests, and for trainings that need no folder."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a deep copy."""
        self.states[name] = copy.deepcopy(state)

    def load(self, name: str) -> dict[str, Any] | None:
        """Return what was kept."""
        return self.states.get(name)


@dataclass(frozen=True)
class Progress:
    """How a training ended."""

    steps: int
    """Steps done in all, those before a resume included."""
    stopped: bool
    """Whether it was asked to stop before its end."""
    best_score: float | None
    """The score that chose the best checkpoint; None without validation."""
    best_step: int | None
    n_parameters: int = 0
    """Trained ones, of all networks; 0 when there was no training."""


def train(
    step: Callable[[int, Batch], Mapping[str, float]],
    batch: Callable[[int], Batch],
    *,
    steps: int,
    parts: Mapping[str, Stateful],
    store: Store,
    stop: Stop,
    seed: int = 0,
    validate: Callable[[int], Iterable[Event]] | None = None,
    validate_every: int = 0,
    select: str | None = None,
    select_from: int = 0,
    first: int = 0,
) -> Task[Progress]:
    """Train: one step after the other, from the last checkpoint to the end.

    Parameters
    ----------
    step : callable (index, batch) -> dict of float
        Does one optimisation step and returns its losses by name. `index` counts from 0.
    batch : callable index -> batch
        A function of the index (and the run's seed) only. Called ahead, in a thread of its own.
    steps : int
        Steps in all.
    parts : dict of str to Stateful
        Everything that a checkpoint must hold: networks, optimisers, averages.
    store : Store
        Checkpoints ``"last"`` and ``"best"``. A ``"last"`` found here is gone on from.
    stop : callable
        Asked before every step.
    seed : int
        Torch's own randomness (dropout) is set from it and the index before every step.
    validate : callable index -> events, optional
        Called after every `validate_every` steps and after the last; its events are passed on.
    select : str, optional
        Name of the `Score` whose highest finite value chooses the checkpoint ``"best"``; None keeps
        none.
    select_from : int
        Steps before which no checkpoint is chosen.
    first : int
        Steps that an earlier stage has done, where stages share one count, one store and `parts`.

    Yields
    ------
    Step, and the events of `validate`
        Step indices count from 1; the score that chooses is marked.

    Returns
    -------
    Progress

    Raises
    ------
    UserError
        If a loss is not finite: with the step, the terms, and which checkpoint is kept. If memory
        runs out in `validate`; in a step, batches become smaller instead.

    Notes
    -----
    Batches are halved when memory runs out; in main memory also when a first step shows it would.

    Checkpoints are written when 60 s have passed and 2 % of the steps were done since the last, at
    every stop and at the end. `yield` gives the driver the time to log an event before the
    checkpoint that covers it is written, so a log can be cut back to a checkpoint.
    """
    keeper = _Keeper(parts, store, steps, select, select_from)
    start = keeper.resume()
    if first < start < steps:
        yield Note(f"Going on from the checkpoint at step {start} of {steps}.")
    stopped = False
    for index, ready in made_ahead(batch, start, steps):
        if agree(stop()):
            stopped = True
            break
        while True:
            _seed_torch(seed, index)
            try:
                watched = index == start and can_shrink(ready, keeper.halvings)
                with within_free_memory() if watched else nullcontext():
                    losses = dict(step(index, halved(ready, keeper.halvings)))
                break
            except Exception as error:
                yield keeper.make_room(error, ready)
        if not all(math.isfinite(value) for value in losses.values()):
            raise keeper.give_up(losses, index + 1)
        yield Step(index + 1, losses)
        keeper.done = index + 1
        if validate and (keeper.done == steps or _due(keeper.done, validate_every)):
            for event in _checked(validate(index), keeper.done):
                yield keeper.noted(event)
            keeper.keep_best()
        keeper.keep_last_if_due()
    keeper.keep_last()
    agree(stopped)  # all wait for the first process, which writes what a next stage begins with
    trained = count_trained(parts.values())
    return Progress(keeper.done, stopped, keeper.best_score, keeper.best_step, trained)


def count_trained(parts: Iterable[object]) -> int:
    """Count the parameters that training changes, those that networks share once."""
    from torch import nn

    found = {p for part in parts if isinstance(part, nn.Module) for p in part.parameters()}
    return sum(parameter.numel() for parameter in found if parameter.requires_grad)


class _Keeper:
    """Writes and reads the checkpoints of one training."""

    def __init__(
        self,
        parts: Mapping[str, Stateful],
        store: Store,
        steps: int,
        select: str | None,
        select_from: int,
    ) -> None:
        self.parts, self.store, self.steps = parts, store, steps
        self.select, self.select_from = select, select_from
        self.done = self.kept = 0
        self.clock = time.monotonic()
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.candidate: float | None = None
        self.best: dict[str, Any] | None = None
        self.halvings = 0
        """How often the batches were halved because memory ran out."""

    def resume(self) -> int:
        """Load the last checkpoint, if there is one, and return the steps done before it."""
        state = self.store.load("last")
        if state is not None:
            load_parts(state, self.parts)
            self.done = self.kept = int(state["step"])
            self.best_score, self.best_step = state["best_score"], state["best_step"]
            self.halvings = int(state.get("halvings", 0))
        return self.done

    def make_room(self, error: Exception, batch: Any) -> Note:
        """Halve the batches once more if memory ran out; any other error is raised again."""
        if not ran_out_of_memory(error):
            raise error
        if not can_shrink(batch, self.halvings):
            raise UserError(
                "There is not enough memory for a single crop; choose a smaller width or crop."
            ) from error
        self.halvings += 1
        shapes = crop_shapes(halved(batch, self.halvings))
        give_back()
        sizes = " and ".join(" x ".join(map(str, shape)) for shape in sorted(set(shapes)))
        return Note(f"Memory ran out: going on with smaller batches ({sizes}).")

    def noted(self, event: Event) -> Event:
        """Remember the score that chooses, and mark it as such for whoever reads the log."""
        if isinstance(event, Score) and event.name == self.select and self.done >= self.select_from:
            self.candidate = event.value
            return replace(event, selects=True)
        return event

    def keep_best(self) -> None:
        """Remember the weights when the newest score beats all before it; NaN beats nothing."""
        score, self.candidate = self.candidate, None
        if score is None or not math.isfinite(score):
            return
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step = score, self.done
            # Written with the next "last" only: a kill before that replays the same steps and
            # finds the same best, and frequent validation does not mean frequent writing.
            self.best = copy.deepcopy(self._state())

    def keep_last_if_due(self) -> None:
        since = time.monotonic() - self.clock
        if since >= CHECKPOINT_SECONDS and self.done - self.kept >= CHECKPOINT_SHARE * self.steps:
            self.keep_last()

    def give_up(self, losses: Mapping[str, float], step: int) -> UserError:
        """Keep what is good when a loss is not finite; return the sentence that tells of it."""
        self._write_best()  # the present weights are spoilt
        steps = {"last good": self.kept, "best": self.best_step or 0}
        which = max(steps, key=lambda name: steps[name])
        kept = f"The {which} checkpoint, of step {steps[which]}, is kept"
        terms = ", ".join(f"{name} = {value:g}" for name, value in losses.items())
        return UserError(
            f"Training broke down at step {step} ({terms}); expected finite losses. "
            f"{kept if steps[which] else 'There is no checkpoint yet'}: begin a new run with a "
            "smaller learning rate, or full instead of mixed precision."
        )

    def _write_best(self) -> None:
        if self.best is not None:
            self.store.save("best", self.best)
            self.best = None

    def keep_last(self) -> None:
        self._write_best()
        if self.done > self.kept:
            self.store.save("last", self._state())
            self.kept, self.clock = self.done, time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.done,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "halvings": self.halvings,
            "parts": {key: part.state_dict() for key, part in self.parts.items()},
        }


def _checked(events: Iterable[Event], step: int) -> Iterable[Event]:
    """Pass on the events of a validation, which cannot do with less than whole images."""
    try:
        yield from events
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        raise UserError(
            f"Memory ran out while the network was tried out on whole images after step {step}; "
            "close other programs and resume the run, or begin one with a smaller width."
        ) from error


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _seed_torch(seed: int, index: int) -> None:
    import torch

    torch.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set one learning rate for all parameters."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def cosine_rate(index: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Learning rate at a step: a short linear rise, then half a cosine down to 1 % of the peak.

    A function of the step alone, so that a resume needs no scheduler state.
    """
    warmup = min(warmup, max(1, steps // 10))
    if index < warmup:
        return peak * (index + 1) / warmup
    done = (index - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
