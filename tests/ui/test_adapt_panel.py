"""The panel Adapt: cards, inputs from layers and folders, a real run, and whether it helped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import Source
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_cellda import methods
from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
from napari_cellda.core.adaptation.prepare import Prepared, prepare_domains
from napari_cellda.core.adaptation.tables import read_image_labels
from napari_cellda.core.batch import open_map_maker
from napari_cellda.core.classifier import train_classifier
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images import image_from_array, open_image
from napari_cellda.core.jobs import Run
from napari_cellda.core.runs import launch
from napari_cellda.core.runs.table import RUNS_VARIABLE
from napari_cellda.core.samples import nuclei_field
from napari_cellda.methods import find_method
from napari_cellda.ui import arrays
from napari_cellda.ui.adapt_inputs import (
    AdaptPicks,
    _called_like,
    image_names,
    partners,
    prepare_all,
    preview_place,
)
from napari_cellda.ui.axes import CHOSEN_AXES, ImageChoice
from napari_cellda.ui.compare_layers import CompareLayers
from napari_cellda.ui.images import choose_image, default_choice
from napari_cellda.ui.inputs import Picked, layer_stems, prepare
from napari_cellda.ui.layers import make_strokes
from napari_cellda.ui.panel_words import panel_words
from napari_cellda.ui.panels.adapt import AdaptPanel
from napari_cellda.ui.run_layers import Place
from napari_cellda.ui.runs import RunWatch, SessionRuns
from napari_cellda.ui.state import Session
from napari_cellda.ui.view import camera_of
from painting import WAIT_MS

WITHOUT_ONNX = """
import sys
from napari_cellda.cli import main
from napari_cellda.core.modelzoo import package
package.can_export_onnx = lambda: False
sys.exit(main())
"""
"""napari-cellda, but for an export that takes seconds."""


@pytest.fixture
def viewer() -> Iterator[ViewerModel]:
    """Two annotated source images and two target images, one of them with points and strokes."""
    viewer = ViewerModel()
    for index in range(2):
        sample = nuclei_field((64, 64), index)
        viewer.add_image(sample.image, name=f"source {index}")
        viewer.add_labels(sample.labels.astype(np.int32), name=f"masks {index}")
    for index in range(2):
        sample = nuclei_field((64, 80), index + 5)
        viewer.add_image(sample.image, name=f"target {index}")
    viewer.add_labels(sample.labels.astype(np.int32), name="truth 1")
    strokes = np.zeros((64, 80), np.uint8)
    strokes[2], strokes[30] = 1, 2
    viewer.add_labels(strokes, name="target 1 strokes")
    viewer.add_points([[10, 12], [30.5, 40]], name="points 0")
    yield viewer
    session = Session.of(viewer)
    for watch in SessionRuns.of(session).alive:
        watch._cancel()
    session.close()


@pytest.fixture
def panel(
    qtbot: QtBot, viewer: ViewerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AdaptPanel:
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    monkeypatch.setattr(launch, "default_queue", lambda: tmp_path / "queue")
    panel = AdaptPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    qtbot.waitUntil(panel.isEnabled, timeout=WAIT_MS)
    return panel


def layers(panel: AdaptPanel, *names: str) -> list[object]:
    return [panel.session.viewer.layers[name] for name in names]


def choose(panel: AdaptPanel, method: str) -> None:
    panel.cards.cards[method].clicked.emit()


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_cards_are_grey_with_the_reason_until_their_inputs_are_there(panel: AdaptPanel):
    cards = panel.cards.cards
    assert {"pseudo-label", "culpico", "cellseguda", "stylefilter", "cks", "supervised"} <= set(
        cards
    )
    assert "your images" in cards["culpico"].reason.text()
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    assert cards["culpico"].reason.text() == "Needs annotated images, their masks."
    assert "points or a nuclei channel" in cards["cks"].reason.text()
    assert not panel.starter.start.isEnabled()
    choose(panel, "culpico")
    assert [name for name, card in cards.items() if card.isVisible()] == ["culpico"]
    assert panel.pickers["source_masks"].isVisible()
    assert not panel.pickers["points"].isVisible()
    assert not panel.starter.start.isEnabled()
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0", "source 1"))
    panel.pickers["source_masks"].choose_layers(layers(panel, "masks 0", "masks 1"))
    assert cards["culpico"].reason.text() == "Ready."
    assert panel.starter.start.isEnabled()
    assert panel.starter.name.text().startswith("culpico-")
    panel.session.viewer.layers.remove("source 0")
    panel.session.viewer.layers.remove("source 1")
    assert not panel.starter.start.isEnabled()
    panel.cards.others.click()
    assert cards["cks"].isVisible()


def test_a_click_on_the_chosen_card_keeps_settings_and_name(panel: AdaptPanel):
    choose(panel, "supervised")
    starter = panel.starter
    assert starter.name.text().startswith("supervised-")
    panel.settings.choose("cpu", {"steps": 77})
    starter.name.setText("mine")
    panel.cards.others.click()
    choose(panel, "supervised")
    assert panel.settings.changes() == {"steps": 77}
    assert [name for name, card in panel.cards.cards.items() if card.isVisible()] == ["supervised"]
    choose(panel, "culpico")
    starter.folder.editingFinished.emit()
    assert starter.name.text() == "mine"
    starter.name.clear()
    choose(panel, "supervised")
    choose(panel, "cks")
    assert starter.name.text().startswith("cks-")
    starter.name.setText("mine")
    starter.propose_next(starter.root / "mine")
    assert starter.name.text().startswith("cks-")


def test_methods_that_cannot_be_loaded_are_told(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
):
    def refuse() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(methods, "discover", refuse)
    panel = AdaptPanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: bool(panel.starter.message.text), timeout=WAIT_MS)
    assert "ImportError: libcudart" in panel.starter.message.text
    qtbot.waitUntil(panel.loading.isHidden, timeout=WAIT_MS)


def test_supervised_waits_for_something_annotated(panel: AdaptPanel):
    card = panel.cards.cards["supervised"]
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    assert card.reason.text() == "Needs annotated images or masks or strokes on some of yours."
    choose(panel, "supervised")
    assert not panel.starter.start.isEnabled()
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0"))
    assert card.reason.text() == "Needs their masks."
    assert not panel.starter.start.isEnabled()
    panel.pickers["source_masks"].choose_layers(layers(panel, "masks 0"))
    assert card.reason.text() == "Ready."
    assert panel.starter.start.isEnabled()
    panel.pickers["source_images"].choose_layers([])
    assert not panel.starter.start.isEnabled()
    panel.pickers["source_masks"].choose_layers([])
    panel.pickers["target_strokes"].choose_layers(layers(panel, "target 1"))
    assert panel.starter.start.isEnabled()


def test_a_refused_beginning_leaves_nothing_and_speaks_of_the_rows(panel: AdaptPanel, qtbot: QtBot):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["points"].choose_layers(layers(panel, "points 0"))
    choose(panel, "cks")
    panel.diameter.pixels.setValue(500)
    panel.starter.start.click()
    monitor = panel.starter.monitor
    run = monitor.run
    assert run is not None, panel.starter.message.text
    qtbot.waitUntil(lambda: not run.alive, timeout=WAIT_MS)
    assert monitor.message.text == (
        "Diameter is 500; expected pixels, from 2 to 80, the longest side of the target images."
    )
    assert not monitor.resume.isEnabled()
    qtbot.waitUntil(lambda: not run.folder.exists(), timeout=WAIT_MS)


def test_nothing_starts_while_a_setting_is_refused(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["points"].choose_layers(layers(panel, "points 0"))
    choose(panel, "cks")
    panel.diameter.pixels.setValue(9)
    panel.settings.details.open()
    form = panel.settings.form
    assert form is not None
    crop: Any = form._editors["crop"].widget
    crop.setValue(100)
    for button in (panel.starter.start, panel.starter.estimate):
        button.click()
        assert panel.starter.message.text == "Correct this under All settings first: Crop."
    assert panel.starter.monitor.run is None
    crop.setValue(128)
    assert option(panel.plan(tmp_path / "run").words, "--set") == "crop=128"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "choose the same number with --channels and --source-channels.",
            "choose the same number with Channels and Their channels.",
        ),
        ("cks needs a diameter; see: napari-cellda methods.", "cks needs a diameter."),
        (
            "cks needs the diameter of a typical cell (--diameter); see: napari-cellda methods.",
            "cks needs the diameter of a typical cell (Diameter).",
        ),
        ("Name them with --classes (Classes in the panel).", "Name them under Classes."),
        (
            "put it back, or say with --inputs where it lies now.",
            "put it back, then resume the run.",
        ),
        ("'a--b' is no folder.", "'a--b' is no folder."),
    ],
)
def test_sentences_are_said_in_the_words_of_the_panel(said: str, shown: str):
    assert panel_words(said) == shown


def test_strokes_and_points_pair_with_their_images(panel: AdaptPanel, tmp_path: Path):
    pickers = panel.pickers
    pickers["target_images"].choose_layers(layers(panel, "target 0", "target 1"))
    pickers["source_images"].choose_layers(layers(panel, "source 0", "source 1"))
    pickers["source_masks"].choose_layers(layers(panel, "masks 0", "masks 1"))
    pickers["target_strokes"].choose_layers(layers(panel, "target 1 strokes"))
    choose(panel, "cellsegssda")
    plan = panel.plan(tmp_path / "run")
    assert plan.words[:2] == ["adapt", "cellsegssda"]
    assert not (tmp_path / "run").exists()
    plan.write_inputs()
    inputs = tmp_path / "run" / "inputs"
    for role, names in {
        "target_images": ["target 0.tif", "target 1.tif"],
        "target_strokes": ["target 1.tif"],
        "source_images": ["source 0.tif", "source 1.tif"],
        "source_masks": ["source 0.tif", "source 1.tif"],
    }.items():
        assert option(plan.words, f"--{role.replace('_', '-')}") == str(inputs / role)
        assert sorted(path.name for path in (inputs / role).iterdir()) == names
    assert set(np.unique(tifffile.imread(inputs / "target_strokes/target 1.tif"))) == {0, 1, 2}
    assert "--points" not in plan.words
    assert plan.ratio == pytest.approx(panel.settings.value.steps / 24)


def test_an_estimate_counts_validations_and_not_pictures(panel: AdaptPanel, tmp_path: Path):
    pickers = panel.pickers
    pickers["target_images"].choose_layers(layers(panel, "target 0", "target 1"))
    pickers["source_images"].choose_layers(layers(panel, "source 0", "source 1"))
    pickers["source_masks"].choose_layers(layers(panel, "masks 0", "masks 1"))
    choose(panel, "culpico")
    panel.settings.choose("cpu", {"steps": 400, "preview_every": 0})
    assert panel.plan(tmp_path / "run").validations == 8


def test_points_become_a_table_and_the_diameter_an_option(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["points"].choose_layers(layers(panel, "points 0"))
    choose(panel, "cks")
    assert panel.starter.start.toolTip() == "Still needed: the diameter of a typical cell"
    panel.session.viewer.dims.ndisplay = 3
    panel.diameter.measure.click()
    assert panel.session.viewer.dims.ndisplay == 2
    assert panel.diameter._layer.mode == "add_line"
    panel.diameter._layer.add_lines(np.array([[10.0, 10.0], [10.0, 28.0]]))
    assert panel.diameter.value == pytest.approx(18)
    pixels = panel.diameter.pixels
    assert pixels.minimumWidth() >= pixels.sizeHint().width()  # no digit is cut off
    plan = panel.plan(tmp_path / "run")
    plan.write_inputs()
    table = (tmp_path / "run/inputs/points/target 0.csv").read_text().splitlines()
    assert table == ["row,col", "10.000,12.000", "30.500,40.000"]
    assert option(plan.words, "--diameter") == "18.0"


def test_the_diameter_is_in_pixels_of_the_chosen_image(panel: AdaptPanel):
    viewer = panel.session.viewer
    for layer in viewer.layers:
        layer.visible = False
    fine, finer = (
        viewer.add_image(np.zeros((3, 60, 60), np.uint8), name=f"{scale}", scale=(1, scale, scale))
        for scale in (0.25, 0.125)
    )
    finer.visible = False
    panel.pickers["target_images"].choose_layers([fine])
    choose(panel, "cks")
    panel.diameter.measure.click()
    drawn = panel.diameter._layer
    line = [drawn.world_to_data(end) for end in ((2.5, 2.5), (2.5, 12.5))]
    drawn.add_lines(np.array(line))
    assert panel.diameter.value == pytest.approx(40)
    panel.pickers["target_images"].choose_layers([finer])
    drawn.add_lines(np.array(line))
    assert panel.diameter.value == pytest.approx(80)


def test_nuclei_are_looked_for_in_their_own_pixels(panel: AdaptPanel):
    viewer = panel.session.viewer
    cells = viewer.add_image(np.zeros((60, 60), np.uint8), name="fine", scale=(0.25, 0.25))
    nuclei = viewer.add_image(np.zeros((30, 30), np.uint8), name="binned", scale=(0.5, 0.5))
    panel.pickers["target_images"].choose_layers([cells])
    assert panel.diameter.on(nuclei) is None
    panel.diameter.pixels.setValue(14)
    assert panel.diameter.on(nuclei) == 7
    assert panel.diameter.on(cells) == 14


def test_without_a_chosen_layer_the_diameter_is_in_pixels_of_the_image_in_sight(
    panel: AdaptPanel, tmp_path: Path
):
    panel.pickers["target_images"].choose_path(tmp_path)
    panel.session.viewer.add_image(np.zeros((60, 60), np.uint8), name="seen", scale=(0.5, 0.5))
    panel.session.viewer.add_image(np.zeros((60, 60), np.uint8), name="hidden", visible=False)
    choose(panel, "cks")
    panel.diameter.measure.click()
    drawn = panel.diameter._layer
    drawn.add_lines(np.array([drawn.world_to_data(end) for end in ((2.5, 2.5), (2.5, 12.5))]))
    assert panel.diameter.value == pytest.approx(20)


def test_points_are_found_in_a_nuclei_channel_and_corrected(
    panel: AdaptPanel, qtbot: QtBot, tmp_path: Path
):
    viewer = panel.session.viewer
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    nuclei = np.zeros((64, 80), np.float32)
    rows, columns = np.indices(nuclei.shape)
    for row, column in ((15, 20), (40, 60)):
        nuclei += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30)
    viewer.add_image(nuclei, name="dapi")
    choose(panel, "cks")
    assert not panel.find_points.isEnabled()
    panel.pickers["nuclei_images"].choose_layers(layers(panel, "dapi"))
    panel.diameter.pixels.setValue(14)
    panel.find_points.click()
    qtbot.waitUntil(lambda: panel.find_points.task is None, timeout=WAIT_MS)
    (points,) = panel.pickers["points"].picked.layers
    assert points.name == "dapi points"
    np.testing.assert_allclose(sorted(points.data.tolist()), [[15, 20], [40, 60]], atol=1)
    points.add([5, 70])
    plan = panel.plan(tmp_path / "run")
    plan.write_inputs()
    assert len((tmp_path / "run/inputs/points/target 0.csv").read_text().splitlines()) == 4
    viewer.layers["dapi"].data = np.zeros((64, 80), np.float32)
    panel.find_points.click()
    qtbot.waitUntil(lambda: "No nuclei were found" in panel.starter.message.text, timeout=WAIT_MS)


def test_points_and_maps_lie_on_an_image_wherever_it_is(panel: AdaptPanel, qtbot: QtBot):
    viewer = panel.session.viewer
    image = viewer.add_image(
        np.zeros((3, 40, 50), np.float32),
        name="turned",
        rotate=(0, 0, 30),
        scale=(1, 0.5, 0.5),
        translate=(0, 7, 9),
        shear=(0, 0, 0.2),
        units=("pixel", "um", "um"),
    )
    maps = CompareLayers(panel.session, ImageChoice(image, "zyx", "grey"))
    maps.show({"forest": np.zeros((40, 50), np.float32), "run": np.zeros((40, 50), np.float32)})
    panel.find_points._show([image], [np.array([[1.0, 20, 30]])])
    points = viewer.layers["turned points"]
    for layer in (*maps.layers, points):
        corner = layer.data_to_world((1, 20, 30)[3 - layer.ndim :])
        np.testing.assert_allclose(corner[-2:], image.data_to_world((1, 20, 30))[-2:])
        assert layer.units == image.units[3 - layer.ndim :]
    maps.set_apart(True)
    first, second = (one.data_to_world((20, 30)) for one in maps.layers)
    along = np.subtract(image.data_to_world((0, 0, 9)), image.data_to_world((0, 0, 0)))[1:]
    assert np.dot(second - np.array(first), along) > 0


def test_maps_laid_out_are_all_in_view():
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((40, 50), np.float32))
    maps = CompareLayers(Session.of(viewer), ImageChoice(image, "yx", "grey"))
    camera = camera_of(viewer)
    camera.center, camera.zoom = (0, 3, 4), 99
    maps.show({name: np.zeros((40, 50), np.float32) for name in ("forest", "run", "other")})
    maps.set_apart(False)
    assert (camera.center, camera.zoom) == ((0, 3, 4), 99)  # nobody asked for another view
    maps.set_apart(True)
    np.testing.assert_allclose(camera.center[-2:], (19.5, 78.5))
    wide = camera.zoom
    maps.show_next()
    np.testing.assert_allclose(camera.center[-2:], (19.5, 24.5))
    assert camera.zoom > wide


def test_points_lie_in_the_axes_of_their_image(panel: AdaptPanel, tmp_path: Path):
    """Not in those of what else is in the viewer: a run's pictures have an axis of their own."""
    viewer = panel.session.viewer
    for name, shape, coordinates, expected in (
        ("plane", (20, 30), [[2, 4, 5]], ["row,col", "4.000,5.000"]),
        ("colours", (3, 20, 30), [[2, 4, 5]], ["row,col", "4.000,5.000"]),
        ("stack", (9, 20, 30), [[2, 4, 5]], ["z,row,col", "2.000,4.000,5.000"]),
        ("films", (6, 9, 20, 30), [[1, 2, 4, 5]], ["t,z,row,col", "1.000,2.000,4.000,5.000"]),
    ):
        image = viewer.add_image(np.zeros(shape, np.float32), name=name)
        points = viewer.add_points(coordinates, name=f"{name} points")
        panel.pickers["target_images"].choose_layers([image])
        panel.pickers["points"].choose_layers([points])
        panel.channels.setCurrentIndex(int(name == "colours"))
        choose(panel, "cks")
        panel.diameter.pixels.setValue(5)
        panel.plan(tmp_path / name).write_inputs()
        (table,) = (tmp_path / name / "inputs" / "points").iterdir()
        assert table.read_text().splitlines() == expected
        (written,) = (tmp_path / name / "inputs" / "target_images").iterdir()
        assert open_image(written, channels="all").label_shape == tuple(n for n in shape if n != 3)


def test_channels_are_chosen_or_typed(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0"))
    panel.pickers["source_masks"].choose_layers(layers(panel, "masks 0"))
    choose(panel, "culpico")
    words = panel.plan(tmp_path / "run").words
    assert option(words, "--channels") == "grey"
    assert "--source-channels" not in words
    panel.channels.setCurrentIndex(1)
    panel.source_channels.setEditText(" 0,2 ")
    words = panel.plan(tmp_path / "run").words
    assert (option(words, "--channels"), option(words, "--source-channels")) == ("all", "0,2")
    panel.channels.setEditText("red")
    panel.starter.start.click()
    assert panel.starter.message.text == (
        "The channels are 'red'; expected one of the list, or numbers such as 0,2."
    )
    for typed, meant in (("all", "all"), ("As Grey", "grey"), ("grey", "grey"), ("1, 2", "1,2")):
        panel.channels.setEditText(typed)
        assert panel.picks(panel.method).options["channels"] == meant
    choose(panel, "pseudo-label")
    assert not panel.source_channels.isVisible()


def read(panel: AdaptPanel, folder: Path) -> Prepared:
    """Write what was picked, and read it as a run does."""
    method = panel.method
    assert method is not None
    options, items = prepare_all(panel.session, panel.picks(method), folder)
    for item in items:
        if item.write is not None:
            item.write()
    given = {k: v for k, v in options.items() if v is not None}
    if "classes" in given:
        given["classes"] = given["classes"].split(",")
    opened = open_inputs(AdaptInputs.model_validate(given), method)
    task = prepare_domains(opened, method, "percentile", folder / "cache")
    return run_quietly(task)


def test_colours_and_stacks_are_read_plane_by_plane(panel: AdaptPanel, tmp_path: Path):
    viewer = panel.session.viewer
    rng = np.random.default_rng(0)
    stack = viewer.add_image(rng.random((6, 40, 50)).astype(np.float32), name="stack")
    colours = viewer.add_image(rng.integers(0, 255, (40, 50, 3), np.uint8), name="rgb", rgb=True)
    masks = viewer.add_labels(np.tile(np.uint8([0, 1]), (40, 25)), name="rgb masks")
    panel.pickers["target_images"].choose_layers([stack])
    panel.pickers["source_images"].choose_layers([colours])
    panel.pickers["source_masks"].choose_layers([masks])
    choose(panel, "culpico")
    prepared = read(panel, tmp_path / "run")
    assert prepared.source is not None
    assert [plane.shape for plane in prepared.target.planes] == [(40, 50)] * 6
    assert (prepared.target.n_channels, prepared.source.n_channels) == (1, 1)
    panel.source_channels.setCurrentIndex(2)
    with pytest.raises(UserError, match="source images have 3 channel"):
        read(panel, tmp_path / "other")


@pytest.mark.parametrize("channels", ["all channels", "0,5"])
def test_planes_are_not_trained_on_when_channels_were_meant(
    panel: AdaptPanel, tmp_path: Path, channels: str
):
    viewer = panel.session.viewer
    rng = np.random.default_rng(0)
    six = viewer.add_image(rng.random((6, 64, 80)).astype(np.float32), name="six")
    masks = viewer.add_labels(np.ones((64, 80), np.uint8), name="six masks")
    panel.pickers["target_images"].choose_layers([six])
    panel.pickers["target_masks"].choose_layers([masks])
    choose(panel, "supervised")
    panel.channels.setEditText(channels)
    panel.starter.start.click()
    assert panel.starter.message.text == (
        f"The layer 'six' is taken as 6 planes, but Channels says '{channels}': choose 'as grey'; "
        "or if they are channels, choose this layer's Axes in the panel Paint."
    )
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["source_images"].choose_layers([six])
    panel.pickers["source_masks"].choose_layers([masks])
    panel.pickers["target_masks"].choose_path(None)
    panel.channels.setCurrentIndex(0)
    panel.source_channels.setEditText(channels)
    with pytest.raises(UserError, match=f"6 planes, but Their channels says '{channels}'"):
        panel.plan(tmp_path / "run")
    choose_image(panel.session, ImageChoice(six, "cyx", "all"))
    panel.pickers["target_images"].choose_layers([six])
    panel.channels.setEditText(channels)
    chosen = option(panel.plan(tmp_path / "run").words, "--channels")
    assert chosen == ("all" if "all" in channels else "0,5")


def test_few_planes_with_masks_are_told_as_what_they_are_taken_for(
    panel: AdaptPanel, tmp_path: Path
):
    viewer = panel.session.viewer
    stack = viewer.add_image(np.zeros((3, 64, 80), np.uint8), name="stack")
    masks = viewer.add_labels(np.ones((3, 64, 80), np.uint8), name="stack masks")
    panel.pickers["target_images"].choose_layers([stack])
    panel.pickers["target_masks"].choose_layers([masks])
    choose(panel, "supervised")
    with pytest.raises(UserError, match=r"'stack' seems to have 3 channels.* Axes in the panel"):
        panel.plan(tmp_path / "run")


def test_a_file_stands_for_its_layer_only_if_the_layer_shows_all_of_it(tmp_path: Path):
    path = tmp_path / "two.tif"
    data = np.random.default_rng(0).integers(0, 999, (2, 40, 50)).astype(">u2")
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "CYX"})

    def written(**look: Any) -> Path:
        layer = Image(**look)
        layer._source = Source(path=str(path))
        folder = tmp_path / "inputs"
        prepared = prepare(Picked(layers=(layer,)), "image", folder)
        assert (prepared.path == path) == (prepared.write is None)
        if prepared.write is not None:
            prepared.write()
            (found,) = folder.iterdir()
            np.testing.assert_array_equal(tifffile.imread(found), layer.data)
        return prepared.path

    native = data.astype(np.uint16)
    assert written(data=native) == path
    assert written(data=native[:, None]) == path
    assert written(data=native, metadata={CHOSEN_AXES: "cyx"}) == path
    assert written(data=native, metadata={CHOSEN_AXES: "zyx"}) != path
    assert written(data=native[1]) != path
    changed = native.copy()
    changed[0, 3, 4] += 1
    assert written(data=changed) != path
    assert written(data=native[:, ::-1]) != path
    path.write_bytes(b"of a kind that is not known here")
    assert written(data=native) != path


def test_of_a_large_image_the_middle_tells_whether_it_is_its_file(tmp_path: Path):
    data = np.random.default_rng(0).integers(0, 255, (2, 1500, 1600)).astype(np.uint8)
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, data, metadata={"axes": "ZYX"})
    for array, same in ((data, True), (data // 2, False)):
        layer = Image(array)
        layer._source = Source(path=str(path))
        assert (prepare(Picked(layers=(layer,)), "image", tmp_path).path == path) is same


def train_forest(panel: AdaptPanel, *names: str) -> None:
    image = image_from_array(panel.session.viewer.layers["target 0"].data, "yx", name="target 0")
    strokes = np.zeros((64, 80), np.uint8)
    for number in range(len(names) + 1):
        strokes[10 * number] = number + 1
    task = train_classifier(
        [image],
        [strokes],
        spec=FeatureSpec(name="compact", scales=(1.0,)),
        class_names=("background", *names),
        params=ForestParams(trees=5, jobs=1),
    )
    panel.session.set_classifier(run_quietly(task))


@pytest.mark.parametrize("names", [("cell",), ("cell", "debris,dirt")])
def test_maps_of_this_viewer_keep_the_names_of_their_classes(
    panel: AdaptPanel, tmp_path: Path, names: tuple[str, ...]
):
    train_forest(panel, *names)
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    choose(panel, "pseudo-label")
    panel.own_maps.setChecked(True)
    told = tuple(name.replace(",", " ") for name in names)
    plan = panel.plan(tmp_path / "planned")
    assert option(plan.words, "--classes") == ",".join(told)
    plan.write_inputs(lambda: True)  # cancelled before the images are written
    assert not (tmp_path / "planned").exists()
    images, maps = plan.inputs
    images.write()
    maps.write(lambda: True)  # cancelled before the maps are made
    assert images.path.exists()
    assert not maps.path.exists()
    prepared = read(panel, tmp_path / "run")
    assert prepared.classes == ("background", *told)
    (plane,) = prepared.target.planes
    assert plane.pseudo_map is not None
    assert len(plane.pseudo_map) == 1 + len(names)


def test_maps_come_from_one_place(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    choose(panel, "pseudo-label")
    folder, project = panel.pickers["pseudo_labels"], panel.pickers["project"]
    folder.choose_path(tmp_path)
    project.choose_path(tmp_path / "a.cellda")
    with pytest.raises(UserError, match="Maps and Project are both chosen"):
        panel.plan(tmp_path / "run")
    train_forest(panel, "cell")
    panel.own_maps.setChecked(True)
    assert not folder.isEnabled()
    assert not project.isEnabled()
    words = panel.plan(tmp_path / "run").words
    assert option(words, "--pseudo-labels") == str(tmp_path / "run/inputs/pseudo_labels")
    assert "--project" not in words
    panel.session.set_classifier(None)
    project.choose_path(None)
    assert folder.isEnabled()
    assert panel.classes.isEnabled()
    assert option(panel.plan(tmp_path / "run").words, "--pseudo-labels") == str(tmp_path)


def test_a_mask_of_another_shape_is_told_with_both_shapes(panel: AdaptPanel, tmp_path: Path):
    viewer = panel.session.viewer
    viewer.add_labels(np.ones((10, 12), np.uint8), name="target 0 mask")
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["target_masks"].choose_layers(layers(panel, "target 0 mask"))
    choose(panel, "supervised")
    with pytest.raises(UserError, match="'target 0 mask' has 10 x 12 pixels, its image 'target 0'"):
        panel.plan(tmp_path / "run")


def test_cards_begin_with_what_needs_least(panel: AdaptPanel):
    names = list(panel.cards.cards)
    assert names[0] == "supervised"
    assert names.index("cellseguda") < names.index("cellsegssda")


def test_validation_masks_count_only_when_ticked(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0", "target 1"))
    panel.pickers["target_masks"].choose_layers(layers(panel, "target 1 strokes"))
    panel.pickers["validation_masks"].choose_layers(layers(panel, "target 1 strokes"))
    choose(panel, "supervised")
    assert "--validation-masks" not in panel.plan(tmp_path).words
    panel.choose_by_masks.setChecked(True)
    assert "--validation-masks" in panel.plan(tmp_path).words


def test_classes_of_images_are_filled_in_by_hand(panel: AdaptPanel, tmp_path: Path):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0", "target 1"))
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0"))
    panel.pickers["source_masks"].choose_layers(layers(panel, "masks 0"))
    choose(panel, "stylefilter")
    assert not panel.image_table.isVisible()
    panel.fill_in.click()
    with pytest.raises(UserError, match="no classes"):
        panel.plan(tmp_path / "run")
    panel.classes.setText("round, long")
    panel.classes.editingFinished.emit()
    assert panel.image_table.isVisible()
    panel.image_table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    panel.classes.setText("round, long, flat")
    panel.classes.editingFinished.emit()
    plan = panel.plan(tmp_path / "run")
    plan.write_inputs()
    table = Path(option(plan.words, "--image-labels")).read_text().splitlines()
    assert table == ["image,round,long,flat", "target 0,1,1,1", "target 1,0,1,1"]


def test_every_image_that_is_renamed_is_so_in_the_table_of_classes(panel: AdaptPanel):
    images = layers(panel, "target 0", "target 1", "source 0")
    panel.pickers["target_images"].choose_layers(images)
    choose(panel, "stylefilter")
    panel.classes.setText("round")
    panel.fill_in.click()
    for number, layer in enumerate(images):
        layer.name = f"renamed {number}"
        assert panel.image_table.verticalHeaderItem(number).text() == f"renamed {number}"


def test_masks_of_the_source_go_to_the_images_whose_names_they_have(
    panel: AdaptPanel, tmp_path: Path
):
    viewer = panel.session.viewer
    masks = {}
    for index in range(2):
        masks[index] = viewer.layers[f"masks {index}"].data
        viewer.layers[f"masks {index}"].name = f"source {index} masks"
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0", "source 1"))
    panel.pickers["source_masks"].choose_layers(layers(panel, "source 1 masks", "source 0 masks"))
    choose(panel, "cellseguda")
    plan = panel.plan(tmp_path / "run")
    plan.write_inputs()
    folder = Path(option(plan.words, "--source-masks"))
    for index in range(2):
        np.testing.assert_array_equal(tifffile.imread(folder / f"source {index}.tif"), masks[index])
    viewer.layers["source 1 masks"].name = "source 0 too"
    with pytest.raises(UserError, match="'source 0 too' and 'source 0 masks' both seem to belong"):
        panel.plan(tmp_path / "run")


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([], "The layer 'points 0' has no points: click once on every cell."),
        (
            [[3.0, 4.0], [70.2, 5.0]],
            "The layer 'points 0' has 1 point(s) outside its image 'target 0', such as row 70, "
            "column 5; the image has 64 x 80 pixels.",
        ),
    ],
)
def test_points_that_cannot_be_used_are_told_by_their_layer(
    panel: AdaptPanel, tmp_path: Path, points: list[list[float]], sentence: str
):
    panel.session.viewer.layers["points 0"].data = np.reshape(points, (-1, 2))
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0"))
    panel.pickers["points"].choose_layers(layers(panel, "points 0"))
    choose(panel, "cks")
    panel.diameter.pixels.setValue(12)
    with pytest.raises(UserError) as caught:
        panel.plan(tmp_path / "run")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("label", "words"), [(0, "no strokes"), (1, "which is background")])
def test_strokes_that_say_nothing_are_told_by_their_layer(
    panel: AdaptPanel, qtbot: QtBot, tmp_path: Path, label: int, words: str
):
    panel.session.viewer.layers["target 1 strokes"].data[:] = label
    panel.pickers["target_images"].choose_layers(layers(panel, "target 1"))
    panel.pickers["target_strokes"].choose_layers(layers(panel, "target 1 strokes"))
    choose(panel, "supervised")
    starter = panel.starter
    starter.start.click()
    qtbot.waitUntil(lambda: starter.checking is None, timeout=WAIT_MS)
    assert starter.message.text.startswith("The layer 'target 1 strokes' has ")
    assert words in starter.message.text
    assert starter.monitor.run is None
    panel.pickers["target_masks"].choose_layers(layers(panel, "truth 1"))
    plan = panel.plan(tmp_path / "run")
    assert plan.check is not None
    with nullcontext() if label else pytest.raises(UserError):
        plan.check()  # beside masks, background alone says something


def test_strokes_of_a_large_image_are_read_from_the_disk(
    panel: AdaptPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 10)
    image = panel.session.viewer.layers["target 1"]
    strokes = make_strokes(panel.session, choose_image(panel.session, default_choice(image)))
    assert not isinstance(strokes.data, np.ndarray)
    panel.pickers["target_images"].choose_layers([image])
    panel.pickers["target_strokes"].choose_layers([strokes])
    choose(panel, "supervised")
    plan = panel.plan(tmp_path / "run")
    assert plan.check is not None
    with pytest.raises(UserError, match="no strokes"):
        plan.check()
    strokes.data[30, 40] = 2
    plan.check()
    plan.write_inputs()
    written = tifffile.imread(tmp_path / "run/inputs/target_strokes/target 1.tif")
    assert np.argwhere(written).tolist() == [[30, 40]]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("axes", ["tcyx", "zcyx", "tzcyx"])
def test_strokes_of_channels_between_planes_are_written_without_them(
    panel: AdaptPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str, in_memory: bool
):
    monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 2**20 if in_memory else 10)
    viewer, session = panel.session.viewer, panel.session
    shape = (2, 3, 2, 64, 80)[-len(axes) :]
    data = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    image = viewer.add_image(data, name="hyper", axis_labels=tuple(axes))
    strokes = make_strokes(session, choose_image(session, default_choice(image)))
    first = (0,) * (data.ndim - 3)
    strokes.data[(*first, 0, 40)], strokes.data[(*first, 1, 30)] = 1, 2
    panel.pickers["target_images"].choose_layers([image])
    panel.pickers["target_strokes"].choose_layers([strokes])
    panel.channels.setCurrentIndex(1)
    choose(panel, "supervised")
    prepared = read(panel, tmp_path / "run")
    n_planes = data.size // (2 * 64 * 80)
    assert [plane.shape for plane in prepared.target.planes] == [(64, 80)] * n_planes
    (file,) = (tmp_path / "run/inputs/target_strokes").iterdir()
    assert open_image(file).axes == axes.replace("c", "")
    plane = tifffile.imread(file).reshape(-1, 64, 80)[0]
    assert sorted(set(np.argwhere(plane)[:, 0])) == [30, 40]

    copied = viewer.add_labels(np.array(strokes.data), name="hyper copy")
    panel.pickers["target_strokes"].choose_layers([copied])
    panel.plan(tmp_path / "copied").write_inputs()
    copied.data[(*first, 1, 50)] = 2  # a copy is painted in one channel alone
    with pytest.raises(UserError, match="'hyper copy' has other labels in one channel of 'hyper'"):
        panel.plan(tmp_path / "other").write_inputs()


def test_strokes_that_have_to_be_computed_wait_for_the_background(
    panel: AdaptPanel, tmp_path: Path
):
    blocks: list[np.ndarray] = []
    late = da.ones((64, 80), np.uint8, chunks=(16, 80)).map_blocks(
        lambda block: blocks.append(block) or 2 * block, dtype=np.uint8, meta=np.zeros((), np.uint8)
    )
    strokes = panel.session.viewer.add_labels(late, name="target 1 late")
    panel.pickers["target_images"].choose_layers(layers(panel, "target 1"))
    panel.pickers["target_strokes"].choose_layers([strokes])
    choose(panel, "supervised")
    blocks.clear()
    plan = panel.plan(tmp_path / "run")
    assert not blocks
    assert plan.check is not None
    plan.check()
    assert blocks


def test_a_layer_of_an_unknown_image_is_refused(viewer: ViewerModel):
    target = Picked(layers=(viewer.layers["target 0"], viewer.layers["target 1"]))
    names = layer_stems(target.layers)
    session = Session.of(viewer)
    with pytest.raises(UserError, match="which of the images 'truth 1' belongs to"):
        partners(session, [viewer.layers["truth 1"]], target, names)
    viewer.layers["truth 1"].name = "target 1 (truth)"
    assert partners(session, [viewer.layers["target 1 (truth)"]], target, names) == ["target 1"]
    viewer.layers["target 1 (truth)"].name = "target 11"
    with pytest.raises(UserError, match="belongs to"):
        partners(session, [viewer.layers["target 11"]], target, names)
    viewer.layers["target 11"].name = "truth 1"
    both = [viewer.layers["truth 1"], viewer.layers["masks 0"]]
    assert partners(session, both, target, names) == ["target 0", "target 1"]


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("a_1", "a 1"),
        ("a-1 masks", "a 1"),
        ("mask of a_10", "a 10"),
        ("a_mask", "a"),
        ("b_2 mask", "b_2"),
        ("b 2", "b 2"),
        ("cell (left)", None),
        ("a1", None),
    ],
)
def test_a_mask_belongs_to_the_image_with_most_of_its_words(mask: str, image: str | None):
    images = ("a", "a 1", "a 10", "b_2", "b 2", "...")
    assert _called_like(mask, images) == image


def test_all_layers_are_chosen_at_once(panel: AdaptPanel):
    picker = panel.pickers["target_images"]
    picker.menu().aboutToShow.emit()
    (action,) = [one for one in picker.menu().actions() if one.text() == "All of these"]
    action.trigger()
    names = [layer.name for layer in picker.picked.layers]
    assert names == ["source 0", "source 1", "target 0", "target 1"]
    points = panel.pickers["points"]
    points.menu().aboutToShow.emit()
    assert "All of these" not in [one.text() for one in points.menu().actions()]


def test_names_of_files_are_unique_and_such_as_any_disk_takes():
    viewer = ViewerModel()
    for name in ("a/b c", "a:b c", "a?b c", "cell 1, left.ome"):
        viewer.add_image(np.zeros((2, 2)), name=name)
    assert layer_stems(viewer.layers) == ["a_b c", "a_b c-2", "a_b c-3", "cell 1, left"]


@pytest.mark.parametrize("names", [("cell 1", "cell 2"), ("x.ome", "y (2), z")])
def test_opened_layers_pair_with_files_by_their_names(tmp_path: Path, names: tuple[str, str]):
    viewer = ViewerModel()
    for name in names:
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((20, 20), np.uint8))
        (tmp_path / f"{name.removesuffix('.ome')}.csv").write_text("row,col\n3,4\n")
        layer = viewer.add_image(np.zeros((20, 20), np.uint8), name=name)
        layer._source = Source(path=str(tmp_path / f"{name}.tif"))
    for chosen in (list(viewer.layers), [viewer.layers[0]]):
        target = Picked(layers=tuple(chosen))
        tables = tmp_path if chosen[1:] else next(iter(sorted(tmp_path.glob("*.csv"))))
        inputs = {"target_images": target, "points": Picked(path=tables)}
        rows = "".join(f'"{name}",1\n' for name in image_names(target))
        picks = AdaptPicks(inputs, {"diameter": 5}, image_table=f"image,round\n{rows}")
        options, items = prepare_all(Session.of(viewer), picks, tmp_path / f"run {len(chosen)}")
        for item in items:
            if item.write is not None:
                item.write()
        table = options.pop("image_labels")
        opened = open_inputs(AdaptInputs(**options), find_method("cks"))
        assert all(len(files.points) == 1 for files in opened.target)
        present = read_image_labels(table, [files.image.name for files in opened.target])[1]
        assert len(present) == len(chosen)


def test_pictures_lie_on_the_middle_of_the_first_image():
    viewer = ViewerModel()
    large = viewer.add_image(np.zeros((700, 600)), name="b", scale=(2, 2), translate=(10, 20))
    small = viewer.add_image(np.zeros((64, 64)), name="c")
    session = Session.of(viewer)

    def place(*layers: object, method: str = "cks", **inputs: Picked) -> Place | None:
        picks = AdaptPicks({"target_images": Picked(layers=layers), **inputs})
        return preview_place(session, picks, find_method(method))

    assert place(small, large) == Place((2, 2), (10 + 94 * 2, 20 + 44 * 2), shows="b")
    assert place() is None
    # Of a stack they show the first plane; channels are the same plane.
    film = viewer.add_image(
        np.zeros((2, 5, 600, 64)), name="film", axis_labels="tzyx", scale=(1, 3, 2, 2)
    )
    assert place(film) == Place((1, 3, 2, 2), (0, 0, 88, 0), (1, 1), "film, time 0, plane 0")
    film.axis_labels = "zcyx"
    assert place(film) == Place((1, 3, 2, 2), (0, 0, 88, 0), (1, 5), "film, plane 0")
    colours = viewer.add_image(np.zeros((5, 64, 64, 3)), name="colours")
    assert place(colours) == Place((1, 1, 1), (0, 0, 0), (1,), "colours, plane 0")
    # CKS trains on those with points or masks only.
    points = viewer.add_points([[1, 2]], name="c points")
    assert place(large, small, points=Picked(layers=(points,))) == Place(shows="c")
    masks = Picked(layers=(viewer.add_labels(np.zeros((64, 64), np.uint8), name="c masks"),))
    assert place(large, small, target_masks=masks, method="cks-masks") == Place(shows="c")
    assert place(large, small, target_masks=masks, method="cellsegssda") == place(large)
    # A run reads files in the order of their names, endings included.
    again = viewer.add_image(np.zeros((64, 64)), name="c [1]")
    assert place(small, again) == Place(shows="c [1]")


def done_quickly(panel: AdaptPanel, qtbot: QtBot, **settings: int) -> RunWatch:
    """Start a small supervised run by its button, and wait for its end."""
    choose(panel, "supervised")
    small = {"crop": 32, "batch": 1, "width": 4, "depth": 2}
    panel.settings.choose("cpu", small | settings)
    panel.starter.start.click()
    run = panel.starter.monitor.run
    assert run is not None, panel.starter.message.text
    qtbot.waitUntil(lambda: not run.alive, timeout=200_000)
    assert run.view.state == "done", run.view.text
    return run


@pytest.fixture
def quick_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PROGRAM", (sys.executable, "-c", WITHOUT_ONNX))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_real_run_is_started_followed_judged_applied_and_discarded(
    panel: AdaptPanel, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path, quick_program: None
):
    panel.pickers["target_images"].choose_layers(layers(panel, "target 0", "target 1"))
    panel.pickers["source_images"].choose_layers(layers(panel, "source 0", "source 1"))
    panel.pickers["source_masks"].choose_layers(layers(panel, "masks 0", "masks 1"))
    run = done_quickly(panel, qtbot, steps=6, validate_every=3)
    record = Run(run.folder).record
    assert record.method == "supervised"
    assert record.params["steps"] == 6
    assert {item.path.split("/")[0] for item in record.inputs} == {"inputs"}
    picture = viewer.layers[f"foreground on target 0 · {run.name}"]
    assert picture.data.shape[-2:] == (64, 80)

    verdict = panel.verdict
    assert verdict.isVisible()
    verdict.image.setCurrentIndex(verdict.image.findText("target 1"))
    verdict.truth.setCurrentIndex(verdict.truth.findText("truth 1"))
    verdict.compare.click()
    qtbot.waitUntil(lambda: not verdict.work.running, timeout=WAIT_MS)
    assert verdict.message.text == ""
    (figures,) = verdict.figures
    assert figures.agreement == 1
    assert figures.dice is not None
    shown = viewer.layers[f"Compare · {run.name}"]
    assert shown.data.shape == (64, 80)
    assert np.isclose((np.asarray(shown.data) >= 0.5).mean(), figures.foreground)

    verdict.layer.click()
    qtbot.waitUntil(lambda: not verdict.work.running, timeout=WAIT_MS)
    labels = viewer.layers[f"target 1 · {run.name}"]
    np.testing.assert_array_equal(labels.data > 0, np.asarray(shown.data) > 0.5)

    folder = tmp_path / "more"
    folder.mkdir()
    iio.imwrite(folder / "new.png", viewer.layers["target 0"].data)
    verdict.apply(folder, tmp_path / "results")
    qtbot.waitUntil(lambda: not verdict.work.running, timeout=WAIT_MS)
    assert verdict.message.kind == "success", verdict.message.text
    assert (tmp_path / "results" / "new_mask.tif").is_file()

    verdict.discard_run()
    qtbot.waitUntil(lambda: panel.starter.monitor.run is None, timeout=WAIT_MS)
    assert not run.folder.exists()
    assert not verdict.isVisible()
    assert panel.starter.monitor.isHidden()
    assert picture not in viewer.layers
    assert f"Compare · {run.name}" not in viewer.layers


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("rgb", [False, True])
def test_a_run_on_one_channel_of_a_layer_is_applied_to_that_channel(
    panel: AdaptPanel, qtbot: QtBot, tmp_path: Path, quick_program: None, rgb: bool
):
    viewer = panel.session.viewer
    grey = viewer.layers["target 1"].data
    data = np.stack([grey[::-1], grey, grey[:, ::-1]], axis=-1 if rgb else 0)
    colours = viewer.add_image(data, name="colours", rgb=rgb)
    panel.pickers["target_images"].choose_layers([colours])
    panel.pickers["target_masks"].choose_layers(layers(panel, "truth 1"))
    panel.channels.setEditText("1")
    run = done_quickly(panel, qtbot, steps=2, validate_every=2)

    (image,) = (run.folder / "inputs" / "target_images").iterdir()
    maker = open_map_maker(str(run.folder), channels=(1,))[0]
    with ExitStack() as stack:
        maps = run_quietly(maker.compute(open_image(image, channels=(1,)), stack, tmp_path))
        expected = np.array(maps.probability[1])

    verdict = panel.verdict
    verdict.image.setCurrentIndex(verdict.image.findText("colours"))
    verdict.compare.click()
    qtbot.waitUntil(lambda: not verdict.work.running, timeout=WAIT_MS)
    assert verdict.message.text == ""
    shown = viewer.layers[f"Compare · {run.name}"]
    np.testing.assert_allclose(shown.data, expected, atol=1e-6)

    verdict.apply(image.parent, tmp_path / "results")
    qtbot.waitUntil(lambda: not verdict.work.running, timeout=WAIT_MS)
    assert verdict.message.kind == "success", verdict.message.text
    mask = tifffile.imread(tmp_path / "results" / f"{image.stem}_mask.tif")
    np.testing.assert_array_equal(mask > 0, expected > 0.5)
