"""What a task says and gives, in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from napari_cellda.core.events import Event, Task

T = TypeVar("T")


def outcome(task: Task[T]) -> tuple[list[Event], T]:
    """Run a task to its end; return its events and what it returned."""
    events = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as end:
            return events, end.value
