"""One background thread that answers the latest question and drops older ones."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_cellda.ui.worker import relay, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Item = TypeVar("Item")
Found = TypeVar("Found")


class LatestWins(Generic[Item, Found]):
    """A thread for questions of which only the latest matters.

    Parameters
    ----------
    work : callable
        ``work(item, superseded, stop)`` runs in the thread and yields answers. `superseded` is
        True once a newer item waits, `stop` once the thread shall end.
    on_answer : callable
        Called with (item, answer) in the window's thread.
    on_error : callable
        Called with any `Exception` of `work`, RuntimeErrors too, in the window's thread.
    on_idle : callable
        Called in the window's thread when there is nothing left to do.
    """

    def __init__(
        self,
        work: Callable[[Item, Callable[[], bool], Callable[[], bool]], Iterator[Found]],
        on_answer: Callable[[Item, Found], None],
        on_error: Callable[[Exception], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._work = work
        self._on_answer, self._on_error, self._on_idle = on_answer, on_error, on_idle
        self._waiting: deque[tuple[int, Item]] = deque(maxlen=1)
        self._asked = self._answered = 0
        self._wake = threading.Condition()
        self._stopped = False
        self._relay = relay()
        self._thread = threading.Thread(target=self._loop, name="napari-cellda live", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether an item waits, is worked on, or its answers are not delivered yet."""
        return self._answered < self._asked and not self._stopped

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, item: Item) -> None:
        """Ask for an answer to `item`; an item that still waits is dropped."""
        with self._wake:
            if self._stopped:
                return
            self._asked += 1
            self._waiting.append((self._asked, item))
            if not self._thread.is_alive():
                running.add(self)
                self._thread.start()
            self._wake.notify()

    def abandon(self) -> None:
        """End the thread at its next look at `stop`; nobody is called back any more."""
        with self._wake:
            self._stopped = True
            self._waiting.clear()
            self._wake.notify()

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended, at most `seconds`; True when it has."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._stopped:
                    self._wake.wait()
                if self._stopped:
                    running.discard(self)
                    return
                number, item = self._waiting.pop()
            self._answer(item)
            self._tell(self._finish, number)

    def _finish(self, number: int) -> None:
        """Note in the window's thread that an item is done, and be idle if it was the last."""
        self._answered = number
        if not self.busy:
            self._on_idle()

    def _answer(self, item: Item) -> None:
        try:
            for answer in self._work(item, lambda: bool(self._waiting), lambda: self._stopped):
                self._tell(self._on_answer, item, answer)
        except Exception as error:
            self._tell(self._on_error, error)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        def call() -> None:
            if not self._stopped:
                callback(*args)

        self._relay.post(call)
