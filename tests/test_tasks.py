"""What `make` does before it runs anything: one environment, made once; one plain sentence else."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "tasks.py"


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("tasks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.VENV = tmp_path / ".venv"
    module.PYTHON = module.VENV / "bin" / "python"
    module.calls = []

    def call(command):
        module.calls.append([str(word) for word in command])
        if "venv" in module.calls[-1]:
            module.PYTHON.parent.mkdir(parents=True, exist_ok=True)
            module.PYTHON.touch()
        return 0

    monkeypatch.setattr(module, "call", call)
    return module


def installs(tasks) -> list[list[str]]:
    return [words[words.index("install") + 2 :] for words in tasks.calls if "install" in words]


def test_the_script_runs_on_an_old_python():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 8))


def test_first_call_makes_the_environment_and_torch_comes_first(tasks):
    tasks.make_environment("torch==9", {"all"})
    assert any("venv" in words for words in tasks.calls)
    assert installs(tasks) == [["torch==9"], ["-e", ".[all]"]]


def test_second_call_does_nothing_and_more_extras_are_added(tasks):
    tasks.make_environment("torch==9", {"all", "test"})
    tasks.calls.clear()
    tasks.make_environment("torch==9", {"all"})
    assert tasks.calls == []
    tasks.make_environment("torch==9", {"docs"})
    assert installs(tasks)[-1] == ["-e", ".[all,docs,test]"]
    assert not any("venv" in words for words in tasks.calls)


def test_another_torch_is_installed(tasks):
    tasks.make_environment("torch==9", {"all"})
    tasks.calls.clear()
    tasks.make_environment("torch==10", {"all"})
    assert installs(tasks)[0] == ["torch==10"]


def test_a_failed_installation_is_tried_again(tasks, monkeypatch: pytest.MonkeyPatch):
    good = tasks.call
    monkeypatch.setattr(tasks, "call", lambda words: good(words) or "-e" in words)
    with pytest.raises(SystemExit, match="pip could not install"):
        tasks.make_environment("torch==9", {"all"})
    monkeypatch.setattr(tasks, "call", good)
    tasks.calls.clear()
    tasks.make_environment("torch==9", {"all"})
    assert len(installs(tasks)) == 2


def test_missing_libraries_are_named_in_one_sentence(tasks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks.sys, "platform", "linux")
    monkeypatch.setattr(tasks, "can_load", lambda name: name != "libEGL.so.1")
    monkeypatch.setattr(tasks.shutil, "which", lambda name: None if name == "git" else name)
    monkeypatch.setattr(tasks, "apt_install", lambda packages: False)
    with pytest.raises(SystemExit) as refusal:
        tasks.install_system_packages(needs_display=True)
    assert "git libegl1;" in str(refusal.value)
    assert str(refusal.value).count(".") == 1


def test_no_fitting_python_is_told(tasks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "version_of", lambda python: "3.9")
    monkeypatch.setattr(tasks, "apt_install", lambda packages: False)
    with pytest.raises(SystemExit, match=r"Python 3\.11, 3\.12 or 3\.13 is needed"):
        tasks.find_python()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_only_linux_may_lack_a_display(
    tasks, monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict, expected: bool
):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tasks.sys, "platform", platform)
    assert tasks.has_display() is expected
