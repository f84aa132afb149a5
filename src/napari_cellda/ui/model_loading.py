"""Open models beside the window; ask the user before a program from elsewhere is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_cellda.core.errors import ProgramRefused
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.events import Stop
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle


def listed_models() -> tuple[tuple[str, str, str], ...]:
    """List the models at hand as (source, title, tooltip); a broken one says so in its tooltip."""
    from napari_cellda.core.modelzoo import list_models

    return tuple((row["id"], row["name"], row.get("made for", "")) for row in list_models())


def ask_consent(parent: QWidget | None, refused: ProgramRefused) -> bool:
    """Ask whether a model that is a program may run; "no" is what Enter and Escape mean."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Run this model?")
    box.setText(f"{refused.model} comes as TorchScript, which is a program and could do harm.")
    box.setInformativeText(
        f"It is the file\n{refused.path}\n\nSay yes only if you trust whoever made it: it runs "
        "with your rights on this computer. The answer holds for this very file, until this "
        "window is closed."
    )
    yes = box.addButton("Run it", QMessageBox.ButtonRole.AcceptRole)
    no = box.addButton("Do not load", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(no)
    box.setEscapeButton(no)
    box.exec()
    return box.clickedButton() is yes


def agreed(session: Session, error: Exception, ask: Callable[[ProgramRefused], bool]) -> bool:
    """Ask whether a refused program may run after all, and keep a yes; False for other errors.

    A thread cannot show a dialog: its task gives up, and is begun again after a yes.
    """
    if not (isinstance(error, ProgramRefused) and ask(error)):
        return False
    session.trusted.add(error.sha256)
    return True


def trust_words(trusted: Collection[str]) -> list[str]:
    """Return the words that tell a command which programs were agreed to."""
    return [word for digest in sorted(trusted) for word in ("--trust", digest)]


def check_project(path: Path, trusted: Collection[str]) -> None:
    """Open a project's models, in a thread, to learn what it lacks before a run needs them.

    Raises
    ------
    ProgramRefused
        If its enhancer is a program that is not among the trusted.
    UserError
        If it cannot be opened.
    """
    from napari_cellda.core.batch import open_pipeline

    open_pipeline(path, trusted=trusted)


class ModelLoader:
    """Opens one model at a time; a newer request drops the older one.

    Parameters
    ----------
    session : Session
    ask : callable of (ProgramRefused) -> bool
        Asked in the window's thread before a TorchScript program is run, once for every file.
    on_loaded : callable of (enhancer, seam)
        Called in the window's thread; the seam is how much tiles may differ where they meet, 0
        for a network whose tiles equal the whole.
    on_error : callable of exception
    owner : QWidget, optional
        Whom the callbacks belong to, see `run_task`.
    """

    def __init__(
        self,
        session: Session,
        ask: Callable[[ProgramRefused], bool],
        on_loaded: Callable[[Enhancer, float], None],
        on_error: Callable[[Exception], None],
        owner: QWidget | None = None,
    ) -> None:
        self._session = session
        self._ask = ask
        self._on_loaded = on_loaded
        self._on_error = on_error
        self._owner = owner
        self._task: TaskHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a model is being opened."""
        return self._task is not None and self._task.running

    def load(self, source: str) -> None:
        """Open a model in the background."""
        self.cancel()
        trusted = frozenset(self._session.trusted)

        def open_it(stop: Stop) -> tuple[Enhancer, float]:
            from napari_cellda.core.enhancer import Enhancer

            enhancer = Enhancer.open(source, trusted=trusted)
            return enhancer, enhancer.seam()

        def fail(error: Exception) -> None:
            if agreed(self._session, error, self._ask):
                self.load(source)
            else:
                self._on_error(error)

        self._task = run_task(
            open_it,
            session=self._session,
            owner=self._owner,
            title=f"open {Path(source).name}",
            on_result=lambda opened: self._on_loaded(*opened),
            on_error=fail,
        )

    def check(self, source: str, on_report: Callable[[str], None]) -> None:
        """Validate a package and run its own test in the background; no program is run for it."""

        def check_it(stop: Stop) -> str:
            from napari_cellda.core.modelzoo import check_model

            return str(check_model(source))

        run_task(
            check_it,
            session=self._session,
            owner=self._owner,
            title=f"check {Path(source).name}",
            on_result=on_report,
            on_error=self._on_error,
        )

    def cancel(self) -> None:
        """Forget the model that is being opened."""
        if self._task is not None:
            self._task.abandon()
            self._task = None
