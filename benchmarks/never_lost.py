"""Show that a run loses nothing but the time since its last checkpoint, whatever happens to it.

    python benchmarks/never_lost.py [--part kills|disk|data|napari] [--kills 20]

Small but real adaptations of generated nuclei, by the command line. Checkpoints come every second
instead of every minute, or most kills would come before the first one; nothing else is changed.

- kills: ``kill -9`` of the whole process group at random moments, ``adapt --resume`` each time,
  until the run is done; compared with a run that nobody touched.
- disk: it fills up, on a file system of its own (Linux, as root; else a limit on file sizes).
- data: the folder of images is taken away.
- napari: the window that started the run is killed, and opened again.

The tables go to benchmarks/results/never_lost.md; parts that are not run are kept as they were.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

from napari_cellda.core.jobs import Run
from napari_cellda.core.samples import nuclei_field
from timing import RESULTS, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROGRAM = (
    "from napari_cellda.core import loop; loop.CHECKPOINT_SECONDS = 1.0\n"
    "from napari_cellda.cli import main; raise SystemExit(main())"
)
PATIENCE = 600.0
LIFE = 30.0
"""A process is killed before so many seconds, of which it needs a third to start."""
SIDE = 96
UNET = {"crop": 32, "batch": 2, "width": 8, "depth": 2}
CUT = {"crop": 32, "batch": 2, "width": 8, "depth": 2, "style_crop": 32, "style_width": 8,
       "style_blocks": 1, "patches": 16}  # fmt: skip
CELLS = {"crop": 64, "batch": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "culpico": {**UNET, "steps": 800, "warmup": 100, "preview_every": 50},
    "supervised": {**UNET, "steps": 150, "validate_every": 50},
    "pseudo-label": {**UNET, "steps": 200, "preview_every": 50},
    "cellseguda": {**UNET, "steps": 150, "validate_every": 50},
    "cellsegssda": {**UNET, "steps": 250, "validate_every": 50},
    "stylefilter": {**CUT, "steps": 300, "validate_every": 50},
    "cks": {**CELLS, "steps": 60, "validate_every": 20},
}
"""Sizes at which a run takes about half a minute on one core."""


# -- data and commands ---------------------------------------------------------------------------


def write_data(root: Path) -> None:
    """Write nuclei of two looks, with masks, points and maps of the second."""
    for look, name in (("a", "source"), ("b", "target")):
        for kind in ("images", "masks", "points", "maps"):
            (root / name / kind).mkdir(parents=True)
        for i in range(3):
            write_field(root / name, f"f{i}", look, i)


def write_field(folder: Path, name: str, look: str, seed: int) -> None:
    sample = nuclei_field((SIDE, SIDE), seed, look)  # type: ignore[arg-type]
    grey = sample.image.reshape(SIDE, SIDE, -1).mean(axis=-1).astype(np.uint8)
    labels = np.asarray(sample.labels).astype(np.uint16)
    tifffile.imwrite(folder / "images" / f"{name}.tif", grey)
    tifffile.imwrite(folder / "masks" / f"{name}.tif", labels)
    p = np.clip((labels > 0) * 0.8 + 0.1, 0, 1).astype(np.float32)
    tifffile.imwrite(folder / "maps" / f"{name}_probability.tif", np.stack([1 - p, p]))
    centres = [np.argwhere(labels == k).mean(axis=0) for k in np.unique(labels[labels > 0])]
    rows = "".join(f"{y:.1f},{x:.1f}\n" for y, x in centres)
    (folder / "points" / f"{name}.csv").write_text(f"row,col\n{rows}")


def words_of(method: str, data: Path) -> list[str]:
    """Return the command of a method, without ``-o``."""
    target = data / "target"
    source = ["--source-images", data / "source/images", "--source-masks", data / "source/masks"]
    inputs = {
        "pseudo-label": ["--pseudo-labels", target / "maps"],
        "cellsegssda": [*source, "--target-masks", target / "masks"],
        "cks": ["--points", target / "points", "--diameter", 16],
    }.get(method, source)
    settings = [w for k, v in SETTINGS[method].items() for w in ("--set", f"{k}={v}")]
    words = ["adapt", method, "--target-images", target / "images", *inputs, *settings]
    return [str(word) for word in [*words, "--device", "cpu"]]


RESUME = ["adapt", "--resume", "--device", "cpu"]


def begin(words: Sequence[str], out: Path) -> subprocess.Popen[str]:
    """Start a command as the leader of a process group."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *words, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait; return the exit code and the last line of what it said."""
    said = process.communicate(timeout=PATIENCE)[1].strip().splitlines()
    return process.returncode, said[-1] if said else ""


def kill(process: subprocess.Popen[str]) -> bool:
    """Kill the group; False when it had ended already."""
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return True


def do(words: Sequence[str], out: Path) -> tuple[int, str]:
    """Run a command to its end."""
    return finish(begin(words, out))


def events(out: Path) -> list[dict[str, Any]]:
    return Run(out).events() if (out / "run.yaml").is_file() else []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process lives."""
    end = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        if time.monotonic() > end:
            raise TimeoutError("it did not come to that")
        time.sleep(0.005)


def trained(out: Path) -> int:
    """Return the last step with a loss."""
    done = [e["index"] for e in events(out) if e["type"] == "Step" and e.get("losses")]
    return done[-1] if done else 0


def stage(out: Path) -> str:
    """Return the title of the stage that a run is in."""
    titles = [e["title"] for e in events(out) if e["type"] == "Stage"]
    return titles[-1] if titles else "start"


def has_checkpoint(out: Path) -> bool:
    return (out / "checkpoints" / "last.pt").is_file()


# -- what must be equal --------------------------------------------------------------------------


def differences(out: Path, whole: Path) -> list[str]:
    """Name what a run has otherwise than one that nobody touched; empty when nothing."""
    found = []
    for kind in ("Step", "Score", "Preview"):
        if told(out, kind) != told(whole, kind):
            found.append(f"{kind.lower()}s")
    ours, theirs = Run(out), Run(whole)
    for name in ("last", "best"):
        if not same(ours.load(name), theirs.load(name)):
            found.append(f"checkpoint {name}")
    weights = (torch.load(r.model_folder / "weights.pt", weights_only=True) for r in (ours, theirs))
    if not same(*weights):
        found.append("weights")
    if ours.previews() != theirs.previews() or not all(
        np.array_equal(ours.preview(name, i).array, theirs.preview(name, i).array)
        for name, taken in theirs.previews().items()
        for i in taken
    ):
        found.append("pictures")
    known = {path.name for path in whole.rglob("*")} | {out.name, "output.txt"}
    extra = {p.name for p in out.rglob("*") if not p.is_relative_to(out / "previews.zarr")} - known
    return [*found, *(f"left over: {name}" for name in sorted(extra))]


def told(out: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind without their times; every process reads the images anew."""
    return [
        {k: v for k, v in e.items() if k != "seconds"}
        for e in events(out)
        if e["type"] == kind and e.get("losses", True)
    ]


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal bit by bit, wherever they say how long the log was apart."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in a if key != "log_bytes"]
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in keys)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


# -- kills ---------------------------------------------------------------------------------------


@dataclass
class Torment:
    """What was done to the runs of a method, and what came of it."""

    method: str
    kills: list[str] = field(default_factory=list)
    """The stage in which each kill came."""
    redone: int = 0
    """Steps that were done again after kills."""
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    messages: set[str] = field(default_factory=set)
    """Refusals, which must not be."""


def torment(method: str, kills: int, data: Path, scratch: Path, rng: random.Random) -> Torment:
    """Kill the runs of a method at random moments and resume them until enough kills are done."""
    whole, words = scratch / f"{method} whole", words_of(method, data)
    code, said = do(words, whole)
    assert code == 0, said
    found = Torment(method)
    while len(found.kills) < kills and not found.messages:
        out = scratch / f"{method} {found.runs}"
        found.runs += 1
        kill_until_done(found, kills, words, out, lambda: rng.uniform(0, LIFE))
        found.wrong += differences(out, whole) if not found.messages else []
        shutil.rmtree(out)
    return found


def kill_until_done(
    found: Torment, kills: int, words: list[str], out: Path, patience: Callable[[], float]
) -> None:
    while True:
        reached = trained(out)
        process = begin(RESUME if (out / "run.yaml").is_file() else words, out)
        with suppress(subprocess.TimeoutExpired):
            if len(found.kills) < kills:
                process.wait(patience())
        if len(found.kills) < kills and kill(process):
            found.kills.append(stage(out))
            kept = Run(out).load("last") if (out / "run.yaml").is_file() else None
            found.redone += max(trained(out), reached) - int(kept["step"] if kept else 0)
            continue
        code, said = finish(process)
        if code:
            found.messages.add(said)
        return


def kills_part(kills: int, methods: Sequence[str], data: Path, scratch: Path) -> str:
    rng = random.Random(0)
    rows = []
    for method in methods:
        mine = kills if method == methods[0] else max(1, kills // 5)
        found = torment(method, mine, data, scratch, rng)
        places = ", ".join(f"{found.kills.count(s)} {s}" for s in dict.fromkeys(found.kills))
        wrong = "; ".join([*found.messages, *dict.fromkeys(found.wrong)]) or "nothing"
        cells = (method, len(found.kills), places, found.runs, found.redone, wrong)
        rows.append(f"| {' | '.join(map(str, cells))} |")
        print(rows[-1], flush=True)
    return table("method, kills, during, runs finished, steps done twice, what differs", rows)


def table(titles: str, rows: Sequence[str]) -> str:
    """Return rows under their titles."""
    names = titles.split(", ")
    return "\n".join([f"| {' | '.join(names)} |", "|" + "---|" * len(names), *rows])


def verdict(code: int, said: str, out: Path, whole: Path) -> str:
    """Say what came of a resume."""
    return said if code else "; ".join(differences(out, whole)) or "as if nothing had happened"


# -- disk ----------------------------------------------------------------------------------------


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Lend a file system that can be filled."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def fill(disk: Path, leave: int = 0) -> Path:
    """Write a file that takes all room but `leave` bytes."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("r+b") as file:
        file.truncate(max(0, ballast.stat().st_size - leave))
    return ballast


@dataclass(frozen=True)
class Moment:
    """When the disk fills up."""

    title: str
    reached: Callable[[Path], bool]
    leave: int = 0
    """Bytes that stay free."""


MOMENTS = (
    Moment("before it begins", lambda out: True),
    Moment("when the run has its record", lambda out: (out / "run.yaml").is_file()),
    Moment("while training", has_checkpoint),
    Moment("with room for the log alone", has_checkpoint, 100_000),
    Moment("while the model is written", lambda out: stage(out) == "Write the model", 20_000),
)


def disk_part(data: Path, scratch: Path) -> str:
    words = words_of("supervised", data)
    whole = scratch / "disk whole"
    assert do(words, whole)[0] == 0
    rows = []
    for moment in MOMENTS:
        with small_disk(scratch / "disk", 24) as disk:
            rows.append(f"| {moment.title} | {fill_while(moment, words, disk, whole)} |")
            print(rows[-1], flush=True)
    titles = "the disk is full, exit code, message, run, checkpoint, resumed with room"
    return table(titles, rows)


def fill_while(moment: Moment, words: list[str], disk: Path, whole: Path) -> str:
    out = disk / "run"
    early = moment is MOMENTS[0]
    ballast = fill(disk) if early else disk / "ballast"
    process = begin(words, out)
    if not early:
        wait_for(lambda: moment.reached(out), process)
        ballast = fill(disk, moment.leave)
    code, said = finish(process)
    there = (out / "run.yaml").is_file()
    state = Run(out).state if there else "none"
    kept = Run(out).load("last") if there else None
    checkpoint = "none yet" if kept is None else f"step {kept['step']}"
    ballast.unlink()
    after = verdict(*do(RESUME if there else words, out), out, whole)
    return f"{code} | {shorten(said, disk)} | {state} | {checkpoint} | {after}"


def shorten(said: str, folder: Path) -> str:
    return said.replace(f"{folder}/", "").replace("|", "/")


# -- data ----------------------------------------------------------------------------------------


def data_part(data: Path, scratch: Path) -> str:
    words = words_of("supervised", data)
    whole, away = scratch / "data whole", scratch / "unplugged"
    assert do(words, whole)[0] == 0
    rows = []

    def row(what: str, result: str) -> None:
        rows.append(f"| {what} | {shorten(result, scratch)} |")
        print(rows[-1], flush=True)

    moments = {
        "when the run has its record": lambda out: (out / "run.yaml").is_file(),
        "while training": has_checkpoint,
    }
    for title, reached in moments.items():
        out = scratch / f"data {len(rows)}"
        process = begin(words, out)
        wait_for(lambda out=out, reached=reached: reached(out), process)
        data.rename(away)
        code, said = finish(process)
        row(f"taken away {title}", f"exit code {code}: {said or 'the run goes on'}")
        if code:
            code, said = do(RESUME, out)
            row("resumed without it", f"exit code {code}: {said}")
        away.rename(data)
        code, said = (0, "") if not code else do(RESUME, out)
        row("it is back", verdict(code, said, out, whole))
    out = scratch / "moved"
    process = begin(words, out)
    wait_for(lambda: has_checkpoint(out), process)
    kill(process)
    data.rename(away)
    code, said = do(RESUME, out)
    row("killed, and the folder has moved", f"exit code {code}: {said}")
    lost = scratch / "pieces"
    lost.mkdir()
    for role, place in PLACES.items():
        shutil.copytree(away / place, lost / role)
    code, said = do([*RESUME, "--inputs", str(lost)], out)
    row("resumed with --inputs", verdict(code, said, out, whole))
    away.rename(data)
    return table("the images are, what happens", rows)


PLACES = {
    "target_images": "target/images",
    "source_images": "source/images",
    "source_masks": "source/masks",
}


# -- all -----------------------------------------------------------------------------------------

TITLES = {
    "kills": "Killed at random moments",
    "disk": "The disk fills up",
    "data": "The images are taken away",
    "napari": "The window is killed",
}


def write_table(parts: dict[str, str], path: Path) -> None:
    """Write the parts that were run; the others stay as they were."""
    old = path.read_text() if path.is_file() else ""
    for key, title in TITLES.items():
        if key not in parts and f"## {title}" in old:
            parts[key] = old.split(f"## {title}\n\n", 1)[1].split("\n\n## ", 1)[0].strip()
    told = [f"## {TITLES[key]}\n\n{parts[key]}" for key in TITLES if key in parts]
    path.write_text("\n\n".join(["# Never lost", HEAD, where("torch", "numpy"), *told]) + "\n")


HEAD = (
    "`python benchmarks/never_lost.py`: small adaptations by the command line, interrupted, "
    "resumed, and compared bit for bit with the same run left alone: losses, scores, pictures, "
    "checkpoints, weights; and no file may be left over. A checkpoint every second instead of "
    "every minute."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=TITLES, action="append")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "never_lost.md")
    chosen = parser.parse_args()
    parts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch, data = Path(folder), Path(folder) / "data"
        write_data(data)
        for key in chosen.part or TITLES:
            if key == "kills":
                parts[key] = kills_part(chosen.kills, chosen.methods, data, scratch)
            elif key == "disk":
                parts[key] = disk_part(data, scratch)
            elif key == "data":
                parts[key] = data_part(data, scratch)
            else:
                from never_lost_window import napari_part

                parts[key] = napari_part(data, scratch)
            write_table(parts, chosen.output)
    print(chosen.output.read_text())


if __name__ == "__main__":
    main()
