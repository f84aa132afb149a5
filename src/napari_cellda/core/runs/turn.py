"""Runs that wait for their turn: one per device, first come, first served.

A run that was started from the window waits until the runs before it are over. What is waited for
are locks, which the system frees when their holder dies, so no crash can block the queue.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellda.core.events import Stage
from napari_cellda.core.locks import Lock, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_cellda.core.events import Task

QUEUE_VARIABLE = "NAPARI_CELLDA_QUEUE"
"""Environment variable: the folder of the queue to wait in; without it a run begins at once."""
WAITING = "Wait for the runs before this one"
"""Title of the stage."""
LOOK_SECONDS = 0.5


def default_queue() -> Path:
    """Return this user's queue on this machine: devices are not shared between machines."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()) / f"napari-cellda-queue-{user}"


class Turn:
    """A run's place in the queue, and then its device."""

    def __init__(self) -> None:
        self._device: Lock | None = None

    def wait(self, stop: Callable[[], bool]) -> Task[None]:
        """Wait until a device is free, or `stop()`; nothing is waited for outside a queue.

        Yields
        ------
        Stage
            Once, if there is anything to wait for.
        """
        folder = os.environ.get(QUEUE_VARIABLE)
        if not folder:
            return
        queue = Path(folder)
        queue.mkdir(parents=True, exist_ok=True)
        devices = device_names()
        with _ticket(queue) as mine:
            told = False
            while not stop():
                if not _older(queue, mine) and self._take(queue, devices):
                    return
                if not told:
                    yield Stage(WAITING)
                    told = True
                time.sleep(LOOK_SECONDS)

    def _take(self, queue: Path, devices: list[str]) -> bool:
        for index, device in enumerate(devices):
            self._device = Lock.take(queue / f"{device}.device")
            if self._device is not None:
                if len(devices) > 1:
                    import torch

                    # Not by CUDA_VISIBLE_DEVICES: CUDA has read it when it told the devices.
                    torch.cuda.set_device(index)
                return True
        return False

    def release(self) -> None:
        """Leave the device to the next."""
        if self._device is not None:
            self._device.release()


@contextmanager
def _ticket(queue: Path) -> Iterator[Path]:
    """Take a ticket: a locked file whose name tells when it came."""
    path = queue / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.ticket"
    lock = Lock.take(path)
    try:
        yield path
    finally:
        if lock is not None:
            lock.release()
        _throw_away(path)


def _older(queue: Path, mine: Path) -> bool:
    """Tell whether somebody who came earlier still waits; tickets of the dead are thrown away."""
    for path in queue.glob("*.ticket"):
        if path.name < mine.name:
            if is_held(path) is not False:
                return True
            _throw_away(path)
    return False


def _throw_away(ticket: Path) -> None:
    with suppress(OSError):  # on Windows, while somebody else looks at it: the next one will do it
        ticket.unlink()


def device_names() -> list[str]:
    """Return what runs queue for: each GPU, or else the one processor."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda.is_available():
        numbers = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
        return [f"cuda-{number.strip()}" for number in numbers]
    return ["processor"]
