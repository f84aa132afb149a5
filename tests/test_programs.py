"""A model that is a program: refused wherever it turns up, and run after a yes to this file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cellda.cli import main
from napari_cellda.core.adaptation.inputs import AdaptInputs
from napari_cellda.core.adaptation.project_maps import project_maps
from napari_cellda.core.adaptation.run import begin_adaptation, run_adaptation
from napari_cellda.core.compare.models import evaluate_sources
from napari_cellda.core.enhancer_training.begin import begin_network
from napari_cellda.core.enhancer_training.params import EnhancerParams
from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.events import never, run_quietly
from napari_cellda.core.images import open_image
from napari_cellda.core.inspect.trained import check_run
from napari_cellda.core.paths import find_images
from napari_cellda.core.tiles import Region
from napari_cellda.methods import find_method
from programs import make_project


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> tuple[Path, str]:
    return make_project(tmp_path_factory.mktemp("theirs"))


def adapt(*words: object) -> int:
    return main(["adapt", *(str(word) for word in words), "--device", "cpu"])


def test_adapt_refuses_it_before_anything_is_written_and_names_the_hash(theirs, tmp_path, capfd):
    project, digest = theirs
    inputs = ["--target-images", project.parent / "images", "--project", project]
    for trust in ([], ["--trust", "0" * 64]):
        assert adapt("pseudo-label", *inputs, *trust, "-o", tmp_path / "run") == 2
        told = capfd.readouterr().err
        assert "Elsewhere's enhancer was not opened" in told
        assert f"add --trust {digest}." in told
        assert not (tmp_path / "run").exists()


def test_adapt_refuses_classes_that_the_project_has_not(theirs, tmp_path, capfd):
    project, digest = theirs
    words = ["--target-images", project.parent / "images", "--project", project, "--trust", digest]
    assert adapt("pseudo-label", *words, "--classes", "a,b", "-o", tmp_path / "run") == 2
    assert "has the classes class 1, in this order, but a, b are" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def stopped_run(project: Path, digest: str, folder: Path) -> Path:
    """Run until the maps of the project are there, before the first step."""
    inputs = AdaptInputs(target_images=project.parent / "images", project=project)
    settings = {"steps": 2, "crop": 32, "batch": 2, "width": 4, "depth": 2}
    method = find_method("pseudo-label")
    run = begin_adaptation(folder, method, inputs, overrides=settings, trusted={digest})
    maps = folder / "cache" / "maps 1.npy"
    task = run_adaptation(run, find_method, device="cpu", trusted={digest}, stop=maps.is_file)
    assert run_quietly(task) is None
    assert maps.is_file()
    return folder


def test_a_resume_needs_it_only_until_its_maps_are_there(
    theirs, tmp_path, monkeypatch, capfd, without_onnx
):
    run = stopped_run(*theirs, tmp_path / "run")
    assert theirs[1] not in (run / "run.yaml").read_text()  # a yes is nobody else's
    (run / "cache").rename(tmp_path / "maps")
    assert adapt("--resume", "-o", run) == 2
    assert f"add --trust {theirs[1]}." in capfd.readouterr().err
    shutil.rmtree(run / "cache", ignore_errors=True)
    (tmp_path / "maps").rename(run / "cache")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    assert adapt("--resume", "-o", run) == 0
    assert (run / "model" / "rdf.yaml").is_file()


def test_maps_that_a_stop_cut_short_are_made_again(theirs, tmp_path):
    project, digest = theirs
    images = [open_image(path) for path in find_images(project.parent / "images")]
    first, second = (tmp_path / f"maps {i}.npy" for i in range(2))
    assert run_quietly(project_maps(project, images, tmp_path, first.is_file, {digest})) is None
    assert first.is_file()
    assert not second.is_file()
    _, maps = run_quietly(project_maps(project, images, tmp_path, never, {digest}))
    for map_ in maps.values():
        np.testing.assert_allclose(map_.sum(axis=0), 1, atol=1e-5)


def test_maps_of_images_that_went_away_meanwhile_are_not_kept(theirs, tmp_path, monkeypatch):
    project, digest = theirs
    images = [open_image(path) for path in find_images(project.parent / "images")]
    monkeypatch.setattr("napari_cellda.core.adaptation.prepare.exists", lambda path: False)
    with pytest.raises(UserError, match="is not there any more"):
        run_quietly(project_maps(project, images, tmp_path, never, {digest}))
    assert list(tmp_path.glob("*.npy")) == []


def test_compare_asks_before_any_model_predicts(theirs):
    project, digest = theirs
    images, truth = project.parent / "images", project.parent / "truth"
    sources = {"theirs": project}
    with pytest.raises(ProgramRefused) as caught:
        run_quietly(evaluate_sources(sources, images, truth))
    assert caught.value.sha256 == digest
    found = run_quietly(evaluate_sources(sources, images, truth, trusted={digest}))
    assert found is not None
    assert found.models["theirs"].mean["dice"] > 0.2


def test_the_check_without_truth_runs_it_after_a_yes(theirs):
    project, digest = theirs
    image = open_image(project.parent / "images" / "f0.tif")
    region = Region(0, slice(0, 1), slice(0, 64), slice(0, 72))
    with pytest.raises(ProgramRefused):
        check_run(project, image, region)
    assert check_run(project, image, region, {digest})


def test_no_training_begins_from_it_whatever_is_said(theirs):
    package = theirs[0].parent / "elsewhere"
    with pytest.raises(UserError, match="which is no U-Net of ours") as caught:
        begin_network(EnhancerParams(init=str(package)), 2)
    assert not isinstance(caught.value, ProgramRefused)
