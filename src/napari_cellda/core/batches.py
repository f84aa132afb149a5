"""The batches of a training: made ahead, and smaller when memory runs out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from napari_cellda.core.memory import available_memory, give_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Batch = TypeVar("Batch")

SMALLEST_CROP = 64
"""Pixels along a side: below, crops are not quartered."""
MOST_OF_FREE = 2 / 3
"""Share of the free memory that the layers of a first step may take: gradients and the gaps that
later steps leave in memory come to a third of that."""


def made_ahead(
    batch: Callable[[int], Batch], start: int, steps: int
) -> Iterator[tuple[int, Batch]]:
    """Make each batch while the one before it is in use."""
    with ThreadPoolExecutor(1, "batches", _leave_the_cores) as pool:
        coming = pool.submit(batch, start) if start < steps else None
        for index in range(start, steps):
            assert coming is not None
            ready = coming.result()
            coming = pool.submit(batch, index + 1) if index + 1 < steps else None
            yield index, ready


def _leave_the_cores() -> None:
    """Let this thread compute on one core, unless a GPU trains.

    Else it has as many helpers as the thread that trains, and both wait for each other: on two
    cores a step of CKS takes twice as long.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if not torch.cuda.is_available():
        torch.get_num_threads()  # torch would set it anew at this thread's first computation
        threadpool_limits(1, user_api="openmp")


def halved(batch: Any, times: int) -> Any:
    """Return a smaller batch: every second crop, or once only one is left, a quarter of each.

    Parameters
    ----------
    batch : tuple
        Its (N, C, Y, X) Tensors are made smaller, what else it holds is left as it is. A batch in
        which more depends on the crops does it by a method of its own, ``halved()``.
    times : int
    """
    if times == 0 or not isinstance(batch, tuple):
        return batch
    if hasattr(batch, "halved"):
        return halved(batch.halved(), times - 1)
    crops = [part for part in batch if _is_crops(part)]
    smaller = every_second if crops and max(len(part) for part in crops) > 1 else quarter
    parts = (smaller(part) if _is_crops(part) else part for part in batch)
    return halved(type(batch)._make(parts) if hasattr(batch, "_make") else tuple(parts), times - 1)


def every_second(crops: Any) -> Any:
    """Return the first, the third and so on."""
    return crops[::2]


def quarter(crops: Any) -> Any:
    """Return the upper left quarter of (..., Y, X) crops; see `smaller_side`."""
    height, width = (smaller_side(side) for side in crops.shape[-2:])
    return crops[..., :height, :width]


def smaller_side(side: int) -> int:
    """Return about half of a side, a multiple of 32 as networks want it, unless it is small."""
    return max(side // 64 * 32, min(side, SMALLEST_CROP))


def _is_crops(part: Any) -> bool:
    return getattr(part, "ndim", 0) == 4


def crop_shapes(batch: Any) -> list[tuple[int, ...]]:
    """List the shapes of the crops in a batch."""
    return [tuple(part.shape) for part in batch if _is_crops(part)]


def can_shrink(batch: Any, times: int) -> bool:
    """Whether halving a batch once more than `times` makes its crops fewer or smaller."""
    return crop_shapes(halved(batch, times + 1)) != crop_shapes(halved(batch, times))


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Raise MemoryError as soon as a step, taken meanwhile, holds nearly all that was free.

    A graphics card refuses what does not fit. Main memory does not: the system ends the process
    without a word. So this looks at what is left before every layer.
    """
    from torch.nn.modules.module import register_module_forward_pre_hook

    give_back()  # what a larger batch has held before
    least = (1 - MOST_OF_FREE) * available_memory()

    def look(*_: object) -> None:
        if available_memory() < least:
            raise MemoryError("A training step takes nearly all of the free memory.")

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
