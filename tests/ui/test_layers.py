"""Layers of strokes and results: where they lie, what they show, who is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_cellda.ui.images import choose_image, default_choice, image_layers
from napari_cellda.ui.layers import (
    ensure_layer,
    fade_in,
    follow_geometry,
    geometry,
    make_strokes,
    refresh_layers,
)
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.state import Session
from napari_cellda.ui.strokes import StrokeWatcher

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


PARENT = QObject()


@pytest.fixture
def viewer(qtbot: QtBot) -> Any:
    """Return a viewer without its window: quick, and all that layers need."""
    return ViewerModel()


def paint_on(viewer: Any, data: Any, **settings: Any) -> PaintedImage:
    layer = viewer.add_image(data, **{"name": "cells", **settings})
    painted = choose_image(Session.of(viewer), default_choice(layer))
    assert painted is not None
    return painted


def world_of(layer: Any, index: tuple[float, ...]) -> np.ndarray:
    return np.asarray(layer.data_to_world(index))


@pytest.mark.parametrize(
    ("shape", "settings", "strokes_shape", "at", "strokes_at"),
    [
        ((40, 50), {}, (40, 50), (3, 4), (3, 4)),
        ((40, 50, 3), {"rgb": True}, (40, 50), (3, 4), (3, 4)),
        ((3, 40, 50), {}, (40, 50), (1, 3, 4), (3, 4)),
        ((9, 40, 50), {}, (9, 40, 50), (2, 3, 4), (2, 3, 4)),
        ((6, 2, 9, 40, 50), {}, (6, 2, 9, 40, 50), (5, 1, 8, 3, 4), (5, 1, 8, 3, 4)),
    ],
)
def test_strokes_lie_on_the_image(
    viewer: Any,
    shape: tuple[int, ...],
    settings: dict[str, Any],
    strokes_shape: tuple[int, ...],
    at: tuple[int, ...],
    strokes_at: tuple[int, ...],
) -> None:
    ndim = len(shape) - bool(settings.get("rgb"))
    rng = np.random.default_rng(0)
    painted = paint_on(
        viewer,
        np.zeros(shape, np.uint8),
        scale=rng.uniform(0.5, 2, ndim),
        translate=rng.uniform(-9, 9, ndim),
        **settings,
    )
    strokes = make_strokes(Session.of(viewer), painted)
    assert strokes.data.shape == strokes_shape
    assert strokes.dtype == np.uint8
    here, there = world_of(painted.layer, at), world_of(strokes, strokes_at)
    np.testing.assert_allclose(there, here[-len(there) :])


def test_strokes_follow_rotation_shear_and_affine(viewer: Any) -> None:
    affine = np.array([[1, 0.1, 3], [0.2, 1, 4], [0, 0, 1]])
    painted = paint_on(
        viewer, np.zeros((40, 50)), rotate=30, shear=[0.3], scale=(2, 3), affine=affine
    )
    strokes = make_strokes(Session.of(viewer), painted)
    follow_geometry(painted)
    np.testing.assert_allclose(world_of(strokes, (7, 9)), world_of(painted.layer, (7, 9)))
    painted.layer.rotate = 75
    painted.layer.scale = (0.5, 4)
    painted.layer.translate = (100, -3)
    np.testing.assert_allclose(world_of(strokes, (7, 9)), world_of(painted.layer, (7, 9)))


def test_shear_of_a_stack_without_its_channel_axis(viewer: Any) -> None:
    data = np.zeros((3, 5, 40, 50), np.uint8)
    painted = paint_on(viewer, data, shear=[0.0, 0.0, 0.0, 0.1, 0.2, 0.3])
    assert painted.image.label_axes == "zyx"
    strokes = make_strokes(Session.of(viewer), painted)
    found, expected = world_of(strokes, (1, 7, 9)), world_of(painted.layer, (2, 1, 7, 9))
    np.testing.assert_allclose(found, expected[1:])


def test_strokes_of_inner_channels_are_the_same_in_every_channel(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((6, 2, 9, 40, 50), np.uint8))
    strokes = make_strokes(Session.of(viewer), painted)
    viewer.dims.set_point((0, 1, 2), (4, 1, 7))
    strokes.paint((4, 1, 7, 20, 20), 2)
    assert painted.strokes_array.shape == (6, 9, 40, 50)
    assert painted.strokes_array[4, 7, 20, 20] == 2
    assert strokes.data[4, 0, 7, 20, 20] == 2


def test_large_strokes_are_painted_and_undone_on_disk(
    viewer: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cellda.ui.arrays.IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr("napari_cellda.ui.strokes.SMALL", 1000)
    painted = paint_on(viewer, np.zeros((3, 7, 90, 100), np.uint8))
    session = Session.of(viewer)
    strokes = make_strokes(session, painted)
    assert isinstance(painted.strokes_array, zarr.Array)
    watcher = StrokeWatcher(session, painted, PARENT)
    watcher.read()
    qtbot.waitUntil(lambda: not watcher.pending)
    changed: list[int] = []
    session.strokes_changed.connect(lambda: changed.append(1))
    viewer.dims.set_point(1, 5)
    strokes.paint((5, 40, 40), 2)
    watcher.read()
    assert painted.index is not None
    painted_pixels = painted.index.counts(2).tolist()
    assert painted_pixels[0] == 0
    assert painted_pixels[1] > 0
    assert painted.index.snapshot()[0].tile.z == slice(5, 6)
    strokes.undo()
    watcher.read()
    assert painted.index.counts(2).tolist() == [0, 0]
    strokes.redo()
    watcher.read()
    assert painted.index.counts(2).tolist() == painted_pixels
    assert len(changed) == 3


def test_brush_is_seen_before_it_is_lifted(
    viewer: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cellda.ui.strokes.SMALL", 10)
    painted = paint_on(viewer, np.zeros((3, 5, 90, 100), np.uint8))
    session = Session.of(viewer)
    strokes = make_strokes(session, painted)
    watcher = StrokeWatcher(session, painted, PARENT)
    watcher.read()
    qtbot.waitUntil(lambda: not watcher.pending)
    viewer.dims.set_point(1, 3)
    with strokes.block_history():
        strokes.paint((3, 70, 80), 1)
        watcher.read()
        assert painted.index is not None
        assert painted.index.counts(1)[0] > 0


@pytest.mark.parametrize("small", [10, 1 << 22])
def test_fill_eraser_scripts_and_new_data_are_noticed(
    viewer: Any, qtbot: QtBot, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cellda.ui.strokes.SMALL", small)
    painted = paint_on(viewer, np.zeros((60, 70), np.uint8))
    session = Session.of(viewer)
    strokes = make_strokes(session, painted)
    watcher = StrokeWatcher(session, painted, PARENT)
    watcher.read()
    qtbot.waitUntil(lambda: not watcher.pending)
    assert painted.index is not None
    strokes.fill((5, 5), 1)
    watcher.read()
    assert painted.index.counts(2).tolist() == [4200, 0]
    strokes.brush_size = 1
    strokes.paint((30, 30), 0)
    watcher.read()
    assert painted.index.counts(2).tolist() == [4199, 0]
    strokes.data_setitem((np.array([1, 2]), np.array([3, 4])), 2)
    watcher.read()
    assert painted.index.counts(2).tolist() == [4197, 2]
    strokes.data = np.full((60, 70), 2, np.uint8)
    watcher.read()
    assert painted.index.counts(2).tolist() == [0, 4200]
    if small > 10:
        strokes.data[:30] = 0
        strokes.refresh()
        watcher.read()
        assert painted.index.counts(2).tolist() == [0, 2100]


def test_strokes_replaced_by_another_shape_are_refused_in_one_sentence(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((60, 70), np.uint8))
    session = Session.of(viewer)
    strokes = make_strokes(session, painted)
    watcher = StrokeWatcher(session, painted, PARENT)
    strokes.data = np.zeros((60, 71), np.uint8)
    watcher.read()
    assert "have shape (60, 71), but the image needs (60, 70)" in str(session.last_error)


def test_result_layer_is_made_once_and_updated_in_place(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((40, 50), np.uint8))
    session = Session.of(viewer)
    make_strokes(session, painted)
    array = np.zeros((40, 50), np.float32)
    layer = ensure_layer(session, painted, "forest:1", array, name="Forest", opacity=0.3)
    assert layer.name == "Forest"
    assert viewer.layers.index(layer) == viewer.layers.index(painted.strokes) - 1
    layer.name, layer.opacity = "my map", 0.8
    array[3, 4] = 1
    refresh_layers(painted, ["forest:1", "mask"])
    assert layer._slice.image.raw[3, 4] == 1
    other = np.ones((40, 50), np.float32)
    assert ensure_layer(session, painted, "forest:1", other, name="Forest") is layer
    assert (layer.name, layer.opacity, layer.data) == ("my map", 0.8, pytest.approx(other))


def test_results_of_a_second_image_are_told_apart(viewer: Any) -> None:
    paint_on(viewer, np.zeros((40, 50), np.uint8))
    second = paint_on(viewer, np.zeros((30, 20), np.uint8), name="other")
    array = np.zeros((30, 20), np.float32)
    layer = ensure_layer(Session.of(viewer), second, "mask", array, name="Mask")
    assert layer.name == "Mask · other"


def test_results_stack_by_kind_whatever_comes_first(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((40, 50), np.uint8))
    session = Session.of(viewer)
    make_strokes(session, painted)
    for role in ("enhanced", "uncertainty", "forest:1", "mask", "forest:0", "instances"):
        array = np.zeros((40, 50), np.float32)
        ensure_layer(session, painted, role, array, name=role)
    order = [layer.name.split(" · ")[0] for layer in viewer.layers]
    results = ["uncertainty", "mask", "forest:0", "forest:1", "enhanced", "instances"]
    assert order == ["cells", *results, "Strokes"]


def test_new_layers_leave_the_selection_alone(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((40, 50), np.uint8))
    session = Session.of(viewer)
    strokes = make_strokes(session, painted)
    viewer.layers.selection = {strokes}
    strokes.mode = "paint"
    ensure_layer(session, painted, "mask", np.zeros((40, 50), np.uint8), name="M", kind="labels")
    assert viewer.layers.selection.active is strokes
    assert strokes.mode == "paint"


def test_deleted_result_is_not_made_again_unasked(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((40, 50), np.uint8))
    session = Session.of(viewer)
    array = np.zeros((40, 50), np.float32)
    viewer.layers.remove(ensure_layer(session, painted, "forest:1", array, name="Forest"))
    assert ensure_layer(session, painted, "forest:1", array, name="Forest") is None
    painted.unwanted.clear()
    assert ensure_layer(session, painted, "forest:1", array, name="Forest") in viewer.layers


def test_results_are_no_images_to_choose_from(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((40, 50), np.uint8))
    ensure_layer(Session.of(viewer), painted, "forest:1", np.zeros((40, 50)), name="Forest")
    assert image_layers(viewer) == [painted.layer]


def test_fading_colormap_is_clear_at_zero_and_solid_at_one() -> None:
    colors = fade_in("#ff8000").map(np.array([0.0, 0.5, 1.0], np.float32))
    np.testing.assert_allclose(colors[:, 3], [0, 0.5, 1], atol=0.01)
    np.testing.assert_allclose(colors[:, :3], [[1, 0.502, 0]] * 3, atol=0.01)


def test_units_come_along(viewer: Any) -> None:
    painted = paint_on(viewer, np.zeros((4, 40, 50)), units=("um", "um", "um"), scale=(2, 1, 1))
    assert painted.image.unit == "micrometer"
    settings = geometry(painted)
    assert [str(unit) for unit in settings["units"]] == ["micrometer"] * (painted.layer.ndim - 1)


def test_large_strokes_that_are_there_are_read_beside_the_window(
    viewer: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cellda.ui.strokes.SMALL", 1000)
    painted = paint_on(viewer, np.zeros((90, 100), np.uint8))
    session = Session.of(viewer)
    array = np.zeros((90, 100), np.uint8)
    array[5:9, 5:9] = 1
    strokes = make_strokes(session, painted, array)
    watcher = StrokeWatcher(session, painted, PARENT)
    changed: list[int] = []
    session.strokes_changed.connect(lambda: changed.append(1))
    watcher.read()
    assert painted.index is None
    assert watcher.pending
    strokes.brush_size = 1
    strokes.paint((50, 50), 2)
    qtbot.waitUntil(lambda: not watcher.pending)
    assert painted.index is not None
    assert painted.index.counts(2).tolist() == [16, 1]
    assert changed
