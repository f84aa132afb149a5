"""Start a run as a process of its own, with the command that anyone can type; end it.

The process outlives the window. It has low priority and leaves a core to the window, waits for the
runs before it on the same device, and prints to ``output.txt`` in the run's folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_cellda.core.atomic import make_folder, plain_disk_errors
from napari_cellda.core.errors import UserError
from napari_cellda.core.own_process import own_environment, python_module
from napari_cellda.core.run_log import LogWriter
from napari_cellda.core.runs.presence import STARTED_VARIABLE, STOP, RunProcess, process_of
from napari_cellda.core.runs.turn import QUEUE_VARIABLE, default_queue
from napari_cellda.core.threads import LIBRARIES, THREADS_VARIABLE, thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OUTPUT = "output.txt"
PROGRAM = python_module("napari_cellda.cli")
"""The command ``napari-cellda``, found even where it is not on the path."""
NICENESS = 10
DEATH_SECONDS = 5.0
_children: list[subprocess.Popen[bytes]] = []
"""Kept, since they may outlive whoever asked for them."""


class Launched:
    """A run that was started here.

    Attributes
    ----------
    folder : Path
        The run's.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self._process = process
        self.cancelled = False
        """Whether `kill` has ended it."""

    @property
    def alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process.poll() is None

    @property
    def complained(self) -> bool:
        """Whether its process ended with an error, of the user or ours."""
        return self._process.poll() in (1, 2)

    @property
    def crashed(self) -> bool:
        """Whether its process ended with an error of ours, of which it has printed more."""
        return self._process.poll() == 1

    def kill(self) -> None:
        """End it at once, with all that it started."""
        leads = sys.platform != "win32"
        _kill(RunProcess(self._process.pid, "", leads, "", 0, 0))
        self.cancelled = True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_SECONDS)


def start_run(
    words: Sequence[str],
    folder: Path,
    *,
    queue: Path | None = None,
    program: Sequence[str] | None = None,
) -> Launched:
    """Start ``napari-cellda WORDS -o FOLDER``.

    Parameters
    ----------
    words : sequence of str
        The command without ``-o``, such as ``("enhancer", "train", "--images", ...)``.
    folder : Path
        The run's; made if absent.
    queue : Path, optional
        The queue to wait in; None is this user's on this machine.
    program : sequence of str, optional
        What is napari-cellda here; None is `PROGRAM`.

    Raises
    ------
    UserError
        If the folder cannot be made, or the process not started.
    """
    make_folder(folder)
    with suppress(OSError):
        (folder / STOP).unlink()
    command = [*(program or PROGRAM), *words, "-o", str(folder)]
    with plain_disk_errors(folder / OUTPUT), (folder / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=own_environment(**_surroundings(queue or default_queue())),
            **_apart(),
        )
    _lower_priority(process.pid)
    _children[:] = [child for child in _children if child.poll() is None] + [process]
    return Launched(folder, process)


def _surroundings(queue: Path) -> dict[str, str]:
    """Return what its environment adds to ours: fewer threads, a queue, output without delay."""
    threads = str(max(1, thread_count() - 1))
    return {
        STARTED_VARIABLE: "1",
        QUEUE_VARIABLE: str(queue),
        THREADS_VARIABLE: threads,
        "PYTHONUNBUFFERED": "1",
        **{name: os.environ.get(name, threads) for name in LIBRARIES},
    }


def _apart() -> dict[str, Any]:
    """Return what keeps a process alive when the window is closed or gets a Ctrl-C."""
    if sys.platform == "win32":
        return {
            "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP
            | subprocess.BELOW_NORMAL_PRIORITY_CLASS
            | subprocess.CREATE_NO_WINDOW
        }
    return {"start_new_session": True}


def _lower_priority(pid: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def cancel_run(folder: Path, launched: Launched | None = None) -> None:
    """End a run at once; what it did since its last checkpoint is lost.

    Parameters
    ----------
    folder : Path
    launched : Launched, optional
        If it was started here: ended even when its process has not come to the run yet.

    Raises
    ------
    UserError
        If it runs on another machine.
    """
    process = process_of(folder)
    if launched is not None and launched.alive:
        launched.kill()
    elif process is None:
        return
    elif not process.is_here:
        raise UserError(
            f"The run in '{folder}' is at work on '{process.host}' and cannot be ended from here; "
            "use Stop."
        )
    else:
        _kill(process)
    end = time.monotonic() + DEATH_SECONDS
    while process_of(folder) is not None and time.monotonic() < end:
        time.sleep(0.02)
    if (folder / "run.yaml").is_file():
        with suppress(UserError), LogWriter(folder / "events.jsonl") as log:
            log.write({"type": "End", "state": "cancelled", "text": ""})


def _kill(process: RunProcess) -> None:
    if process.pid <= 1:
        raise UserError("The process of this run is not known; end it with the system's own tools.")
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
        )
        return
    with suppress(ProcessLookupError):
        if process.leads_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)


def last_words(folder: Path) -> str:
    """Return what a run's process printed last: the sentence of an error, or nothing."""
    path = folder / OUTPUT
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("Error: ") if said else ""
