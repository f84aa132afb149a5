"""Every method from the command line, end to end: adapt, predict, evaluate, and other programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_cellda.cli import main
from napari_cellda.core.adaptation.run import inputs_of
from napari_cellda.core.jobs import Run
from napari_cellda.core.nets.cks import CksPrincipal
from napari_cellda.core.samples import nuclei_field

SHAPE = (64, 64)
UNET = {"steps": 4, "crop": 32, "batch": 1, "width": 4, "depth": 2}
SETTINGS = {
    "pseudo-label": {**UNET, "preview_every": 2},
    "culpico": {**UNET, "warmup": 1, "validate_every": 2},
    "cellseguda": {**UNET, "validate_every": 2},
    "cellsegssda": {**UNET, "validate_every": 2},
    "stylefilter": {**UNET, "steps": 8, "validate_every": 2, "style_crop": 32, "style_width": 4,
                    "style_blocks": 1, "patches": 8},
    "cks": {"steps": 2, "crop": 64, "batch": 1, "validate_every": 1, "pyramid": 16, "head": 1,
            "features": 8, "drawing": 16, "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
}  # fmt: skip
QUICK = ("culpico", "stylefilter", "cks")
"""The others pack a network of the same kind as `supervised`, which test_cli_adapt.py covers."""
METHODS = [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in SETTINGS]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(autouse=True)
def quick_packages(request, monkeypatch):
    """Leave ONNX weights out of packages unless there is time: exporting them takes the longest.

    Torch then computes in full precision, as onnxruntime and other programs do.
    """
    if not request.config.getoption("--runslow"):
        request.getfixturevalue("without_onnx")
        monkeypatch.setattr("napari_cellda.core.modelzoo.network.has_bfloat16", lambda: False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three annotated fields of one look and three of another, with all that goes with them."""
    root = tmp_path_factory.mktemp("data")
    for look, name in (("a", "source"), ("b", "target")):
        for i in range(3):
            write_field(root / name, f"f{i}", look, i)
    (root / "classes.csv").write_text("image,nucleus\nf0,1\nf1,1\nf2,1\n")
    return root


def write_field(folder, name, look, seed):
    sample = nuclei_field(SHAPE, seed, look)
    labels = np.asarray(sample.labels).astype(np.uint16)
    p = np.clip((labels > 0) * 0.8 + 0.1, 0, 1).astype(np.float32)
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[10:50:8] = np.where(labels[10:50:8] > 0, 2, 1)
    for kind, array, suffix in (
        ("images", sample.image.reshape(*SHAPE, -1).mean(axis=-1).astype(np.uint8), ""),
        ("masks", labels, ""),
        ("classes", (labels > 0).astype(np.uint8), ""),
        ("strokes", strokes, ""),
        ("nuclei", (200 * p).astype(np.uint8), ""),
        ("maps", np.stack([1 - p, p]), "_probability"),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / kind / f"{name}{suffix}.tif", array)
    (folder / "points").mkdir(exist_ok=True)
    ids = np.unique(labels[labels > 0])
    rows = [f"{y:.1f},{x:.1f}" for y, x in (np.argwhere(labels == k).mean(axis=0) for k in ids)]
    (folder / "points" / f"{name}.csv").write_text("\n".join(["row,col", *rows]) + "\n")


def words_of(method, data):
    source = ["--source-images", data / "source/images", "--source-masks", data / "source/masks"]
    classes = ["--source-images", data / "source/images", "--source-masks", data / "source/classes"]
    given = {
        "pseudo-label": ["--pseudo-labels", data / "target/maps"],
        "cellsegssda": [*source, "--target-strokes", data / "target/strokes"],
        "stylefilter": [*classes, "--image-labels", data / "classes.csv"],
        "cks": ["--points", data / "target/points", "--diameter", 14],
    }.get(method, source)
    settings = [w for k, v in SETTINGS[method].items() for w in ("--set", f"{k}={json.dumps(v)}")]
    images = ["--target-images", data / "target/images", "--device", "cpu"]
    return ["adapt", method, *images, *given, *settings]


@pytest.mark.filterwarnings("ignore")  # bioimageio.core leaves files open
@pytest.mark.parametrize("method", METHODS)
def test_a_method_from_images_to_scores_and_to_other_programs(method, data, tmp_path, capsys):
    out, results = tmp_path / "run", tmp_path / "results"
    assert run(*words_of(method, data), "-o", out) == 0
    assert Run(out).state == "done"
    objects = ["--instances"] if method == "cks" else []
    assert run("predict", out, data / "target/images", *objects, "-o", results) == 0
    found = tifffile.imread(results / "f0_probability.tif")
    assert found.shape == (2, *SHAPE)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert set(np.unique(tifffile.imread(results / "f0_mask.tif"))) <= {0, 1}
    capsys.readouterr()
    kind = ["--kind", "instances"] if objects else []
    truth = ["--reference", data / "target/masks"]
    assert run("evaluate", "--prediction", results, *truth, *kind, "-o", tmp_path / "s.json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert len(scores["images"]) == 3
    assert run("models", "check", out / "model") == 0
    theirs = other_program(out / "model", data / "target/images/f0.tif")
    np.testing.assert_allclose(theirs, found[1], atol=1e-4)


def other_program(package, path):
    """What bioimageio.core makes of an image: its test passes, and the foreground map."""
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.core import Sample, Tensor

    summary = core.test_description(package / "rdf.yaml", format_version="latest")
    assert summary.status == "passed", summary.format()
    pixels = tifffile.imread(path).astype(np.float32)[None, None]
    given = Tensor.from_numpy(pixels, dims=["batch", "channel", "y", "x"])
    with core.create_prediction_pipeline(core.load_description(package / "rdf.yaml")) as pipeline:
        sample = Sample(members={"input": given}, stat={}, id="f0")
        return np.asarray(pipeline.predict_sample_without_blocking(sample).members["output"].data)[
            0, 0
        ]


def test_points_may_be_found_in_images_of_the_nuclei(data, tmp_path):
    words = [w for w in words_of("cks", data) if w not in ("--points", data / "target/points")]
    words += ["--nuclei-images", data / "target/nuclei"]
    assert run(*words, "--set", "steps=1", "--bundle", "-o", tmp_path / "run") == 0
    inputs = inputs_of(Run(tmp_path / "run"))
    assert inputs.nuclei_images == tmp_path / "run/inputs/nuclei_images"
    assert inputs.points is None


def test_the_least_score_may_be_told_to_models_that_find_objects(
    data, tmp_path, capsys, monkeypatch
):
    asked = []
    find = CksPrincipal.find

    def spy(network, x, least_score=None):
        asked.append(least_score)
        return find(network, x, least_score)

    monkeypatch.setattr(CksPrincipal, "find", spy)
    model, images = tmp_path / "run", data / "target/images/f0.tif"
    assert run(*words_of("cks", data), "-o", model) == 0
    asked.clear()
    assert run("predict", model, images, "--least-score", 0.3, "-o", tmp_path / "sure") == 0
    assert run("predict", model, images, "--instances", "-o", tmp_path / "usual") == 0
    assert asked == [0.3, None]
    assert (tmp_path / "sure" / "f0_objects.csv").is_file()
    words = ("predict", "nuclei", images, "--least-score", 0.5, "-o", tmp_path / "none")
    assert run(*words) == 2
    assert "'nuclei' does not find objects by itself" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_cks_without_points_or_nuclei_says_so(data, tmp_path, capsys):
    words = [w for w in words_of("cks", data) if w not in ("--points", data / "target/points")]
    assert run(*words, "-o", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "cks needs one point per cell (--points) or images of the nuclei" in said
    assert not (tmp_path / "run").exists()


MEAGRE = (
    ("supervised", 0, "Nothing is annotated"),
    ("supervised", 1, "show only background"),
    ("supervised", 2, "show no background"),
    ("cellsegssda", 0, "needs masks or strokes"),
)


@pytest.mark.parametrize(("method", "stroke", "sentence"), MEAGRE)
def test_strokes_that_teach_nothing_are_refused(method, stroke, sentence, data, tmp_path, capsys):
    folder = tmp_path / "strokes"
    folder.mkdir()
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[10:14] = stroke
    tifffile.imwrite(folder / "f0.tif", strokes)
    words = words_of(method, data) if method == "cellsegssda" else supervised(data)
    words[words.index("--target-strokes") + 1] = folder
    assert run(*words, "-o", tmp_path / "run") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert "Traceback" not in said


def supervised(data):
    return ["adapt", "supervised", "--target-images", data / "target/images",
            "--device", "cpu", "--target-strokes", "folder"]  # fmt: skip
