"""A small picture of what each method does, drawn with a few strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT = 72, 44
BLUE, ORANGE, GREEN, GREY, WHITE = "#56b4e9", "#e69f00", "#009e73", "#6b7280", "#e5e7eb"


def method_picture(name: str) -> QPixmap:
    """Return the picture of a method; a network for one that has none of its own."""
    pixmap = QPixmap(WIDTH, HEIGHT)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _PICTURES.get(name, _supervised)(painter)
    painter.end()
    return pixmap


def _box(painter: QPainter, x: float, y: float, color: str, side: float = 14) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    painter.drawRoundedRect(QRectF(x, y, side, side), 3, 3)


def _cell(painter: QPainter, x: float, y: float, color: str, radius: float = 6) -> None:
    painter.setPen(QPen(QColor(color), 2))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawEllipse(QPointF(x, y), radius, radius)


def _dot(painter: QPainter, x: float, y: float, color: str) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    painter.drawEllipse(QPointF(x, y), 2.5, 2.5)


def _arrow(
    painter: QPainter, start: tuple[float, float], end: tuple[float, float], color: str = GREY
) -> None:
    painter.setPen(QPen(QColor(color), 2))
    painter.drawLine(QPointF(*start), QPointF(*end))
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx**2 + dy**2) ** 0.5
    ux, uy = dx / length, dy / length
    for side in (-1, 1):
        back = QPointF(end[0] - 5 * ux + side * 3 * uy, end[1] - 5 * uy - side * 3 * ux)
        painter.drawLine(QPointF(*end), back)


def _supervised(painter: QPainter) -> None:
    """Draw image and mask, both into a network."""
    _box(painter, 4, 5, GREY)
    _box(painter, 4, 25, ORANGE)
    _arrow(painter, (22, 13), (42, 20))
    _arrow(painter, (22, 32), (42, 25))
    _box(painter, 46, 13, BLUE, 18)


def _pseudo_label(painter: QPainter) -> None:
    """Draw a map that teaches a network, which teaches itself."""
    _box(painter, 4, 14, ORANGE, 16)
    _arrow(painter, (23, 22), (42, 22))
    _box(painter, 46, 14, BLUE, 16)
    painter.setPen(QPen(QColor(GREEN), 2))
    painter.drawArc(QRectF(46, 2, 16, 18), 0, 180 * 16)


def _culpico(painter: QPainter) -> None:
    """Draw two networks that teach each other."""
    _box(painter, 8, 14, BLUE, 16)
    _box(painter, 48, 14, ORANGE, 16)
    _arrow(painter, (28, 18), (44, 18))
    _arrow(painter, (44, 27), (28, 27))


def _cellseguda(painter: QPainter) -> None:
    """Draw a network and a judge, who sees segmentations of both kinds."""
    _box(painter, 4, 14, BLUE, 16)
    _arrow(painter, (23, 22), (34, 14))
    _arrow(painter, (23, 22), (34, 31))
    _cell(painter, 42, 12, GREEN)
    _cell(painter, 42, 32, ORANGE)
    painter.setPen(QPen(QColor(WHITE), 2))
    painter.drawText(QRectF(54, 11, 16, 22), Qt.AlignmentFlag.AlignCenter, "?")


def _cellsegssda(painter: QPainter) -> None:
    """Draw the same, with a stroke on the target."""
    _cellseguda(painter)
    painter.setPen(QPen(QColor(WHITE), 3))
    painter.drawLine(QPointF(38, 35), QPointF(46, 30))


def _stylefilter(painter: QPainter) -> None:
    """Draw one cell in two styles."""
    _box(painter, 4, 12, GREY, 20)
    _cell(painter, 14, 22, WHITE)
    _arrow(painter, (28, 22), (44, 22))
    _box(painter, 48, 12, "#3b1d5e", 20)
    _cell(painter, 58, 22, ORANGE)


def _cks(painter: QPainter) -> None:
    """Draw points that become cells."""
    for x, y in ((10, 14), (20, 30), (24, 12)):
        _dot(painter, x, y, ORANGE)
    _arrow(painter, (32, 22), (44, 22))
    for x, y in ((50, 13), (58, 31), (64, 12)):
        _cell(painter, x, y, BLUE, 6)
        _dot(painter, x, y, ORANGE)


_PICTURES: dict[str, Callable[[QPainter], None]] = {
    "supervised": _supervised,
    "pseudo-label": _pseudo_label,
    "culpico": _culpico,
    "cellseguda": _cellseguda,
    "cellsegssda": _cellsegssda,
    "stylefilter": _stylefilter,
    "cks": _cks,
    "cks-masks": _cks,
}
