"""Tasks beside the window: every ending is delivered, in the window's thread."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step, Task
from napari_cellda.ui.latest import LatestWins
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import relay, run_task, stop_tasks, tasks_of

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

Stop = Callable[[], bool]


class Log:
    """Writes down what is called back, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[threading.Thread] = set()

    def named(self, name: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            self.threads.add(threading.current_thread())
            self.calls.append((name, args[0] if args else None))

        return call

    @property
    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {f"on_{name}": self.named(name) for name in ("event", "result", "error", "finished")}

    def has_finished(self) -> bool:
        return ("finished", None) in self.calls


@pytest.fixture
def log() -> Log:
    return Log()


def test_nobody_is_called_back_once_its_widget_is_deleted(log: Log, qtbot: QtBot) -> None:
    owner, go_on = QWidget(), threading.Event()
    handle = run_task(lambda stop: go_on.wait(60), owner=owner, **log.callbacks)
    with qtbot.waitSignal(owner.destroyed):
        owner.deleteLater()
    assert handle.stopping
    go_on.set()
    assert handle.wait(60)
    run_task(lambda stop: None, on_finished=log.named("later"))
    qtbot.waitUntil(lambda: bool(log.calls))
    assert log.calls == [("later", None)]


def test_widget_keeps_no_trace_of_tasks_that_have_ended(log: Log, qtbot: QtBot) -> None:
    owner = QWidget()
    qtbot.addWidget(owner)
    before = owner.receivers(owner.destroyed)
    run_task(lambda stop: None, owner=owner, **log.callbacks)
    qtbot.waitUntil(log.has_finished)
    assert owner.receivers(owner.destroyed) == before


def test_events_and_result_arrive_in_order_in_the_windows_thread(log: Log, qtbot: QtBot) -> None:
    def task(stop: Stop) -> Task[str]:
        yield Stage("Count", 2)
        yield Step(1)
        yield Step(2)
        return "two"

    run_task(task, **log.callbacks)
    qtbot.waitUntil(log.has_finished)
    events = [("event", Stage("Count", 2)), ("event", Step(1)), ("event", Step(2))]
    assert log.calls == [*events, ("result", "two"), ("finished", None)]
    assert log.threads == {threading.main_thread()}


def test_plain_function_is_a_task_too(log: Log, qtbot: QtBot) -> None:
    run_task(lambda stop: 7, **log.callbacks)
    qtbot.waitUntil(log.has_finished)
    assert log.calls == [("result", 7), ("finished", None)]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("out of memory"), UserError("No image."), StopAsyncIteration(), OSError()],
)
def test_every_error_is_delivered(error: Exception, log: Log, qtbot: QtBot) -> None:
    def task(stop: Stop) -> Task[None]:
        yield Note("about to fail")
        raise error

    run_task(task, **log.callbacks)
    qtbot.waitUntil(log.has_finished)
    assert log.calls == [("event", Note("about to fail")), ("error", error), ("finished", None)]


def test_error_before_the_first_event_and_without_a_handler_reaches_the_session(
    qtbot: QtBot,
) -> None:
    session = Session()
    seen: list[Exception] = []
    session.failed.connect(seen.append)

    def task(stop: Stop) -> Task[None]:
        raise RuntimeError("shape mismatch")
        yield

    run_task(task, session=session)
    qtbot.waitUntil(lambda: bool(seen))
    assert str(seen[0]) == "shape mismatch"
    assert session.last_error is seen[0]


def test_stop_lets_the_task_return_what_it_has(log: Log, qtbot: QtBot) -> None:
    started = threading.Event()

    def task(stop: Stop) -> Task[str]:
        yield Stage("Wait")
        started.set()
        while not stop():
            pass
        return "partial"

    handle = run_task(task, **log.callbacks)
    assert started.wait(10)
    handle.stop()
    qtbot.waitUntil(log.has_finished)
    assert ("result", "partial") in log.calls
    assert handle.wait(10)
    assert not handle.running


def test_closing_the_session_ends_its_tasks_and_calls_nobody_back(log: Log, qtbot: QtBot) -> None:
    session, other = Session(), Session()
    release = threading.Event()

    def task(stop: Stop) -> Task[None]:
        while not stop() and not release.wait(0.01):
            pass
        yield Note("too late")

    mine = run_task(task, session=session, **log.callbacks)
    theirs = run_task(task, session=other)
    assert tasks_of(session) == [mine]
    session.close()
    assert mine.wait(10)
    assert theirs.running
    release.set()
    assert stop_tasks(other, seconds=10)
    qtbot.wait(50)
    assert log.calls == []


def test_many_events_do_not_hold_up_the_window(log: Log, qtbot: QtBot) -> None:
    def task(stop: Stop) -> Task[None]:
        for index in range(5000):
            yield Step(index)

    run_task(task, **log.callbacks)
    qtbot.waitUntil(log.has_finished, timeout=20_000)
    assert [event.index for name, event in log.calls if name == "event"] == list(range(5000))


def test_calls_go_on_while_a_callback_shows_a_dialog(qtbot: QtBot) -> None:
    loop, shown = QEventLoop(), threading.Event()
    answers: list[int] = []

    def dialog() -> None:
        QTimer.singleShot(10_000, loop.quit)  # so that the test ends if nothing comes
        shown.set()
        answers.append(loop.exec())

    def post() -> None:
        relay_post(dialog)
        shown.wait(10)
        relay_post(lambda: loop.exit(7))

    relay_post = relay().post
    thread = threading.Thread(target=post)
    thread.start()
    qtbot.waitUntil(lambda: bool(answers), timeout=20_000)
    thread.join()
    assert answers == [7]


class Questions:
    """A `LatestWins` whose work waits for a gate, and a log of what it did."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun: list[str] = []
        self.answers: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.idle = 0
        self.thread = LatestWins(self._work, self._on_answer, self.errors.append, self._on_idle)

    def _work(self, item: str, superseded: Stop, stop: Stop) -> Iterator[str]:
        self.begun.append(item)
        yield "first"
        self.gate.acquire()
        if item == "bad":
            raise RuntimeError("CUDA out of memory")
        if not superseded() and not stop():
            yield "second"

    def _on_answer(self, item: str, answer: str) -> None:
        self.answers.append((item, answer))

    def _on_idle(self) -> None:
        self.idle += 1


def test_the_window_gets_its_turn_between_slow_callbacks(qtbot: QtBot) -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("call")
        time.sleep(0.02)

    timer = QTimer()
    timer.timeout.connect(lambda: order.append("window"))
    timer.start(1)
    post = relay().post
    thread = threading.Thread(target=lambda: [post(slow) for _ in range(4)])
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: order.count("call") == 4)
    timer.stop()
    assert "call call" not in " ".join(order)


@pytest.fixture
def questions() -> Iterator[Questions]:
    one = Questions()
    yield one
    one.thread.abandon()
    one.gate.release(10)
    assert one.thread.wait(10)


def test_latest_item_wins_and_older_work_ends(questions: Questions, qtbot: QtBot) -> None:
    questions.thread.submit("a")
    qtbot.waitUntil(lambda: questions.begun == ["a"])
    for item in "bcd":
        questions.thread.submit(item)
    questions.gate.release(2)
    qtbot.waitUntil(lambda: not questions.thread.busy)
    assert questions.begun == ["a", "d"]
    assert questions.answers == [("a", "first"), ("d", "first"), ("d", "second")]
    assert questions.idle == 1


def test_runtime_error_is_delivered_and_the_thread_goes_on(
    questions: Questions, qtbot: QtBot
) -> None:
    questions.gate.release(2)
    questions.thread.submit("bad")
    qtbot.waitUntil(lambda: not questions.thread.busy)
    assert [str(e) for e in questions.errors] == ["CUDA out of memory"]
    questions.thread.submit("good")
    qtbot.waitUntil(lambda: not questions.thread.busy)
    assert questions.answers[-1] == ("good", "second")


def test_abandoned_thread_ends_and_is_silent(questions: Questions, qtbot: QtBot) -> None:
    questions.thread.submit("a")
    qtbot.waitUntil(lambda: bool(questions.answers))
    questions.thread.abandon()
    questions.gate.release(1)
    assert questions.thread.wait(10)
    qtbot.wait(20)
    assert questions.answers == [("a", "first")]
    assert questions.idle == 0
    questions.thread.submit("b")
    assert not questions.thread.alive


class _Panel(QWidget):
    """Nobody but its own work holds it."""

    def work(self, stop: Stop) -> int:
        return 1

    def take(self, number: int) -> None:
        pass


def test_a_widget_that_its_work_held_last_is_deleted_in_the_windows_thread(qtbot: QtBot) -> None:
    threads: list[threading.Thread] = []
    count = 400
    for number in range(count):
        panel = _Panel()
        weakref.finalize(panel, lambda: threads.append(threading.current_thread()))
        run_task(panel.work, on_result=panel.take)
        del panel
        if number % 7 == 0:
            qtbot.wait(1)
    qtbot.waitUntil(lambda: len(threads) == count)
    assert set(threads) == {threading.main_thread()}


def test_program_ends_with_its_main_thread() -> None:
    """A script that never closes its viewer must not hang at its end."""
    code = """
        import time
        from qtpy.QtWidgets import QApplication
        from napari_cellda.ui.latest import LatestWins
        from napari_cellda.ui.worker import run_task
        app = QApplication([])
        def work(item, superseded, stop):
            while not stop():
                time.sleep(0.01)
            yield
        nothing = lambda *args: None
        LatestWins(work, nothing, nothing, nothing).submit(1)
        def task(stop):
            while not stop():
                time.sleep(0.01)
                yield
        run_task(task)
        print("end of script")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "end of script\n"
    assert done.returncode == 0, done.stderr
