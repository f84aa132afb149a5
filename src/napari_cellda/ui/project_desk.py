"""Projects in one window: open and save with the questions that this raises; ask on closing."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

from napari_cellda.ui.model_loading import ask_consent
from napari_cellda.ui.panels import project_dialogs as dialogs
from napari_cellda.ui.project_opening import ProjectOpener
from napari_cellda.ui.project_saving import ProjectSaver
from napari_cellda.ui.projects import SessionProject

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session


class ProjectDesk:
    """What buttons, drag and drop and the closing window call."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.project = SessionProject.of(session)
        self.saver = ProjectSaver(session)
        if self._window is not None:
            _CloseGuard(self._window, self)

    @classmethod
    def of(cls, session: Session) -> ProjectDesk:
        """Return the session's desk, made on the first call."""
        return session.part("project_desk", cls)

    @property
    def _window(self) -> Any:
        """The viewer's main window; None without one. Not kept: a session outlives no viewer."""
        window = getattr(self._session.viewer, "window", None)
        return None if window is None else window._qt_window

    def open(self, path: Path) -> None:
        """Open a project in place of the present work."""
        if not self.may_drop():
            return
        opener = ProjectOpener(
            self._session,
            lambda reference, wrong: dialogs.ask_for_image(self._window, reference, wrong),
            lambda refused: ask_consent(self._window, refused),
        )
        opener.open(path)

    def save(self, path: Path) -> None:
        """Save beside the window; images that are in no file are asked about."""
        with_images = self._ask_copies(path)
        if with_images is not None:
            self.saver.save(path, with_images=with_images)

    def may_drop(self) -> bool:
        """Ask about unsaved changes, save them if wanted; False: the user wants to stay."""
        project = self.project
        if not project.unsaved:
            return True
        answer = dialogs.ask_unsaved(self._window, project.name)
        if answer != "save":
            return answer == "drop"
        path = project.path or dialogs.ask_where_to_save(
            self._window, Path.home() / "cellda.cellda"
        )
        with_images = None if path is None else self._ask_copies(path)
        if path is None or with_images is None:
            return False
        return self.saver.save_and_wait(path, with_images=with_images)

    def _ask_copies(self, path: Path) -> bool | None:
        """Return whether to write images beside the project; None: cancelled."""
        missing = self.project.not_on_disk()
        if not missing:
            return False
        folder = path.with_name(f"{path.stem}_images")
        answer = dialogs.ask_copies(self._window, [p.name for p in missing], folder)
        return None if answer == "cancel" else answer == "copy"


class _CloseGuard(QObject):
    """Asks before the user closes the window; scripts that close it are not asked."""

    def __init__(self, window: Any, desk: ProjectDesk) -> None:
        super().__init__(window)
        self._desk = desk
        self._window = weakref.ref(window)
        window.close = self._close_after_asking
        window.installEventFilter(self)

    def _close_after_asking(self, quit_app: bool = False, confirm_need: bool = False) -> Any:
        """Stand in for napari's method, which its menus and keys call to close with a question."""
        if confirm_need and self._desk.project.unsaved:
            if not self._desk.may_drop():
                return None
            confirm_need = False  # one question is enough
        window = self._window()
        return None if window is None else type(window).close(window, quit_app, confirm_need)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Hold a click on the window's cross until the question is answered."""
        closing = event.type() == QEvent.Type.Close and event.spontaneous()
        if closing and not self._desk.may_drop():
            event.ignore()
            return True
        return False
