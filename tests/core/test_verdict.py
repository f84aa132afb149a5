"""Did it help: a model applied to whole images, and several compared, by hand-made maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Step, drive, run_quietly
from napari_cellda.core.images import image_from_array
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.pipeline import Maps
from napari_cellda.core.runs.apply import apply_model, finds_objects
from napari_cellda.core.runs.verdict import Shown, judge, show_models
from napari_cellda.core.tiles import grid


@dataclass
class Thresholds:
    """A stand-in for a network: the grey value of a pixel is its class."""

    n_classes: int = 2
    enhances: bool = False
    channels: str = "grey"

    def compute(self, image, stack, folder, *, normalisation=None, stop=lambda: False):
        shape = (self.n_classes, *image.label_shape)
        probability = stack.enter_context(scratch_array(shape, np.float32, folder))
        for done, piece in enumerate(grid(image.limits, (1, 64, 64)), 1):
            if stop():
                break
            block = image.read(piece)[0]
            for k in range(self.n_classes):
                place = (k, *([piece.z] if "z" in image.axes else []), piece.y, piece.x)
                probability[place] = (block == k).reshape(probability[place].shape)
            yield Step(done)
        forest = np.roll(probability, 1, axis=-1) if self.enhances else None
        return Maps(probability, forest=forest)


def image_of(array, axes="yx"):
    return image_from_array(np.asarray(array), axes, name="cells")


TWO_CELLS = np.zeros((32, 32), np.uint8)
TWO_CELLS[4:12, 4:12] = TWO_CELLS[20:28, 18:30] = 1


def test_classes_and_objects_of_a_stack(tmp_path):
    stack = np.stack([TWO_CELLS, np.zeros_like(TWO_CELLS), 2 * TWO_CELLS])
    maker = Thresholds(3)
    applied = run_quietly(apply_model(maker, image_of(stack, "zyx"), tmp_path, objects=False))
    assert applied.labels.dtype == np.uint8
    np.testing.assert_array_equal(applied.labels, stack)
    assert applied.table is None
    objects = run_quietly(apply_model(maker, image_of(stack, "zyx"), tmp_path, objects=True))
    assert objects.labels.dtype == np.uint32
    np.testing.assert_array_equal(objects.labels > 0, stack > 0)
    assert sorted(objects.table["label"]) == [1, 2, 3, 4]


def test_a_stop_leaves_nothing(tmp_path):
    calls = iter([False, False, True, True, True, True, True])
    task = apply_model(
        Thresholds(), image_of(TWO_CELLS), tmp_path, objects=False, stop=lambda: next(calls, True)
    )
    assert drive(task, lambda event: None) is None


def test_networks_that_find_or_separate_objects_are_known():
    assert finds_objects(ModelCard("a", "a", output_kind="instances"))
    assert finds_objects(ModelCard("a", "a", output_names=("foreground", "boundary")))
    assert not finds_objects(ModelCard("a", "a", output_kind="classes"))


def shown(foreground, labels=None, n_classes=2, scores=None) -> Shown:
    foreground = np.asarray(foreground, np.float32)
    labels = np.asarray(foreground > 0.5, np.uint8) if labels is None else np.asarray(labels)
    return Shown(foreground, labels, n_classes, scores)


def test_figures_by_hand():
    maps = {"forest": shown([[0.9, 0.4, 0.6, 0.0]]), "new": shown([[0.9, 0.8, 0.2, 0.1]])}
    truth = image_of(np.array([[1, 7, 3, 0]]))
    forest, new = run_quietly(judge(maps, "new", truth))
    assert new.agreement == 1
    assert forest.agreement == pytest.approx(2 * 1 / 4)
    assert forest.foreground == new.foreground == 0.5
    assert forest.sure == pytest.approx(0.5)
    assert new.dice == pytest.approx(2 * 2 / (2 + 3))
    assert new.iou == pytest.approx(2 / 3)
    assert new.classes == {}
    assert run_quietly(judge({"tie": shown(np.full((2, 2), 0.5))}, "tie"))[0].foreground == 0
    assert run_quietly(judge(maps, "new"))[0].dice is None


def test_classes_that_are_mixed_up_are_seen():
    truth = np.array([[0, 1, 1, 2]], np.uint8)
    foreground = truth > 0
    maps = {
        "right": shown(foreground, truth, 3),
        "wrong": shown(foreground, np.array([[0, 1, 2, 1]]), 3),
        "other": shown(foreground),
    }
    figures = {
        one.name: one for one in run_quietly(judge(maps, "right", image_of(truth), ["mito"]))
    }
    assert figures["right"].dice == 1
    assert figures["right"].classes == {"mito": 1, "class 2": 1}
    assert figures["wrong"].classes == {"mito": pytest.approx(0.5), "class 2": 0}
    assert figures["wrong"].dice == figures["wrong"].agreement == pytest.approx(0.25)
    assert figures["other"].agreement == 1
    assert figures["other"].dice is None


def test_cells_that_are_merged_are_seen():
    truth = np.zeros((6, 12), np.int32)
    truth[1:5, 1:6], truth[1:5, 6:11] = 1, 2
    merged = (truth > 0).astype(np.uint32)
    maps = {
        "apart": shown(truth > 0, truth, scores={1: 0.9, 2: 0.8}),
        "merged": shown(truth > 0, merged, scores={1: 0.9}),
    }
    apart, one = run_quietly(judge(maps, "apart", image_of(truth)))
    assert (apart.ap50, apart.instance_dice) == (1, 1)
    assert one.dice == 1
    assert one.ap50 == 0
    assert one.instance_dice < 0.8
    binary = run_quietly(judge(maps, "apart", image_of(merged)))
    assert binary[1].ap50 == 1


def test_a_truth_with_unknown_classes_is_refused():
    maps = {"new": shown([[0, 1, 1, 1]], [[0, 1, 2, 2]], 3)}
    truth = image_from_array(np.array([[0, 1, 2, 9]]), "yx", name="nuclei")
    with pytest.raises(UserError, match="'nuclei' holds the number 9, but the run knows the cla"):
        run_quietly(judge(maps, "new", truth))


def test_a_forest_is_shown_beside_what_enhances_it(tmp_path):
    image = image_of(TWO_CELLS)
    makers = [("enhanced", Thresholds(enhances=True)), ("run", Thresholds())]
    found = run_quietly(show_models(makers, image, tmp_path, objects=True))
    assert list(found) == ["forest", "enhanced", "run"]
    assert all(one.picture is one.labels and len(one.scores) == 2 for one in found.values())
    plain = run_quietly(show_models(makers, image, tmp_path))
    assert plain["run"].picture is plain["run"].foreground
    np.testing.assert_array_equal(plain["forest"].labels, np.roll(TWO_CELLS, 1, axis=1))
