"""Points for the panel Adapt: found in one channel, written where the user sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Points
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
from napari_cellda.core.adaptation.prepare import prepare_domains
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.methods import find_method
from napari_cellda.ui.adapt_inputs import AdaptPicks, prepare_all
from napari_cellda.ui.axes import ImageChoice
from napari_cellda.ui.images import choose_image
from napari_cellda.ui.inputs import Picked, points_on
from napari_cellda.ui.nuclei import choose_channel, nuclei_channel, nuclei_points
from napari_cellda.ui.panels.adapt_points import FindPoints
from napari_cellda.ui.state import Session
from napari_cellda.ui.writers import write_image
from painting import WAIT_MS

pytestmark = pytest.mark.usefixtures("qapp")

PLACES = [(15, 20), (40, 60)]
OTHERS = [(10, 60), (30, 30), (50, 12)]
DIAMETER = 14.0


def spots(places: list[tuple[int, int]]) -> NDArray[np.uint8]:
    rows, columns = np.indices((64, 80))
    return sum(
        200 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30) for row, column in places
    ).astype(np.uint8)


def two_channels() -> NDArray[np.uint8]:
    return np.stack([spots(OTHERS), spots(PLACES)])


def prepare_picks(viewer: ViewerModel, folder: Path, **inputs: Picked) -> dict[str, Any]:
    """Write what was picked, as a run gets it."""
    picks = AdaptPicks(inputs, {"diameter": DIAMETER})
    options, items = prepare_all(Session.of(viewer), picks, folder)
    for item in items:
        if item.write is not None:
            item.write()
    return options


def points_of_run(options: dict[str, Any], cache: Path) -> list[list[list[float]]]:
    """Return the points by plane that a run trains on."""
    method = find_method("cks")
    opened = open_inputs(AdaptInputs.model_validate(options), method)
    task = prepare_domains(opened, method, "zscore", cache, diameter=DIAMETER)
    planes = run_quietly(task).target.planes
    return [sorted(plane.points.tolist()) for plane in planes if plane.points is not None]


def test_of_several_channels_the_user_names_the_one_with_the_nuclei(qtbot: QtBot):
    viewer = ViewerModel()
    layers = [viewer.add_image(spots(PLACES), name="one")]
    button = FindPoints(Session.of(viewer), lambda: layers, lambda layer: DIAMETER)
    qtbot.addWidget(button)
    button.refresh()
    assert button.menu() is None
    layers[:] = [viewer.add_image(two_channels(), name="two")]
    button.refresh()
    assert button.menu() is button.channels
    with qtbot.waitSignal(button.failed) as failed:
        button._find()
    assert "'two' seems to have 2 channels: choose one with the button" in str(failed.args[0])
    button.channels.aboutToShow.emit()
    titles = [action.text() for action in button.channels.actions()]
    assert titles == ["Channel 0", "Channel 1"]
    with qtbot.waitSignal(button.found, timeout=WAIT_MS) as found:
        button.channels.actions()[1].trigger()
    (points,) = found.args[0]
    np.testing.assert_allclose(sorted(points.data.tolist()), PLACES, atol=1)
    choose_image(Session.of(viewer), ImageChoice(layers[0], "zyx", "grey"))
    assert button.menu() is None


def test_points_found_again_take_the_place_of_those_before(qtbot: QtBot):
    viewer = ViewerModel()
    image = viewer.add_image(spots(PLACES), name="nuclei")
    button = FindPoints(Session.of(viewer), lambda: [image], lambda layer: DIAMETER)
    qtbot.addWidget(button)
    found = np.array(PLACES, float)
    for _ in range(2):
        button._show([image], [found])
        assert [layer.name for layer in viewer.layers] == ["nuclei", "nuclei points"]
    corrected = viewer.layers["nuclei points"]
    corrected.add([3, 4])
    button._show([image], [found])
    assert corrected in viewer.layers
    assert not corrected.visible
    assert len(corrected.data) == len(found) + 1
    new = viewer.layers["nuclei points [1]"]
    assert new.visible
    viewer.layers.remove(new)
    button._show([image], [found])
    assert len(viewer.layers) == 3


@pytest.mark.parametrize("axes", ["cyx", "yxc", "czyx", "tcyx"])
def test_a_run_finds_the_same_points_as_the_panel(tmp_path: Path, axes: str):
    """In one channel, wherever its axis is, or in RGB as grey."""
    rgb, plain_axes = axes == "yxc", axes.replace("c", "")
    channels = np.stack([spots(OTHERS), spots(PLACES), *([spots(OTHERS) // 4] if rgb else [])])
    films = np.stack([channels, np.zeros_like(channels), channels])
    data = {"cyx": channels, "yxc": np.moveaxis(channels, 0, -1), "tcyx": films}.get(
        axes, np.swapaxes(films, 0, 1)
    )
    viewer = ViewerModel()
    nuclei = viewer.add_image(data, rgb=rgb, axis_labels=tuple(plain_axes if rgb else axes))
    shape = (3, 64, 80)[-len(plain_axes) :]
    target = Picked(layers=(Image(np.zeros(shape, np.uint8), axis_labels=tuple(plain_axes)),))
    if not rgb:
        choose_channel([nuclei], 1)
    channel = nuclei_channel(Picked(layers=(nuclei,)))
    assert channel == (None if rgb else 1)
    made: list[Any] = []
    button = FindPoints(Session.of(viewer), lambda: [nuclei], lambda layer: DIAMETER)
    button.found.connect(made.extend)
    button._show([nuclei], [nuclei_points(nuclei, DIAMETER, channel)])
    given = {"nuclei_images": (nuclei,), "points": tuple(made)}
    by_run, by_panel = (
        points_of_run(
            prepare_picks(
                viewer, tmp_path / role, target_images=target, **{role: Picked(layers=layers)}
            ),
            tmp_path / f"{role} cache",
        )
        for role, layers in given.items()
    )
    # In a plane without points nobody may have looked for cells; a run has looked everywhere.
    assert [one for one in by_run if one] == by_panel
    counts = {"cyx": [2], "yxc": [5]}
    assert [len(one) for one in by_run] == counts.get(axes, [2, 0, 2])


def test_nuclei_layers_that_do_not_say_their_channel_are_refused(tmp_path: Path):
    one, two, three = (Image(np.zeros((n, 9, 9), np.uint8), name=f"{n}") for n in (1, 2, 3))
    assert nuclei_channel(Picked(layers=(one,))) is None
    with pytest.raises(UserError, match="'2' seems to have 2 channels"):
        nuclei_channel(Picked(layers=(two,)))
    choose_channel([two, three], 1)
    assert nuclei_channel(Picked(layers=(two,))) == 1
    with pytest.raises(UserError, match=r"number of channels \('2' 2, '3' 3\)"):
        nuclei_channel(Picked(layers=(two, three)))
    write_image(str(tmp_path / "a.tif"), two_channels(), {"axis_labels": "cyx"})
    with pytest.raises(UserError, match=r"a\.tif' has 2 channels; open these images in napari"):
        nuclei_channel(Picked(path=tmp_path))


def test_points_are_written_where_the_user_sees_them(tmp_path: Path):
    viewer = ViewerModel()
    image = viewer.add_image(
        np.zeros((40, 60), np.uint8), name="cells", scale=(0.5, 0.5), translate=(100, 200)
    )
    points = viewer.add_points(ndim=2, name="cells points", scale=(0.1, 0.1), translate=(3, 0))
    points.add(points.world_to_data((110, 225)))
    options = prepare_picks(
        viewer,
        tmp_path,
        target_images=Picked(layers=(image,)),
        points=Picked(layers=(points,)),
    )
    table = options["points"] / "cells.csv"
    assert table.read_text().splitlines() == ["row,col", "20.000,50.000"]


@pytest.mark.parametrize("axes", ["yx", "zyx", "tcyx"])
def test_points_of_binned_nuclei_lie_on_their_cells(tmp_path: Path, qtbot: QtBot, axes: str):
    viewer = ViewerModel()
    planes = (3, 2)[: len(axes) - 2]
    labels, spatial = tuple(axes), tuple(axes.replace("c", ""))
    shape = (*planes[: len(spatial) - 2], 128, 160)
    cells = viewer.add_image(np.zeros(shape, np.uint8), name="cells", axis_labels=spatial)
    nuclei = viewer.add_image(
        np.zeros((*planes, 64, 80), np.uint8),
        name="dapi",
        axis_labels=labels,
        scale=(1,) * len(planes) + (2, 2),
        translate=(0,) * len(planes) + (0.5, 0.5),
    )
    choose_channel([nuclei], 1)
    made: list[Any] = []
    button = FindPoints(Session.of(viewer), lambda: [nuclei], lambda layer: DIAMETER)
    qtbot.addWidget(button)
    button.found.connect(made.extend)
    button._show([nuclei], [np.array([(*(2.0, 1.0)[: len(planes)], 10.0, 20.0)])])
    options = prepare_picks(
        viewer,
        tmp_path,
        target_images=Picked(layers=(cells,)),
        nuclei_images=Picked(layers=(nuclei,)),
        points=Picked(layers=tuple(made)),
    )
    table = np.loadtxt(options["points"] / "cells.csv", delimiter=",", skiprows=1)
    assert table.tolist() == [*[2.0] * (len(shape) - 2), 20.5, 40.5]
    assert "nuclei_images" not in options


def test_points_of_a_plane_of_a_turned_stack():
    stack = Image(
        np.zeros((9, 40, 50)), rotate=(0, 0, 30), scale=(2, 0.5, 0.5), translate=(8, 7, 9)
    )
    inside = np.array([[4.0, 20, 30], [7, 1, 2]])
    world = np.array([stack.data_to_world(one) for one in inside])
    found, axes = points_on(Points(world), stack)
    assert axes == "zyx"
    np.testing.assert_allclose(found, inside, atol=1e-9)
    found, axes = points_on(Points(world[:, 1:]), stack)
    assert axes == "yx"
    np.testing.assert_allclose(found, inside[:, 1:], atol=1e-9)
    empty, _ = points_on(Points(ndim=3), stack)
    assert empty.shape == (0, 3)


def test_few_planes_are_planes_once_paint_says_so(tmp_path: Path):
    viewer = ViewerModel()
    data = np.random.default_rng(0).integers(0, 99, (3, 40, 50), np.uint8)
    stack = viewer.add_image(data, name="three planes")
    points = viewer.add_points([[1, 4, 5], [2, 7, 8]], name="three planes points")
    picks = {"target_images": Picked(layers=(stack,)), "points": Picked(layers=(points,))}
    with pytest.raises(UserError, match=r"'three planes' seems to have 3 channels.* Axes in the p"):
        prepare_picks(viewer, tmp_path / "a", **picks)
    choose_image(Session.of(viewer), ImageChoice(stack, "zyx", "grey"))
    options = prepare_picks(viewer, tmp_path / "b", **picks)
    assert points_of_run(options, tmp_path / "cache") == [[[4, 5]], [[7, 8]]]
    choose_image(Session.of(viewer), ImageChoice(stack, "cyx", "all"))
    with pytest.raises(UserError, match="seems to have 3 channels"):
        prepare_picks(viewer, tmp_path / "c", **picks)
