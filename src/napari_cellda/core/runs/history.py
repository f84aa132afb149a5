"""What a run has done so far, made from its log line by line."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_cellda.core.jobs import State
    from napari_cellda.core.runs.presence import RunProcess

MOST_POINTS = 300
"""Points of a curve, about one per pixel of its plot; of longer ones neighbours are averaged."""
RATE_STEPS = 60
"""The rate is that of so many latest steps."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over steps."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class RunView:
    """How a run stands: all that a window shows of it, pictures apart."""

    state: State | None = None
    """None while its process starts."""
    stage: str = ""
    step: int = 0
    """Steps done in this stage."""
    total: int | None = None
    """Steps that this stage has; None when not known."""
    rate: float | None = None
    """Steps per second; None when not known yet."""
    seconds: float = 0.0
    """Worked on it so far, over all its processes."""
    losses: Mapping[str, Curve] = field(default_factory=dict)
    scores: Mapping[str, Curve] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    text: str = ""
    """Why it failed, or was killed; one sentence."""
    process: RunProcess | None = None

    @property
    def alive(self) -> bool:
        """Whether it is starting, waiting or at work."""
        return self.state in (None, "waiting", "running")

    @property
    def seconds_left(self) -> float | None:
        """Until this stage is over; None when not known."""
        if not self.rate or self.total is None or not self.alive:
            return None
        return max(0, self.total - self.step) / self.rate


class _Series:
    def __init__(self) -> None:
        self.steps: list[float] = []
        self.values: list[float] = []

    def add(self, step: float, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)

    def curve(self) -> Curve:
        steps, values = np.array(self.steps), np.array(self.values)
        every = -(-len(steps) // MOST_POINTS)
        if every > 1:
            whole = len(steps) // every * every
            steps = np.append(steps[:whole].reshape(-1, every)[:, -1], steps[whole:][-1:])
            rest = values[whole:].mean(keepdims=True) if whole < len(values) else values[:0]
            values = np.append(values[:whole].reshape(-1, every).mean(axis=1), rest)
        return Curve(steps, values)


class History:
    """Takes lines of a log, and sums them up."""

    def __init__(self) -> None:
        self.stage, self.step = "", 0
        self.total: int | None = None
        self.end: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._losses: dict[str, _Series] = {}
        self._scores: dict[str, _Series] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=RATE_STEPS)
        self._before = self._latest = 0.0

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take lines in their order."""
        for line in lines:
            self._clock(float(line.get("seconds", 0)))
            self.end = None
            match line["type"]:
                case "Stage":
                    self.stage, self.total, self.step = str(line["title"]), line.get("total"), 0
                    self._pace.clear()
                case "Step":
                    self.step = int(line["index"])
                    self._pace.append((self._latest, self.step))
                    for name, value in line.get("losses", {}).items():
                        self._losses.setdefault(name, _Series()).add(self.step, value)
                case "Score":
                    series = self._scores.setdefault(str(line["name"]), _Series())
                    series.add(line["index"], line["value"])
                case "Note":
                    self.notes.append(str(line["text"]))
                case "End":
                    self.end = dict(line)

    def _clock(self, seconds: float) -> None:
        if seconds < self._latest:  # another process went on with it
            self._before += self._latest
            self._pace.clear()
        self._latest = seconds

    @property
    def rate(self) -> float | None:
        """Steps per second lately."""
        if len(self._pace) < 2:
            return None
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        return (last - first) / (end - start) if end > start and last > first else None

    def view(
        self, state: State | None = None, text: str = "", process: RunProcess | None = None
    ) -> RunView:
        """Sum up."""
        return RunView(
            state=state,
            stage=self.stage,
            step=self.step,
            total=self.total,
            rate=self.rate,
            seconds=self._before + self._latest,
            losses={name: series.curve() for name, series in self._losses.items()},
            scores={name: series.curve() for name, series in self._scores.items()},
            notes=tuple(self.notes),
            text=text,
            process=process,
        )
