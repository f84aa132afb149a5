"""Objects that follow their settings: the export's own, the visible part first, never stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_cellda.core.instances import InstanceParams, instances_from_maps
from napari_cellda.core.tiles import Region
from napari_cellda.ui import object_preview
from napari_cellda.ui.layers import drop_results
from napari_cellda.ui.object_preview import ROLE
from napari_cellda.ui.panels.object_settings import ObjectSettings
from painting import WAIT_MS, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]


def dots() -> np.ndarray:
    """Return 12 bright squares, one of them at the border, and two specks."""
    image = np.random.default_rng(0).random((120, 160)).astype(np.float32) * 0.1
    for row in range(3):
        for column in range(4):
            image[row * 40 + 8 : row * 40 + 24, column * 40 + 8 : column * 40 + 24] += 1
    image[0:8, 88:104] += 1
    image[112:115, 30:33] += 1
    image[100:103, 70:73] += 1
    return image


@pytest.fixture
def painted(open_panel: Open, qtbot: QtBot) -> PaintPanel:
    panel = open_panel(dots())
    layer = panel.session.current.strokes
    for row, column in ((9, 9), (15, 15), (22, 22), (55, 50), (3, 95), (113, 31)):
        layer.paint((row, column), 2)
    for row, column in ((30, 100), (5, 5), (26, 26), (75, 75), (112, 50), (60, 30), (5, 40)):
        layer.paint((row, column), 1)
    wait_idle(panel, qtbot)
    return panel


@pytest.fixture
def settings(painted: PaintPanel, qtbot: QtBot) -> ObjectSettings:
    settings = ObjectSettings(painted.session)
    qtbot.addWidget(settings)
    return settings


def wait_for_objects(settings: ObjectSettings, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not settings.preview.busy, timeout=WAIT_MS)


def test_maps_dropped_meanwhile_are_still_the_questions(
    painted: PaintPanel, settings: ObjectSettings
) -> None:
    current = painted.session.current
    question = settings.preview._question(current)
    plane = Region(0, slice(0, 1), slice(0, 120), slice(0, 160))
    before, _ = object_preview._read_maps(question, plane)
    drop_results(painted.session, current, list(current.arrays))
    after, _ = object_preview._read_maps(question, plane)
    np.testing.assert_array_equal(after, before)


def test_preview_is_what_the_export_makes_and_follows_the_settings(
    painted: PaintPanel, settings: ObjectSettings, qtbot: QtBot
) -> None:
    current = painted.session.current
    settings.show_preview.setChecked(True)
    wait_for_objects(settings, qtbot)
    foreground = 1 - current.arrays["forest:0"]
    for name, value in (("min_size", 4), ("threshold", 0.7), ("min_size", 25)):
        getattr(settings, name).setValue(value)
        wait_for_objects(settings, qtbot)
        expected = instances_from_maps(foreground, params=settings.value())
        np.testing.assert_array_equal(current.arrays[ROLE], expected)
        assert settings.count.text() == f"{expected.max()} objects in the image"
    layer = current.results[ROLE]
    assert layer.contour > 0
    assert painted.session.instance_params == settings.value()
    before = expected.max()
    assert before > 5
    settings.remove_border.setChecked(True)
    wait_for_objects(settings, qtbot)
    assert 0 < current.arrays[ROLE].max() < before
    settings.show_preview.setChecked(False)
    assert ROLE not in current.results
    assert settings.count.text() == ""


def test_preview_follows_new_strokes(
    painted: PaintPanel, settings: ObjectSettings, qtbot: QtBot
) -> None:
    settings.show_preview.setChecked(True)
    wait_for_objects(settings, qtbot)
    current = painted.session.current
    for row in range(8, 24, 3):
        for column in range(88, 104, 3):
            current.strokes.paint((row, column), 1)
    wait_idle(painted, qtbot)
    wait_for_objects(settings, qtbot)
    expected = instances_from_maps(1 - current.arrays["forest:0"], params=settings.value())
    np.testing.assert_array_equal(current.arrays[ROLE], expected)


def test_visible_part_of_a_large_plane_comes_first_and_equals_the_whole(
    painted: PaintPanel, settings: ObjectSettings, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_preview, "AT_ONCE", 0)
    monkeypatch.setattr(object_preview, "HALO", (0, 30, 30))
    view = Region(0, slice(0, 1), slice(0, 50), slice(60, 130))
    monkeypatch.setattr(object_preview, "visible_region", lambda viewer, painted: view)
    said: list[str] = []
    settings.preview.counted.connect(said.append)
    arrays = painted.session.current.arrays
    expected = instances_from_maps(1 - arrays["forest:0"], min_size=25, remove_border=True)
    painted.session.set_instance_params(InstanceParams(remove_border=True))
    settings.show_preview.setChecked(True)
    wait_for_objects(settings, qtbot)
    in_view = len(np.unique(expected[view.y, view.x])) - 1
    assert said[1:] == [f"{in_view} objects in view", f"{expected.max()} objects in the image"]
    monkeypatch.setattr(object_preview, "LARGEST_PLANE", 0)
    settings.preview.switch(True)
    arrays[ROLE][:] = 0
    wait_for_objects(settings, qtbot)
    np.testing.assert_array_equal(arrays[ROLE][view.y, view.x] > 0, expected[view.y, view.x] > 0)
    assert said[-1] == f"{in_view} objects in view"


def test_method_without_its_map_is_told_and_the_next_one_works(
    painted: PaintPanel, settings: ObjectSettings, qtbot: QtBot
) -> None:
    settings.show_preview.setChecked(True)
    settings.method.setCurrentIndex(settings.method.findData("watershed"))
    qtbot.waitUntil(lambda: "needs a boundary map" in settings.count.text(), timeout=WAIT_MS)
    settings.method.setCurrentIndex(settings.method.findData("distance"))
    qtbot.waitUntil(lambda: "objects in the image" in settings.count.text(), timeout=WAIT_MS)
    assert not settings.beta.isVisibleTo(settings)
    assert settings.waist.isVisibleTo(settings)
