"""What a long task says while it runs.

A long task is a generator: it yields these events and returns its result. Whoever drives it (a
worker thread, the command line, a test) decides what to do with them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Stage:
    """A new part of the work begins."""

    title: str
    total: int | None = None
    """How many steps it has; None when that is not known."""


@dataclass(frozen=True)
class Step:
    """One step of the present stage is done."""

    index: int
    """Steps done so far, counted from 1."""
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A figure worth plotting or keeping, higher is better unless its name says otherwise."""

    name: str
    value: float
    index: int = 0
    """The step at which it was measured."""
    selects: bool = field(default=False, compare=False)
    """Whether its highest value chooses the checkpoint; `core.loop` tells."""


@dataclass(frozen=True, eq=False)
class Preview:
    """A picture of the work in progress, to be shown as one layer that updates in place."""

    name: str
    array: np.ndarray
    """(Y, X) or (C, Y, X), float maps in [0, 1] or integer labels; points are (n, 3) float: row and
    column, 0 = the middle of the first pixel, and a score in [0, 1]."""
    index: int = 0
    kind: Literal["picture", "points"] = "picture"


@dataclass(frozen=True)
class Note:
    """One plain sentence for the user: a warning, or a choice made for them."""

    text: str


Event = Stage | Step | Score | Preview | Note

T = TypeVar("T")
Task = Generator[Event, None, T]
"""A long task that returns a `T`."""
Stop = Callable[[], bool]
"""What a task asks between its steps: True once it shall end with what it has."""


def never() -> bool:
    """Answer "do not stop": the default of every `stop` argument."""
    return False


def drive(task: Task[T], take: Callable[[Event], object]) -> T:
    """Drive a task to its end, hand every event to `take`, and return its result."""
    while True:
        try:
            event = next(task)
        except StopIteration as end:
            result: T = end.value
            return result
        take(event)


def run_quietly(task: Task[T]) -> T:
    """Drive a task to its end, dropping its events, and return its result."""
    return drive(task, lambda event: None)
