"""Follow a viewer: layers that are deleted, the window that closes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session


class _CloseWatcher(QObject):
    """Closes the session with the window, as its child."""

    def __init__(self, window: Any, session: Session) -> None:
        super().__init__(window)
        self._session = session
        window.installEventFilter(self)
        window.destroyed.connect(session.close)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """See the window off; the event itself goes on to napari."""
        # napari may ask and stay open: only a window that was really hidden afterwards is closed.
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
