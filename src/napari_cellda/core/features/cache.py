"""Keep computed features in memory, found again by what they were computed from."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.memory import available_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_cellda.core.features.sets import FeatureSpec


class FeatureCache:
    """Features by content, under a memory budget; what was not used longest goes first.

    Safe to use from several threads: a second one that asks for features still being computed
    waits for them. A hit is the very array that the miss computed, read-only.

    Parameters
    ----------
    budget_bytes : int, optional
        How much memory the kept features may take; None takes a quarter of what is free now.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = available_memory() // 4 if budget_bytes is None else budget_bytes
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._nbytes = 0
        self._computing: dict[bytes, threading.Event] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes that the kept features take."""
        return self._nbytes

    def get(
        self,
        block: NDArray[np.generic] | bytes,
        spec: FeatureSpec,
        compute: Callable[[], NDArray[np.float32]],
        where: str = "",
    ) -> NDArray[np.float32]:
        """Return the features of a block, computed now or before.

        Parameters
        ----------
        block : ndarray or bytes
            What the features are computed from, or a digest of it.
        spec : FeatureSpec
            Which features.
        compute : callable
            Computes them; called without arguments, and only on a miss.
        where : str
            What else they depend on, such as the part of the block that is kept.

        Returns
        -------
        ndarray of float32
            Read-only. Not kept when it is larger than the whole budget.
        """
        key = _digest(block, spec, where)
        while True:
            with self._lock:
                features = self._kept.get(key)
                if features is not None:
                    self._kept.move_to_end(key)
                    return features
                done = self._computing.get(key)
                if done is None:
                    self._computing[key] = threading.Event()
                    break
            # Whoever computes may fail: then this thread tries, with its own error if any.
            done.wait()
        try:
            features = _freeze(compute())
            self._keep(key, features)
        finally:
            with self._lock:
                self._computing.pop(key).set()
        return features

    def clear(self) -> None:
        """Drop everything kept."""
        with self._lock:
            self._kept.clear()
            self._nbytes = 0

    def _keep(self, key: bytes, features: NDArray[np.float32]) -> None:
        if features.nbytes > self.budget_bytes:
            return
        with self._lock:
            self._kept[key] = features
            self._nbytes += features.nbytes
            while self._nbytes > self.budget_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._nbytes -= oldest.nbytes


def _freeze(features: NDArray[np.float32]) -> NDArray[np.float32]:
    # A view would keep the memory of its whole, which the budget would not see.
    owned = features if features.base is None else features.copy()
    owned.flags.writeable = False
    return owned


def _digest(block: NDArray[np.generic] | bytes, spec: FeatureSpec, where: str) -> bytes:
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f"{spec.model_dump_json()}\n{where}\n".encode())
    if isinstance(block, bytes):
        digest.update(b"digest\n" + block)
    else:
        digest.update(f"{block.shape} {block.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(block).data.cast("B") if block.size else b"")
    return digest.digest()
