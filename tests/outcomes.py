"""What a task says and gives, in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from napari_cellda.core.events import Step, drive

if TYPE_CHECKING:
    from napari_cellda.core.events import Event, Task

T = TypeVar("T")


def outcome(task: Task[T]) -> tuple[list[Event], T]:
    """Run a task to its end; return its events and what it returned."""
    events: list[Event] = []
    return events, drive(task, events.append)


def train_into(steps: list[Step], task: Task[T]) -> T:
    """Run a training to its end; its steps are listed as they come, for a stop to look at."""

    def take(event: Event) -> None:
        if isinstance(event, Step) and event.losses:
            steps.append(event)

    return drive(task, take)
