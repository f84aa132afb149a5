"""Did it help: the lists follow the viewer, a run is compared and applied to layers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers._source import Source
from pytestqt.qtbot import QtBot

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import PixelClassifier
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.images import Channels
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.pipeline import Maps, Pipeline
from napari_cellda.core.runs import table
from napari_cellda.core.runs.history import RunView
from napari_cellda.core.runs.table import RunLine
from napari_cellda.core.runs.verdict import MapFigures
from napari_cellda.core.tiles import Region, grid
from napari_cellda.ui import judging
from napari_cellda.ui.images import choose_image, default_choice, take_over
from napari_cellda.ui.judging import figures_text, other_name, own_name
from napari_cellda.ui.panels import verdict
from napari_cellda.ui.runs import RunWatch
from napari_cellda.ui.state import Session
from painting import WAIT_MS

CARDS = {
    "cks": ModelCard("cks", "cks", output_kind="instances"),
    "style": ModelCard(
        "style",
        "style",
        output_kind="classes",
        n_outputs=3,
        training={"classes": ["background", "mito", "membrane"]},
    ),
    "sup": ModelCard("sup", "sup"),
}


@dataclass
class Inputs:
    """A stand-in for a run that has target images."""

    path: Path

    def input_path(self, role: str) -> Path:
        assert role == "target_images"
        return self.path.resolve()


@dataclass
class Steps:
    """A stand-in for a run's network: the grey value of a pixel is its class."""

    network: Any
    channels: Channels = "grey"
    endless: bool = False

    def compute(self, image, stack, folder, *, normalisation=None, stop=lambda: False):
        card = self.network.card
        n_classes = card.n_outputs if card.output_kind == "classes" else 2
        shape = (n_classes, *image.label_shape)
        maps = stack.enter_context(scratch_array(shape, np.float32, folder))
        pieces: list[Region] = [
            piece for t in range(image.n_times) for piece in grid(image.limits, (1, 32, 32), t)
        ]
        yield Stage("Stand-in", len(pieces))
        for done, piece in enumerate(pieces, 1):
            while self.endless and not stop():
                yield Step(done)
            block = image.read(piece)[0]
            write_region(image, maps, piece, np.stack([block == k for k in range(n_classes)]))
            yield Step(done)
        return Maps(maps)


@pytest.fixture
def viewer() -> Iterator[ViewerModel]:
    viewer = ViewerModel()
    cells = np.zeros((40, 50), np.uint8)
    cells[5:15, 5:15] = cells[5:15, 25:35] = cells[20:30, 20:30] = 1
    viewer.add_image(cells, name="cells")
    yield viewer
    Session.of(viewer).close()


@pytest.fixture
def judge(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> verdict.Verdict:
    monkeypatch.setattr(verdict, "_has_model", lambda folder: True)
    monkeypatch.setattr(verdict, "run_card", lambda folder: CARDS[folder.name])
    monkeypatch.setattr(
        judging, "open_run", lambda folder, trusted: Steps(SimpleNamespace(card=CARDS[folder.name]))
    )
    begun = datetime(2026, 1, 1)
    for name in CARDS:
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "rdf.yaml").touch()
    lines = [
        RunLine(tmp_path / "cks", "cks", "done", {}, begun),
        RunLine(tmp_path / "sup", "supervised", "done", {}, begun, bound="target-only"),
    ]
    monkeypatch.setattr(table, "list_runs", lambda root: lines)
    judge = verdict.Verdict(Session.of(viewer))
    qtbot.addWidget(judge)
    return judge


def open_run(judge: verdict.Verdict, name: str, tmp_path: Path) -> RunWatch:
    run = RunWatch(judge.session, tmp_path / name)
    run.view = RunView("done")
    judge.show_run(run)
    return run


def pick(box: Any, text: str) -> None:
    box.setCurrentIndex(box.findText(text))
    assert box.currentText() == text


def entries(box: Any) -> list[str]:
    return [box.itemText(index) for index in range(box.count())]


def done(judge: verdict.Verdict, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not judge.work.running, timeout=WAIT_MS)


def test_the_lists_follow_the_viewer_and_keep_what_is_chosen(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    open_run(judge, "sup", tmp_path)
    assert entries(judge.image) == ["cells"]
    assert entries(judge.truth) == ["none"]
    added = viewer.add_image(np.zeros((4, 4)), name="new")
    mask = viewer.add_labels(np.zeros((40, 50), int), name="mask")
    viewer.add_labels(
        np.zeros((40, 50), int), name="picture", metadata={"napari-cellda": {"role": "preview:a"}}
    )
    qtbot.waitUntil(lambda: entries(judge.truth) == ["none", "mask"], timeout=WAIT_MS)
    assert entries(judge.image) == ["new", "cells"]
    assert judge.image.currentText() == "cells"
    pick(judge.truth, "mask")
    mask.name = "truth"
    qtbot.waitUntil(lambda: judge.truth.currentText() == "truth", timeout=WAIT_MS)
    viewer.layers.remove(added)
    qtbot.waitUntil(lambda: entries(judge.image) == ["cells"], timeout=WAIT_MS)
    assert judge.truth.currentText() == "truth"
    viewer.layers.remove(mask)
    qtbot.waitUntil(lambda: judge.truth.currentText() == "none", timeout=WAIT_MS)


@pytest.mark.parametrize("source", ["written", "file"])
def test_an_image_that_the_run_was_made_for_is_proposed(
    judge: verdict.Verdict,
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
):
    """Not the topmost one, which may be one of another kind."""
    inside = tmp_path / "sup" / "inputs" / "target_images"
    target = inside if source == "written" else tmp_path / "tissue.tif"
    files = [target / "a_b.tif", target / "b.tif"] if source == "written" else [target]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr("napari_cellda.core.jobs.Run", lambda folder: Inputs(target))
    for name in ("a/b", "b", "fluo 2"):
        layer = viewer.add_image(np.zeros((4, 4)), name=name)
        if source == "file" and name == "b":
            layer._source = Source(path=str(target))
    judge.on.fill()
    assert judge.image.currentText() == "cells"
    open_run(judge, "sup", tmp_path)
    assert judge.image.currentText() == "b"
    if source == "written":
        pick(judge.image, "a/b")
        open_run(judge, "style", tmp_path)
        assert judge.image.currentText() == "a/b"


def test_a_closed_panel_hears_no_more_of_layers(qtbot: QtBot, viewer: ViewerModel):
    panel = verdict.Verdict(Session.of(viewer))
    with qtbot.waitSignal(panel.destroyed):
        panel.deleteLater()
    viewer.add_image(np.zeros((4, 4)), name="new")
    qtbot.wait(20)


def test_classes_of_a_stack_become_a_layer_where_the_image_lies(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    data = np.zeros((2, 5, 40, 50), np.uint8)
    data[0, 1, 5:9], data[1, 4, 30:35] = 1, 2
    place = {"scale": (1, 4, 2, 2), "translate": (0, 3, 7, 9)}
    image = viewer.add_image(data, name="film", axis_labels=("t", "z", "y", "x"), **place)
    open_run(judge, "style", tmp_path)
    assert not judge.instances.isChecked()
    qtbot.waitUntil(lambda: judge.image.findText("film") >= 0, timeout=WAIT_MS)
    pick(judge.image, "film")
    judge.layer.click()
    assert not judge.stop.isHidden()
    done(judge, qtbot)
    assert judge.message.kind == "success", judge.message.text
    labels = viewer.layers["film · style"]
    assert labels._type_string == "labels"
    np.testing.assert_array_equal(labels.data, data)
    np.testing.assert_array_equal(labels.scale, image.scale)
    np.testing.assert_array_equal(labels.translate, image.translate)
    assert list(labels.features["class"]) == ["background", "mito", "membrane"]
    maps = viewer.layers["film · style · membrane map"]
    assert not maps.visible
    np.testing.assert_array_equal(maps.data, data == 2)
    assert judge.stop.isHidden()
    assert not judge.layer.isHidden()


def test_objects_of_a_layer_are_numbered_and_come_with_their_table(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    open_run(judge, "cks", tmp_path)
    assert judge.instances.isChecked()
    judge.layer.click()
    done(judge, qtbot)
    labels = viewer.layers["cells · cks"]
    assert set(np.unique(labels.data)) == {0, 1, 2, 3}
    assert list(labels.features["area"]) == [100, 100, 100]
    assert "3 in all" in judge.message.text
    judge.layer.click()
    done(judge, qtbot)
    assert viewer.layers["cells · cks"] is labels
    assert len([layer for layer in viewer.layers if layer._type_string == "labels"]) == 2


def test_planes_are_no_channels_to_a_run_on_grey_images(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    cells = viewer.layers["cells"].data
    viewer.add_image(np.stack([cells] * 3), name="stack")
    qtbot.waitUntil(lambda: judge.image.findText("stack") >= 0, timeout=WAIT_MS)
    open_run(judge, "sup", tmp_path)
    pick(judge.image, "stack")
    judge.layer.click()
    done(judge, qtbot)
    np.testing.assert_array_equal(viewer.layers["stack · sup"].data, np.stack([cells] * 3))


def test_channels_between_planes_are_in_the_way_of_nothing(
    judge: verdict.Verdict,
    qtbot: QtBot,
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    first = Steps(SimpleNamespace(card=CARDS["style"]), channels=(0,))
    monkeypatch.setattr(judging, "open_run", lambda folder, trusted: first)
    data = np.zeros((3, 2, 40, 50), np.uint8)
    data[0, 0, 5:9], data[2, 0, 30:35] = 1, 2
    place = {"scale": (5, 1, 2, 2), "translate": (3, 0, 7, 9)}
    image = viewer.add_image(data, name="film", axis_labels=("t", "c", "y", "x"), **place)
    session = judge.session
    painted = choose_image(session, default_choice(image))
    assert painted is not None
    open_run(judge, "style", tmp_path)
    qtbot.waitUntil(lambda: judge.image.findText("film") >= 0, timeout=WAIT_MS)
    pick(judge.image, "film")
    judge.layer.click()
    done(judge, qtbot)
    assert judge.message.kind == "success", judge.message.text
    applied = viewer.layers["film · style"]
    np.testing.assert_array_equal(applied.data, np.repeat(data[:, :1], 2, axis=1))
    qtbot.waitUntil(lambda: judge.truth.findText(applied.name) >= 0, timeout=WAIT_MS)
    pick(judge.truth, applied.name)
    judge.compare.click()
    done(judge, qtbot)
    assert judge.message.text == ""
    assert [one.dice for one in judge.figures] == [1]
    compared = viewer.layers["Compare · style"]
    np.testing.assert_array_equal(compared.data, applied.data)
    np.testing.assert_array_equal(compared.scale, image.scale)
    np.testing.assert_array_equal(compared.translate, image.translate)
    take_over(session, applied, foreground_only=True)
    qtbot.waitUntil(lambda: np.count_nonzero(painted.strokes_array) == 450, timeout=WAIT_MS)
    np.testing.assert_array_equal(painted.strokes_array > 0, data[:, 0] > 0)


def test_a_stop_adds_nothing(
    judge: verdict.Verdict,
    qtbot: QtBot,
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    card = SimpleNamespace(card=CARDS["sup"])
    monkeypatch.setattr(judging, "open_run", lambda folder, trusted: Steps(card, endless=True))
    open_run(judge, "sup", tmp_path)
    judge.layer.click()
    qtbot.waitUntil(lambda: judge.status.text() == "Stand-in…", timeout=WAIT_MS)
    judge.stop.click()
    assert judge.status.text() == "Stopping…"
    done(judge, qtbot)
    assert judge.message.text == "Stopped; no layer was added."
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_objects_are_compared_as_objects_and_bounds_have_their_names(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    truth = viewer.layers["cells"].data.astype(np.int32)
    truth[:20, 25:] *= 2
    truth[20:] *= 3
    viewer.add_labels(truth, name="truth")
    open_run(judge, "cks", tmp_path)
    qtbot.waitUntil(lambda: judge.other.count() == 2, timeout=WAIT_MS)
    pick(judge.other, "sup (target-only)")
    pick(judge.truth, "truth")
    judge.list_runs()
    qtbot.wait(50)
    assert judge.other.currentText() == "sup (target-only)"
    judge.compare.click()
    done(judge, qtbot)
    assert judge.message.text == ""
    other, own = judge.figures
    assert (other.name, own.name) == ("target-only", "cks")
    assert own.ap50 == own.instance_dice == pytest.approx(1)
    assert "AP50" in judge.table.text()
    assert viewer.layers["Compare · cks"]._type_string == "labels"


@pytest.mark.parametrize("channels", ["all", (0, 2)])
def test_a_forest_of_other_channels_is_left_out(
    judge: verdict.Verdict,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    channels: Any,
):
    spec = FeatureSpec()
    forest: Any = SimpleNamespace(feature_names=spec.names(3))
    classifier = PixelClassifier(spec, "zscore", channels, ("background", "cells"), forest)
    monkeypatch.setattr(judge, "_session_pipeline", lambda: Pipeline(classifier))
    open_run(judge, "sup", tmp_path)
    judge.compare.click()
    done(judge, qtbot)
    assert [one.name for one in judge.figures] == ["sup"]
    assert judge.message.kind == "warning"
    assert judge.message.text == (
        "Your own map is left out: its forest was trained on other channels than those of 'cells'."
    )


def test_a_mask_of_another_shape_is_named(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    viewer.add_labels(np.zeros((3, 3), int), name="small")
    open_run(judge, "style", tmp_path)
    pick(judge.truth, "small")
    judge.compare.click()
    assert judge.message.text == "The mask 'small' has shape (3, 3), but 'cells' needs (40, 50)."


def test_a_run_that_is_gone_is_told(
    judge: verdict.Verdict, qtbot: QtBot, viewer: ViewerModel, tmp_path: Path
):
    run = open_run(judge, "sup", tmp_path)
    judge.keep.click()
    assert judge.message.text.startswith("Kept: ")
    shutil.rmtree(run.folder)
    gone = f"The run's folder '{run.folder}' is gone."
    images = tmp_path / "images"
    for act in (
        judge.keep.click,
        judge.compare.click,
        judge.layer.click,
        lambda: judge.apply(images, tmp_path / "results"),
    ):
        judge.message.clear()
        act()
        done(judge, qtbot)
        assert judge.message.text == gone


@pytest.mark.parametrize("error", [UserError("It is at work."), RuntimeError("no such device")])
def test_a_run_that_cannot_be_discarded_stays_in_sight(
    judge: verdict.Verdict,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    run = open_run(judge, "sup", tmp_path)
    discarded: list[bool] = []
    judge.discarded.connect(lambda: discarded.append(True))

    def refuse(folder: Path) -> None:
        raise error

    monkeypatch.setattr(table, "delete_run", refuse)
    judge.discard_run()
    assert not judge.isEnabled()
    qtbot.waitUntil(judge.isEnabled, timeout=WAIT_MS)
    assert str(error) in judge.message.text
    assert judge.run is run
    assert not judge.isHidden()
    monkeypatch.setattr(table, "delete_run", shutil.rmtree)
    judge.discard_run()
    qtbot.waitUntil(judge.isHidden, timeout=WAIT_MS)
    assert not run.folder.exists()
    qtbot.waitUntil(lambda: discarded == [True], timeout=WAIT_MS)


def test_another_run_that_is_gone_is_told_by_its_own_name(tmp_path: Path):
    with pytest.raises(UserError, match="gone"):
        judging.open_run(tmp_path / "other", frozenset())


def test_names_and_figures():
    begun = datetime(2026, 1, 1)
    line = RunLine(Path("a"), "supervised", "done", {}, begun, bound="source-only")
    assert other_name(line, "run") == "source-only"
    assert other_name(line, "source-only") == "a"
    assert own_name("forest") == "run forest"
    assert own_name("cks") == "cks"
    plain = MapFigures("run", 0.5, 0.5, 1)
    assert "not how right" in figures_text([plain])
    assert "Press" not in figures_text([plain])
    assert "Press <b>Y</b> to see the next map." in figures_text([plain, plain])
    several = MapFigures("run", 0.5, 0.5, 1, 0.75, 0.6, {"<mito>": 0.5, "membrane": 1})
    text = figures_text([plain, several])
    assert "Dice &lt;mito&gt;" in text
    assert "Not scored, having other classes: run." in text
    objects = MapFigures("run", 0.5, 0.5, 1, 0.75, 0.6, ap50=float("nan"), instance_dice=0.25)
    assert "AP50" in figures_text([objects])
    assert "–" in figures_text([objects])
