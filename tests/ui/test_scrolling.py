"""The wheel over a panel that scrolls: no setting changes unless it has the focus."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QSlider, QSpinBox, QVBoxLayout, QWidget

from napari_cellda.ui.panels.scrolling import Scrolling


def combo() -> QComboBox:
    box = QComboBox()
    box.addItems(["one", "two", "three"])
    return box


def turn_wheel(widget: QWidget) -> bool:
    """Whether the widget keeps the event to itself, else Qt offers it to those around it."""
    middle = QPointF(widget.rect().center())
    away = QPointF(widget.mapToGlobal(widget.rect().center()))
    event = QWheelEvent(
        middle,
        away,
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)
    return event.isAccepted()


@pytest.mark.parametrize("make", [combo, QSpinBox, QSlider])
def test_the_wheel_turns_only_what_has_the_focus(qtbot: QtBot, make: Callable[[], QWidget]):
    scrolling = Scrolling()
    qtbot.addWidget(scrolling)
    late = QWidget()  # filled later, as the settings of a method are
    late.setMinimumHeight(2000)
    inner = QVBoxLayout(late)
    scrolling.body.addWidget(late)
    scrolling.resize(200, 200)
    scrolling.show()
    qtbot.waitExposed(scrolling)
    turned = make()
    inner.addWidget(turned)
    if isinstance(turned, QComboBox):
        changed, value = turned.currentIndexChanged, turned.currentIndex
    else:
        turned.setValue(5)
        changed, value = turned.valueChanged, turned.value
    qtbot.wait(50)  # until it is laid out
    assert turned.focusPolicy() == Qt.FocusPolicy.StrongFocus
    scrolling.setFocus()
    before = value()
    assert not turn_wheel(turned)
    assert value() == before
    turn_wheel(scrolling.viewport())
    assert scrolling.verticalScrollBar().value() > 0
    scrolling.activateWindow()
    turned.setFocus()
    qtbot.waitUntil(turned.hasFocus)
    with qtbot.waitSignal(changed):
        assert turn_wheel(turned)
