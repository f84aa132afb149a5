"""Offers strokes that were saved for this image before, e.g. after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_cellda.ui.autosave import Autosave, age
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.live import LivePainter
from napari_cellda.ui.projects import SessionProject
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from napari_cellda.ui.autosave import SavedStrokes
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session


class RestoreBar(QFrame):
    """Hidden unless there is something to bring back."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._autosave = Autosave.of(session)
        self._offer: tuple[PaintedImage, SavedStrokes] | None = None
        self._replaces = False
        self.setObjectName("restoreBar")
        self.setStyleSheet(
            "#restoreBar { background: #1f3a52; border-radius: 4px; }"
            "#restoreBar QLabel { background: transparent; color: #dceefb; }"
        )
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.bring_back = QPushButton("Bring back")
        self.discard = QPushButton("Discard")
        buttons = QHBoxLayout()
        buttons.addWidget(self.bring_back)
        buttons.addWidget(self.discard)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.bring_back.clicked.connect(self._bring_back)
        self.discard.clicked.connect(self._discard)
        connect_while_alive(self, SessionProject.of(session).opened, self._look_for_newer)
        self.hide()

    def look(self) -> None:
        """Look for strokes saved for the current image, in the background."""
        self.hide()
        painted = self._session.current
        if painted is not None:
            run_task(
                lambda stop: self._autosave.find(painted),
                session=self._session,
                owner=self,
                title="look for saved strokes",
                on_result=lambda saved: self._show_offer(painted, saved),
            )

    def _show_offer(self, painted: PaintedImage, saved: SavedStrokes | None) -> None:
        if saved is None or painted is not self._session.current or painted.strokes is None:
            return
        if painted.index is not None and painted.index.snapshot():
            return  # there are strokes by now: never mix in old ones unasked
        self._offer, self._replaces = (painted, saved), False
        self.text.setText(
            f"Strokes for this image were saved {age(saved)} ({len(saved.ids):,} pixels)."
        )
        self.show()

    def _look_for_newer(self) -> None:
        """Offer what was painted after the project that was opened had been saved."""
        self.hide()
        newer = self._session.parts.get("newer_strokes", {})
        for painted in self._session.images:
            saved = newer.pop(painted.key, None)
            if saved is not None:
                self._offer, self._replaces = (painted, saved), True
                self.text.setText(
                    f"Strokes for '{painted.name}' were saved {age(saved)}, after the project "
                    f"({len(saved.ids):,} pixels). They would take the place of the project's."
                )
                self.show()
                return

    def _bring_back(self) -> None:
        if self._offer is not None:
            painted, saved = self._offer
            if painted in self._session.images:
                LivePainter.of(self._session).start_strokes(painted)
                self._autosave.restore(painted, saved, replace_all=self._replaces)
        self._next()

    def _discard(self) -> None:
        if self._offer is not None:
            self._autosave.discard(self._offer[1])
        self._next()

    def _next(self) -> None:
        if self._replaces:
            self._look_for_newer()
        else:
            self.hide()
