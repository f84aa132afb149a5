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

    def disconnect() -> None:
        with suppress(Exception):  # gone already, or the program is ending
            signal.disconnect(slot)

    owner.destroyed.connect(disconnect)
