"""What a model says about itself, small enough for a panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.card import ModelCard

COVER_SIZE = 96
_FORMATS = {"pytorch_state_dict": "state dict", "onnx": "ONNX", "torchscript": "TorchScript"}


def card_rows(card: ModelCard) -> list[tuple[str, str]]:
    """List what matters for choosing a model, as (title, text).

    Parameters
    ----------
    card : ModelCard

    Returns
    -------
    list of (str, str)
        Rows whose text is empty are left out.
    """
    size = f"about {card.object_diameter:.0f} px across" if card.object_diameter else ""
    made_for = ", ".join(filter(None, [card.structure, size])) or "not told by the package"
    shape = f"{card.ndim}D map of one class"
    known = card.weight_format or next((entry.format for entry in card.weights), "")
    rows = [
        ("Made for", made_for),
        ("Takes", shape),
        ("Gives", " and ".join(card.output_names)),
        ("Features", ", ".join(card.feature_sets)),
        ("Weights", _FORMATS.get(known, known)),
        ("Licence", card.licence or "not told by the package"),
        ("By", ", ".join(card.authors)),
    ]
    return [(title, text) for title, text in rows if text]


class ModelCardView(QFrame):
    """A framed card: cover, name, description, table; hidden while there is no model."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("card")
        self.setStyleSheet("#card { border: 1px solid palette(mid); border-radius: 4px; }")
        self._cover = QLabel()
        self._cover.setFixedWidth(COVER_SIZE)
        self._name = _label()
        font = self._name.font()
        font.setBold(True)
        self._name.setFont(font)
        self._description = _label()
        self._table = QGridLayout()
        self._table.setColumnStretch(1, 1)
        self._table.setHorizontalSpacing(10)
        self._table.setVerticalSpacing(2)
        self._lay_out()
        self.hide()

    def _lay_out(self) -> None:
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._name)
        words.addWidget(self._description)
        words.addStretch(1)
        top = QHBoxLayout()
        top.addWidget(self._cover, 0, Qt.AlignmentFlag.AlignTop)
        top.addLayout(words, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addLayout(top)
        layout.addLayout(self._table)

    def show_card(self, card: ModelCard | None) -> None:
        """Show a card; None hides the view."""
        self.setVisible(card is not None)
        if card is None:
            return
        self._name.setText(card.name)
        self._description.setText(_shortened(card.description))
        self._description.setToolTip(card.description)
        self._show_cover(card)
        while (item := self._table.takeAt(0)) is not None:
            item.widget().deleteLater()
        for row, (title, text) in enumerate(card_rows(card)):
            self._table.addWidget(_label(title, faint=True), row, 0, Qt.AlignmentFlag.AlignTop)
            self._table.addWidget(_label(text), row, 1)
        self.setToolTip(card.attribution)

    def _show_cover(self, card: ModelCard) -> None:
        picture = QPixmap(str(card.cover)) if card.cover else QPixmap()
        self._cover.setVisible(not picture.isNull())
        if not picture.isNull():
            self._cover.setPixmap(
                picture.scaled(
                    COVER_SIZE,
                    COVER_SIZE,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            )


def _label(text: str = "", *, faint: bool = False) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(not faint)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if faint:
        label.setEnabled(False)
    return label


def _shortened(text: str, most: int = 160) -> str:
    first = " ".join(text.split())
    return first if len(first) <= most else first[:most].rsplit(" ", 1)[0] + " \u2026"
