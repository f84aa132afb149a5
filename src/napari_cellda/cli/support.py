"""How the command line reads lists, shows progress and prints results."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Score, Stage, Step, Task, drive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import typer

T = TypeVar("T")

_LISTS = ("--strokes", "--set", "--prediction")
AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False}
"""For rich: names of files and layers may hold [brackets] and :colons:."""
LOG_EVERY = 30.0
"""Seconds between two lines about steps where there is no terminal, so that a log stays short."""


def expand_lists(arguments: Sequence[str]) -> list[str]:
    """Repeat a list option before each of its values, as click wants it.

    ``classify a.tif --strokes s.tif t.tif`` becomes ``... --strokes s.tif --strokes t.tif``. A
    command that names its images last (its second word is an option) gives one value at a time.
    """
    images_first = len(arguments) > 1 and not arguments[1].startswith("-")
    expanded: list[str] = []
    option = ""
    for argument in arguments:
        if option and not argument.startswith("-"):
            expanded += [option, argument]
            if option == "--strokes" and not images_first:
                option = ""
            continue
        option = argument if argument in _LISTS else ""
        if not option:
            expanded.append(argument)
    return expanded


def parse_channels(text: str | None) -> str | tuple[int, ...] | None:
    """Read ``--channels``: "grey", "all", or indices such as "0,2"; None stays None."""
    if text is None or text in ("grey", "all"):
        return text
    try:
        channels = tuple(int(part) for part in text.split(","))
    except ValueError:
        channels = ()
    if not channels or min(channels) < 0:
        raise UserError(f"--channels is '{text}'; expected 'grey', 'all' or indices such as '0,2'.")
    return channels


def parse_hashes(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Read the SHA-256 sums of ``--trust``."""
    texts = texts or ()
    for text in texts:
        if not re.fullmatch("[0-9a-fA-F]{64}", text):
            raise UserError(f"--trust is '{text}'; expected the 64 digits of a file's SHA-256.")
    return tuple(text.lower() for text in texts)


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    """Return `value` if it is known; else a UserError that names the option and what it takes."""
    if value not in known:
        raise UserError(f"{option} is '{value}'; expected {', '.join(known[:-1])} or {known[-1]}.")
    return value


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read ``--set KEY=VALUE``; values are read as JSON where they are, else kept as text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UserError(f"--set is '{setting}'; expected KEY=VALUE, such as steps=500.")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return parsed


def check_resume(context: typer.Context, anew: Sequence[str]) -> None:
    """Refuse words that a resume would pass over in silence.

    Parameters
    ----------
    context : typer.Context
    anew : sequence of str
        What may be said anew of a run that was begun, by the names of the command's parameters.
    """
    words = {p.name: p for p in context.command.params if was_typed(context, str(p.name))}
    other = [word for name, word in words.items() if name not in ("resume", "output", *anew)]
    if "resume" in words and other:
        name = other[0].opts[0] if other[0].opts[0].startswith("-") else "the method"
        raise UserError(
            f"--resume goes on with what the run began with: leave out {name}, or begin a new run."
        )


def was_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter was given, and not left as it is by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def follow(task: Task[T]) -> T:
    """Drive a task, showing its stages, steps and notes on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, **AS_IT_IS)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    quiet = not sys.stderr.isatty()  # a log file wants lines now and then, not bars
    started = told = time.monotonic()
    stage = Stage("")
    with Progress(*columns, console=console, disable=quiet) as progress:
        row: Any = None

        def say(line: str) -> None:
            console.print(line, soft_wrap=True)  # a log is searched by line

        def show(event: Event) -> None:
            nonlocal row, stage, told
            match event:
                case Stage(title, total):
                    if row is not None:
                        progress.remove_task(row)
                    row = progress.add_task(title, total=total)
                    stage = event
                case Step(index, losses) if row is not None:
                    progress.update(row, completed=index)
                    now = time.monotonic()
                    if quiet and now - told >= LOG_EVERY:
                        told = now
                        elapsed = timedelta(seconds=int(now - started))
                        figures = "".join(f", {name} {v:.4g}" for name, v in losses.items())
                        say(f"{stage.title}: {_place(index, stage)} after {elapsed}{figures}")
                case Score(name, value, index):
                    where = f"{_place(index, stage)}, " if index else ""
                    say(f"{where}{name}: {value:.4g}")
                case Note(text):
                    say(text)

        return drive(task, show)


def _place(index: int, stage: Stage) -> str:
    return f"step {index}" if stage.total is None else f"step {index} of {stage.total}"


def print_table(rows: Sequence[Mapping[str, Any]], if_empty: str = "") -> None:
    """Print rows that share their keys, or a sentence when there is none."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        Console(**AS_IT_IS).print(if_empty)
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 200, **AS_IT_IS).print(table)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
