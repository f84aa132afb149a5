import os
import threading

import pytest

from napari_cellda.core.threads import run_threaded, thread_count


def test_at_least_one_thread_and_at_most_what_is_asked_for():
    assert thread_count(3) == 3
    assert thread_count(0) == 1
    assert 1 <= thread_count() <= (os.cpu_count() or 1)


def test_the_cores_of_the_process_count_not_those_of_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert thread_count() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count() == 1


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_item_is_worked_on_once(threads):
    done: list[int] = []
    run_threaded(done.append, range(20), threads)
    assert sorted(done) == list(range(20))


def test_several_run_at_once():
    meeting = threading.Barrier(2, timeout=10)
    run_threaded(lambda _: meeting.wait(), [1, 2], 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_is_raised(threads):
    def work(item: int) -> None:
        if item == 3:
            raise KeyError(item)

    with pytest.raises(KeyError, match="3"):
        run_threaded(work, range(6), threads)


def test_nothing_to_do():
    run_threaded(print, [], 2)
