"""The same maps from a cluster of separate processes as from this one, bit for bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from napari_cellda.cli import main
from napari_cellda.core import network_pipeline as network_module
from napari_cellda.core import pipeline as pipeline_module
from napari_cellda.core.batch import (
    BatchOptions,
    ClassifyJob,
    classify_batch,
    open_map_maker,
    predict_batch,
)
from napari_cellda.core.batch.models import Recipe
from napari_cellda.core.cluster import connect, on_cluster, tasks
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Step, run_quietly
from napari_cellda.core.export.image import ExportChoice, export_image
from napari_cellda.core.images import open_image
from napari_cellda.core.tiles import grid
from outcomes import outcome

distributed = pytest.importorskip("distributed")

SIZE = (560, 600)
"""Four tiles of at most 512 x 512."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "PIECE_2D", (1, 512, 512))
    monkeypatch.setattr(network_module, "PIECE_2D", (1, 512, 512))


@pytest.fixture(scope="module")
def address():
    """Two worker processes of one thread each."""
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(2, **options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of bright blobs, its strokes, and the project trained on them."""
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    blobs = np.sin(x / 14) * np.sin(y / 17) > 0.5
    pixels = (blobs * 100 + rng.normal(60, 20, SIZE)).astype(np.float32)
    pixels[500:504, 300:310] = np.nan
    tifffile.imwrite(folder / "blobs.tif", pixels)
    strokes = np.zeros(SIZE, np.uint8)
    strokes[100:200:20] = blobs[100:200:20] + 1
    tifffile.imwrite(folder / "blobs_strokes.tif", strokes)
    return folder


def same_files(one: Path, other: Path) -> list[str]:
    """Compare all files of two folders; return their names."""
    names = sorted(path.name for path in one.glob("*.tif"))
    assert names == sorted(path.name for path in other.glob("*.tif"))
    for name in names:
        a, b = tifffile.imread(one / name), tifffile.imread(other / name)
        np.testing.assert_array_equal(a, b)
    return names


def test_forest_and_enhancer_equal_those_of_this_process(field, address, tmp_path):
    job = ClassifyJob(features="compact", enhancer="nuclei")
    files = [field / "blobs.tif"], [field / "blobs_strokes.tif"]
    here, there = tmp_path / "here", tmp_path / "there"
    run_quietly(classify_batch(*files, here, job, options=BatchOptions(workers=1)))
    events, report = outcome(
        classify_batch(*files, there, job, options=BatchOptions(scheduler=address))
    )
    assert [path.name for path in report.done] == ["blobs.tif"]
    names = same_files(here, there)
    assert {"blobs_forest.tif", "blobs_mask.tif", "blobs_probability.tif"} <= set(names)
    assert any("40 pixels that are NaN" in e.text for e in events if isinstance(e, Note))


@pytest.fixture(scope="module")
def project(field: Path) -> Path:
    job = ClassifyJob(features="compact", enhancer="nuclei", save=field / "p.cellda")
    files = [field / "blobs.tif"], [field / "blobs_strokes.tif"]
    task = classify_batch(*files, field / "out", job)
    while not (field / "p.cellda").exists():
        next(task)
    task.close()
    return field / "p.cellda"


def test_a_stretched_map_is_equal_though_a_worker_is_killed(project, field, address, tmp_path):
    pipeline, _, _ = open_map_maker(str(project))
    stretched = pipeline.options.model_copy(update={"scale_range": True, "rescale": 0.8})
    pipeline = replace(pipeline, options=stretched)
    image = open_image(field / "blobs.tif", channels=pipeline.channels)
    here, there = (
        ExportChoice(tmp_path / name, probabilities=True, instances=False, table=False)
        for name in ("here", "there")
    )
    run_quietly(export_image(pipeline, image, here, stop=lambda: False))
    with on_cluster(pipeline, Recipe(str(project)), address) as maps:
        maps = replace(maps, model=_Stretched(maps.model.recipe, maps.model.project))
        task = export_image(maps, image, there, stop=lambda: False)
        steps = 0
        while True:
            try:
                steps += isinstance(next(task), Step)
            except StopIteration:
                break
            if steps == 5:  # the first enhanced tile is there
                steps += 1
                workers = [w for w in psutil.Process().children(recursive=True) if _serves(w)]
                workers[0].kill()
    same_files(here.folder, there.folder)


class _Stretched(tasks.RemoteModel):
    """The saved project with other options, as the window can set them."""

    def open(self):
        pipeline = super().open()
        options = pipeline.options.model_copy(update={"scale_range": True, "rescale": 0.8})
        return replace(pipeline, options=options)


def _serves(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline())


def test_a_network_equals_that_of_this_process(field, address, tmp_path):
    values = np.random.default_rng(1).random(SIZE).astype(np.float32)
    tifffile.imwrite(tmp_path / "map.tif", values)
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["predict", "nuclei", str(tmp_path / "map.tif"), "-o"]
    assert main([*words, str(here)]) == 0
    assert main([*words, str(there), "--scheduler", address]) == 0
    assert "map_probability.tif" in same_files(here, there)


def test_small_images_are_done_together_and_one_may_fail(address, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).random((50, 70)).astype(np.float32)
        tifffile.imwrite(tmp_path / "in" / f"map_{number}.tif", values)
    (tmp_path / "in" / "map_3.tif").write_bytes(b"II*\0 nonsense")
    here, there = tmp_path / "here", tmp_path / "there"
    both = [
        outcome(predict_batch("nuclei", [tmp_path / "in"], folder, options=options))
        for folder, options in (
            (here, BatchOptions(workers=1)),
            (there, BatchOptions(scheduler=address)),
        )
    ]
    for events, report in both:
        assert [failure.path.name for failure in report.failures] == ["map_3.tif"]
        assert any("map_3.tif" in event.text for event in events if isinstance(event, Note))
        assert len(report.done) == 3
    same_files(here, there)


@pytest.mark.parametrize("rescale", [1.0, 0.6, 1.7])
def test_a_tile_reads_no_more_of_the_forest_than_it_waits_for(rescale):
    opened = Enhancer.open("nuclei")
    outputs = opened.card.n_outputs
    nothing = replace(
        opened.model, runner=lambda x: np.zeros((len(x), outputs, *x.shape[2:]), np.float32)
    )
    enhancer, limits = Enhancer(nothing), (1, 900, 1100)
    for piece in grid(limits, (1, 256, 256)):
        asked = []

        def read(region, asked=asked):
            asked.append(region)
            return np.zeros(region.shape, np.float32)

        enhancer.enhance_region(read, piece, limits, rescale=rescale)
        needed = enhancer.needed_map(piece, limits, rescale=rescale)
        for axis in (1, 2):
            assert min(r.slices[axis].start for r in asked) == needed.slices[axis].start
            assert max(r.slices[axis].stop for r in asked) == needed.slices[axis].stop


def test_an_image_that_workers_cannot_see_is_named(address, tmp_path):
    image = open_image(_written(tmp_path / "x.tif"))
    remote = tasks.RemoteImage.of(image, "grey")
    (tmp_path / "x.tif").unlink()
    with pytest.raises(UserError, match=r"x\.tif' is not on the cluster's workers"):
        remote.open()
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((5, 6), np.uint8))
    with pytest.raises(UserError, match="another image on the cluster's workers"):
        remote.open()


def _written(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8))
    return path


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:1", "nonsense://x", "tcp://"])
def test_an_address_where_nobody_answers_is_one_sentence(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(connect, "PATIENCE", 1)
    values = np.random.default_rng(1).random((20, 20)).astype(np.float32)
    tifffile.imwrite(tmp_path / "map.tif", values)
    words = ["predict", "nuclei", str(tmp_path / "map.tif"), "-o", str(tmp_path / "o")]
    assert main([*words, "--scheduler", wrong]) == 2
    (line,) = [n for n in capsys.readouterr().err.splitlines() if n.startswith("Error")]
    assert f"--scheduler is '{wrong}'" in line
    assert not list((tmp_path / "o").glob("*.tif"))


def test_without_distributed_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    values = np.random.default_rng(1).random((20, 20)).astype(np.float32)
    tifffile.imwrite(tmp_path / "map.tif", values)
    options = BatchOptions(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"napari-cellda\[cluster\]"):
        run_quietly(
            predict_batch("nuclei", [tmp_path / "map.tif"], tmp_path / "o", options=options)
        )
