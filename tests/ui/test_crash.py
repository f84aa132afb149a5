"""A killed napari costs at most the last seconds of strokes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PAINTS_FOR_SECONDS = 14
LOST_SECONDS = 5
PAINTER = """
import sys
import time

import napari
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

viewer = napari.Viewer()
viewer.add_image(np.random.default_rng(0).random((400, 400), dtype=np.float32), name="field")
dock, panel = viewer.window.add_plugin_dock_widget("napari-cellda", "Paint")
session = panel.session
while session.current is None or session.current.strokes is None or not panel.painter.loaded:
    QTest.qWait(50)
canvas = viewer.window._qt_viewer.canvas.native
viewer.reset_view()
left, number = Qt.MouseButton.LeftButton, 0
print("ready", flush=True)
while True:  # strokes by mouse, the button held down for a while, until the process is killed
    number += 1
    QTest.keyClick(canvas, Qt.Key.Key_Q if number % 2 else Qt.Key.Key_W)
    y = 60 + (number * 23) % (canvas.height() - 120)
    start = canvas.rect().topLeft()
    QTest.mousePress(canvas, left, pos=start.__class__(canvas.width() // 2 - 120, y))
    for step in range(40):
        QTest.mouseMove(canvas, start.__class__(canvas.width() // 2 - 120 + 6 * step, y))
        QTest.qWait(30)
        painted = int(np.count_nonzero(session.current.strokes_array))
        print(time.time(), painted, flush=True)
    QTest.mouseRelease(canvas, left, pos=start.__class__(canvas.width() // 2 + 120, y))
"""


@pytest.mark.slow
def test_killed_while_painting_loses_at_most_five_seconds(own_autosave: Path) -> None:
    painter = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PAINTER], stdout=subprocess.PIPE, text=True
    )
    seen: list[tuple[float, int]] = []
    assert painter.stdout is not None
    try:
        for line in painter.stdout:
            if line.startswith("ready"):
                begun = time.time()
            elif line[0].isdigit():
                moment, painted = line.split()
                seen.append((float(moment), int(painted)))
                if seen[-1][0] - begun > PAINTS_FOR_SECONDS:
                    break
    finally:
        os.kill(painter.pid, signal.SIGKILL)
        painter.wait()
        painter.stdout.close()
    killed = time.time()
    (saved,) = own_autosave.glob("*.npz")  # whole, or it could not be read
    with np.load(saved, allow_pickle=False) as arrays:
        n_saved = len(arrays["indices"])
    owed = max(painted for moment, painted in seen if moment < killed - LOST_SECONDS)
    assert owed > 100, "something was painted early enough"
    assert n_saved >= owed
