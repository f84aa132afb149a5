"""One run in a panel: how far it is, how fast, what it costs, its curves, and its buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.ui.connect import when_deleted
from napari_cellda.ui.panel_words import panel_words
from napari_cellda.ui.panels.banner import Banner
from napari_cellda.ui.plots import Curves
from napari_cellda.ui.run_layers import side_by_side

if TYPE_CHECKING:
    from napari_cellda.core.events import Preview
    from napari_cellda.core.runs.history import RunView
    from napari_cellda.ui.runs import RunWatch

STATES = {
    None: "starting",
    "waiting": "waiting for the runs before it",
    "running": "running",
    "done": "done",
    "stopped": "stopped",
    "cancelled": "cancelled",
    "failed": "failed",
    "killed": "interrupted",
}
WRITING = "Write the model"
"""The stage after the last step, during which nothing moves."""
FRAME = 2
"""Pixels that a style may draw around a picture."""
GOING_ON = "Going on from"
"""Begins the note of a resume."""


class RunMonitor(QWidget):
    """Shows the run that it is given with `watch`; empty before.

    Signals
    -------
    refreshed
        What it shows has changed.
    """

    refreshed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.run: RunWatch | None = None
        self.title = QLabel()
        self.title.setStyleSheet("font-weight: bold;")
        self.title.setWordWrap(True)
        self.progress = QProgressBar()
        self.pace = QLabel()
        self.pace.setWordWrap(True)
        self.device = QLabel()
        self.device.setWordWrap(True)
        self.message = Banner()
        self.picture = QLabel()
        self.picture.setToolTip("The latest picture that the run took")
        # A picture as wide as the panel would keep the dock from being narrowed.
        self.picture.setMinimumWidth(1)
        self.picture.hide()
        self.caption = QLabel()
        self.caption.setWordWrap(True)
        self.caption.hide()
        self.which = QComboBox()
        self.which.setToolTip("Which of its pictures is shown here")
        self.which.hide()
        self.curves = Curves()
        self.previews = QCheckBox("Show pictures")
        self.previews.setToolTip("As layers with a time axis, updated while it trains")
        self.previews.setChecked(True)
        self.stop = QPushButton("Stop")
        self.stop.setToolTip("End after this step and keep what it has learned; can be resumed")
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("End at once; what it learned since its last checkpoint is lost")
        self.resume = QPushButton("Resume")
        self.resume.setToolTip("Go on from the last checkpoint")
        self._lay_out()
        for button, wish in ((self.stop, "stop"), (self.cancel, "cancel"), (self.resume, "resume")):
            button.clicked.connect(lambda _, wish=wish: self._ask(wish))
        self.previews.toggled.connect(self._on_previews)
        self.which.activated.connect(self._show_picture)
        when_deleted(self, self._leave)
        self.hide()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        for widget in (self.title, self.progress, self.pace, self.device, self.message):
            layout.addWidget(widget)
        layout.addWidget(self.which)
        layout.addWidget(self.picture)
        layout.addWidget(self.caption)
        layout.addWidget(self.curves)
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.stop, self.cancel, self.resume):
            row.addWidget(button)
        layout.addLayout(row)
        layout.addWidget(self.previews)

    def resizeEvent(self, event: Any) -> None:
        """Let the picture be seen whole where there is less room than before."""
        super().resizeEvent(event)
        if self.picture.pixmap().width() > self.width():
            self._show_picture()

    @property
    def is_starting(self) -> bool:
        """Whether the run has been asked to begin and has not yet."""
        return self.run is not None and self.run.alive and self.run.view.state is None

    def watch(self, run: RunWatch) -> None:
        """Show a run instead of the one before."""
        if run is not self.run:
            self._leave()
            self.run, place = run, run.pictures.place
            self.caption.setText(f"The picture shows {place.shows}." if place else "")
            self.picture.hide()
            self.caption.hide()
            self.which.clear()
            self.which.hide()
            run.changed.connect(self._refresh)
            run.framed.connect(self._on_frame)
            run.failed.connect(self._on_failure)
            run.forgotten.connect(self._on_forgotten)
        self.message.clear()
        self.show()
        self._refresh()
        self._show_frames()

    def _leave(self) -> None:
        if self.run is not None:
            self.run.changed.disconnect(self._refresh)
            self.run.framed.disconnect(self._on_frame)
            self.run.failed.disconnect(self._on_failure)
            self.run.forgotten.disconnect(self._on_forgotten)
            self.run = None

    def _ask(self, wish: str) -> None:
        if self.run is not None:
            getattr(self.run, wish)()

    def _offer(self, frame: Preview) -> None:
        """Let a picture be chosen; points are no picture, but a layer only."""
        if frame.kind == "picture" and self.which.findText(frame.name) < 0:
            self.which.addItem(frame.name)
            self.which.setVisible(self.which.count() > 1)

    def _on_frame(self, frame: Preview) -> None:
        self._offer(frame)
        if frame.name == self.which.currentText():
            self._show_picture()

    def _show_picture(self) -> None:
        """Show the latest picture of the name that is chosen."""
        frames = self.run.frames.get(self.which.currentText()) if self.run is not None else None
        if frames:
            self.picture.setPixmap(thumbnail(frames[-1].array, max(120, self.width() - 2 * FRAME)))
            self.picture.show()
            self.caption.setVisible(bool(self.caption.text()))

    def _show_frames(self) -> None:
        """Let pictures be chosen that were taken before it was looked at."""
        if self.run is None:
            return
        for frames in self.run.frames.values():
            self._offer(frames[-1])
        self._show_picture()

    def _on_previews(self, on: bool) -> None:
        if self.run is not None and on != self.run.shows_pictures:
            self.run.show_pictures(on)

    def _on_failure(self, error: Exception) -> None:
        self.message.tell(panel_words(str(error)) or type(error).__name__, "error")

    def _on_forgotten(self) -> None:
        """Be empty again: the run was deleted."""
        self._leave()
        self.hide()
        self.refreshed.emit()

    def _refresh(self) -> None:
        run = self.run
        if run is None:
            return
        view = run.view
        self.title.setText(f"{run.name}: {_state_words(run)}")
        self.previews.setChecked(run.shows_pictures)  # another panel may have been asked
        self._show_progress(view)
        self.pace.setText(pace_words(view))
        self.device.setText(device_words(view))
        self.device.setVisible(view.process is not None)
        self.curves.draw(view.losses, view.scores)
        self.stop.setEnabled(run.alive and run.wish == "")
        self.cancel.setEnabled(run.alive and run.wish != "cancel")
        self.resume.setEnabled(run.can_resume)
        if view.text and not run.alive:
            text = panel_words(view.text)
            if view.state == "failed" and run.has_begun and not run.can_resume:
                text = f"{text.rstrip('.')}. Correct this, then press Start."
            self.message.tell(text, "error" if view.state == "failed" else "warning")
        else:
            self.message.tell(panel_words(_latest_note(view)), "info")
        self.refreshed.emit()

    def _show_progress(self, view: RunView) -> None:
        self.progress.setVisible(view.alive)
        known = view.total if view.state == "running" else None
        self.progress.setRange(0, known or 0)
        self.progress.setValue(view.step if known else 0)


def _latest_note(view: RunView) -> str:
    """Return the latest note; that a run goes on is no news once it has ended."""
    notes = (note for note in reversed(view.notes) if view.alive or not note.startswith(GOING_ON))
    return next(notes, "")


def _state_words(run: RunWatch) -> str:
    if run.alive and run.wish == "cancel":
        return "ending"
    if run.view.state == "running" and run.view.stage == WRITING:
        return "writing the model, which may take a minute"
    if run.alive and run.wish == "stop":
        return "stopping after this step"
    return STATES[run.view.state]


def thumbnail(array: np.ndarray, width: int) -> QPixmap:
    """Return a picture as wide as the panel at most; labels in colours, maps in grey."""
    plane = side_by_side(array)
    if plane.dtype.kind in "iub":
        colors = np.random.default_rng(1).integers(64, 256, (256, 3)).astype(np.uint8)
        colors[0] = 0
        pixels = colors[plane.astype(np.int64) % 256]
    else:
        grey = (np.clip(plane, 0, 1) * 255).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
    rows, columns = plane.shape
    pixels = np.ascontiguousarray(pixels)
    image = QImage(pixels.data, columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    smooth = Qt.TransformationMode.SmoothTransformation
    pixmap = QPixmap.fromImage(image)
    return pixmap.scaledToWidth(width, smooth) if columns > width else pixmap


def pace_words(view: RunView) -> str:
    """Say what it does, how fast, and how long this part still takes."""
    if not view.alive:
        return f"Took {duration(view.seconds)}" if view.seconds else ""
    if view.state is None:
        return ""  # what the log tells is of the process before
    words = [view.stage] if view.stage not in ("", WRITING) else []
    if view.total:
        words.append(f"{view.step} of {view.total}")
    if view.rate:
        words.append(f"{view.rate:.3g} per second")
    if view.seconds_left is not None:
        words.append(f"{duration(view.seconds_left)} left")
    return " · ".join(words)


def device_words(view: RunView) -> str:
    """Say where it runs, and how much memory it takes there."""
    process = view.process
    if process is None:
        return ""
    names = {"cpu": "processor", "mps": "Apple GPU"}
    words = f"{names.get(process.device, process.device)}, {gigabytes(process.memory)}"
    if process.memory_total:
        words += f" of {gigabytes(process.memory_total)}"
    return words if process.is_here else f"{words}, on {process.host}"


def gigabytes(n_bytes: float) -> str:
    """Write a number of bytes for people."""
    return f"{n_bytes / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Write a time for people: 8 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
