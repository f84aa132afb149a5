"""Choose an enhancer: a bundled one, one from a file or folder, or a bioimage.io id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QInputDialog, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "Choose an enhancer\u2026"


@dataclass(frozen=True)
class _Ask:
    """An entry that asks for a source when it is chosen."""

    title: str
    help: str
    ask: Callable[[QWidget], str]


def _ask_file(parent: QWidget) -> str:
    title, kinds = "Open a model package", "Model packages (*.zip *.yaml *.yml);;All files (*)"
    return QFileDialog.getOpenFileName(parent, title, "", kinds)[0]


def _ask_folder(parent: QWidget) -> str:
    return QFileDialog.getExistingDirectory(parent, "Open the folder of a model package")


def _ask_id(parent: QWidget) -> str:
    text, ok = QInputDialog.getText(
        parent, "A model of bioimage.io", "Its id or DOI, such as affable-shark:"
    )
    return text.strip() if ok else ""


QUESTIONS = (
    _Ask("From file\u2026", "A bioimage.io package (.zip) or its rdf.yaml", _ask_file),
    _Ask("From folder\u2026", "The folder of an unpacked bioimage.io package", _ask_folder),
    _Ask("From bioimage.io\u2026", "Download a model by its id; needs the network", _ask_id),
)


class ModelPicker(QComboBox):
    """A list of models, ending with the ways to bring in another one.

    Signals
    -------
    chosen(str)
        A bundled id, a path or a bioimage.io id.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip("The network that repairs the forest's map")
        self.setMinimumContentsLength(12)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._last = 0
        self.activated.connect(self._on_activated)
        self.fill(())

    def fill(self, models: tuple[tuple[str, str, str], ...]) -> None:
        """List models as (source, title, tooltip); the choice is forgotten."""
        self.clear()
        self.addItem(PROMPT)
        for source, title, tip in models:
            self._add(title, source, tip)
        self.insertSeparator(self.count())
        for question in QUESTIONS:
            self._add(question.title, question, question.help)
        self.select(None)

    def select(self, source: str | None) -> None:
        """Show a source as chosen, without a signal; one not listed yet is added, None is none."""
        index = 0 if source is None else self.findData(source)
        if source is not None and index < 0:
            index = self._place_for_new()
            self.insertItem(index, Path(source).name or source, source)
            self.setItemData(index, source, Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(index)
        self._last = index

    def pick(self, source: str) -> None:
        """Choose a source as if the user had."""
        self.select(source)
        self.chosen.emit(source)

    def _add(self, title: str, data: object, tip: str) -> None:
        self.addItem(title, data)
        self.setItemData(self.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)

    def _place_for_new(self) -> int:
        return self.count() - len(QUESTIONS) - 1

    def _on_activated(self, index: int) -> None:
        data = self.itemData(index)
        self.setCurrentIndex(self._last)  # the dialog may be cancelled
        if isinstance(data, _Ask):
            data = data.ask(self)
        if data:
            self.pick(data)
