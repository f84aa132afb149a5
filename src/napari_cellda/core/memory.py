"""How much memory is free, without a package that tells it, and when it ran out."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
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
    room = None
    with suppress(OSError, ValueError):
        room = _groups_room(Path("/"))
    return min(free, room) if free is not None and room is not None else free


def _groups_room(root: Path) -> int | None:
    """Bytes left under the memory limits of the control groups that this process is in.

    A container's and those of a cluster's job, which may be set several groups above. The second
    version of control groups has one tree, and None is no limit; the first one has a tree for
    memory, where no limit is a number beyond any machine's.
    """
    mounted, rooms = root / "sys/fs/cgroup", list[int | None]()
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            tree, files = mounted / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            tree, files = mounted, ("memory.max", "memory.current")
        else:
            continue
        group = tree / path.lstrip("/")
        # Within a container the path may be that outside of it: then only the tree itself is there.
        rooms += [_room(one, *files) for one in (group, *group.parents) if one.is_relative_to(tree)]
    return min((room for room in rooms if room is not None), default=None)


def _room(group: Path, limit_file: str, used_file: str) -> int | None:
    """Bytes left under the memory limit of one control group."""
    try:
        limit = (group / limit_file).read_text().strip()
        used = int((group / used_file).read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(1, int(limit) - used + _file_cache(group))


def _file_cache(group: Path) -> int:
    """Bytes of files that a control group keeps in memory only until somebody needs the room."""
    try:
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        sizes = {name: int(size) for name, size in lines}
    except (OSError, ValueError):
        return 0
    # In the first version the groups below are counted in the totals alone.
    names = ("active_file", "inactive_file")
    return sum(sizes.get(f"total_{name}", sizes.get(name, 0)) for name in names)


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
