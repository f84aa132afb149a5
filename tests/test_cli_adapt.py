"""`adapt` from the command line, as a user types it, on small generated images."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
import yaml

from napari_cellda.cli import main
from napari_cellda.core.adaptation.run import resume_adaptation
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import open_image
from napari_cellda.core.inspect.trained import check_run
from napari_cellda.core.jobs import Run
from napari_cellda.core.modelzoo import package
from napari_cellda.core.samples import nuclei_field
from napari_cellda.core.tiles import Region

SMALL = ["--set", "steps=4", "--set", "crop=32", "--set", "batch=2", "--set", "width=4"]
SHALLOW = ["--set", "depth=2", "--set", "validate_every=2", "--set", "preview_every=2"]
DEVICE = ["--device", "cpu"]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for look, name in (("a", "source"), ("b", "target")):
        for kind in ("images", "masks", "maps"):
            (root / name / kind).mkdir(parents=True)
        for i in range(3):
            sample = nuclei_field((64, 72), i, look)
            grey = sample.image.reshape(64, 72, -1).mean(axis=-1).astype(np.uint8)
            labels = np.asarray(sample.labels).astype(np.uint16)
            p = np.clip((labels > 0) * 0.8 + 0.1, 0, 1).astype(np.float32)
            tifffile.imwrite(root / name / "images" / f"f{i}.tif", grey)
            tifffile.imwrite(root / name / "masks" / f"f{i}.tif", labels)
            tifffile.imwrite(root / name / "maps" / f"f{i}_probability.tif", np.stack([1 - p, p]))
    return root


def source(folders):
    images, masks = folders / "source" / "images", folders / "source" / "masks"
    return ["--source-images", images, "--source-masks", masks]


def target(folders):
    return ["--target-images", folders / "target" / "images"]


@pytest.fixture(scope="module")
def finished(folders):
    out = folders / "finished"
    words = ["adapt", "supervised", *target(folders), *source(folders), *SMALL, *SHALLOW, *DEVICE]
    assert run(*words, "--validation-masks", folders / "target" / "masks", "-o", out) == 0
    return out


def test_a_run_is_a_folder_that_says_what_was_done(finished, folders):
    record = yaml.safe_load((finished / "run.yaml").read_text())
    assert record["method"] == "supervised"
    assert record["params"]["steps"] == 4
    assert {item["role"] for item in record["inputs"]} == {
        "target_images", "source_images", "source_masks", "validation_masks",
    }  # fmt: skip
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [e["index"] for e in events if e["type"] == "Step" and e["losses"]] == [1, 2, 3, 4]
    assert events[-1]["type"] == "End"
    assert not (finished / "cache").exists()
    card = yaml.safe_load((finished / "model" / "rdf.yaml").read_text())
    assert "validation masks" in card["config"]["cellda"]["training"]["selection"]
    assert card["cite"][0]["doi"] == "10.1007/978-3-319-24574-4_28"


def test_pixels_without_a_number_are_told_by_networks_too(finished, tmp_path, capsys):
    pixels = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    pixels[3:5, 7:12] = np.nan
    tifffile.imwrite(tmp_path / "cells.tif", pixels)
    assert run("predict", finished, tmp_path / "cells.tif", "-o", tmp_path / "out") == 0
    assert "'cells' has 10 pixels that are NaN or infinite" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # it leaves files open
def test_predict_gives_what_bioimageio_core_gives(finished, folders, tmp_path):
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.core import Sample, Tensor

    image = folders / "target" / "images" / "f0.tif"
    assert run("predict", finished, image, "-o", tmp_path) == 0
    ours = tifffile.imread(tmp_path / "f0_probability.tif")
    assert ours.shape == (2, 64, 72)
    np.testing.assert_allclose(ours.sum(axis=0), 1, atol=1e-5)
    description = core.load_description(finished / "model" / "rdf.yaml")
    pixels = tifffile.imread(image).astype(np.float32)[None, None, :, :64]  # whole cells
    given = Tensor.from_numpy(pixels, dims=["batch", "channel", "y", "x"])
    with core.create_prediction_pipeline(description) as pipeline:
        sample = Sample(members={"input": given}, stat={}, id="f0")
        theirs = pipeline.predict_sample_without_blocking(sample).members["output"]
    mine = run_on_square(finished, folders, tmp_path, pixels)
    np.testing.assert_allclose(np.asarray(theirs.data)[0, 0], mine[1], atol=1e-4)


def run_on_square(finished, folders, tmp_path, pixels):
    path = tmp_path / "square.tif"
    tifffile.imwrite(path, pixels[0, 0].astype(np.uint8))
    assert run("predict", finished, path, "-o", tmp_path / "square") == 0
    return tifffile.imread(tmp_path / "square" / "square_probability.tif")


def test_a_bundle_can_move_to_another_machine(folders, tmp_path, without_onnx):
    out = tmp_path / "run"
    words = ["adapt", "supervised", *target(folders), *source(folders), *SMALL, *SHALLOW, *DEVICE]
    assert run(*words, "--bundle", "-o", out) == 0
    moved = tmp_path / "elsewhere"
    out.rename(moved)
    record = yaml.safe_load((moved / "run.yaml").read_text())
    assert all(not os.path.isabs(item["path"]) for item in record["inputs"])
    assert run("adapt", "--resume", "-o", moved, *DEVICE) == 0


@pytest.mark.parametrize(("name", "expected"), [("Lauf_ä (2)", "lauf_-2"), ("細胞", "supervised")])
def test_a_run_may_lie_in_a_folder_of_any_name(name, expected, finished, tmp_path, without_onnx):
    out = tmp_path / name
    shutil.copytree(finished, out)
    assert run("adapt", "--resume", "-o", out, *DEVICE) == 0
    assert yaml.safe_load((out / "model" / "rdf.yaml").read_text())["id"] == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--resume", "--set", "steps=9"], "leave out --set"),
        (["--resume", "--seed", "0"], "leave out --seed"),
        (["supervised", "--resume"], "leave out the method"),
        (["--inputs", "."], "add --resume"),
    ],
)
def test_words_that_would_be_ignored_are_refused(words, expected, finished, capsys):
    assert run("adapt", *words, "-o", finished, *DEVICE) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(("word", "value"), [("--seed", "4"), ("--images", "."), ("--set", "a=1")])
def test_an_enhancer_is_resumed_with_what_it_began_with_only(word, value, finished, capsys):
    assert run("enhancer", "train", "--resume", word, value, "-o", finished) == 2
    assert f"leave out {word}" in capsys.readouterr().err


def test_the_command_that_resumes_a_run_is_named(finished, tmp_path, capsys):
    assert run("enhancer", "train", "--resume", "-o", finished) == 2
    said = capsys.readouterr().err
    assert f"is of 'supervised'; resume it with: napari-cellda adapt --resume -o {finished}" in said
    of_enhancer = tmp_path / "run"
    shutil.copytree(finished, of_enhancer)
    text = (of_enhancer / "run.yaml").read_text()
    (of_enhancer / "run.yaml").write_text(text.replace(": supervised", ": enhancer train", 1))
    assert run("adapt", "--resume", "-o", of_enhancer) == 2
    assert f"napari-cellda enhancer train --resume -o {of_enhancer}" in capsys.readouterr().err


def test_moved_inputs_are_found_again(finished, folders, tmp_path, without_onnx):
    run_folder, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished, run_folder)
    for role, place in (
        ("target_images", "target/images"), ("source_images", "source/images"),
        ("source-masks", "source/masks"), ("validation-masks", "target/masks"),
    ):  # fmt: skip
        shutil.copytree(folders / place, data / role)
    assert run("adapt", "--resume", "-o", run_folder, "--inputs", data, *DEVICE) == 0
    (data / "source-masks" / "f0.tif").unlink()
    assert run("adapt", "--resume", "-o", run_folder, *DEVICE) == 2


def test_inputs_that_were_not_moved_are_found_where_they_were(finished, folders, tmp_path):
    run_folder, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished, run_folder)
    record = yaml.safe_load((run_folder / "run.yaml").read_text())
    for item in record["inputs"]:
        if item["role"] == "target_images":
            item["path"] = str(tmp_path / "gone" / "images")
    (run_folder / "run.yaml").write_text(yaml.safe_dump(record))
    data.mkdir()
    with pytest.raises(UserError, match=r"holds no .images. with .* \(target images\).$"):
        resume_adaptation(run_folder, data)
    shutil.copytree(folders / "source" / "images", data / "images")
    with pytest.raises(UserError, match=r"/data/images. is another \(its newest file is '.*'\).$"):
        resume_adaptation(run_folder, data)
    shutil.rmtree(data / "images")
    shutil.copytree(folders / "target" / "images", data / "images")
    resumed = resume_adaptation(run_folder, data)
    assert resumed.input_path("target_images") == data / "images"
    assert resumed.input_path("source_images") == folders / "source" / "images"


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_of_another_training_is_told(name, finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    path = out / "checkpoints" / f"{name}.pt"
    state = torch.load(path, weights_only=True)
    for parts in ({"m": {}}, {**state["parts"], "network": {"weight": torch.zeros(2)}}):
        torch.save({**state, "parts": parts}, path)
        assert run("adapt", "--resume", "-o", out, *DEVICE) == 2
        assert "is of another training: its 'network' does not fit" in capsys.readouterr().err


WRONG = {
    "no method": (["nonsense"], "There is no method 'nonsense'"),
    "no source": (["culpico"], "images of another kind (--source-images); see"),
    "no use": (["pseudo-label", "SOURCE", "MAPS"], "has no use for --source-images"),
    "masks refused": (["culpico", "SOURCE", "TARGET MASKS"], "has no use for --target-masks"),
    "diameter": (["cks-masks", "TARGET MASKS", "--diameter", "0"], "--diameter is 0; expected"),
    "small diameter": (
        ["cks-masks", "TARGET MASKS", "--diameter", "0.001"],
        "from 2 to 72, the longest",
    ),
    "large diameter": (["cks-masks", "TARGET MASKS", "--diameter", "1e6"], "--diameter is 1e+06"),
    "one class twice": (
        ["supervised", "SOURCE", "--classes", "a,b,a"],
        "--classes names 'a' twice",
    ),
    "background": (["supervised", "SOURCE", "--classes", "background,a"], "names 'background'"),
    "channels": (["supervised", "SOURCE", "--channels", "3"], "channel"),
    "setting": (
        ["supervised", "SOURCE", "--set", "steps=-1"],
        "The setting 'steps' of supervised is -1; expected at least 1.",
    ),
    "no number": (["supervised", "SOURCE", "--set", "steps=abc"], "is 'abc'; expected a whole"),
    "not a number": (
        ["supervised", "SOURCE", "--set", "learning_rate=NaN"],
        "is nan; expected a number.",
    ),
    "huge number": (["supervised", "SOURCE", "--set", "steps=1e30"], "expected a smaller number"),
    "no such choice": (
        ["supervised", "SOURCE", "--set", "normalisation=max"],
        "is 'max'; expected 'percentile', 'minmax', 'zscore' or 'dataset'.",
    ),
    "classes": (["culpico", "SOURCE", "--classes", "a,b"], "foreground from background only"),
    "device": (["supervised", "SOURCE", "--device", "foo"], "--device is 'foo'; expected auto"),
    "no such device": (
        ["supervised", "SOURCE", "--device", "mps"],
        "--device is 'mps', but torch finds no such device here; expected auto or cpu.",
    ),
    "style crop": (["stylefilter", "SOURCE", "--set", "style_crop=33"], "multiple of 4"),
    "nothing": (
        ["supervised"],
        "supervised needs annotated images of another kind (--source-images) or masks of",
    ),
    "images alone": (
        ["supervised", "SOURCE IMAGES"],
        "supervised needs masks of the source images (--source-masks)",
    ),
    "no such name": (
        ["supervised", "SOURCE", "--set", "widht=3"],
        "supervised has no setting 'widht'; did you mean width?",
    ),
    "damaged network": (
        ["supervised", "SOURCE", "--pretrained", "JUNK"],
        "junk.pt' cannot be read as a state dict; it is damaged.",
    ),
    "no network": (["supervised", "SOURCE", "--pretrained", "IMAGES"], "no model package"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_sentence_and_leaves_nothing(case, folders, tmp_path, capsys, monkeypatch):
    for backend in ("torch.cuda", "torch.backends.mps"):
        monkeypatch.setattr(f"{backend}.is_available", lambda: False)
    words, expected = WRONG[case]
    junk = tmp_path / "junk.pt"
    junk.write_text("junk")
    given = []
    for word in words:
        given += {
            "SOURCE": source(folders),
            "MAPS": ["--pseudo-labels", folders / "target" / "maps"],
            "TARGET MASKS": ["--target-masks", folders / "target" / "masks"],
            "SOURCE IMAGES": source(folders)[:2],
            "IMAGES": [folders / "source" / "images"],
            "JUNK": [junk],
        }.get(word, [word])
    if "--device" not in given:
        given += DEVICE
    out = tmp_path / "run"
    assert run("adapt", *given, *target(folders), "-o", out) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert said.count("\n") == 0
    assert not out.exists()


@pytest.fixture
def quick(monkeypatch):
    """Leave ONNX weights, which take seconds, out of packages."""
    monkeypatch.setattr(package, "can_export_onnx", lambda: False)


def test_a_run_that_failed_before_its_first_step_is_begun_anew(quick, folders, tmp_path, capsys):
    empty, out = tmp_path / "empty", tmp_path / "run"
    empty.mkdir()
    tifffile.imwrite(empty / "f0.tif", np.zeros((64, 72), np.uint8))
    words = ["adapt", "supervised", *target(folders), *SMALL, *SHALLOW, *DEVICE, "-o", out]
    assert run(*words, "--target-strokes", empty, "--bundle") == 2
    assert "Nothing is annotated" in capsys.readouterr().err
    (out / "my notes.txt").write_text("not of the run")
    assert run(*words, *source(folders)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert Run(out).state == "failed"
    (out / "my notes.txt").unlink()
    assert run(*words, *source(folders)) == 0
    assert Run(out).state == "done"
    assert len([e for e in Run(out).events("Step") if e["losses"]]) == 4
    assert run(*words, *source(folders)) == 2  # of what is done nothing is lost
    assert "is not empty" in capsys.readouterr().err


def test_what_is_taken_of_a_trained_network_is_told_at_once(quick, finished, folders, tmp_path):
    out = tmp_path / "tuned"
    words = ["adapt", "supervised", *target(folders), *source(folders), *SMALL, *DEVICE]
    assert run(*words, "--set", "depth=1", "--pretrained", finished, "-o", out) == 0
    notes = [e["text"] for e in Run(out).events("Note")]
    assert "it has width 4, depth 2; the network here width 4, depth 1" in notes[0]
    kinds = [e["type"] for e in Run(out).events()]
    assert kinds.index("Note") < len(kinds) - 1 - kinds[::-1].index("Stage")
    assert run("adapt", "--resume", "-o", out, *DEVICE) == 0


def test_inputs_that_were_copied_before_do_not_mix_with_others(folders, tmp_path, capsys):
    out = tmp_path / "run"
    old = out / "inputs" / "target_images"
    old.mkdir(parents=True)
    (old / "a.tif").write_bytes((folders / "target" / "images" / "f0.tif").read_bytes())
    words = ["adapt", "supervised", *target(folders), *source(folders), *SMALL, *DEVICE]
    assert run(*words, "--bundle", "-o", out) == 2
    assert f"'{old}' holds 'a.tif', which is not in" in capsys.readouterr().err
    assert [path.name for path in old.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("role", ["validation", "source"])
def test_masks_that_show_nothing_are_named(role, folders, tmp_path, capsys):
    empty = tmp_path / "empty masks"
    empty.mkdir()
    for i in range(3):
        tifffile.imwrite(empty / f"f{i}.tif", np.zeros((64, 72), np.uint8))
    words = source(folders) if role == "validation" else source(folders)[:3]
    words += ["--validation-masks", empty] if role == "validation" else [empty]
    assert run("adapt", "supervised", *target(folders), *words, "-o", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"'{empty}'" in said
    assert ("show no foreground" if role == "validation" else "only background") in said


def test_images_without_masks_are_named(folders, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(4):
        tifffile.imwrite(images / f"f{i}.tif", np.zeros((64, 72), np.uint8))
    words = ["--source-images", images, "--source-masks", folders / "source" / "masks"]
    assert run("adapt", "supervised", *target(folders), *words, "-o", tmp_path / "run") == 2
    assert "f3.tif" in capsys.readouterr().err


def nuclei_images(folder, arrays, names="f{}.tif"):
    folder.mkdir()
    for i, pixels in enumerate(arrays):
        axes = {"axes": "CYX"[-pixels.ndim :]}
        tifffile.imwrite(folder / names.format(i), pixels, imagej=True, metadata=axes)
    return folder


@pytest.mark.parametrize("names", ["f{}.tif", "other {}.tif"])
def test_nuclei_of_another_shape_are_refused(names, folders, tmp_path, capsys):
    nuclei = nuclei_images(tmp_path / "n", [np.zeros((200, 200), np.uint8)] * 3, names)
    words = ["--nuclei-images", nuclei, "--diameter", "14", "-o", tmp_path / "run", *DEVICE]
    assert run("adapt", "cks", *target(folders), *words) == 2
    said = capsys.readouterr().err
    assert f"{names.format(0)}' has shape (200, 200), its target image 'f0' (64, 72)" in said
    assert not (tmp_path / "run").exists()


def test_results_beside_images_are_no_images(finished, folders, tmp_path, capsys):
    from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
    from napari_cellda.core.batch_record import tell_results
    from napari_cellda.methods import find_method

    for name in ("target", "source"):
        shutil.copytree(folders / name / "images", tmp_path / name)
    assert run("predict", finished, tmp_path / "target", "-o", tmp_path / "target") == 0
    for name in ("target", "source"):  # as somebody else would write them, without a record
        shutil.copy(folders / name / "masks" / "f0.tif", tmp_path / name / "f0_instances.tif")
    method = find_method("cks")

    def opened(**more):
        given = AdaptInputs(target_images=tmp_path / "target", **more)
        return open_inputs(given, method)

    both = opened(nuclei_images=tmp_path / "target", diameter=14.0)
    assert [files.image.name for files in both.target] == ["f0", "f1", "f2"]
    assert [files.nuclei.name for files in both.target] == ["f0", "f1", "f2"]
    method = find_method("supervised")
    masks = folders / "source" / "masks"
    annotated = opened(source_images=tmp_path / "source", source_masks=masks)
    assert [image.name for image, _ in annotated.source] == ["f0", "f1", "f2"]
    said = tell_results([tmp_path / "target", tmp_path / "source"])
    assert said.startswith(f"8 files such as '{tmp_path / 'target' / 'f0_instances.tif'}' are left")
    for name in ("f0", "f1", "f2", "f0_instances"):
        (tmp_path / "target" / f"{name}.tif").unlink()
    with pytest.raises(UserError, match="results of a batch"):
        opened(source_images=tmp_path / "source", source_masks=masks)


def test_nuclei_pair_in_order_only_where_no_name_fits(folders, tmp_path, capsys):
    nuclei = nuclei_images(tmp_path / "n", [np.zeros((64, 72), np.uint8)] * 3)
    (nuclei / "f2.tif").rename(nuclei / "e.tif")
    words = ["--nuclei-images", nuclei, "--diameter", "14", "-o", tmp_path / "run", *DEVICE]
    assert run("adapt", "cks", *target(folders), *words) == 2
    assert f"'{nuclei}' has no image named f2; one per target" in capsys.readouterr().err


def test_images_without_any_nucleus_are_named(folders, tmp_path, capsys):
    nuclei = nuclei_images(tmp_path / "n", [np.zeros((64, 72), np.uint8)] * 3)
    words = ["--nuclei-images", nuclei, "--diameter", "14", "-o", tmp_path / "run", *DEVICE]
    assert run("adapt", "cks", *target(folders), *words) == 2
    assert f"No nuclei were found in '{nuclei}'" in capsys.readouterr().err


def test_nuclei_are_found_in_the_channel_that_is_named(folders, tmp_path, capsys):
    from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
    from napari_cellda.core.adaptation.prepare import prepare_domains
    from napari_cellda.core.adaptation.run import begin_adaptation, inputs_of
    from napari_cellda.core.events import run_quietly
    from napari_cellda.methods import find_method

    # Two channels, of which the first shows one bright square that is no nucleus.
    masks = [tifffile.imread(folders / "target" / "masks" / f"f{i}.tif") for i in range(3)]
    square = np.zeros_like(masks[0])
    square[3:9, 3:9] = 1
    stacks = [np.stack([square, m > 0]).astype(np.uint8) * 200 for m in masks]
    nuclei = nuclei_images(tmp_path / "n", stacks)
    words = [*target(folders), "--nuclei-images", nuclei, "--diameter", "14", *DEVICE]
    for channel, said in (
        ([], "f0.tif' has 2 channels; say with --nuclei-channel in which one"),
        (["--nuclei-channel", "2"], "--nuclei-channel is 2, but the nuclei image"),
    ):
        assert run("adapt", "cks", *words, *channel, "-o", tmp_path / "run") == 2
        assert said in capsys.readouterr().err
    method = find_method("cks")
    images = folders / "target" / "images"

    def found(channel):
        given = AdaptInputs(
            target_images=images, nuclei_images=nuclei, nuclei_channel=channel, diameter=14.0
        )
        auto = {"head_start": None}
        begun = begin_adaptation(
            tmp_path / f"run {channel}", method, given, overrides=auto, device="cpu"
        )
        assert f"--nuclei-channel {channel} " in begun.record.command
        assert "--set head_start=null " in begun.record.command
        opened = open_inputs(inputs_of(begun), method)
        task = prepare_domains(opened, method, "zscore", begun.folder / "cache", diameter=14.0)
        return [plane.points for plane in run_quietly(task).target.planes]

    assert [len(one) for one in found(0)] == [1] * 3
    assert sum(len(one) for one in found(1)) > 3


def test_a_nuclei_channel_without_images_is_refused(folders, tmp_path, capsys):
    (tmp_path / "f0.csv").write_text("row,col\n3,4\n")
    words = ["--points", tmp_path, "--diameter", "14", "--nuclei-channel", "0"]
    assert run("adapt", "cks", *target(folders), *words, "-o", tmp_path / "run", *DEVICE) == 2
    assert "--nuclei-channel is given without --nuclei-images" in capsys.readouterr().err


def test_points_outside_and_unknown_images_are_named(folders, tmp_path, capsys):
    from pathlib import Path

    from napari_cellda.core.adaptation.tables import read_image_labels, read_points
    from napari_cellda.core.errors import UserError
    from napari_cellda.core.images import open_image

    images = [open_image(folders / "target" / "images" / "f0.tif")]
    (tmp_path / "f0.csv").write_text("row,col,note\n3,4,a\n99,4,b\n")
    with pytest.raises(UserError, match=r"1 point.* row 99"):
        read_points(tmp_path, images)
    (tmp_path / "f0.csv").write_text("row,col,note\n3,4,a\n")
    assert read_points(tmp_path, images)["f0"].tolist() == [[0, 0, 3, 4]]
    (tmp_path / "table.csv").write_text("image,nucleus,wall\nf0,1,0\nf9,1,1\n")
    with pytest.raises(UserError, match="f9"):
        read_image_labels(Path(tmp_path / "table.csv"), ["f0"])
    (tmp_path / "table.csv").write_text("image,nucleus,wall\nf0.tif,1,0\n")
    assert read_image_labels(Path(tmp_path / "table.csv"), ["f0"]) == (
        ("nucleus", "wall"),
        {"f0": (True, False)},
    )


def test_rows_of_a_table_that_are_wrong_are_named(tmp_path):
    from napari_cellda.core.adaptation.tables import read_image_labels
    from napari_cellda.core.errors import UserError

    path = tmp_path / "table.csv"
    for text, expected in (
        ("image,a,b\nf0,1,0\n\nf1,1\n", "has nothing in line 4, column 3"),
        ("image,a,b\nf0,1,x\n", "has 'x' in line 2, column 3"),
        ("image,a,b\nf0,1,0\nf0.tif,0,1\n", "names 'f0.tif' again in line 3"),
        ("image,a,a\nf0,1,0\n", "two columns 'a'"),
        ("image,a,b\nf0,1,0\nf1,0,2\n", "has 2 for the class 'b' in line 3; expected 0 or 1"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=expected):
            read_image_labels(path, ["f0", "f1"])


def test_images_of_several_channels_are_named_with_the_option(folders, tmp_path, capsys):
    many = tmp_path / "images" / "f0.tif"
    many.parent.mkdir()
    pixels = np.zeros((5, 64, 72), np.uint8)
    tifffile.imwrite(many, pixels, imagej=True, metadata={"axes": "CYX"})
    masks = ["--source-masks", folders / "source" / "masks" / "f0.tif"]
    to = ["-o", tmp_path / "run", *DEVICE]
    assert run("adapt", "supervised", "--target-images", many, *source(folders), *to) == 2
    said = capsys.readouterr().err
    assert f"'{many}' has 5 channels that are not RGB; choose with --channels which" in said
    assert run("adapt", "supervised", *target(folders), "--source-images", many, *masks, *to) == 2
    assert "choose with --source-channels which" in capsys.readouterr().err


def test_two_target_images_of_one_name_are_refused(folders, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("x.png", "x.tif"):
        iio.imwrite(images / name, np.zeros((64, 72), np.uint8))
    words = ["adapt", "supervised", "--target-images", images, *source(folders), *DEVICE]
    assert run(*words, "-o", tmp_path / "run") == 2
    assert f"'{images / 'x.png'}' and '{images / 'x.tif'}'" in capsys.readouterr().err


def test_maps_of_more_classes_say_how_to_name_them(folders, tmp_path, capsys):
    maps = tmp_path / "maps"
    maps.mkdir()
    for i in range(3):
        tifffile.imwrite(maps / f"f{i}_probability.tif", np.full((3, 64, 72), 1 / 3, np.float32))
    words = ["adapt", "pseudo-label", *target(folders), "--pseudo-labels", maps, *DEVICE]
    assert run(*words, "-o", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "has 3 classes, the background included; 2 are expected" in said
    assert "--classes" in said


def test_a_killed_run_joins_the_uninterrupted_one(folders, tmp_path, without_onnx):
    words = [
        sys.executable, "-m", "napari_cellda.cli", "adapt", "supervised",
        *target(folders), *source(folders), *DEVICE, "--set", "steps=120", "--set", "crop=32",
        "--set", "batch=1", "--set", "width=4", "--set", "depth=2", "--set", "validate_every=40",
    ]  # fmt: skip
    out = tmp_path / "killed"
    process = subprocess.Popen([*map(str, words), "-o", str(out)], stderr=subprocess.DEVNULL)
    log = out / "events.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and log.read_text().count('"loss"') > 5):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = losses(log)
    assert 0 < len(before) < 120
    (out / "stop").unlink(missing_ok=True)
    # what was done is done again only from the last checkpoint on, and comes out the same
    assert run("adapt", "--resume", "-o", out, *DEVICE) == 0
    after = losses(log)
    assert [index for index, _ in after] == list(range(1, 121))
    assert after[: len(before)] == before


def test_a_run_stops_while_it_reads_its_images_and_goes_on_with_those_it_read(folders, tmp_path):
    from napari_cellda.core.adaptation.inputs import AdaptInputs
    from napari_cellda.core.adaptation.run import begin_adaptation, run_adaptation
    from napari_cellda.core.events import Note, Step
    from napari_cellda.methods import find_method

    given = AdaptInputs(
        target_images=folders / "target" / "images", target_masks=folders / "target" / "masks"
    )
    tiny = {"steps": 2, "crop": 32, "batch": 1, "width": 4, "depth": 2}
    method = find_method("supervised")
    begun = begin_adaptation(tmp_path / "run", method, given, overrides=tiny, device="cpu")
    seen = []
    task = run_adaptation(
        begun, find_method, device="cpu", stop=lambda: any(isinstance(e, Step) for e in seen)
    )
    seen.extend(task)
    assert seen[-1] == Note("Stopped before the first step, so there is no network.")
    assert begun.state == "stopped"
    kept = begun.folder / "cache" / "target 0" / "0_0.npy"
    read_at = kept.stat().st_mtime_ns
    assert not (begun.folder / "cache" / "target 1").exists()
    resumed = run_adaptation(resume_adaptation(begun.folder), find_method, device="cpu")
    for event in resumed:
        if isinstance(event, Step) and event.losses:
            assert kept.stat().st_mtime_ns == read_at
    assert (begun.folder / "model" / "rdf.yaml").is_file()


def test_maps_of_a_stack_are_read_once(tmp_path, monkeypatch):
    from napari_cellda.core.adaptation import prepare
    from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
    from napari_cellda.core.events import run_quietly
    from napari_cellda.methods import find_method

    images, maps, read = tmp_path / "images", tmp_path / "maps", []
    for folder in (images, maps):
        folder.mkdir()
    p = np.random.default_rng(0).random((5, 40, 48), np.float32)
    stack = (p * 255).astype(np.uint8)
    tifffile.imwrite(images / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(maps / "s_probability.tif", np.stack([1 - p, p]))
    method = find_method("pseudo-label")
    opened = open_inputs(AdaptInputs(target_images=images, pseudo_labels=maps), method)
    read_file = prepare.read_file
    monkeypatch.setattr(prepare, "read_file", lambda path: read.append(path) or read_file(path))
    task = prepare.prepare_domains(opened, method, "zscore", tmp_path / "cache")
    planes = run_quietly(task).target.planes
    assert len(read) == 1
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(plane.pseudo_map, np.stack([1 - p[z], p[z]]))


def losses(log):
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [(e["index"], e["losses"]) for e in events if e["type"] == "Step" and e["losses"]]


STAGES = ["steps=6", "style_share=0.34", "source_share=0.33", "crop=32", "style_crop=32"]
STAGES += ["style_width=4", "style_blocks=1", "patches=8", "width=4", "depth=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "steps"),
    [
        ("supervised", [*SMALL, *SHALLOW], 4),
        ("stylefilter", [word for setting in STAGES for word in ("--set", setting)], 6),
    ],
)
def test_two_processes_train_one_network(method, settings, steps, folders, tmp_path):
    out = tmp_path / "two"
    words = ["adapt", method, *target(folders), *source(folders), *settings, *DEVICE]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        "-m", "napari_cellda.cli", *map(str, words), "-o", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stderr
    assert [index for index, _ in losses(out / "events.jsonl")] == [*range(1, steps + 1)]
    state = torch.load(out / "model" / "weights.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(("colour", "channels"), [(False, "1"), (False, "0,1"), (True, "1")])
def test_a_model_is_applied_to_the_channels_that_it_was_trained_on(
    colour, channels, tmp_path, monkeypatch
):
    monkeypatch.setattr(package, "can_export_onnx", lambda: False)  # takes seconds
    sample = nuclei_field((64, 72), 0, "b")
    grey = sample.image.reshape(64, 72, -1).mean(axis=-1).astype(np.uint8)
    three = np.stack([grey[::-1], grey, grey[:, ::-1]])
    image = np.ascontiguousarray(three.transpose(1, 2, 0)) if colour else three
    for name, array in (("images", image), ("masks", np.asarray(sample.labels, np.uint16))):
        (tmp_path / name).mkdir()
        look = {"photometric": "rgb"} if colour and name == "images" else {}
        axes = {"metadata": {"axes": "CYX"}} if not colour and name == "images" else {}
        tifffile.imwrite(tmp_path / name / "f.tif", array, **look, **axes)
    out, images = tmp_path / "run", tmp_path / "images"
    given = ["--target-images", images, "--target-masks", tmp_path / "masks"]
    words = ["adapt", "supervised", *given, *SMALL, *SHALLOW, *DEVICE]
    assert run(*words, "--channels", channels, "-o", out) == 0

    def probability(name, model, *more):
        assert run("predict", model, images, *more, "--workers", 1, "-o", tmp_path / name) == 0
        return tifffile.imread(tmp_path / name / "f_probability.tif")

    named = probability("named", out, "--channels", channels)
    np.testing.assert_array_equal(probability("unnamed", out), named)
    np.testing.assert_array_equal(probability("package", out / "model"), named)
    others = "2,1" if "," in channels else "2"
    assert np.abs(probability("others", out, "--channels", others) - named).max() > 1e-3

    every = open_image(images / "f.tif", channels="all")
    assert check_run(out / "model", every, Region(0, slice(0, 1), slice(0, 64), slice(0, 72)))

    rdf = out / "model" / "rdf.yaml"
    described = yaml.safe_load(rdf.read_text())
    assert described["config"]["cellda"].pop("channels") == [int(c) for c in channels.split(",")]
    rdf.write_text(yaml.safe_dump(described))  # as packages of a run were before
    np.testing.assert_array_equal(probability("run alone", out), named)
