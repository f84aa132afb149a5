"""The command line as a user types it: files in, files out, exit codes, one-sentence errors."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import typer

from napari_cellda.cli import main
from napari_cellda.cli.stopping import stop_on_signal
from napari_cellda.cli.support import expand_lists, follow, parse_channels, print_table
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Score, Stage, Step
from napari_cellda.core.modelzoo.bundled import bundled_folder


@pytest.fixture
def field(tmp_path):
    """Two images of bright disks, strokes for the first, and an empty output folder."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :112]
    for number, centre in enumerate([(40, 50), (60, 30)]):
        disk = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 20**2
        pixels = np.clip(disk * 120 + rng.normal(60, 10, disk.shape), 0, 255).astype(np.uint8)
        iio.imwrite(tmp_path / f"cell_{number}.png", pixels)
    strokes = np.zeros((96, 112), np.uint8)
    strokes[4:8, 5:60], strokes[38:42, 40:60] = 1, 2
    tifffile.imwrite(tmp_path / "cell_0_strokes.tif", strokes)
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def classify(field, *more):
    images = (field / "cell_0.png", field / "cell_1.png")
    strokes = field / "cell_0_strokes.tif"
    return run(
        "classify", *images, "--strokes", strokes, "--features", "compact", *more, "-o", field / "o"
    )


def test_classify_writes_every_map_under_the_stem(field):
    assert classify(field, "--instances") == 0
    for stem in ("cell_0", "cell_1"):
        probability = tifffile.imread(field / "o" / f"{stem}_probability.tif")
        mask = tifffile.imread(field / "o" / f"{stem}_mask.tif")
        instances = tifffile.imread(field / "o" / f"{stem}_instances.tif")
        assert probability.shape == (2, 96, 112)
        assert probability.dtype == np.float32
        np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, probability.argmax(axis=0))
        assert instances.dtype == np.uint32
        assert instances.max() >= 1
        table = (field / "o" / f"{stem}_objects.csv").read_text()
        rows = list(csv.DictReader(table.splitlines()))
        assert {"label", "score", "area", "row", "col", "class"} <= set(rows[0])
        assert sum(float(row["area"]) for row in rows) == (instances > 0).sum()


@pytest.fixture
def stack(tmp_path):
    """Two balls in a stack, with strokes in two of its planes."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:6, :60, :70]
    balls = np.zeros((6, 60, 70), bool)
    for centre in ((30, 18), (30, 52)):
        balls |= ((z - 3) * 4) ** 2 + (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 11**2
    pixels = np.clip(balls * 120 + rng.normal(60, 10, balls.shape), 0, 255).astype(np.uint8)
    strokes = np.zeros(balls.shape, np.uint8)
    strokes[1, 4:8, 5:60], strokes[3, 28:32, 14:22], strokes[3, 28:32, 48:56] = 1, 2, 2
    return tmp_path, pixels, strokes, balls


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_a_stack_is_written_along_its_own_axes(stack, axis):
    folder, pixels, strokes, balls = stack
    tifffile.imwrite(folder / "s.tif", pixels, imagej=True, metadata={"axes": f"{axis}YX"})
    tifffile.imwrite(folder / "s_strokes.tif", strokes)
    files = (folder / "s.tif", "--strokes", folder / "s_strokes.tif")
    assert run("classify", *files, "--features", "compact", "--instances", "-o", folder / "o") == 0
    assert tifffile.imread(folder / "o" / "s_probability.tif").shape == (2, 6, 60, 70)
    mask = tifffile.imread(folder / "o" / "s_mask.tif")
    assert (mask == balls).mean() > 0.97
    instances = tifffile.imread(folder / "o" / "s_instances.tif")
    left, right = np.unique(instances[3, 28:32, 14:22]), np.unique(instances[3, 28:32, 48:56])
    assert len(left) == len(right) == 1
    assert left != right
    rows = list(csv.DictReader((folder / "o" / "s_objects.csv").read_text().splitlines()))
    assert len(rows) == instances.max()
    extra = {"Z": "plane", "T": "t"}[axis]
    for row in rows:
        planes = np.nonzero(instances == int(row["label"]))[0]
        where = planes.mean() if axis == "Z" else planes[0]
        assert float(row[extra]) == pytest.approx(where)


def test_strokes_may_drop_an_axis_of_size_1(field):
    pixels = iio.imread(field / "cell_0.png")
    tifffile.imwrite(field / "one.ome.tif", pixels[None], metadata={"axes": "ZYX"})
    strokes = field / "cell_0_strokes.tif"
    assert run("classify", field / "one.ome.tif", "--strokes", strokes, "-o", field / "o") == 0


def test_a_saved_project_predicts_the_same_maps(field):
    assert classify(field, "--save", field / "p.cellda") == 0
    assert run("predict", field / "p.cellda", field / "cell_1.png", "-o", field / "again") == 0
    first = tifffile.imread(field / "o" / "cell_1_probability.tif")
    second = tifffile.imread(field / "again" / "cell_1_probability.tif")
    np.testing.assert_array_equal(first, second)


def test_a_batch_tells_at_its_end_where_the_results_are(field, capsys):
    assert classify(field, "--save", field / "p.cellda") == 0
    assert capsys.readouterr().out == f"The results of 2 images are in {field / 'o'}.\n"
    words = ("predict", field / "p.cellda", field / "cell_0.png")
    assert run(*words, "-o", field / "p") == 0
    assert capsys.readouterr().out == f"The results of 1 image are in {field / 'p'}.\n"
    assert run(*words, field / "cell_1.png", "-o", field / "p") == 0
    told = f"The results of 2 images are in {field / 'p'}, 1 of them from before.\n"
    assert capsys.readouterr().out == told


def test_names_that_the_output_cannot_write_are_escaped(field, monkeypatch):
    """As on Windows, where an output that goes into a file takes the letters of a code page."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "cp1252", write_through=True))
    words = ("--strokes", field / "cell_0_strokes.tif", "--features", "compact")
    assert run("classify", field / "cell_0.png", *words, "-o", field / "細胞") == 0
    told = f"The results of 1 image are in {field}{os.sep}\\u7d30\\u80de."
    assert output.getvalue().decode("cp1252").strip() == told


def test_an_enhancer_runs_on_maps_of_other_programs(field):
    assert classify(field) == 0
    maps = field / "o" / "cell_0_probability.tif"
    assert run("predict", "nuclei", maps, "--channels", "1", "-o", field / "p") == 0
    enhanced = tifffile.imread(field / "p" / "cell_0_probability_probability.tif")
    assert classify(field, "--enhancer", "nuclei") == 0
    np.testing.assert_allclose(enhanced, tifffile.imread(maps), atol=1e-5)


def test_an_enhancer_refuses_an_image(field, capsys):
    assert run("predict", "nuclei", field / "cell_0.png", "-o", field / "p") == 2
    complaint = capsys.readouterr().err
    assert "takes a probability map in [0, 1], but 'cell_0' is uint8" in complaint
    assert "classify --enhancer nuclei" in complaint


def test_ome_zarr_holds_the_same_maps(field):
    zarr = pytest.importorskip("zarr")
    assert classify(field) == 0
    assert classify(field, "--format", "ome-zarr") == 0
    group = zarr.open_group(field / "o" / "cell_0_probability.zarr", mode="r")
    assert group.attrs["ome"]["version"] == "0.5"
    np.testing.assert_array_equal(
        np.asarray(group["0"]), tifffile.imread(field / "o" / "cell_0_probability.tif")
    )


def test_an_enhancer_replaces_its_class_and_keeps_the_forest(field):
    assert classify(field, "--enhancer", "nuclei") == 0
    forest = tifffile.imread(field / "o" / "cell_0_forest.tif")
    enhanced = tifffile.imread(field / "o" / "cell_0_probability.tif")
    assert forest.shape == enhanced.shape
    assert np.abs(forest - enhanced).max() > 0.05
    np.testing.assert_allclose(enhanced.sum(axis=0), 1, atol=1e-5)


def test_a_broken_image_is_named_and_the_others_are_written(field, capsys):
    (field / "broken.tif").write_bytes(b"II*\0 nonsense")
    images = (field / "cell_0.png", field / "broken.tif", field / "cell_1.png")
    strokes = field / "cell_0_strokes.tif"
    assert run("classify", *images, "--strokes", strokes, "-o", field / "o") == 2
    assert "broken.tif" in capsys.readouterr().err
    assert (field / "o" / "cell_1_mask.tif").exists()
    assert not list((field / "o").glob("broken*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["classify"], "Missing"),
        (["classify", "nowhere.png", "--strokes", "s.tif", "-o", "o"], "does not exist"),
        (["predict", "nowhere.cellda", "x.png", "-o", "o"], "nowhere.cellda"),
        (["methods", "nonsense"], "no method 'nonsense'"),
        (["models", "show", "nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    iio.imwrite(tmp_path / "x.png", np.zeros((20, 20), np.uint8))
    assert run(*arguments) == 2
    complaint = capsys.readouterr().err.strip()
    assert sentence in complaint
    assert len(complaint.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_values_that_do_not_exist_are_refused(field, capsys):
    assert classify(field, "--features", "nonsense") == 2
    assert "ilastik" in capsys.readouterr().err
    assert classify(field, "--format", "bmp") == 2
    assert "ome-zarr" in capsys.readouterr().err
    assert classify(field, "--channels", "3") == 2
    assert "channel" in capsys.readouterr().err
    assert classify(field, "--enhancer", "nuclei", "--enhancer-class", "5") == 2
    assert "--enhancer-class is 5" in capsys.readouterr().err
    assert not (field / "o").exists()


IMAGES = {
    "rgba": (np.uint8, (48, 52, 4)),
    "bool": (np.bool_, (48, 52)),
    "u16": (np.uint16, (48, 52)),
    "i32": (np.int32, (48, 52)),
    "f64": (np.float64, (48, 52)),
    "big": (np.dtype(">u2"), (48, 52)),
    "thin": (np.uint8, (3, 5000)),
    "tiny": (np.uint8, (2, 3)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_every_kind_work(name, tmp_path):
    dtype, shape = IMAGES[name]
    pixels = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    byte_order = ">" if np.dtype(dtype).byteorder == ">" else None
    colour = {"photometric": "rgb"} if len(shape) == 3 else {}
    tifffile.imwrite(tmp_path / "x.tif", pixels, byteorder=byte_order, **colour)
    strokes = np.zeros(shape[:2], np.uint8)
    strokes[0], strokes[-1] = 1, 2
    tifffile.imwrite(tmp_path / "x_strokes.tif", strokes)
    files = (tmp_path / "x.tif", "--strokes", tmp_path / "x_strokes.tif")
    out = tmp_path / "o"
    assert run("classify", *files, "--features", "compact", "--instances", "-o", out) == 0
    assert tifffile.imread(out / "x_mask.tif").shape == shape[:2]


@pytest.mark.parametrize(
    ("fill", "note"), [(7.0, "is constant"), (np.nan, "48 pixels that are NaN or infinite")]
)
def test_what_is_odd_in_an_image_is_noted(fill, note, tmp_path, capsys):
    pixels = np.full((48, 48), 7, np.float32)
    if fill != 7:
        pixels = np.random.default_rng(0).random((48, 48), np.float32)
        pixels[20] = fill
    strokes = np.zeros((48, 48), np.uint8)
    strokes[2, 5:40], strokes[40, 5:40] = 1, 2
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    tifffile.imwrite(tmp_path / "x_strokes.tif", strokes)
    files = (tmp_path / "x.tif", "--strokes", tmp_path / "x_strokes.tif")
    assert run("classify", *files, "-o", tmp_path / "o") == 0
    assert capsys.readouterr().err.count(note) == 1
    if fill != 7:
        assert not tifffile.imread(tmp_path / "o" / "x_mask.tif")[20].any()


def strokes_of(*values, shape=(96, 112)):
    strokes = np.zeros(shape, np.uint8)
    for row, value in enumerate(values, 1):
        strokes[10 * row, 5:40] = value
    return strokes


@pytest.mark.parametrize(
    ("strokes", "sentence"),
    [
        (strokes_of(), "No strokes were found for 'cell_0'"),
        (strokes_of(2), "hold only the value 2"),
        (strokes_of(1, 2, shape=(60, 60)), "have shape (60, 60), but the image needs (96, 112)"),
        (strokes_of(1, 9), "holds the value 9"),
    ],
)
def test_unusable_strokes_write_nothing(field, strokes, sentence, capsys):
    tifffile.imwrite(field / "cell_0_strokes.tif", strokes)
    assert classify(field) == 2
    assert_one_sentence(capsys, sentence)
    assert not (field / "o").exists()


def assert_one_sentence(capsys, part):
    complaint = capsys.readouterr().err.strip()
    assert part in complaint
    assert len(complaint.splitlines()) == 1


def test_places_that_cannot_be_written_are_named(field, capsys):
    (field / "file").write_text("")
    images = (field / "cell_0.png", "--strokes", field / "cell_0_strokes.tif")
    assert run("classify", *images, "--features", "compact", "-o", field / "file") == 2
    assert_one_sentence(capsys, "a file is in the way")
    assert classify(field, "--save", field / "file" / "p.cellda") == 2
    assert_one_sentence(capsys, "a file is in the way")
    assert classify(field, "--save", field / "p.txt") == 2
    assert_one_sentence(capsys, "a project's name ends in .cellda")
    assert classify(field, "--enhancer", "") == 2
    assert_one_sentence(capsys, "No model was named")
    assert classify(field, "--seed", "-1") == 2
    complaint = capsys.readouterr().err
    assert "--seed" in complaint
    assert "-1" in complaint
    assert "Input should" not in complaint
    assert not (field / "o").exists()


def test_interrupted_work_leaves_nothing(field, monkeypatch):
    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("napari_cellda.core.pipeline.write_region", interrupt)
    assert classify(field) == 130
    assert list((field / "o").iterdir()) == []


def test_only_a_second_ctrl_c_ends_at_once():
    """A launcher of several processes sends on the SIGTERM that each has got already."""
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("it would have been killed"))
    try:
        with pytest.raises(typer.Exit), stop_on_signal() as stop:
            assert not stop()
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
                assert stop()
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(KeyboardInterrupt), stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)


def test_a_damaged_model_is_not_sound(tmp_path, capsys):
    shutil.copytree(bundled_folder("nuclei"), tmp_path / "copy")
    for name in ("weights.pt", "weights.onnx"):
        path = tmp_path / "copy" / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run("models", "check", tmp_path / "copy") == 2
    assert "is not sound" in capsys.readouterr().err
    assert run("models", "check", "nuclei") == 0


def test_models_are_listed_and_shown(capsys):
    assert run("models", "list") == 0
    assert "nuclei" in capsys.readouterr().out
    assert run("models", "show", "nuclei") == 0
    assert "nuclei" in json.loads(capsys.readouterr().out)["made for"]
    assert run("methods") == 0


@pytest.mark.parametrize("module", ["napari_cellda", "napari_cellda.cli"])
def test_the_installed_command_answers(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("napari-cellda ")


def test_lists_are_spread_over_their_option():
    typed = ["classify", "a.tif", "--strokes", "s.tif", "t.tif", "-o", "out"]
    meant = ["classify", "a.tif", "--strokes", "s.tif", "--strokes", "t.tif", "-o", "out"]
    assert expand_lists(typed) == meant
    assert expand_lists(meant) == meant
    typed = ["classify", "--strokes", "s.tif", "a.tif", "b.tif", "-o", "out"]
    assert expand_lists(typed) == typed


def test_names_with_brackets_are_shown_as_they_are(capsys, monkeypatch):
    name = "slide [dapi][/old] :cat:.tif"

    def task():
        yield Stage(f"Read {name}", 1)
        yield Step(1)
        yield Note(f"Skipped: {name}")
        yield Score(name, 0.5)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    follow(task())
    print_table([{name: name}])
    print_table([], name)
    shown = capsys.readouterr()
    assert shown.out.count(name) == 3
    assert f"Skipped: {name}\n" in shown.err
    assert f"{name}: 0.5" in shown.err
    assert f"Read {name}" in shown.err


def test_a_log_tells_how_far_a_run_is_but_not_at_every_step(capsys, monkeypatch):
    def task():
        yield Stage("Train", 3000)
        for index in range(1, 121):
            clock[0] += 1.0
            yield Step(index, {"total": 0.25, "contrast": 0.125})
        yield Score("validation dice", 0.0581, 120)
        yield Stage("Look")
        clock[0] += 60.0
        yield Step(7)

    clock = [100.0]
    monkeypatch.setattr("napari_cellda.cli.support.time.monotonic", lambda: clock[0])
    follow(task())
    assert capsys.readouterr().err.splitlines() == [
        "Train: step 30 of 3000 after 0:00:30, total 0.25, contrast 0.125",
        "Train: step 60 of 3000 after 0:01:00, total 0.25, contrast 0.125",
        "Train: step 90 of 3000 after 0:01:30, total 0.25, contrast 0.125",
        "Train: step 120 of 3000 after 0:02:00, total 0.25, contrast 0.125",
        "step 120 of 3000, validation dice: 0.0581",
        "Look: step 7 after 0:03:00",
    ]


def test_channels_are_read():
    assert parse_channels(None) is None
    assert parse_channels("all") == "all"
    assert parse_channels("0,2") == (0, 2)
    with pytest.raises(UserError, match="'red'"):
        parse_channels("red")
