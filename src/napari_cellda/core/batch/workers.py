"""Processes that take one image after the other; one that dies takes only its image along."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.atomic import remove_leftovers
from napari_cellda.core.batch.files import SKIPPED, BatchReport, Failure, describe_failure
from napari_cellda.core.events import Note, Stage, Step
from napari_cellda.core.export import FileFormat
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.memory import available_memory
from napari_cellda.core.own_process import own_environment, python_module
from napari_cellda.core.params import BaseParams
from napari_cellda.core.paths import stem
from napari_cellda.core.threads import LIBRARIES, THREADS_VARIABLE, thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.batch.files import Work
    from napari_cellda.core.batch.models import Recipe
    from napari_cellda.core.events import Stop, Task

WORKER_BYTES = 3 * 2**29
"""About what a worker takes with an enhancer on 1024 x 1024 pixels."""
ENOUGH_IMAGES = 8
"""A worker starts in some seconds: not unasked for fewer images than this each."""
PATIENCE = 10.0
"""Seconds that a worker gets to clear up after itself before it is killed."""


class Order(BaseParams):
    """What a worker is told at its start."""

    model: str
    channels: str | tuple[int, ...] | None
    trusted: tuple[str, ...]
    output: Path
    file_format: FileFormat
    instances: InstanceParams | None
    made_with: str
    threads: int

    @classmethod
    def of(cls, recipe: Recipe, work: Work, n_workers: int) -> Order:
        """Write down some work for one of several workers."""
        choice = work.choice
        return cls(
            model=recipe.model,
            channels=recipe.channels,
            trusted=recipe.trusted,
            output=choice.folder,
            file_format="ome-zarr" if choice.file_format == "ome-zarr" else "tif",
            instances=choice.instance_params if choice.instances else None,
            made_with=work.made_with,
            threads=max(1, thread_count() // n_workers),
        )


def worker_count(asked: int | None, n_images: int) -> int:
    """Return how many processes to use; None takes as many as pay and fit into memory."""
    if asked is not None:
        return max(1, min(asked, n_images))
    from napari_cellda.core.modelzoo.network import best_device

    if best_device() != "cpu":
        return 1  # they would share one graphics card
    return max(
        1, min(thread_count(), n_images // ENOUGH_IMAGES, available_memory() // WORKER_BYTES)
    )


def run_in_processes(
    order: Order, paths: Sequence[Path], n_workers: int, *, stop: Stop
) -> Task[BatchReport]:
    """Share images out among processes.

    Yields
    ------
    Stage, Step
        One step per image.
    Note
        What the workers note, and every image that failed.

    Returns
    -------
    BatchReport
    """
    report = BatchReport()
    yield Stage(f"{len(paths)} images in {n_workers} processes", len(paths))
    with _Crew(order, paths, n_workers) as crew:
        done = 0
        while done < len(paths) and not stop():
            try:
                path, answer = crew.answers.get(timeout=0.1)
            except queue.Empty:
                continue
            done += 1
            for text in answer["notes"]:
                yield Note(text)
            one = _report(path, answer)
            for failure in one.failures:
                yield Note(f"{SKIPPED}{failure}")
            report += one
            yield Step(done)
    return report


def _report(path: Path, answer: dict[str, Any]) -> BatchReport:
    if answer["failure"]:
        return BatchReport(failures=(Failure(path, answer["failure"], answer["traceback"]),))
    return BatchReport((path,), tuple(Path(name) for name in answer["written"]))


class _Crew:
    """Some workers, each driven by a thread, and the queue into which their answers go."""

    def __init__(self, order: Order, paths: Sequence[Path], n_workers: int) -> None:
        self.answers: queue.Queue[tuple[Path, dict[str, Any]]] = queue.Queue()
        self._waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for path in paths:
            self._waiting.put(path)
        self._workers = [_Worker(order) for _ in range(n_workers)]
        self._ended = threading.Event()
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="batch")

    def __enter__(self) -> _Crew:
        for worker in self._workers:
            self._threads.submit(self._drive, worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for worker in self._workers:
            worker.end()
        self._threads.shutdown()

    def _drive(self, worker: _Worker) -> None:
        while not self._ended.is_set():
            try:
                path = self._waiting.get_nowait()
            except queue.Empty:
                break
            try:
                answer = worker.process(path)
            except Exception as error:  # such as no process could be started
                failure = describe_failure(path, error)
                answer = answer_for(failure=failure.sentence, traceback=failure.traceback)
            self.answers.put((path, answer))
        worker.finish()


class _Worker:
    """One process at a time: a new one is started for the next image when one has died."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._ended = False

    def process(self, path: Path) -> dict[str, Any]:
        """Have one image done; return the worker's answer, or what became of the worker."""
        child = self._running()
        if child is None:
            return answer_for(failure="The work was stopped.")
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(str(path)) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:
            line = ""
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = _close(child)
        self._child = None
        remove_leftovers(self._order.output, [stem(path)])
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return answer_for(
            failure=f"'{path}' was not done: its process {how}; memory may have run out."
        )

    def _running(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._ended:
                return None
            if self._child is not None and self._child.poll() is not None:
                _close(self._child)
                self._child = None
            if self._child is None:
                self._child = _start(self._order)
            return self._child

    def finish(self) -> None:
        """Let the process end by itself: there is no more work."""
        if self._child is not None:
            _close(self._child)

    def end(self) -> None:
        """End the process now; it clears up what it has half written."""
        with self._lock:
            self._ended = True
            child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _start(order: Order) -> subprocess.Popen[str]:
    threads = dict.fromkeys((THREADS_VARIABLE, *LIBRARIES), str(order.threads))
    child = subprocess.Popen(
        python_module("napari_cellda.core.batch.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=own_environment(**threads),
        text=True,
        encoding="utf-8",
        **_apart(),
    )
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.write(order.model_dump_json() + "\n")
        child.stdin.flush()
    return child


def _apart() -> dict[str, Any]:
    """Return what keeps Ctrl-C from a process: it is for the parent, which ends its workers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _close(child: subprocess.Popen[str]) -> int:
    """Close the lines to a process, which ends it if it has not ended; return its exit code."""
    for line in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            if line is not None:
                line.close()
    return child.wait()


def answer_for(
    written: Sequence[Path] = (), notes: Sequence[str] = (), failure: str = "", traceback: str = ""
) -> dict[str, Any]:
    """Return a worker's answer about one image."""
    return {
        "written": [str(path) for path in written],
        "notes": list(notes),
        "failure": failure,
        "traceback": traceback,
    }
