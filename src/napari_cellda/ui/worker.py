"""Run long tasks beside the window: one thread each, every exception delivered, all stoppable.

napari's and superqt's generator workers swallow `RuntimeError` (neither `errored` nor `finished`
fires), and torch's out-of-memory and shape errors are RuntimeErrors; so this small runner is our
own. A task is a generator of `core.events` that returns a result; callbacks run in the window's
thread.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections import deque
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_cellda.core.events import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.events import Event, Stop, Task
    from napari_cellda.ui.state import Session

T = TypeVar("T")

_DRAIN_SECONDS = 0.008  # callbacks handled per turn of the event loop, so that it stays fluent
_EXIT_SECONDS = 10.0


class _Relay(QObject):
    """Carries calls from any thread into the window's thread, in order."""

    _woken = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        # Calls are made by a timer only: Qt hands over all waking signals, and all zero single
        # shots, in one turn, which would defeat the time limit.
        self._next_turn = QTimer(self)
        self._next_turn.setSingleShot(True)
        self._next_turn.timeout.connect(self._drain)
        self._woken.connect(self._next_turn.start)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        self._calls.append((function, args))
        # The QObject is gone when the application has ended: nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._woken.emit()

    def _drain(self) -> None:
        end = perf_counter() + _DRAIN_SECONDS
        try:
            while self._calls and perf_counter() < end:
                function, args = self._calls.popleft()
                function(*args)
        finally:
            if self._calls:
                self._next_turn.start()


_relay: _Relay | None = None


def relay() -> _Relay:
    """Return the application's relay; the first call must come from the window's thread."""
    global _relay
    if _relay is None:
        _relay = _Relay()
        app = QCoreApplication.instance()
        if app is not None and _relay.thread() != app.thread():
            _relay.moveToThread(app.thread())
    return _relay


class TaskHandle:
    """A task that runs: ask it to stop, see whether it is done.

    Attributes
    ----------
    owner : QObject, optional
        Whom the callbacks belong to: when Qt deletes it (its dock was closed), the task is
        abandoned.
    title : str
        What it does, for status lines.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._stop = threading.Event()
        self._silent = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether its thread lives."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the task to stop; it returns what it has, through the usual callbacks."""
        self._stop.set()

    def abandon(self) -> None:
        """Stop and call nobody back: whoever asked is gone (the window was closed)."""
        self._silent = True
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended, at most `seconds`; True when it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.running


class Ending(Protocol):
    """Work in a thread that can be told to end."""

    def abandon(self) -> None:
        """End soon and call nobody back."""

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; False when `seconds` were not enough."""


running: set[Ending] = set()
"""All threads of work, so that the end of the program can wait for them."""
_by_session: weakref.WeakKeyDictionary[Session, set[TaskHandle]] = weakref.WeakKeyDictionary()


def run_task(
    make_task: Callable[[Stop], Task[T] | T],
    *,
    session: Session | None = None,
    owner: QObject | None = None,
    title: str = "",
    on_event: Callable[[Event], None] | None = None,
    on_result: Callable[[T], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    on_finished: Callable[[], None] | None = None,
) -> TaskHandle:
    """Run a task in a thread of its own; call back in the window's thread.

    Parameters
    ----------
    make_task : callable
        Called in the new thread with `stop`, a function that is True once the task shall end;
        returns the task, a generator of `core.events`. A plain function that returns a value
        works as well: its result goes to `on_result`.
    session : Session, optional
        Whose work it is: when that session closes (the window was closed), the task is abandoned.
        None: it ends by itself or at the end of the program.
    owner : QObject, optional
        Whom the callbacks belong to: when Qt deletes it (its dock was closed), the task is
        abandoned.
    title : str
        What it does, for status lines.
    on_event, on_result, on_error, on_finished : callable, optional
        Called with each event, with the result, with **any** `Exception` (RuntimeErrors too; show
        it with `session.report`), and without arguments at the very end in each case. Without
        `on_error`, errors go to `session.report`.

    Returns
    -------
    TaskHandle
        Call its `stop()` to cancel.
    """
    handle = TaskHandle(title)
    post = relay().post

    def tell(callback: Callable[..., None] | None, *args: Any) -> None:
        if callback is not None and not handle._silent:
            callback(*args)

    def end(*held: Any) -> None:
        # Until the thread has let them go: what they belong to may be a widget that nobody else
        # holds any more, and Qt wants it to be deleted in the window's thread.
        if handle._thread is not None:
            handle._thread.join()
        if owner is not None:
            with contextlib.suppress(RuntimeError, TypeError):  # deleted already
                owner.destroyed.disconnect(handle.abandon)
        tell(on_finished)

    fail = on_error or (session.report if session is not None else None)

    def body() -> None:
        try:
            result = _drive(make_task, handle, lambda event: post(tell, on_event, event))
        except Exception as error:
            post(tell, fail, error)
        else:
            post(tell, on_result, result)
        finally:
            running.discard(handle)
            post(end, make_task, on_event, on_result, on_error)

    handle._thread = threading.Thread(target=body, name=f"napari-cellda {title}", daemon=True)
    running.add(handle)
    if session is not None:
        _follow(session).add(handle)
    if owner is not None:
        owner.destroyed.connect(handle.abandon)
    handle._thread.start()
    return handle


def _drive(make_task: Callable[..., Any], handle: TaskHandle, emit: Callable[[Any], None]) -> Any:
    task = make_task(handle._stop.is_set)
    return drive(task, emit) if hasattr(task, "send") else task


def _follow(session: Session) -> set[TaskHandle]:
    """Return the session's tasks (forgetting ended ones); the first call ties them to its end."""
    if session not in _by_session:
        _by_session[session] = set()
        session.closed.connect(lambda: stop_tasks(session, seconds=0))
    handles = _by_session[session]
    for handle in [h for h in handles if not h.running]:
        handles.discard(handle)
    return handles


def tasks_of(session: Session) -> list[TaskHandle]:
    """Return the tasks of a session that still run."""
    return [h for h in _by_session.get(session, ()) if h.running]


def stop_tasks(session: Session, seconds: float) -> bool:
    """Abandon a session's tasks and wait at most `seconds` in all; True when all have ended."""
    handles = list(_by_session.get(session, ()))
    for handle in handles:
        handle.abandon()
    return _join(handles, seconds)


def _join(handles: Sequence[Ending], seconds: float) -> bool:
    end = monotonic() + seconds
    for handle in handles:
        handle.wait(max(0.0, end - monotonic()))
    return all(handle.wait(0) for handle in handles)


@atexit.register
def _stop_all() -> None:
    # Threads are daemons, so that a hung one never keeps the program alive; those that listen get
    # the time to end their present step.
    handles = list(running)
    for handle in handles:
        handle.abandon()
    _join(handles, _EXIT_SECONDS)
