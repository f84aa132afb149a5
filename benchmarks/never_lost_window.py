"""The part of never_lost.py with a window: it is killed while a run that it started goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 300.0
METHOD = "cellseguda"


# -- the windows, each in a process of its own ---------------------------------------------------


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def open_window(panel: str) -> Any:
    """Open napari with a panel, whose runs keep checkpoints often and wait for nobody else's."""
    import napari

    from napari_cellda.core.runs import launch
    from napari_cellda.ui.runs import runs_folder
    from never_lost import PROGRAM

    launch.PROGRAM = (sys.executable, "-W", "ignore", "-c", PROGRAM)
    launch.default_queue = lambda: runs_folder() / "queue"

    viewer = napari.Viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-cellda", panel)
    return widget


def wait_until(condition: Any) -> None:
    from napari_cellda.ui.demo import wait_until as wait

    wait(condition, "what was waited for", PATIENCE)


def first_window(data: Path, settings: dict[str, Any]) -> None:
    """Start a run from the panel Adapt, and stay open."""
    panel = open_window("Adapt")
    wait_until(panel.isEnabled)
    panel.pickers["target_images"].choose_path(data / "target/images")
    panel.pickers["source_images"].choose_path(data / "source/images")
    panel.pickers["source_masks"].choose_path(data / "source/masks")
    panel.cards.cards[METHOD].clicked.emit()
    panel.settings.choose("cpu", settings)
    panel.starter.start.click()
    run = panel.starter.monitor.run
    say(folder=str(run.folder))
    wait_until(lambda: not run.alive)


def second_window(resume: bool) -> None:
    """Find the run in the panel Runs, and follow it to its end."""
    from qtpy.QtTest import QTest

    panel = open_window("Runs")
    wait_until(lambda: panel.lines)
    panel.table.selectRow(0)
    panel.open.click()
    run = panel.monitor.run
    wait_until(lambda: run.view.step > 0)
    say(state=run.view.state, title=panel.monitor.title.text(), step=run.view.step)
    if resume:
        wait_until(lambda: not run.alive)
        say(message=panel.monitor.message.text)
        panel.monitor.resume.click()
    wait_until(lambda: run.view.state == "done")
    QTest.qWait(200)
    plot = panel.monitor.curves.losses
    layers = {
        layer.name.split(" · ")[-1]: layer.data.shape[0] for layer in panel.session.viewer.layers
    }
    say(curves=sorted(plot.curves), pictures=layers)


# -- what is done to them ------------------------------------------------------------------------


def window(*words: str, runs: Path) -> subprocess.Popen[str]:
    surroundings = {
        **os.environ,
        "NAPARI_CELLDA_RUNS": str(runs),
        "NAPARI_CELLDA_AUTOSAVE": str(runs / "autosave"),
    }
    command = [sys.executable, "-W", "ignore", str(Path(__file__)), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)


def heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next thing that a window says."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise RuntimeError(f"the window ended with {process.wait()}")


def napari_part(data: Path, scratch: Path) -> str:
    """Kill the window, with and without its run, and open another one."""
    from never_lost import SETTINGS, do, table, verdict, words_of

    whole = scratch / "napari whole"
    words = [word for word in words_of(METHOD, data) if word not in ("--device", "cpu")]
    code, said = do(words, whole)
    assert code == 0, said
    rows = []
    for title, with_run in (("the window", False), ("the window and the run", True)):
        runs = scratch / f"runs {len(rows)}"
        told = kill_and_reopen(data, runs, SETTINGS[METHOD], with_run)
        out = next(path for path in runs.iterdir() if (path / "run.yaml").is_file())
        rows.append(f"| {title} | {told} | {verdict(0, '', out, whole)} |")
        print(rows[-1], flush=True)
    return table("killed, what the new window shows, the run", rows)


def kill_and_reopen(data: Path, runs: Path, settings: dict[str, Any], with_run: bool) -> str:
    from napari_cellda.core.jobs import Run
    from never_lost import has_checkpoint, wait_for

    first = window("first", str(data), json.dumps(settings), runs=runs)
    out = Path(heard(first)["folder"])
    wait_for(lambda: has_checkpoint(out), first)
    process = Run(out).process
    first.kill()
    first.wait()
    if with_run:
        os.killpg(process.pid, signal.SIGKILL)
    second = window("second", *(["resume"] if with_run else []), runs=runs)
    found = heard(second)
    told = f"{found['title'].split(': ')[1]}, step {found['step']}"
    if with_run:
        told += f': "{heard(second)["message"]}"'
    last = heard(second)
    assert second.wait() == 0
    pictures = ", ".join(f"{n} of {name}" for name, n in last["pictures"].items())
    return f"{told}; in the end the curves {', '.join(last['curves'])} and pictures: {pictures}"


if __name__ == "__main__":
    if sys.argv[1] == "first":
        first_window(Path(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        second_window("resume" in sys.argv)
