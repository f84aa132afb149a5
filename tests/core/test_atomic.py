"""Files are whole or absent, and what stood there before survives every failure."""

import errno
import os
from types import SimpleNamespace

import pytest

from napari_cellda.core import atomic
from napari_cellda.core.atomic import make_folder, tell_full_disk, write_atomically
from napari_cellda.core.errors import UserError


def test_a_file_takes_its_place(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with write_atomically(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_somebody_holds_for_a_moment_takes_its_place_later(tmp_path, monkeypatch):
    """As a virus scanner on Windows holds what is new."""
    plain, held = os.replace, [True, True]

    def replace(source, target):
        if held:
            held.pop()
            raise PermissionError(errno.EACCES, "Access is denied")
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(atomic, "HELD", (0.0, 0.0, 0.0))
    with write_atomically(tmp_path / "a.txt") as aside:
        aside.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    held += [True] * 20
    with pytest.raises(UserError, match="denied"), write_atomically(tmp_path / "b.txt") as aside:
        aside.write_text("new")


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "maps.zarr"
    (target / "old").mkdir(parents=True)
    with (
        pytest.raises(UserError, match="is a folder with other files"),
        write_atomically(target),
    ):
        pass
    with write_atomically(target, replace_folder=True) as aside:
        (aside / "new").mkdir(parents=True)
        (aside / "new" / "chunk").write_text("1")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["maps.zarr"]


@pytest.mark.parametrize("failure", [ValueError("ours"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, failure):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)), write_atomically(target) as aside:
        aside.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_is_told_though_what_is_half_written_cannot_be_removed(tmp_path, monkeypatch):
    """As on Windows, where the failure's traceback may hold a memory map of it."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "The file is in use", str(path))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(ValueError, match="ours"), write_atomically(tmp_path / "a.npy") as aside:
        aside.write_text("half")
        raise ValueError("ours")


def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(UserError, match=r"'.*a\.txt' cannot be written: the disk is full"),
        write_atomically(tmp_path / "a.txt") as aside,
    ):
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made(tmp_path):
    with write_atomically(tmp_path / "absent" / "a.txt") as aside:
        aside.write_text("new")
    assert (tmp_path / "absent" / "a.txt").read_text() == "new"


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(UserError, match=r"a\.txt' cannot be written: a file is in the way"),
        write_atomically(tmp_path / "taken" / "a.txt"),
    ):
        pass


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 49152"), OSError("4 requested")])
def test_what_libraries_say_on_a_full_disk_is_translated(tmp_path, monkeypatch, error):
    """torch raises a RuntimeError, numpy an OSError without a number."""
    with pytest.raises(type(error)), tell_full_disk(tmp_path / "model", tmp_path):
        raise error
    full = SimpleNamespace(total=10**9, used=10**9, free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with (
        pytest.raises(UserError, match=r"model' cannot be written: the disk is full\."),
        tell_full_disk(tmp_path / "model", tmp_path),
    ):
        raise error


def test_a_disk_that_cannot_be_written_to_is_one_sentence(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)  # even of a file that is not there
    target = tmp_path / "a.csv"
    with (
        pytest.raises(UserError, match=r"a.csv' cannot be written: Read-only file system.$"),
        write_atomically(target) as aside,
    ):
        aside.write_text("row,col")


def test_a_folder_that_cannot_be_written_to_is_told_before_it_is_needed(tmp_path, monkeypatch):
    make_folder(tmp_path / "new" / "folder")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"folder' cannot be written: Permission denied\.$"):
        make_folder(tmp_path / "new" / "folder")


def test_numpy_on_a_full_disk_is_translated_too(tmp_path, monkeypatch):
    error = OSError("400 requested and 0 written")
    with pytest.raises(OSError, match="requested"), write_atomically(tmp_path / "a.npy"):
        raise error
    full = SimpleNamespace(total=10**9, used=10**9, free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(UserError, match="disk is full"), write_atomically(tmp_path / "b" / "a.npy"):
        raise error
