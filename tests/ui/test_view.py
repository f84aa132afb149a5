"""What is visible of an image, as a region; and large planes with coarser levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cellda.core.live.snapshot import EnhancedTile, ForestTile
from napari_cellda.core.tiles import Region
from napari_cellda.ui import results
from napari_cellda.ui.arrays import Scratch
from napari_cellda.ui.axes import ImageChoice
from napari_cellda.ui.images import choose_image
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.results import (
    coarser_shapes,
    drop_stale,
    prepare_arrays,
    show_forest_again,
    show_next,
    write_answer,
)
from napari_cellda.ui.state import Session
from napari_cellda.ui.view import camera_of, look_at, visible_region

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


def chosen(viewer: Any, shape: tuple[int, ...], axes: str, **settings: Any) -> PaintedImage:
    layer = viewer.add_image(np.zeros(shape, np.uint8), **{"name": "cells", **settings})
    painted = choose_image(Session.of(viewer), ImageChoice(layer, axes, "all"))
    assert painted is not None
    return painted


@pytest.fixture
def viewer(qtbot: QtBot) -> ViewerModel:
    return ViewerModel()


def test_the_whole_plane_before_anything_is_drawn(viewer: ViewerModel) -> None:
    painted = chosen(viewer, (40, 50), "yx")
    assert visible_region(viewer, painted) == Region(0, slice(0, 1), slice(0, 40), slice(0, 50))


def test_corners_of_the_canvas_bound_the_region(viewer: ViewerModel) -> None:
    painted = chosen(viewer, (40, 50), "yx")
    painted.layer.corner_pixels = np.array([[10, 20], [29, 70]])
    assert visible_region(viewer, painted) == Region(0, slice(0, 1), slice(10, 30), slice(20, 50))


def test_coarse_level_on_show_counts_in_full_pixels(viewer: ViewerModel) -> None:
    levels = [np.zeros((400, 600)), np.zeros((200, 300)), np.zeros((100, 150))]
    layer = viewer.add_image(levels, multiscale=True)
    painted = choose_image(Session.of(viewer), ImageChoice(layer, "yx", "grey"))
    assert painted is not None
    painted.layer._data_level = 2
    painted.layer.corner_pixels = np.array([[10, 20], [49, 149]])
    expected = Region(0, slice(0, 1), slice(40, 200), slice(80, 600))
    assert visible_region(viewer, painted) == expected


def test_sliders_choose_time_and_plane_whatever_the_scale(viewer: ViewerModel) -> None:
    painted = chosen(viewer, (4, 3, 6, 40, 50), "tczyx", scale=(5, 1, 2, 1, 1))
    viewer.dims.set_point((0, 1, 2), (15, 2, 8))
    region = visible_region(viewer, painted)
    assert (region.t, region.z) == (3, slice(4, 5))


def test_image_of_fewer_axes_than_the_viewer(viewer: ViewerModel) -> None:
    viewer.add_image(np.zeros((7, 9, 40, 50)))
    painted = chosen(viewer, (9, 40, 50), "zyx")
    viewer.dims.set_point((0, 1), (2, 5))
    assert visible_region(viewer, painted).z == slice(5, 6)


@pytest.mark.parametrize("change", ["3D", "other axes", "outside"])
def test_other_views_mean_the_whole_plane(viewer: ViewerModel, change: str) -> None:
    painted = chosen(viewer, (9, 40, 50), "zyx")
    painted.layer.corner_pixels = np.array([[0, 10, 10], [0, 20, 20]])
    if change == "3D":
        viewer.dims.ndisplay = 3
    elif change == "other axes":
        viewer.dims.order = (1, 0, 2)
    else:
        painted.layer.corner_pixels = np.array([[0, 90, 90], [0, 120, 120]])
    region = visible_region(viewer, painted)
    assert (region.y, region.x) == (slice(0, 40), slice(0, 50))


def test_look_at_moves_sliders_and_the_camera_only_where_needed(viewer: ViewerModel) -> None:
    painted = chosen(viewer, (4, 6, 40, 50), "tzyx", scale=(1, 2, 0.5, 0.5), translate=(0, 1, 3, 4))
    before = tuple(camera_of(viewer).center)
    look_at(viewer, painted, {"t": 2, "z": 3, "y": 10, "x": 20})
    assert tuple(viewer.dims.point[:2]) == (2, 7)
    assert tuple(camera_of(viewer).center) == before
    painted.layer.corner_pixels = np.array([[2, 3, 30, 30], [2, 3, 39, 49]])
    look_at(viewer, painted, {"t": 2, "z": 3, "y": 10, "x": 20})
    assert tuple(camera_of(viewer).center[-2:]) == (8, 14)


# -- large planes ------------------------------------------------------------------------------


def test_common_planes_have_no_levels() -> None:
    assert coarser_shapes((3, 2048, 2048)) == []
    assert coarser_shapes((2, 5001, 3000)) == [(2, 2501, 1500)]
    assert len(coarser_shapes((10**6, 10**6))) == 6


def test_levels_are_every_second_pixel_of_what_was_written(
    viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "LARGE_PLANE", 2000)
    session = Session.of(viewer)
    painted = chosen(viewer, (2, 201, 130), "zyx")
    roles = prepare_arrays(painted, 2, 0, Scratch())
    assert set(roles) == {"forest:0", "forest:1", "mask", "uncertainty"}
    assert [level.shape for level in painted.levels["mask"]] == [
        (2, 101, 65),
        (2, 51, 33),
    ]
    rng = np.random.default_rng(0)
    for y, x in ((slice(0, 64), slice(0, 130)), (slice(64, 201), slice(64, 130))):
        region = Region(0, slice(1, 2), y, x)
        probability = rng.random((2, *region.shape)).astype(np.float32)
        write_answer(painted, ForestTile("it", region, probability), with_mask=True)
    full = painted.arrays["forest:1"]
    for number, level in enumerate(painted.levels["forest:1"], 1):
        np.testing.assert_array_equal(level, full[:, :: 2**number, :: 2**number])
    while show_next(session, painted):
        pass
    assert painted.results["forest:1"].multiscale
    assert painted.results["mask"].multiscale


def test_late_answer_for_maps_that_were_dropped_is_let_go(viewer: ViewerModel) -> None:
    session = Session.of(viewer)
    painted = chosen(viewer, (40, 50), "yx")
    prepare_arrays(painted, 3, 2, Scratch())  # as if a class had been there a moment ago
    while show_next(session, painted):
        pass
    assert "forest:1" in painted.results
    assert "forest:2" not in painted.results
    drop_stale(session, painted)
    show_forest_again(session, painted)
    region = Region(0, slice(0, 1), slice(0, 9), slice(0, 9))
    ones = np.ones((3, *region.shape), np.float32)
    write_answer(painted, ForestTile("it", region, ones), with_mask=False)
    enhanced = EnhancedTile("it", region, ones[:2], ones[0], ones)
    write_answer(painted, enhanced, with_mask=False)
    assert set(painted.arrays) == {"forest:0", "forest:1", "mask", "uncertainty"}
    assert painted.arrays["forest:1"][:9, :9].all()


def test_answer_says_which_roles_changed(viewer: ViewerModel) -> None:
    painted = chosen(viewer, (40, 50), "yx")
    prepare_arrays(painted, 2, 0, Scratch())
    tile = ForestTile("it", Region(0, slice(0, 1), slice(0, 9), slice(0, 9)), np.ones((2, 1, 9, 9)))
    assert set(write_answer(painted, tile, with_mask=False)) == {
        "forest:0",
        "forest:1",
        "uncertainty",
    }
    assert not painted.arrays["mask"].any()
