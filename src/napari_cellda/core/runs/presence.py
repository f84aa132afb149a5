"""Who works on a run right now: a lock that dies with its process, and a sign of life."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.locks import Lock, is_held

if TYPE_CHECKING:
    from types import TracebackType

LOCK, SIGN, STOP = ".lock", "process.json", "stop"
"""Files in the run's folder: held by its process; written by it; its wish to end, by anybody."""
STARTED_VARIABLE = "NAPARI_CELLDA_STARTED"
"""Environment variable: set by who takes an old wish away before starting the process."""
BEAT_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""A process on another machine is taken for dead after so long without a sign of life."""
ATTEMPTS, PAUSE_SECONDS = 5, 0.05
"""Somebody who looks whether the lock is held holds it for a moment."""


@dataclass(frozen=True)
class RunProcess:
    """The process that works on a run, as it told itself."""

    pid: int
    host: str
    leads_group: bool
    """Whether it leads a process group, so that its children can be ended with it."""
    device: str
    """"cpu", "mps" or the name of a GPU."""
    memory: int
    """Bytes that it uses on its device."""
    memory_total: int
    """Bytes that the device has; 0 when not known."""

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == platform.node()


class Presence:
    """Held while a process works on a run; as a context manager.

    Parameters
    ----------
    folder : Path
        The run's.

    Raises
    ------
    UserError
        On entering, if another process works on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: Lock | None = None
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="sign of life", daemon=True)

    def __enter__(self) -> Presence:
        if _works_elsewhere(self.folder) or not self._take():
            raise UserError(
                f"The run in '{self.folder}' is at work already; wait for it, or stop it first."
            )
        self._show()
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._beating.join()
        for name in (SIGN, STOP):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    def _take(self) -> bool:
        for _ in range(ATTEMPTS):
            try:
                self._lock = Lock.take(self.folder / LOCK)
            except OSError:
                return True  # a file system without locks: the sign of life has to do
            if self._lock is not None:
                return True
            time.sleep(PAUSE_SECONDS)
        return False

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._show()

    def _show(self) -> None:
        device, memory, total = device_use()
        leads = hasattr(os, "getpgrp") and os.getpgrp() == os.getpid()
        sign = RunProcess(os.getpid(), platform.node(), leads, device, memory, total)
        aside = self.folder / f".{SIGN}"
        with suppress(OSError):  # a full disk must not end the run
            aside.write_text(json.dumps(asdict(sign)), encoding="utf-8")
            aside.replace(self.folder / SIGN)


def process_of(folder: Path) -> RunProcess | None:
    """Return the process that works on the run in `folder` now; None when none does."""
    held = is_held(folder / LOCK)
    sign = _read_sign(folder / SIGN)
    if held:
        return sign or RunProcess(0, platform.node(), False, "", 0, 0)
    if sign is None or (held is False and sign.is_here):
        return None
    return sign if _is_fresh(folder) else None


def _works_elsewhere(folder: Path) -> bool:
    """Whether a process on another machine, whose locks may not be seen here, works on a run."""
    sign = _read_sign(folder / SIGN)
    return sign is not None and not sign.is_here and _is_fresh(folder)


def _is_fresh(folder: Path) -> bool:
    """Whether the latest sign of life is not long ago."""
    with suppress(OSError):
        return time.time() - (folder / SIGN).stat().st_mtime < SILENCE_SECONDS
    return False


def _read_sign(path: Path) -> RunProcess | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return RunProcess(
            pid=int(told["pid"]),
            host=str(told["host"]),
            leads_group=bool(told["leads_group"]),
            device=str(told["device"]),
            memory=int(told["memory"]),
            memory_total=int(told["memory_total"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def device_use() -> tuple[str, int, int]:
    """Return the device that this process computes on, the bytes it uses there, and has there."""
    torch: Any = sys.modules.get("torch")  # never imported for this
    # An AttributeError while another thread still imports it; a RuntimeError of a lost GPU.
    with suppress(AttributeError, RuntimeError):
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            # Which one is torch's current device is told to the thread that computes alone.
            used = [torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())]
            index = used.index(max(used))
            total = torch.cuda.get_device_properties(index).total_memory
            return torch.cuda.get_device_name(index), used[index], total
        if torch is not None and torch.backends.mps.is_available():
            used = torch.mps.driver_allocated_memory()
            if used:
                return "mps", used, torch.mps.recommended_max_memory()
    return "cpu", _resident_memory(), _machine_memory()


def _resident_memory() -> int:
    """Bytes of memory that this process takes."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS tells bytes


def _machine_memory() -> int:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
