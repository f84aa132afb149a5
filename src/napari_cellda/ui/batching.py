"""A batch beside the window: from what a panel says to the tasks of the core."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.events import Stage, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.batch import BatchOptions, BatchReport
    from napari_cellda.core.events import Event, Stop, Task
    from napari_cellda.core.export import FileFormat

    Model = str | Callable[[Path], None]


@dataclass(frozen=True)
class BatchJob:
    """What to run on which images."""

    model: Model
    """A project, a run or a package; or what writes the project of a session to a path."""
    images: Sequence[Path]
    """Files and folders."""
    output: Path
    instances: bool
    file_format: FileFormat
    options: BatchOptions


def run_job(job: BatchJob, stop: Stop) -> Task[BatchReport]:
    """Run a batch; images that fail are in its report."""
    from napari_cellda.core.batch import predict_batch

    with tempfile.TemporaryDirectory(prefix="cellda-") as folder:
        model = job.model
        if callable(model):
            path = Path(folder) / "session.cellda"
            model(path)
            model = str(path)
        return (
            yield from predict_batch(
                model,
                job.images,
                job.output,
                instances=job.instances,
                file_format=job.file_format,
                options=job.options,
                stop=stop,
            )
        )


class BatchProgress:
    """Turns events into how many images are done, and how far the present one is."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self.step = self.steps = 0
        self.title = ""
        self._counts_images = False

    def take(self, event: Event) -> None:
        """Follow one event."""
        if isinstance(event, Stage):
            self.title, self.step, self.steps = event.title, 0, event.total or 0
            self._counts_images = "images in" in event.title
            numbered = re.match(r"(\d+)/(\d+) ", event.title)
            if numbered:
                self.done, self.total = int(numbered[1]) - 1, int(numbered[2])
            elif self._counts_images:
                self.done, self.total = 0, event.total or 0
        elif isinstance(event, Step):
            self.step = event.index
            if self._counts_images:
                self.done = event.index
