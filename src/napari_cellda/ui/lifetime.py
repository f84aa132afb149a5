"""Follow a viewer: layers that are deleted, the window that closes, the program that ends."""

from __future__ import annotations

import atexit
from typing import Any

from qtpy.QtCore import QEvent, QObject

from napari_cellda.ui.connect import when_deleted
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import stop_tasks


class _CloseWatcher(QObject):
    """Closes the session with the window, as its child."""

    def __init__(self, window: Any, session: Session) -> None:
        super().__init__(window)
        self._session = session
        window.installEventFilter(self)
        when_deleted(window, session.close)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """See the window off; the event itself goes on to napari."""
        # napari may ask and stay open, so its close event says nothing; this one does.
        if event.type() == QEvent.Type.DeferredDelete:
            self._session.close()
        return False


def watch(session: Session, viewer: Any) -> None:
    """Tie a session to its viewer's layer list and window; called once by `Session.of`.

    Parameters
    ----------
    session : Session
        Gets `forget_layer` for every layer deleted, and `close` when the window closes.
    viewer : napari.Viewer
        Only looked at: nothing is added to it. A `ViewerModel` has no window that could close.
    """
    viewer.layers.events.removed.connect(lambda event: session.forget_layer(event.value))
    if hasattr(viewer, "window"):
        _CloseWatcher(viewer.window._qt_window, session)


# A script may end without closing its viewer. Hooks run in the reverse order of their
# registration: this one before that of `worker`, which then waits for what still has to be saved.
@atexit.register
def _close_all() -> None:
    for session in list(Session._sessions.values()):
        session.close()
        stop_tasks(session, seconds=0)
