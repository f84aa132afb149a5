"""A run that is killed again and again is the run that nobody touched."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from napari_cellda.core.jobs import Run
from test_cli_methods import words_of, write_field

PROGRAM = (
    "from napari_cellda.core import loop; loop.CHECKPOINT_SECONDS = 0.2\n"
    "from napari_cellda.cli import main; raise SystemExit(main())"
)
KILLS = 4
WATCHED = ("Step", "Score", "Preview")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for look, name in (("a", "source"), ("b", "target")):
        for i in range(2):
            write_field(root / name, f"f{i}", look, i)
    return root


def begin(words, out):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, words), "-o", str(out)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told(run):
    return [
        {k: v for k, v in line.items() if k != "seconds"}
        for line in run.events()
        if line["type"] in WATCHED and line.get("losses", True)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups on this system")
def test_killed_at_random_moments_and_resumed(data, tmp_path):
    words = [*words_of("culpico", data), "--set", "steps=200"]
    whole, out, rng = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    process = begin(words, whole)
    process.communicate()
    assert process.returncode == 0
    for _ in range(KILLS):
        resume = ["adapt", "--resume", "--device", "cpu"]
        process = begin(resume if (out / "run.yaml").is_file() else words, out)
        while process.poll() is None and not (out / "process.json").is_file():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        (out / "process.json").unlink(missing_ok=True)
    process = begin(["adapt", "--resume", "--device", "cpu"], out)
    _, said = process.communicate()
    assert process.returncode == 0, said
    killed, untouched = Run(out), Run(whole)
    assert told(killed) == told(untouched)
    files = (run.model_folder / "weights.pt" for run in (killed, untouched))
    ours, theirs = (torch.load(path, weights_only=True) for path in files)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [path.name for path in out.rglob(".*") if path.name != ".lock"] == []
