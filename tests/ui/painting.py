"""Painting in small, for the tests of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

WAIT_MS = 60_000
"""Generous: a loaded machine is slow, and a test that fails is noticed anyway."""


def cells(shape: tuple[int, ...] = (120, 160)) -> np.ndarray:
    """Return noise that is brighter in its right half."""
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    image[..., shape[-1] // 2 :] += 1
    return image


def paint_both(panel: PaintPanel) -> None:
    """Paint a stroke of background on the left and one of the first class on the right."""
    layer = panel.session.current.strokes
    place = (0,) * (layer.ndim - 2)
    width = layer.data.shape[-1]
    for column, stroke_id in ((width // 8, 1), (width - width // 8, 2)):
        for row in range(20, 60, 4):
            layer.paint((*place, row, column), stroke_id)


def wait_idle(panel: PaintPanel, qtbot: QtBot) -> None:
    """Wait until strokes are read, everything is computed and shown."""
    qtbot.waitUntil(lambda: panel.painter.settled, timeout=WAIT_MS)
