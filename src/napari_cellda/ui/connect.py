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
    owner.destroyed.connect(_Disconnect(signal, slot))


class _Disconnect:
    """Disconnects a slot when it is called.

    No function of its own for each connection: where the garbage collector takes a widget, it may
    empty such a function before Qt calls it, and Python crashes. A method of a class stays.
    """

    def __init__(self, signal: Any, slot: Callable[..., Any]) -> None:
        self.signal, self.slot = signal, slot

    def __call__(self) -> None:
        with suppress(Exception):  # gone or emptied already, or the program is ending
            self.signal.disconnect(self.slot)
