"""The demonstration in a window: a real section, painted, classified, enhanced.

``python -m napari_cellda.ui.demo -o DIR`` does it without anybody watching: it takes a picture of
the window and leaves masks and scores beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_cellda.ui.state import Session

PLUGIN = "napari-cellda"
PANELS = ("Paint", "Enhance", "Export")
ENHANCER = "nuclei"
WINDOW_SIZE = (1440, 900)
PATIENCE_SECONDS = 300


def run_demo(output: Path, *, show: bool) -> None:
    """Open napari with the panels docked, the sample painted, the forest trained and enhanced.

    Parameters
    ----------
    output : Path
        What the panel Export offers as its folder; receives the picture when `show` is False.
    show : bool
        Leave the window to the user until it is closed. False: save `window.png` of it and close.

    Raises
    ------
    UserError
        If there is no display, or the maps do not come within five minutes.
    """
    check_display()
    import napari
    from qtpy.QtTest import QTest

    viewer = napari.Viewer(title="napari-cellda demo", show=False)
    panels = open_panels(viewer)
    viewer.open_sample(PLUGIN, "ihc")
    viewer.show()
    viewer.window.resize(*WINDOW_SIZE)
    QTest.qWait(300)  # the canvas takes its size in the event loop
    viewer.reset_view()
    panels["Export"].folder.setText(str(output.resolve()))
    panels["Enhance"].open(ENHANCER)
    if show:
        napari.run()
        return
    output.mkdir(parents=True, exist_ok=True)
    wait_until(lambda: is_enhanced(panels["Paint"].session), "the enhanced map")
    viewer.screenshot(str(output / "window.png"), canvas_only=False, flash=False)
    viewer.close()


def check_display() -> None:
    """Raise a UserError where Qt would end the program for want of a display."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names):
        raise UserError("There is no display to open a window on; add --headless.")


def open_panels(viewer: napari.Viewer) -> dict[str, Any]:
    """Dock the panels at the right, in tabs, the first in front; return them by name."""
    panels = {}
    docks = []
    for name in PANELS:
        dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
        panels[name] = panel
        docks.append(dock)
    docks[0].raise_()
    return panels


def is_enhanced(session: Session) -> bool:
    """Tell whether the enhanced map of the whole image is there."""
    from napari_cellda.ui.live import LivePainter

    current = session.current
    if session.last_error is not None:
        raise session.last_error
    return (
        current is not None
        and "enhanced" in current.results
        and session.score is not None
        and not LivePainter.of(session).busy
    )


def wait_until(done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Let the window live until something is true."""
    from qtpy.QtTest import QTest

    end = monotonic() + seconds
    while not done():
        if monotonic() > end:
            raise UserError(f"The demonstration waited {seconds:.0f} s for {what} in vain.")
        QTest.qWait(50)


def main() -> None:
    """Run the demonstration without anybody watching."""
    parser = argparse.ArgumentParser(description="Run the demonstration and take its picture.")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo_output"))
    output = parser.parse_args().output
    run_demo(output, show=False)

    from napari_cellda.cli.support import follow, print_table
    from napari_cellda.core.demo import demo_without_window

    print_table(follow(demo_without_window(output)))
    print(f"Wrote the picture of the window, masks and scores to {output}.")


if __name__ == "__main__":
    main()
