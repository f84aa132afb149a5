"""Stands in for ``napari-cellda`` where a test needs a run but no training.

Takes the same words, keeps the same kind of folder: ``... --set steps=N ... -o RUN``.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from napari_cellda.core.events import Note, Preview, Score, Stage, Step, run_quietly
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import BaseParams
from napari_cellda.core.runs import turn

turn.device_names = lambda: ["processor"]  # torch would tell


class Params(BaseParams):
    steps: int = 0


class LightRun(Run):
    """Keeps its checkpoints without torch, which takes seconds to load."""

    def save(self, name, state):
        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        size = self.events_path.stat().st_size
        (folder / f"{name}.json").write_text(json.dumps({**state, "log_bytes": size}))

    def load(self, name):
        path = self.folder / "checkpoints" / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None


def work(run, stop, steps):
    last = run.load("last")
    start = int(last["step"]) if last else 0
    yield Stage("Train", steps)
    if start:
        yield Note(f"Going on from step {start}.")
    for index in range(start + 1, steps + 1):
        if stop():
            break
        yield Step(index, {"loss": 1 / index, "dice": 2 / index})
        if index % 20 == 0:
            yield Preview("map", np.full((2, 12, 10), index / steps, np.float32), index)
            yield Score("score", index / steps, index, selects=True)
            run.save("last", {"step": index})
        time.sleep(0.01)
    yield Stage("Write the model")
    run.model_folder.mkdir(exist_ok=True)
    (run.model_folder / "rdf.yaml").write_text("name: stand-in\n")


def main():
    words = sys.argv[1:]
    folder = Path(words[words.index("-o") + 1])
    found = re.findall(r"steps=(\d+)", " ".join(words))
    steps = int(found[-1]) if found else 40
    if "--resume" in words:
        run = LightRun(folder)
        steps = run.record.params["steps"]
    else:
        inputs = {w[2:]: Path(words[i + 1]) for i, w in enumerate(words) if w in ROLES}
        method = "enhancer train" if words[0] == "enhancer" else words[1]
        run = LightRun.create(folder, method, Params(steps=steps), inputs, seed=0)
    run_quietly(run.drive(work(run, run.stopper(), steps)))


ROLES = ("--images", "--masks", "--target-images", "--source-images", "--source-masks")

if __name__ == "__main__":
    main()
