"""The demonstration's own sentences; that it runs is tested in test_install."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.ui.demo import is_enhanced, run_demo, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot


def test_without_a_display_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="add --headless"):
        run_demo(tmp_path, show=True)


def test_waiting_ends_when_it_is_done_or_time_is_up(qtbot: QtBot):
    answers = iter([False, True])
    wait_until(lambda: next(answers), "the second answer")
    assert list(answers) == []
    with pytest.raises(UserError, match="0 s for the moon"):
        wait_until(lambda: False, "the moon", seconds=0)


def test_an_error_in_the_window_ends_the_demonstration():
    session = SimpleNamespace(current=None, last_error=UserError("no such model"))
    with pytest.raises(UserError, match="no such model"):
        is_enhanced(session)  # type: ignore[arg-type]
