"""Several processes that train one network, as Lightning's or torch's launcher starts them.

``torchrun --nproc-per-node 2 -m napari_cellda.cli adapt ... -o RUN`` runs one training on two
processors: each process takes its own crops, gradients are averaged, and only the first one writes.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 600.0


def rank() -> int:
    """Return the number of this process among all of them; 0 for the first, or the only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def agree(wish: bool) -> bool:
    """Return whether any process wishes it; every process must ask at the same step."""
    if world_size() == 1:
        return wish
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        return wish
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([float(wish)], device=device)
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    return bool(votes.item() > 0)


@contextmanager
def tell_lost_process() -> Iterator[None]:
    """Turn what torch raises when one of several processes has ended into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not _is_of_connection(error):
            raise
        raise UserError(
            f"Another of the {world_size()} processes that train together has ended: see what it "
            "printed, then resume the run."
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    from torch import distributed

    # Gloo's errors are plain ones that begin with the place in its source.
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def wait_for(path: Path) -> None:
    """Wait until the first process has written a file.

    Raises
    ------
    UserError
        If it does not appear within ten minutes.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise UserError(f"'{path}' did not appear: the first process did not begin the run.")
        time.sleep(0.2)
