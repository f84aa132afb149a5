"""Closing the window while runs go on: keep them, stop them, or stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QEvent, QObject

if TYPE_CHECKING:
    from napari_cellda.ui.runs import RunWatch, SessionRuns

Choice = Literal["keep", "stop", "stay"]


class _Guard(QObject):
    """Asks before the window closes, as its child; does what was chosen once it is closed."""

    def __init__(self, window: Any, runs: SessionRuns) -> None:
        super().__init__(window)
        self._runs = runs
        self._choice: Choice = "keep"
        window.installEventFilter(self)
        runs.session.closed.connect(self._on_closed)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Keep the close event to ourselves if the user stays."""
        if event.type() == QEvent.Type.Close and self._runs.alive:
            self._choice = ask(watched, self._runs.alive)
            if self._choice == "stay":
                event.ignore()
                return True
        return False

    def _on_closed(self) -> None:
        if self._choice == "stop":
            for watch in self._runs.alive:
                watch.stop()


def guard(runs: SessionRuns) -> None:
    """Ask before the session's window closes while runs go on."""
    viewer = runs.session.viewer
    if hasattr(viewer, "window"):
        _Guard(viewer.window._qt_window, runs)


def question(alive: list[RunWatch]) -> tuple[str, str]:
    """Say which runs go on, and what each answer means for them."""
    early = ", ".join(watch.name for watch in alive if watch.being_prepared)
    at_work = ", ".join(watch.name for watch in alive if not watch.being_prepared)
    text, more = [], []
    if at_work:
        text.append(f"Still at work: {at_work}.")
        more.append(
            "Kept running, they go on without napari, and you find them again in the panel Runs. "
            "Stopped, they end with what they have learned so far, and can be resumed."
        )
    if early:
        text.append(f"Still being prepared: {early}.")
        more.append(
            "Runs that are still being prepared are lost when napari ends: wait until they are "
            "at work to keep them."
        )
    return " ".join(text), " ".join(more)


def ask(window: Any, alive: list[RunWatch]) -> Choice:
    """Ask what becomes of the runs that go on."""
    from qtpy.QtWidgets import QMessageBox

    text, more = question(alive)
    box = QMessageBox(window)
    box.setWindowTitle("Runs go on")
    box.setText(text)
    box.setInformativeText(more)
    keep = box.addButton("Keep running", QMessageBox.ButtonRole.AcceptRole)
    stop = box.addButton("Stop them", QMessageBox.ButtonRole.DestructiveRole)
    stay = box.addButton("Do not close", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.setEscapeButton(stay)
    box.exec()
    choices: dict[Any, Choice] = {keep: "keep", stop: "stop"}
    return choices.get(box.clickedButton(), "stay")
