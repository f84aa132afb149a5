"""Measure whether the window stays fluent while a network trains and its pictures are shown.

A timer beats in Qt's event loop; its longest gap is how long the window could not react. Once the
panel Adapt starts and follows a real run, with curves and pictures; once a bare script adds the
same layers and sets the same arrays at the same times.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/window_training.py

The table goes to benchmarks/results/window_training.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timing import RESULTS, where
from window import BAR_MS, BAR_RATIO, Heartbeat, describe, spin, wait_for

if TYPE_CHECKING:
    from napari_cellda.core.runs.follow import Frame

SIDE = 512
STEPS = 60
PREVIEW_EVERY = 3
PATIENCE = 900.0
METHODS = ("culpico", "cellseguda")


def open_viewer() -> Any:
    """Open a window with annotated fields of one look and fields of another."""
    import napari

    from napari_cellda.core.samples import nuclei_field

    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    for i in range(2):
        sample = nuclei_field((SIDE, SIDE), i, "a")
        viewer.add_image(sample.image, name=f"source {i}", visible=False)
        viewer.add_labels(sample.labels.astype(np.int32), name=f"masks {i}", visible=False)
    for i in range(2):
        viewer.add_image(nuclei_field((SIDE, SIDE), 10 + i, "b").image, name=f"target {i}")
    return viewer


def follow_in_panel(method: str) -> tuple[np.ndarray, list[tuple[float, Frame]]]:
    """Train in the panel Adapt; return the gaps, and when which picture was shown."""
    from napari_cellda.ui.panels.adapt import AdaptPanel

    viewer = open_viewer()
    panel = AdaptPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Adapt", area="right")
    wait_for(panel.isEnabled)
    picks = {"target_images": "target", "source_images": "source", "source_masks": "masks"}
    for role, name in picks.items():
        panel.pickers[role].choose_layers([viewer.layers[f"{name} {i}"] for i in range(2)])
    panel.cards.cards[method].clicked.emit()
    every = dict.fromkeys(("preview_every", "validate_every"), PREVIEW_EVERY)
    panel.settings.choose("cpu", {"steps": STEPS, **every})
    panel.starter.start.click()
    run = panel.starter.monitor.run
    wait_for(lambda: run.view.step > 0 or not run.alive, PATIENCE)
    spin(2)  # the first curve brings the plotting library with it
    shown: list[tuple[float, Frame]] = []
    begun = time.perf_counter()
    run.framed.connect(lambda frame: shown.append((time.perf_counter() - begun, frame)))
    heartbeat = Heartbeat()
    heartbeat.start()
    wait_for(lambda: not run.alive, PATIENCE)
    gaps = heartbeat.stop()
    assert run.view.state == "done", run.view.text
    viewer.close()
    spin(0.5)
    return gaps, shown


def set_arrays(shown: list[tuple[float, Frame]]) -> np.ndarray:
    """Set the same arrays at the same times, and do nothing else; return the gaps."""
    from napari_cellda.ui.run_layers import side_by_side

    viewer = open_viewer()
    spin(2)
    stacks: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(frame.name for _, frame in shown):
        stacks[name] = np.stack([side_by_side(f.array) for _, f in shown if f.name == name])
    counts = dict.fromkeys(stacks, 0)
    heartbeat = Heartbeat()
    begun = time.perf_counter()
    heartbeat.start()
    for moment, frame in shown:
        spin(max(0.0, moment - (time.perf_counter() - begun)))
        counts[frame.name] += 1
        array = stacks[frame.name][: counts[frame.name]]
        if counts[frame.name] == 1:
            labels = array.dtype.kind in "iub"
            add = viewer.add_labels if labels else viewer.add_image
            add(array, name=frame.name, visible=len(counts) == sum(map(bool, counts.values())))
        else:
            viewer.layers[frame.name].data = array
        viewer.dims.set_current_step(0, len(array) - 1)
    gaps = heartbeat.stop()
    viewer.close()
    spin(0.5)
    return gaps


def report(rows: list[tuple[str, np.ndarray, np.ndarray, int]]) -> str:
    lines = []
    for method, live, arrays, pictures in rows:
        bar = max(BAR_MS, BAR_RATIO * arrays.max())
        verdict = "met" if live.max() <= bar else "missed"
        lines += [
            f"| {method}, followed in the panel, {pictures} pictures | {describe(live)} |",
            f"| {method}, the same layer arrays set by a script | {describe(arrays)} |",
            f"| bar: max({BAR_MS:.0f} ms, {BAR_RATIO} x) | {bar:.0f}: {verdict} | | |",
        ]
    return "\n".join(
        [
            "# Longest gap of the window's event loop while a network trains",
            "",
            f"`python benchmarks/window_training.py`; cpu preset, {STEPS} steps, a picture of each "
            f"kind every {PREVIEW_EVERY} steps, {SIDE} x {SIDE}, software rendering. "
            f"{where('napari', 'torch', 'numpy')}",
            "",
            "| script | longest gap, ms | 99.9th percentile, ms | gaps above 50 ms |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "window_training.md")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["NAPARI_CELLDA_AUTOSAVE"] = str(Path(folder) / "autosave")
        os.environ["NAPARI_CELLDA_RUNS"] = str(Path(folder) / "runs")
        for method in chosen.methods:
            live, shown = follow_in_panel(method)
            rows.append((method, live, set_arrays(shown), len(shown)))
    text = report(rows)
    print(text)
    chosen.output.write_text(text)


if __name__ == "__main__":
    main()
