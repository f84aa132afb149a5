"""Processes of ours run our package, and nothing that lies in the folder they are started from."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_cellda.core.batch import workers
from napari_cellda.core.live import trainer
from napari_cellda.core.own_process import own_environment, python_module
from napari_cellda.core.runs.launch import last_words, start_run


@pytest.fixture
def foreign_folder(tmp_path, monkeypatch):
    """Work in a folder whose files are named like libraries of ours."""
    folder = tmp_path / "images"
    folder.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit('foreign')\n"
    for name in ("argparse", "pydantic", "numpy"):
        (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    return folder


def has_run(foreign_folder: Path) -> bool:
    return (foreign_folder.parent / "ran").exists()


def test_a_run_leaves_the_present_folder_alone(foreign_folder, tmp_path):
    launched = start_run(["--version"], tmp_path / "run", queue=tmp_path / "queue")
    end = time.monotonic() + 60
    while launched.alive:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    assert not has_run(foreign_folder)
    assert last_words(tmp_path / "run") == "No such option: -o"  # ours has told


def order(model: str, output: Path) -> workers.Order:
    return workers.Order(
        model=model,
        channels=None,
        trusted=(),
        output=output,
        file_format="tif",
        instances=None,
        made_with="a test",
        threads=1,
    )


def test_a_batch_worker_leaves_the_present_folder_alone(foreign_folder, tmp_path):
    assert workers._close(workers._start(order("nuclei", tmp_path))) == 0
    assert not has_run(foreign_folder)


def test_a_batch_worker_reads_names_as_they_are_written(tmp_path, monkeypatch):
    """Whatever the encoding of the machine: on Windows it is a code page."""
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    worker = workers._Worker(order("Größe.cellda", tmp_path))
    answer = worker.process(tmp_path / "ä.tif")
    worker.finish()
    assert "'Größe.cellda'" in answer["failure"]


def test_a_run_prints_as_its_output_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    program = [sys.executable, "-c", "print('Error: Größe is not there.')"]
    launched = start_run([], tmp_path / "run", queue=tmp_path / "queue", program=program)
    launched._process.wait()
    assert last_words(tmp_path / "run") == "Größe is not there."


def test_the_trainer_leaves_the_present_folder_alone(foreign_folder):
    child = trainer._spawn()
    child.communicate()
    assert child.returncode == 0
    assert not has_run(foreign_folder)


def test_a_process_finds_this_very_package_from_a_source_tree(monkeypatch, tmp_path):
    package = tmp_path / "tree" / "napari_cellda"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "hello.py").write_text("print(__file__)")
    monkeypatch.setattr("napari_cellda.__file__", str(package / "__init__.py"))
    command = python_module("napari_cellda.hello")
    assert command[0] == sys.executable
    told = subprocess.run(command, env=own_environment(), capture_output=True, text=True)
    assert Path(told.stdout.strip()) == package / "hello.py"
