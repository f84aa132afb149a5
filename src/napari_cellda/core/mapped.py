"""Arrays in files, of which only the part in use is in memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

CAN_LET_GO = hasattr(mmap.mmap, "madvise") and hasattr(mmap, "MADV_DONTNEED")


class MappedArray(np.memmap[Any, np.dtype[Any]]):
    """A memory map of a file that lets go of its pages whenever another part is asked for.

    The system gives back the pages of a plain memory map only under pressure: a pass over a large
    file then counts as memory of the process, as if all of it had been loaded. What was written
    is safe, since the pages go back to the system's cache of the file.
    """

    def __getitem__(self, index: Any) -> Any:
        """Return a view of one part; see `numpy.ndarray`."""
        self.let_go()
        return super().__getitem__(index)

    def __setitem__(self, index: Any, values: Any) -> None:
        """Write one part; see `numpy.ndarray`."""
        self.let_go()
        super().__setitem__(index, values)

    def let_go(self) -> None:
        """Leave all pages to the system's cache; they come back when they are looked at."""
        mapped = getattr(self, "_mmap", None)
        # A copy on write has no other place for what was written.
        if CAN_LET_GO and isinstance(mapped, mmap.mmap) and self.mode != "c":
            mapped.madvise(mmap.MADV_DONTNEED)
