"""Connect signals to widgets that may be deleted before what they listen to."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject


def connect_while_alive(owner: QObject, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect a session's or a layer's signal, and disconnect it when Qt deletes `owner`.

    Closing a dock deletes its widgets, but neither psygnal nor napari's events hear of that: the
    next signal would call a Python object whose Qt half is gone.

    Parameters
    ----------
    owner : QObject
        The widget that `slot` belongs to.
    signal : psygnal.SignalInstance or napari EventEmitter
    slot : callable
    """
    signal.connect(slot)
    when_deleted(owner, signal.disconnect, slot)


def when_deleted(owner: QObject, call: Callable[..., Any], *args: Any) -> None:
    """Call something at the moment when Qt deletes a widget.

    Parameters
    ----------
    owner : QObject
    call : callable
        A method, not a function that is made here and now: where the garbage collector has taken
        the widget, it may have emptied such a function before Qt calls it, and Python crashes.
    *args
        What it is called with.
    """
    owner.destroyed.connect(_LastCall(call, args))


class _LastCall:
    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.call, self.args = call, args

    def __call__(self) -> None:
        with suppress(Exception):  # gone or emptied already, or the program is ending
            self.call(*self.args)
