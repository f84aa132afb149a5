"""Evaluation of folders and of arrays: what is read, how planes add up, what is said on the way."""

import shutil

import numpy as np
import pytest
import tifffile
import yaml

from napari_cellda.core.compare import Overlaps, variation_of_information
from napari_cellda.core.compare.evaluate import evaluate
from napari_cellda.core.compare.matching import ObjectMatches, instance_dice
from napari_cellda.core.compare.pairing import name_predictions, pair_folders
from napari_cellda.core.compare.parameters import count_parameters
from napari_cellda.core.compare.partition import vi_of
from napari_cellda.core.compare.reading import (
    Scheme,
    check_probability,
    components,
    truth_boundaries,
)
from napari_cellda.core.compare.report import rank, report_html
from napari_cellda.core.compare.scoring import KEYS, object_figures, score_image
from napari_cellda.core.compare.summary import ModelResult, paired_differences
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step, run_quietly
from napari_cellda.core.export.files import write_ome_zarr
from napari_cellda.core.images import image_from_array
from napari_cellda.core.modelzoo.bundled import bundled_folder
from outcomes import outcome

OBJECTS = Scheme("instances", "instances")


def notes(events):
    return [event.text for event in events if isinstance(event, Note)]


@pytest.fixture
def folders(tmp_path):
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder, name, array, **options):
    tifffile.imwrite(folder / name, array, **options)


def square(value=1, shape=(20, 24)):
    mask = np.zeros(shape, np.uint8)
    mask[4:12, 5:15] = value
    return mask


def as_image(array, axes):
    return image_from_array(array, axes, name="arrays")


@pytest.fixture
def stack():
    """Objects that change from plane to plane."""
    rng = np.random.default_rng(1)
    truth = np.kron(rng.integers(0, 4, (3, 4, 5)), np.ones((1, 4, 4), int))
    predicted = np.where(rng.random(truth.shape) < 0.8, truth, 0)
    return predicted, truth


def test_objects_of_a_stack_are_matched_in_3d(stack):
    predicted, truth = stack
    result = run_quietly(
        score_image("s", as_image(predicted, "zyx"), as_image(truth, "zyx"), OBJECTS)
    )
    whole = ObjectMatches.compute(predicted, truth)
    assert result.figures["f1_50"] == whole.at(0.5).f1
    assert result.figures["instance_dice"] == pytest.approx(instance_dice(whole.dice_sums()))
    assert result.figures["vi_split"] == pytest.approx(vi_of(whole.overlaps)[0])
    assert result.size_unit == "pixel³"
    for figures, p, t in zip(result.slices, predicted, truth, strict=True):
        plane = run_quietly(score_image("p", as_image(p, "yx"), as_image(t, "yx"), OBJECTS))
        assert {k: v for k, v in figures.items() if np.isfinite(v)} == pytest.approx(
            {k: v for k, v in plane.figures.items() if np.isfinite(v)}
        )


@pytest.mark.parametrize("axes", ["tyx", "zyx"])
def test_frames_of_a_time_series_have_their_own_objects(stack, axes):
    predicted, truth = stack  # many files do not say which axis is time; one of the two is enough
    result = run_quietly(
        score_image("s", as_image(predicted, "tyx"), as_image(truth, axes), OBJECTS)
    )
    offset = 10 * np.arange(3)[:, None, None]
    apart = [np.where(labels, labels + offset, 0) for labels in (predicted, truth)]
    whole = object_figures([ObjectMatches.compute(*apart)])
    # So has the background of the prediction, which counts as a part of it.
    split, merge = variation_of_information(predicted + offset, apart[1])
    whole |= {"vi_split": split, "vi_merge": merge}
    assert {key: result.figures[key] for key in whole} == pytest.approx(whole)
    assert len(result.classes[1].truth_sizes) == len(np.unique(apart[1])) - 1
    assert result.size_unit == "pixel²"


def test_only_one_plane_is_read_at_a_time():
    class Lazy:
        """Ten planes that are made when they are asked for."""

        shape, dtype, ndim = (10, 16, 16), np.dtype(np.int32), 3
        chunks = (1, 16, 16)
        largest = 0

        def __getitem__(self, index):
            block = np.ones(self.shape, self.dtype)[index]
            Lazy.largest = max(Lazy.largest, block.size)
            return block

    images = [as_image(Lazy(), "zyx") for _ in range(2)]
    events, result = outcome(score_image("s", *images, OBJECTS))
    assert [event.index for event in events] == list(range(1, 11))
    assert result.figures["iou"] == 1
    assert 0 < Lazy.largest <= 16 * 16


@pytest.mark.parametrize("title", ["Checking the files", "Looking at the truth", "Scoring a"])
def test_stopping_writes_nothing(folders, title):
    for i in range(3):
        write(folders / "truth", f"{i}.tif", square())
        write(folders / "pred", f"{i}.tif", square())
    events = []
    task = evaluate(
        {"a": folders / "pred"},
        folders / "truth",
        overlays=folders / "o",
        stop=lambda: Step(2) in events and Stage(title, 3) in events,
    )
    with pytest.raises(StopIteration) as end:
        while True:
            events.append(next(task))
            if events[-1] == Stage(title, 3):
                events = [events[-1]]
    assert end.value.value is None
    assert events == [Stage(title, 3), Step(1), Step(2)]
    assert sorted(p.name for p in folders.iterdir()) == ["pred", "truth"]


def test_a_late_mistake_leaves_no_overlays(folders):
    for i in range(2):
        write(folders / "truth", f"{i}.tif", square())
        write(folders / "pred", f"{i}.tif", square() * (1.0 - 3.0 * i))
    with pytest.raises(UserError, match="-2"):
        run_quietly(evaluate({"a": folders / "pred"}, folders / "truth", overlays=folders / "o"))
    assert sorted(p.name for p in folders.iterdir()) == ["pred", "truth"]


@pytest.mark.parametrize(
    ("values", "kind", "expected", "told"),
    [
        ((1, 1), "semantic", "binary", False),
        ((255, 255), "semantic", "binary", False),
        ((1, 255), "semantic", "binary", False),
        ((1, 2), "semantic", "classes", True),
        ((255, 255), "instances", "binary", True),
        ((1, 2), "instances", "instances", False),
        ((255, 255), "boundary", "binary", False),
        ((1, 2), "boundary", "instances", False),
    ],
)
def test_what_the_truth_is_taken_for(folders, values, kind, expected, told):
    for i, value in enumerate(values):
        write(folders / "truth", f"{i}.tif", square(value))
        write(folders / "pred", f"{i}.tif", square())
    events, result = outcome(evaluate({"a": folders / "pred"}, folders / "truth", kind))
    assert result.scheme.reference_type == expected
    assert bool(notes(events)) == told


def test_many_numbers_are_objects(folders):
    truth = np.arange(600, dtype=np.uint16).reshape(20, 30) // 20
    write(folders / "truth", "a.tif", truth)
    write(folders / "pred", "a.tif", np.ones_like(truth))
    events, result = outcome(evaluate({"a": folders / "pred"}, folders / "truth"))
    assert result.scheme.reference_type == "instances"
    assert "29 numbers" in notes(events)[0]
    assert result.models["a"].mean["recall"] == 1


def test_a_class_without_truth_is_told(folders):
    for i in (1, 2):
        write(folders / "truth", f"{i}.tif", square(i))
        write(folders / "pred", f"{i}.tif", square(2 * i))
    events, result = outcome(
        evaluate({"a": folders / "pred"}, folders / "truth", reference_type="classes")
    )
    assert any("class 4" in text for text in notes(events))
    assert result.scheme.classes == (1, 2)
    # Class 1 was taken for 2 in the first image, class 2 for 4 in the second.
    assert [image.figures["iou"] for image in result.models["a"].images] == [0, 0.5]


def test_large_and_wide_numbers(folders):
    truth = square().astype(np.uint64)
    write(folders / "truth", "a.tif", truth)
    write(folders / "pred", "a.tif", square().astype(np.uint32) * (2**32 - 1))
    result = run_quietly(
        evaluate({"a": folders / "pred"}, folders / "truth", reference_type="classes")
    )
    assert result.models["a"].mean["iou"] == 0
    result = run_quietly(evaluate({"a": folders / "pred"}, folders / "truth", "instances"))
    assert result.models["a"].mean["f1_50"] == 1


def test_probabilities_are_masks(folders):
    probability = np.stack([1.0 - 0.6 * square(), 0.6 * square()]).astype(np.float32)
    write(folders / "pred", "a.tif", probability, imagej=True, metadata={"axes": "CYX"})
    write(folders / "truth", "a.tif", square())
    write(folders / "pred", "b.tif", probability[1])
    write(folders / "truth", "b.tif", square())
    result = run_quietly(evaluate({"a": folders / "pred"}, folders / "truth"))
    assert [image.figures["iou"] for image in result.models["a"].images] == [1, 1]


def test_ome_zarr_and_physical_units(folders):
    truth = square()
    moved = np.roll(truth, 2, axis=1)
    sizes = {"pixel_size": (1.0, 0.5, 0.5), "unit": "micrometer"}
    write_ome_zarr(folders / "truth" / "a.zarr", truth, "yx", labels=True, **sizes)
    write_ome_zarr(folders / "pred" / "a_mask.zarr", moved, "yx", labels=True, **sizes)
    result = run_quietly(evaluate({"a": folders / "pred"}, folders / "truth"))
    (image,) = result.models["a"].images
    assert (image.unit, image.size_unit) == ("micrometer", "micrometer²")
    assert image.figures["hd95"] == 1.0
    assert image.classes[1].truth_sizes.tolist() == [80 * 0.25]


@pytest.mark.parametrize(
    ("units", "expected", "distance"),
    [
        (("um", "um"), "micrometer", 4.0),
        (("um", "nm"), "micrometer", 0.004),
        (("um", None), "pixel", 2.0),
    ],
)
def test_all_images_share_a_unit(folders, units, expected, distance):
    for i, unit in enumerate(units):
        metadata = {"axes": "YX"} | ({"unit": unit} if unit else {})
        options = {"resolution": (0.5, 0.5)} if unit else {}
        write(folders / "truth", f"{i}.tif", square(), imagej=True, metadata=metadata, **options)
        write(folders / "pred", f"{i}.tif", np.roll(square(), 2, axis=1))
    events, result = outcome(evaluate({"a": folders / "pred"}, folders / "truth"))
    images = result.models["a"].images
    assert [image.unit for image in images] == [expected] * 2
    assert images[1].figures["hd95"] == pytest.approx(distance)
    assert bool(notes(events)) == (units[0] != units[1])


def test_pairing(folders):
    pred, truth = folders / "pred", folders / "truth"
    for name in ("b_mask", "a_mask", "a_probability", "c_mask_mask", "a_forest"):
        write(pred, f"{name}.tif", square())
    for name in ("a", "b_mask", "b_instances", "c_mask"):
        write(truth, f"{name}.tif", square())

    def paired(kind="semantic", reference_type=None):
        pairs = pair_folders(pred, truth, kind, reference_type)
        return [(pair.name, pair.predicted.stem, pair.truth.stem) for pair in pairs]

    assert paired() == [
        ("a", "a_mask", "a"),
        ("b", "b_mask", "b_mask"),
        ("c_mask", "c_mask_mask", "c_mask"),
    ]
    assert paired(reference_type="instances")[1] == ("b", "b_mask", "b_instances")
    write(pred, "a_mask.ome.tif", square())
    with pytest.raises(UserError, match=r"a_mask.*a_mask\.ome.*same name|a_mask.ome.*a_mask"):
        paired()


def test_all_lonely_names_are_listed(folders):
    for i in range(30):
        write(folders / "pred", f"p{i}.tif", square())
        write(folders / "truth", f"t{i}.tif", square())
    with pytest.raises(UserError) as caught:
        pair_folders(folders / "pred", folders / "truth", "semantic")
    assert all(f"p{i}" in str(caught.value) and f"t{i}" in str(caught.value) for i in range(30))


def test_names_of_predictions(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert name_predictions([f"x={tmp_path}", str(odd)]) == {"x": tmp_path, "a=b": odd}
    for name in ("..", "a/b"):
        with pytest.raises(UserError, match="without slashes"):
            name_predictions([f"{name}=x"])
    with pytest.raises(UserError, match="No prediction"):
        name_predictions([])


def make_result(name, values, n_parameters=None):
    """Score one class of hand-made images, whose foreground covers some of 100 true pixels."""
    images = []
    for i, hits in enumerate(values):
        truth, predicted = np.ones((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
        predicted.flat[:hits] = 1
        pair = as_image(predicted, "yx"), as_image(truth, "yx")
        images.append(run_quietly(score_image(f"i{i}", *pair, Scheme("semantic", "binary"))))
    return ModelResult(name, tuple(images), n_parameters)


def test_paired_differences():
    first, second = make_result("a", [50, 60, 0]), make_result("b", [40, 65, 30])
    found = paired_differences(first, second)
    change = np.array([0.10, -0.05, -0.30])
    assert found["recall"].mean == pytest.approx(change.mean())
    assert found["recall"].std == pytest.approx(change.std())
    assert (found["recall"].better, found["recall"].worse, found["recall"].n) == (1, 2, 3)
    assert found["hd95"].n == 2  # the third is empty in one
    assert found["hd95"].better == 1  # smaller is better
    assert set(found) < set(KEYS)


def test_report_of_models_of_known_size():
    from napari_cellda.core.compare.evaluate import Evaluation

    models = {
        "upper": make_result("upper", [90, 95], 17_000_000),
        "ours": make_result("ours", [80, 40], 34_000_000),
        "unknown": make_result("unknown", [10, 20]),
    }
    evaluation = Evaluation(Scheme("semantic", "binary"), models)
    assert rank(evaluation) == ["i1", "i0"]
    page = report_html(evaluation, upper_bound="upper")
    part = page[page.index("Performance efficiency") : page.index("<h2>Classes")]
    assert "17.00 M" in part
    assert "<td>unknown" not in part
    assert "upper bound upper" in part
    without = Evaluation(Scheme("semantic", "binary"), {"unknown": models["unknown"]})
    assert "Performance efficiency" not in report_html(without)


def test_parameters_are_counted_in_a_package(tmp_path):
    assert count_parameters(tmp_path) is None
    shutil.copytree(bundled_folder("nuclei"), tmp_path / "model")
    found = count_parameters(tmp_path)
    assert found is not None
    assert found > 10_000
    (tmp_path / "run.yaml").write_text("")
    (tmp_path / "predictions").mkdir()
    assert count_parameters(tmp_path / "predictions") == found
    rdf = tmp_path / "model" / "rdf.yaml"
    described = yaml.safe_load(rdf.read_text())
    described["config"]["cellda"]["training"]["parameters"] = 2 * found
    rdf.write_text(yaml.safe_dump(described))
    assert count_parameters(tmp_path) == 2 * found
    rdf.write_text("nonsense")
    assert count_parameters(tmp_path) is None


def test_components_and_boundaries_of_truth():
    mask = np.array([[1, 1, 0, 2], [0, 0, 1, 2]])
    assert components(mask).tolist() == [[1, 1, 0, 3], [0, 0, 2, 3]]
    labels = np.array([[1, 1, 1, 2, 2, 2, 0, 3]])
    assert truth_boundaries(labels).astype(int).tolist() == [[0, 0, 1, 1, 0, 1, 1, 1]]


def test_an_entry_of_a_sum_has_no_picture():
    plane = Overlaps.of(square(), square())
    assert Overlaps.total([plane]).runs is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.2, 1.7], "values from 0.2 to 1.7; expected"),
        ([0.2, np.nan], "values from 0.2 to 0.2 and NaN; expected"),
        ([np.nan, np.nan], "nothing but NaN; expected"),
    ],
)
def test_what_is_no_probability_is_told(values: list[float], told: str):
    block = np.array(values, np.float32).reshape(1, 1, 2)
    image = image_from_array(block[0], "yx", name="x")
    with pytest.raises(UserError, match=rf"'x' holds {told} probabilities in \[0, 1\]"):
        check_probability(block, image)
