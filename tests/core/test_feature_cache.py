import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_cellda.core import memory
from napari_cellda.core.features import FeatureSpec, compute_features
from napari_cellda.core.features.cache import FeatureCache

spec = FeatureSpec(name="compact")


def block(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 8, 8), dtype=np.float32)


def never() -> np.ndarray:
    raise AssertionError("computed again")


def test_a_hit_is_the_miss_bit_for_bit():
    cache = FeatureCache(10**6)
    miss = cache.get(block(0), spec, lambda: compute_features(block(0), spec))
    hit = cache.get(block(0), spec, never)
    np.testing.assert_array_equal(hit, compute_features(block(0), spec))
    assert hit is miss
    with pytest.raises(ValueError, match="read-only"):
        hit[0, 0, 0] = 1


def test_content_shape_spec_and_place_all_count():
    cache = FeatureCache(10**6)
    a = block(0)
    keys = [
        (a, spec, ""),
        (block(1), spec, ""),
        (a.reshape(1, 4, 16), spec, ""),
        (a.astype(np.float64), spec, ""),
        (a, FeatureSpec(), ""),
        (a, spec, "1:2"),
        (a.tobytes(), spec, ""),
    ]
    for i, (content, which, where) in enumerate(keys):
        cache.get(content, which, lambda i=i: np.full(3, i, np.float32), where)
    for i, (content, which, where) in enumerate(keys):
        assert cache.get(content, which, never, where)[0] == i
    # The same content found again from another array, laid out otherwise.
    assert cache.get(np.asfortranarray(a.copy()), spec, never)[0] == 0


def test_the_budget_holds_and_the_longest_unused_goes():
    size = np.zeros((4, 8, 8), np.float32).nbytes
    cache = FeatureCache(3 * size)
    for seed in (0, 1, 2):
        cache.get(block(seed), spec, lambda: np.zeros((4, 8, 8), np.float32))
    cache.get(block(0), spec, never)
    cache.get(block(3), spec, lambda: np.zeros((4, 8, 8), np.float32))
    assert (len(cache), cache.nbytes) == (3, 3 * size)
    for seed in (0, 2, 3):
        cache.get(block(seed), spec, never)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(block(1), spec, never)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_what_is_larger_than_the_budget_is_returned_but_not_kept():
    cache = FeatureCache(100)
    assert cache.get(block(0), spec, lambda: np.ones(1000, np.float32)).sum() == 1000
    assert len(cache) == 0


def test_a_view_does_not_keep_its_whole():
    cache = FeatureCache(10**6)
    kept = cache.get(block(0), spec, lambda: np.ones((100, 100), np.float32)[:1])
    assert kept.base is None


def test_two_threads_compute_once():
    cache = FeatureCache(10**6)
    started, calls = threading.Event(), []

    def compute() -> np.ndarray:
        calls.append(1)
        started.set()
        # Long enough for the second thread to come and find it unfinished.
        threading.Event().wait(0.1)
        return np.ones(5, np.float32)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, block(0), spec, compute)
        assert started.wait(10)
        second = pool.submit(cache.get, block(0), spec, compute)
        assert first.result(10) is second.result(10)
    assert len(calls) == 1


def test_when_one_thread_fails_the_other_tries():
    cache = FeatureCache(10**6)
    started = threading.Event()

    def fail() -> np.ndarray:
        started.set()
        threading.Event().wait(0.1)
        raise MemoryError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, block(0), spec, fail)
        assert started.wait(10)
        second = pool.submit(cache.get, block(0), spec, lambda: np.ones(2, np.float32))
        assert second.result(10).sum() == 2
        with pytest.raises(MemoryError):
            first.result(10)


def test_many_threads_and_a_small_budget():
    size = np.zeros((28, 8, 8), np.float32).nbytes
    cache = FeatureCache(3 * size)
    expected = [compute_features(block(s), spec) for s in range(6)]

    def ask(i: int) -> bool:
        seed = i % 6
        got = cache.get(block(seed), spec, lambda: compute_features(block(seed), spec, threads=1))
        return bool((got == expected[seed]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))
    assert cache.nbytes <= 3 * size


def test_the_default_budget_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr("napari_cellda.core.features.cache.available_memory", lambda: 4000)
    assert FeatureCache().budget_bytes == 1000


def test_available_memory_is_plausible():
    psutil = pytest.importorskip("psutil")
    assert 2**20 < memory.available_memory() <= psutil.virtual_memory().total


def test_memory_falls_back_where_nothing_tells(monkeypatch):
    def broken() -> int:
        raise OSError

    for name in ("_linux", "_windows", "_posix"):
        monkeypatch.setattr(memory, name, broken)
    assert memory.available_memory() == memory.UNKNOWN
