"""How many threads to use, and a map over them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


THREADS_VARIABLE = "NAPARI_CELLDA_THREADS"
"""Environment variable: threads to use where nothing else is asked for."""
LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables: the threads of the libraries that we compute with."""


def thread_count(threads: int | None = None) -> int:
    """Return `threads`, or for None the number of cores this process may use; at least 1."""
    if threads is not None:
        return max(1, threads)
    told = os.environ.get(THREADS_VARIABLE, "")
    if told.isdecimal():
        return max(1, int(told))
    if hasattr(os, "sched_getaffinity"):
        # A cluster job or a container is often given fewer cores than the machine has.
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def run_threaded(work: Callable[[T], None], items: Sequence[T], threads: int | None = None) -> None:
    """Call `work` on every item, several at once, and raise the first error.

    Meant for work that releases the interpreter's lock. A pool of its own per call: safe from any
    thread, and from several at once.
    """
    n_workers = min(thread_count(threads), len(items))
    if n_workers <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        for future in [pool.submit(work, item) for item in items]:
            future.result()
