"""Ctrl-C and a polite kill ask a run to end with what it has; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cellda.core.events import Stop

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turn the first interrupt into a question that a task may ask.

    SIGTERM counts as well, since that is what clusters send before they kill a job. More of them
    change nothing: a launcher of several processes sends on what each has got already.

    Yields
    ------
    callable () -> bool
        True once the task shall end.

    Raises
    ------
    typer.Exit
        At the end, with code 130, if it was interrupted.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    asked = False

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            return
        asked = True
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        typer.echo("Stopping after this step; press Ctrl-C again to end at once.", err=True)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield lambda: asked
    finally:
        restore()
    if asked:
        raise typer.Exit(INTERRUPTED)
