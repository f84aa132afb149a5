"""Batches: what is missing and only that, failures that cost one file, several processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import zoo_packages as zoo

from napari_cellda.cli import main
from napari_cellda.core.atomic import remove_leftovers
from napari_cellda.core.batch import BatchOptions, ClassifyJob, classify_batch, predict_batch
from napari_cellda.core.batch.files import BatchFault
from napari_cellda.core.batch.workers import worker_count
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Event, Note, Stage, Step, drive, run_quietly

JOB = ClassifyJob(features="compact")
OUTPUTS = ("mask", "probability")


def disk(size: int, seed: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    inside = (y - size // 2) ** 2 + (x - size // 2) ** 2 < (size // 4) ** 2
    noise = np.random.default_rng(seed).normal(60, 10, inside.shape)
    return np.clip(inside * 120 + noise, 0, 255).astype(np.uint8)


def paint(size: int) -> np.ndarray:
    strokes = np.zeros((size, size), np.uint8)
    strokes[2:6, :], strokes[size // 2 - 3 : size // 2 + 3, size // 3 : 2 * size // 3] = 1, 2
    return strokes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of four images, and strokes for the first beside it."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        tifffile.imwrite(folder / f"cell_{number}.tif", disk(80, number))
    tifffile.imwrite(tmp_path / "cell_0.tif", paint(80))
    return folder


def classify(images: Path, job: ClassifyJob = JOB, **options) -> list[str]:
    """Run a batch; return the names of the images that were done now."""
    report = run_quietly(batch(images, job, **options))
    return [path.stem for path in report.done]


def batch(images: Path, job: ClassifyJob = JOB, **options):
    folder = images.parent
    chosen = BatchOptions(**{"workers": 1, **options})
    return classify_batch([images], [folder / "cell_0.tif"], folder / "out", job, options=chosen)


ALL = [f"cell_{number}" for number in range(4)]


def test_a_rerun_does_only_what_is_missing(images: Path):
    out = images.parent / "out"
    assert classify(images) == ALL
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tif")}
    assert classify(images) == []
    (out / "cell_1_mask.tif").unlink()
    os.truncate(out / "cell_2_probability.tif", 1000)
    assert classify(images) == ["cell_1", "cell_2"]
    kept = [path for path, when in before.items() if path.stat().st_mtime_ns == when]
    assert {path.name[:6] for path in kept} == {"cell_0", "cell_3"}
    assert classify(images, overwrite=True) == ALL


def test_another_image_or_model_is_done_again(images: Path):
    classify(images)
    tifffile.imwrite(images / "cell_3.tif", disk(80, 33))
    assert classify(images) == ["cell_3"]
    strokes = tifffile.imread(images.parent / "cell_0.tif")
    strokes[70:74] = 1
    tifffile.imwrite(images.parent / "cell_0.tif", strokes)
    assert classify(images) == ALL
    assert classify(images, ClassifyJob(features="compact", instances=True)) == ALL
    assert classify(images, ClassifyJob(features="compact", instances=True)) == []


def test_an_interrupted_redo_is_not_taken_for_the_older_results(images: Path):
    classify(images)
    task = batch(images, ClassifyJob(features="compact", seed=5))
    for event in task:
        if isinstance(event, Stage) and "Writing cell_1" in event.title:
            break
    task.close()
    assert classify(images) == ["cell_0", "cell_1"]


def test_a_mask_corrected_by_hand_is_kept(images: Path):
    classify(images)
    mask = images.parent / "out" / "cell_1_mask.tif"
    tifffile.memmap(mask)[:] = 7
    os.utime(mask)
    assert classify(images) == []
    assert (tifffile.imread(mask) == 7).all()


def test_a_mask_of_the_users_beside_its_image_is_not_replaced(images: Path):
    mask = images / "cell_1_mask.tif"
    tifffile.imwrite(mask, paint(80))
    mine = mask.read_bytes()
    task = in_place(images, [images / "cell_0.tif", images / "cell_1.tif"])
    with pytest.raises(UserError, match=r"cell_1_mask\.tif' is no result of a batch"):
        run_quietly(task)
    assert mask.read_bytes() == mine
    assert not (images / "cell_0_mask.tif").exists()
    run_quietly(in_place(images, [images / "cell_1.tif"], overwrite=True))
    assert mask.read_bytes() != mine


def test_results_beside_their_images_are_results_and_no_images(images: Path):
    other = ClassifyJob(features="compact", seed=5)
    assert len(run_quietly(in_place(images, [images])).done) == 4
    assert not run_quietly(in_place(images, [images])).done
    task = in_place(images, [images], other)
    while not isinstance(event := next(task), Stage) or "Writing cell_1" not in event.title:
        pass
    task.close()  # cell_1 is half done: its files are results all the same
    assert len(run_quietly(in_place(images, [images], other)).done) == 3
    for name in ALL:
        (images / f"{name}.tif").unlink()
    with pytest.raises(UserError, match="are results of a batch"):
        run_quietly(in_place(images, [images], other))
    masks = sorted(images.glob("*_mask.tif"))
    assert run_quietly(in_place(images, masks)).done == tuple(masks)


def test_results_of_earlier_settings_stay_results(images: Path):
    with_objects = ClassifyJob(features="compact", instances=True)
    assert len(run_quietly(in_place(images, [images], with_objects)).done) == 4
    assert len(run_quietly(in_place(images, [images])).done) == 4
    assert (images / "cell_1_instances.tif").exists()
    assert len(run_quietly(in_place(images, [images], with_objects)).done) == 4


def in_place(images: Path, paths: list[Path], job: ClassifyJob = JOB, **options):
    """Run a batch whose results go beside the images."""
    strokes = [images.parent / "strokes" / f"{paths[0].stem}.tif"]
    if paths[0].is_dir():
        strokes = [images.parent / "cell_0.tif"]
    strokes[0].parent.mkdir(exist_ok=True)
    tifffile.imwrite(strokes[0], paint(80))
    chosen = BatchOptions(**{"workers": 1, **options})
    return classify_batch(paths, strokes, images, job, options=chosen)


def test_a_damaged_file_is_reported_and_the_others_are_done(images: Path):
    (images / "broken.tif").write_bytes(b"II*\0 nonsense")
    task, events = batch(images), []
    while True:
        try:
            events.append(next(task))
        except StopIteration as end:
            report = end.value
            break
    assert [path.stem for path in report.done] == ALL
    (failure,) = report.failures
    assert failure.path.name == "broken.tif"
    assert "broken.tif" in failure.sentence
    assert not failure.traceback
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("broken.tif" in text for text in notes)
    assert any(isinstance(e, Stage) and e.title.startswith("5/5 ") for e in events)


def test_a_failure_begins_with_the_path_of_its_image(images: Path, capsys):
    empty = np.full((80, 80), np.nan, np.float32)
    tifffile.imwrite(images / "cell_1.tif", empty)
    tifffile.imwrite(images / "cell_2.tif", empty[..., None].repeat(5, -1))
    (images / "cell_3.tif").write_bytes(b"II*\0 nonsense")
    words = ["classify", images, "--strokes", images.parent / "cell_0.tif", "--features", "compact"]
    assert main([str(word) for word in (*words, "-o", images.parent / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    listed = lines[lines.index("3 of 4 images failed:") + 1 : -1]
    for number, line in enumerate(listed, 1):
        assert line.startswith(f"  '{images / f'cell_{number}.tif'}'")
        assert line.count("cell_") == 1
    assert len(listed) == 3


def test_a_place_that_cannot_be_written_is_told_once(images: Path, capsys):
    (images.parent / "out").write_text("mine")
    words = ["classify", images, "--strokes", images.parent / "cell_0.tif", "--features", "compact"]
    assert main([str(word) for word in (*words, "-o", images.parent / "out")]) == 2
    said = capsys.readouterr().err
    assert said == f"Error: '{images.parent / 'out'}' cannot be written: a file is in the way.\n"


def test_what_a_folder_lacks_is_told(images: Path, capsys):
    classify(images)
    (images / "cell_3.tif").unlink()
    (images / "cell_3.tif").symlink_to(images.parent / "unmounted" / "cell_3.tif")
    (images / "cell_4.bmp").write_bytes(b"BM")
    words = ["classify", images, "--strokes", images.parent / "cell_0.tif", "--features", "compact"]
    assert main([str(word) for word in (*words, "-o", images.parent / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count(f"'{images / 'cell_3.tif'}' does not exist.") == 1
    assert "1 of 4 images failed" in said
    assert said.count(f"'{images / 'cell_4.bmp'}' is left out; expected TIFF") == 1


def test_a_file_of_several_images_is_told(images: Path, capsys):
    with tifffile.TiffWriter(images / "cell_3.tif", ome=True) as file:
        file.write(disk(80, 30))
        file.write(disk(80, 30)[::2, ::2], subfiletype=1)  # a thumbnail is none of them
        file.write(disk(60, 20))
    words = ["classify", images, "--strokes", images.parent / "cell_0.tif", "--features", "compact"]
    assert main([str(word) for word in (*words, "-o", images.parent / "out")]) == 0
    said = f"'{images / 'cell_3.tif'}' holds 2 images, of which only the first is read.\n"
    assert capsys.readouterr().err.count(said) == 1


def test_a_file_that_must_not_be_read_is_told_in_plain_words(images: Path, monkeypatch, capsys):
    classify(images)
    real = Path.open

    def closed(path: Path, *args, **kwargs):
        if path.name == "cell_1.tif":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    report = run_quietly(batch(images))
    assert len(report.kept) == 3
    (failure,) = report.failures
    assert (
        str(failure) == f"'{images / 'cell_1.tif'}' cannot be read or written: Permission denied."
    )
    assert not failure.traceback


def test_a_fault_of_ours_keeps_its_traceback_and_the_others_are_done(images, monkeypatch, capsys):
    from napari_cellda.core import pipeline

    write = pipeline.write_region

    def fail(image, *rest):
        if image.name == "cell_2":
            raise ZeroDivisionError("a slip")
        write(image, *rest)

    monkeypatch.setattr(pipeline, "write_region", fail)
    folder = images.parent
    words = ["classify", str(images), "--strokes", str(folder / "cell_0.tif")]
    with pytest.raises(BatchFault, match="1 of 4") as fault:
        main([*words, "--features", "compact", "--workers", "1", "-o", str(folder / "out")])
    assert "cell_2.tif' met a fault of ours" in capsys.readouterr().err
    assert "ZeroDivisionError: a slip" in str(fault.value.__cause__)
    assert "in fail" in str(fault.value.__cause__)
    done = sorted(path.name for path in (folder / "out").glob("*_mask.tif"))
    assert done == ["cell_0_mask.tif", "cell_1_mask.tif", "cell_3_mask.tif"]


def test_stopping_ends_after_whole_files(images: Path):
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 12

    options = BatchOptions(workers=1)
    out = images.parent / "out"
    strokes = [images.parent / "cell_0.tif"]
    report = run_quietly(classify_batch([images], strokes, out, JOB, options=options, stop=stop))
    assert 0 < len(report.done) < 4
    assert sorted(p.name for p in out.glob("*")) == sorted(
        [".cellda-batch", *(path.name for path in report.written)]
    )


def test_stopping_is_heard_while_it_is_looked_for_what_is_missing(images: Path):
    classify(images)
    looked: list[Event] = []
    files = [images], [images.parent / "cell_0.tif"], images.parent / "out"
    task = classify_batch(
        *files, JOB, options=BatchOptions(workers=1), stop=lambda: Step(2) in looked
    )
    report = drive(task, looked.append)
    assert Stage("Look for what is missing", 4) in looked
    assert (len(report.kept), report.done) == (2, ())


def test_leftovers_of_a_killed_run_go_and_nothing_else(tmp_path: Path):
    left = [".a_mask-0123456789ab.tif", ".a_probability-0123456789ab.zarr"]
    left += [".a_mask-0123456789ab-old.zarr", ".a_mask.ome-0123456789ab.tif"]
    other = [
        "a_mask.tif",
        ".b_mask-0123456789ab.tif",
        ".a_mask-short.tif",
        ".a_b_mask-0123456789ab.tif",  # of the image a_b
        ".aa_mask-0123456789ab.tif",
    ]
    for name in [*left, *other]:
        (tmp_path / name).mkdir() if name.endswith("zarr") else (tmp_path / name).touch()
    remove_leftovers(tmp_path, ["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(other)


def test_what_another_job_is_writing_is_left_alone(images: Path):
    out = images.parent / "out"
    old, young = (out / f".cell_0_mask-{letter * 12}.tif" for letter in "ab")
    store = out / f".cell_0_probability-{'c' * 12}.zarr"
    store.mkdir(parents=True)
    for path in (old, young, store / "chunk"):
        path.touch()
    for path in (old, store):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    classify(images)
    assert sorted(half_written(out)) == [young, store]


def test_processes_here_and_a_scheduler_exclude_each_other(images: Path, capsys):
    words = ["predict", "p.cellda", str(images), "-o", str(images / "out")]
    assert main([*words, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "leave out one of them" in capsys.readouterr().err


def test_as_many_workers_as_asked_for_but_no_more_than_images(monkeypatch):
    assert worker_count(4, 3) == 3
    assert worker_count(1, 100) == 1
    assert worker_count(None, 3) == 1
    monkeypatch.setattr("napari_cellda.core.batch.workers.thread_count", lambda: 6)
    monkeypatch.setattr("napari_cellda.core.batch.workers.available_memory", lambda: 2**33)
    assert worker_count(None, 10**3) == 5
    assert worker_count(None, 24) == 3


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real disk of 1 MB that can grow."""
    if os.name != "posix" or os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "out"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_one_file_and_more_room_mends_it(images, small_disk, capsys):
    tifffile.imwrite(images / "cell_1.tif", disk(600, 1))
    strokes = images.parent / "cell_0.tif"
    words = ["classify", images, "--strokes", strokes, "--features", "compact", "-o", small_disk]
    assert main([str(word) for word in words]) == 2
    complaint = capsys.readouterr().err
    assert "1 of 4 images failed" in complaint
    assert "cell_1_probability.tif' cannot be written: the disk is full" in complaint
    names = {f"{name}_{kind}.tif" for name in ALL if name != "cell_1" for kind in OUTPUTS}
    assert {path.name for path in small_disk.iterdir()} == names | {".cellda-batch"}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert classify(images) == ["cell_1"]


# -- several processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained project."""
    folder = tmp_path_factory.mktemp("project")
    tifffile.imwrite(folder / "cell.tif", disk(80, 0))
    tifffile.imwrite(folder / "strokes.tif", paint(80))
    job = ClassifyJob(features="compact", save=folder / "p.cellda")
    files = [folder / "cell.tif"], [folder / "strokes.tif"]
    run_quietly(classify_batch(*files, folder / "out", job, options=BatchOptions(workers=1)))
    return folder / "p.cellda"


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*") if path.name != ".cellda-batch"]


def children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "napari_cellda.core.batch.worker" in command_of(p)]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie: it has ended meanwhile
        return ""


def kill_when_writing(folder: Path, seconds: float = 120) -> None:
    """Kill one worker as soon as it has half written the results of cell_1."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(path.name.startswith(".cell_1") for path in half_written(folder)):
            for child in children():
                child.kill()
            return
        time.sleep(0.001)


def test_a_killed_worker_costs_its_file_and_all_else_is_as_in_one_process(images, project):
    tifffile.imwrite(images / "cell_1.tif", disk(1100, 1))
    (images / "broken.tif").write_bytes(b"II*\0 nonsense")
    out, alone = images.parent / "out", images.parent / "alone"
    killer = threading.Thread(target=kill_when_writing, args=(out,))
    killer.start()
    two = BatchOptions(workers=2)
    report = run_quietly(predict_batch(str(project), [images], out, options=two))
    killer.join()
    failures = {failure.path.name: failure.sentence for failure in report.failures}
    assert "was killed by signal 9" in failures.pop("cell_1.tif")
    assert "broken.tif" in failures.pop("broken.tif")
    assert all("killed" in sentence for sentence in failures.values())  # the other one's, if any
    assert half_written(out) == []
    assert children() == []
    (images / "broken.tif").unlink()
    again = run_quietly(predict_batch(str(project), [images], out, options=BatchOptions(workers=1)))
    assert {path.stem for path in again.done} == {"cell_1", *(Path(f).stem for f in failures)}
    one = BatchOptions(workers=1)
    run_quietly(predict_batch(str(project), [images], alone, options=one))
    for path in sorted(alone.glob("*.tif")):
        assert path.read_bytes() == (out / path.name).read_bytes()
    records = [json.loads(path.read_text()) for path in (out / ".cellda-batch").iterdir()]
    assert len(records) == 4


def test_a_program_runs_only_when_its_hash_is_named(images, capsys):
    (images / "cell_2.tif").unlink()
    (images / "cell_3.tif").unlink()
    package, program = only_a_program(images.parent / "model")
    strokes, out = images.parent / "cell_0.tif", images.parent / "out"
    classify = ["classify", images, "--strokes", strokes, "--features", "compact", "-o", out]
    classify += ["--enhancer", package, "--save", images.parent / "p.cellda"]
    classify = [str(word) for word in classify]
    assert main(classify) == 2
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert f"whoever made '{program}', add --trust {digest}." in capsys.readouterr().err
    assert not out.exists()
    assert main([*classify, "--trust", "0" * 64]) == 2
    assert main([*classify, "--trust", "yes"]) == 2
    assert main([*classify, "--trust", digest]) == 0
    saved = [str(images.parent / "p.cellda"), str(images), "-o", str(images.parent / "again")]
    assert main(["predict", *saved]) == 2
    assert main(["predict", *saved, "--workers", "2", "--trust", digest.upper()]) == 0
    first, again = (
        tifffile.imread(folder / "cell_1_probability.tif")
        for folder in (out, images.parent / "again")
    )
    # The workers have fewer threads each, by which torch rounds otherwise.
    np.testing.assert_allclose(again, first, atol=1e-6)


def only_a_program(folder: Path) -> tuple[Path, Path]:
    """Make an enhancer that has TorchScript weights alone; return the package and the program."""
    package, _ = zoo.make_published(folder, "hiding-blowfish-v1", initial_features=4)
    rdf = zoo.read_rdf(package)
    del rdf["weights"]["pytorch_state_dict"]
    zoo.write_rdf(package, rdf)
    return package, package / "weights-torchscript.pt"


def test_ctrl_c_ends_the_workers_and_leaves_whole_files(images, project):
    for number in range(4):
        tifffile.imwrite(images / f"cell_{number}.tif", disk(1100, number))
    out = images.parent / "out"
    words = [sys.executable, "-m", "napari_cellda.cli", "predict", project, images]
    command = [str(word) for word in (*words, "--workers", 2, "-o", out)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while not half_written(out) and time.monotonic() < end:
        time.sleep(0.001)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, signal.SIGINT)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert half_written(out) == []
    assert not any(worker.is_running() for worker in workers)
    for path in out.glob("*_mask.tif"):
        assert tifffile.imread(path).shape == (1100, 1100)


def test_a_model_that_cannot_be_opened_writes_nothing(images: Path):
    with pytest.raises(UserError, match="nowhere"):
        run_quietly(predict_batch("nowhere.cellda", [images], images.parent / "out"))
    assert not (images.parent / "out").exists()
