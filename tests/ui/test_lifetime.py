"""The window closes while painting, enhancing or searching: everything ends, nothing is lost."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, QObject

from napari_cellda.ui.connect import _LastCall, when_deleted
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task, tasks_of
from painting import WAIT_MS, cells, paint_both, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]


class SlowEnhancer:
    """Works until it is told to stop, as one on a large image would."""

    card = SimpleNamespace(n_outputs=1)

    def __init__(self) -> None:
        self.started = threading.Event()
        self.stopped = False

    def enhance_region(self, read: Any, region: Any, limits: Any, *, stop: Any, **_: Any) -> None:
        self.started.set()
        while not stop():
            threading.Event().wait(0.005)
        self.stopped = True


def test_window_closed_while_enhancing_and_in_batch_work(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells(), window="hidden")
    session = panel.session
    paint_both(panel)
    wait_idle(panel, qtbot)
    strokes = session.current.strokes_array.copy()
    enhancer = SlowEnhancer()
    session.set_enhancer(enhancer)

    def batch(stop: Callable[[], bool]) -> Any:
        while not stop():
            threading.Event().wait(0.005)
            yield None

    called: list[Any] = []
    task = run_task(batch, session=session, on_result=called.append, on_error=called.append)
    qtbot.waitUntil(enhancer.started.is_set, timeout=WAIT_MS)
    session.viewer.close()
    qtbot.waitUntil(lambda: session.is_closed, timeout=WAIT_MS)
    assert panel.painter.wait(30)
    assert task.wait(30)
    assert enhancer.stopped
    assert called == []
    assert tasks_of(session) == []
    qtbot.waitUntil(lambda: len(list(own_autosave.glob("*.npz"))) == 1, timeout=WAIT_MS)
    with np.load(next(own_autosave.glob("*.npz"))) as saved:
        assert len(saved["ids"]) == np.count_nonzero(strokes)


def test_window_closed_while_the_libraries_load(
    make_napari_viewer: Callable[..., Any], qtbot: QtBot, train_here: None
) -> None:
    from napari_cellda.ui.panels.paint import PaintPanel

    viewer = make_napari_viewer()
    viewer.add_image(cells())
    panel = PaintPanel(viewer)
    viewer.window.add_dock_widget(panel)
    viewer.close()
    qtbot.waitUntil(lambda: panel.session.is_closed, timeout=WAIT_MS)
    assert panel.painter.wait(60)


def test_helper_process_ends_with_the_window(
    make_napari_viewer: Callable[..., Any], qtbot: QtBot
) -> None:
    from napari_cellda.ui.panels.paint import PaintPanel

    viewer = make_napari_viewer()
    viewer.add_image(cells())
    panel = PaintPanel(viewer)
    viewer.window.add_dock_widget(panel)
    process = panel.painter.work.trainer._process
    assert process is not None
    qtbot.waitUntil(lambda: panel.painter.loaded, timeout=WAIT_MS)
    assert process.poll() is None
    viewer.close()
    qtbot.waitUntil(lambda: panel.session.is_closed, timeout=WAIT_MS)
    assert process.wait(30) != 0
    assert panel.painter.wait(30)


def test_closed_dock_keeps_the_work(open_panel: Open, qtbot: QtBot) -> None:
    """The panel is taken away, e.g. to make room: strokes and maps go on."""
    panel = open_panel(cells(), window="hidden")
    session = panel.session
    viewer = session.viewer
    viewer.window.remove_dock_widget(panel)
    paint_both(panel)
    wait_idle(panel, qtbot)
    assert session.classifier is not None
    assert not session.is_closed


def test_panels_from_the_menu_share_the_session(open_panel: Open) -> None:
    """napari hands plugins a proxy of the viewer, another one each time."""
    from napari.utils._proxies import PublicOnlyProxy

    panel = open_panel(cells(), window="hidden")
    viewer = panel.session.viewer
    assert Session.of(PublicOnlyProxy(viewer)) is panel.session
    assert Session.of(viewer) is panel.session


def test_deleted_panel_is_called_no_more(open_panel: Open, qtbot: QtBot) -> None:
    """Its cross was clicked: Qt deletes the widgets while the session lives on."""
    panel = open_panel(cells(), window="hidden")
    session, painter = panel.session, panel.painter
    dock = panel.parent()
    dock.destroyOnClose()
    dock.deleteLater()
    qtbot.waitSignal(panel.destroyed, raising=False, timeout=2000).wait()
    session.current.strokes.paint((20, 20), 1)
    session.current.strokes.paint((20, 140), 2)
    qtbot.waitUntil(lambda: painter.settled, timeout=WAIT_MS)
    assert session.classifier is not None
    session.report(ValueError("nobody is there to show it"))
    session.viewer.layers.remove(session.current.layer)


def test_second_panel_of_a_viewer_shares_its_session(open_panel: Open, qtbot: QtBot) -> None:
    from napari_cellda.ui.panels.paint import PaintPanel

    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    again = PaintPanel(panel.session.viewer)
    qtbot.addWidget(again)
    assert again.session is panel.session
    assert again.painter is panel.painter
    qtbot.waitUntil(lambda: again.rows.rows[1].count.text() == panel.rows.rows[1].count.text())
    assert again.loading.isHidden()


def test_large_arrays_are_freed_with_the_window(
    make_napari_viewer: Callable[..., Any], qtbot: QtBot, train_here: None
) -> None:
    from napari_cellda.ui.panels.paint import PaintPanel

    viewer = make_napari_viewer()
    viewer.add_image(cells())
    panel = PaintPanel(viewer)
    viewer.window.add_dock_widget(panel)
    qtbot.waitUntil(lambda: panel.painter.loaded, timeout=WAIT_MS)
    session = panel.session
    qtbot.waitUntil(lambda: session.current is not None, timeout=WAIT_MS)
    paint_both(panel)
    wait_idle(panel, qtbot)
    large = [weakref.ref(panel.painter.work.engine), weakref.ref(session.current.strokes_array)]
    viewer.close()
    qtbot.waitUntil(lambda: session.is_closed, timeout=WAIT_MS)
    assert panel.painter.wait(60)
    gc.collect()
    assert [one() for one in large] == [None, None]


def test_what_qt_calls_last_may_have_been_emptied_by_the_garbage_collector() -> None:
    widget, told = QObject(), []
    when_deleted(widget, told.append, "as it should")
    widget.deleteLater()
    QCoreApplication.sendPostedEvents(widget, QEvent.Type.DeferredDelete)
    assert told == ["as it should"]
    emptied = _LastCall(told.append, ("too late",))
    emptied.__dict__.clear()  # what the collector does to it
    emptied()
    assert told == ["as it should"]


def test_program_that_ends_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
        import napari, numpy as np
        from qtpy.QtWidgets import QApplication
        from napari_cellda.ui.panels.paint import PaintPanel
        viewer = napari.Viewer(show=False)
        viewer.add_image(np.random.default_rng(0).random((300, 300)))
        panel = PaintPanel(viewer)
        viewer.window.add_dock_widget(panel)
        print(panel.painter.work.trainer._process.pid, flush=True)
        for _ in range(20):
            QApplication.processEvents()
        panel.session.current.strokes.paint((20, 20), 1)
        panel.session.current.strokes.paint((200, 200), 2)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    import psutil

    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(30)
