"""How much memory is free, without a package that tells it, and when it ran out."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "_STATUS_ALLOC_FAILED",
    "Failed to allocate memory",
)
"""How torch's allocators of main memory (the second on Windows), of Macs and of graphics cards,
their libraries and onnxruntime put it: they have no exception for it."""
UNKNOWN = 4 * 2**30
"""Assumed where nothing tells: what any machine that runs napari has."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, NumPy, torch or onnxruntime means that memory ran out."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    foreign = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return foreign and any(words in str(error) for words in NO_MEMORY)


def available_memory() -> int:
    """Estimate how many bytes this process can still take, the limit of a container included."""
    for measure in (_linux, _windows, _posix):
        try:
            found = measure()
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None and found > 0:
            return found
    return UNKNOWN


def give_back() -> None:
    """Return freed memory to the system: glibc and torch keep it, and it seems to be taken."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _linux() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next((int(n.split()[1]) * 1024 for n in lines if n.startswith("MemAvailable:")), None)
    room = _container_room(Path("/sys/fs/cgroup"))
    return min(free, room) if free is not None and room is not None else free


def _container_room(folder: Path) -> int | None:
    """Bytes left under the memory limit of the control group that a container runs in."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(1, int(limit) - used + _file_cache(folder))


def _file_cache(folder: Path) -> int:
    """Bytes of files that a control group keeps in memory only until somebody needs the room."""
    try:
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return sum(int(size) for name, size in lines if name in ("active_file", "inactive_file"))
    except (OSError, ValueError):
        return 0


def _windows() -> int | None:
    if os.name != "nt":
        return None

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "available", "a", "b", "c", "d", "e")
            ),
        )

    status = Status(length=ctypes.sizeof(Status))
    windll = getattr(ctypes, "windll")  # noqa: B009  it is known on Windows only
    done = windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.available) if done else None


def _posix() -> int | None:
    """Half of what is built in: macOS does not say simply how much is free."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
