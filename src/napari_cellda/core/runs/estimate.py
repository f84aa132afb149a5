"""How long a run will take, and how much memory: measured on a few of its real steps."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.jobs import Run
from napari_cellda.core.runs.commands import command_words
from napari_cellda.core.runs.follow import follow_run
from napari_cellda.core.runs.history import RunView
from napari_cellda.core.runs.launch import cancel_run, start_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Estimate:
    """What a run will cost."""

    seconds: float
    memory: int
    """Bytes on its device at most, as far as seen."""
    device: str


def estimate_run(
    words: Sequence[str],
    trial: Mapping[str, Any],
    lengths: Mapping[int, int],
    stop: Callable[[], bool],
    *,
    ratio: float = 1.0,
    validations: int = 1,
    program: Sequence[str] | None = None,
) -> Generator[RunView, None, Estimate | None]:
    """Try a run in small, in a process and a folder of its own, and extrapolate.

    Parameters
    ----------
    words : sequence of str
        The command of the whole run.
    trial : mapping
        Settings that make it short; they go last on the command line, and so win.
    lengths : mapping of int to int
        Stages of so many steps in the trial have so many in the run.
    stop : callable
    ratio : float
        How many times longer training is than in the trial. Other stages take as long.
    validations : int
        How often the run validates; the trial does it once.
    program : sequence of str, optional
        See `start_run`.

    Yields
    ------
    RunView

    Returns
    -------
    Estimate or None
        None when it was stopped.

    Raises
    ------
    UserError
        If the trial fails, with its sentence.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        # No queue: a run that goes on shall not be waited for.
        launched = start_run(
            command_words(words, {}, trial),
            Path(scratch) / "trial",
            queue=Path(scratch) / "queue",
            program=program,
        )
        memory, device, view = 0, "", RunView()
        try:
            for news in follow_run(launched.folder, stop, launched):
                if isinstance(news, RunView):
                    view = news
                    if news.process is not None:
                        memory = max(memory, news.process.memory)
                        device = news.process.device
                    yield news
            if stop():
                return None
            if view.state != "done":
                raise UserError(view.text or "The trial did not come to its end.")
            lines = Run(launched.folder).events()
            seconds = extrapolate(lines, lengths, ratio, validations)
            return Estimate(seconds, memory, device)
        finally:
            cancel_run(launched.folder, launched)


def extrapolate(
    lines: Iterable[Mapping[str, Any]],
    lengths: Mapping[int, int],
    ratio: float = 1.0,
    validations: int = 1,
) -> float:
    """Return the seconds that a run will take, from the log of its trial.

    A stage of n steps that took `s` seconds from its first step to its last has taken s / (n - 1)
    per step. It has `lengths[n]` steps in the run, or `ratio` times n if its steps tell losses, or
    else n. What comes before the first and after the last step counts once, but validation, which
    is from the last step to the last score after it, counts `validations` times.
    """
    total = begun = last = first = scored = 0.0
    steps, trains = 0, False

    def close(now: float) -> float:
        if steps < 2:
            return now - begun
        per_step = (last - first) / (steps - 1)
        validation = max(0.0, scored - last)
        whole = lengths.get(steps, steps * ratio if trains else steps)
        return (now - begun) + per_step * (whole - steps) + validation * (validations - 1)

    for line in lines:
        now = float(line["seconds"])
        match line["type"]:
            case "Stage" | "End":
                total += close(now)
                begun, steps, scored, trains = now, 0, 0.0, False
            case "Step":
                first, last, steps = (now if steps == 0 else first), now, steps + 1
                trains = bool(line.get("losses"))
            case "Score":
                scored = now
    return total
