import gc
import warnings
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_cellda.core.compare import pixel_scores
from napari_cellda.core.enhancer_training.calibrate import (
    THRESHOLDS,
    shift_logits,
    steady_threshold,
)
from napari_cellda.core.enhancer_training.centre import centre_maps
from napari_cellda.core.enhancer_training.forests import ForestMix, make_maps
from napari_cellda.core.enhancer_training.looks import Look
from napari_cellda.core.enhancer_training.maps import MapCache, fill_cache, map_contrast
from napari_cellda.core.enhancer_training.params import PRESETS, EnhancerParams, enhancer_params
from napari_cellda.core.enhancer_training.run import run_enhancer_training
from napari_cellda.core.enhancer_training.source import (
    hold_out,
    make_truth,
    object_diameter,
    open_source,
)
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Score, Stage, Step, run_quietly
from napari_cellda.core.jobs import Run
from napari_cellda.core.licences import licence_names
from napari_cellda.core.modelzoo import package
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.nets.unet import UNet
from napari_cellda.core.samples import nuclei_field, organelles_field

# bioimageio.spec leaves the files of a package to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

QUICK = {
    "forests": 3, "validation_forests": 1, "maps_per_forest": 2, "map_size": 64, "trees": 5,
    "width": 4, "depth": 2, "patch": 32, "batch": 2, "steps": 4, "validate_every": 2,
    "id": "tiny", "shows": "nuclei",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _collect():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # those files


@pytest.fixture(scope="module", autouse=True)
def _without_onnx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "can_export_onnx", lambda: False)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folders of four annotated images."""
    root = tmp_path_factory.mktemp("source")
    for index in range(4):
        sample = nuclei_field((96, 128), index)
        write(root, f"field{index}.png", sample.image, sample.labels.astype(np.uint16))
    return root


def write(root, name, image, mask):
    for folder, array in (("images", image), ("masks", mask)):
        (root / folder).mkdir(exist_ok=True, parents=True)
        imageio.imwrite(root / folder / name, array)


def task(source, run, **more):
    options = {"overrides": QUICK, "device": "cpu", "threads": 1} | more
    return run_enhancer_training(run, source / "images", source / "masks", **options)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    events = list(task(source, run))
    return run, events


def held_out_maps(source, folder, package):
    """The validation forests' maps, enhanced by a package, and their truth, per output."""
    network = open_model(package).network
    planes = hold_out(open_source(source / "images", source / "masks"), 0.2)
    mix = enhancer_params(overrides=QUICK).mix
    run_quietly(fill_cache(*planes, mix, folder, 0, lambda: False, 1))
    forests = MapCache.open(folder, "validation").forests
    with torch.inference_mode():
        maps = [network(torch.from_numpy(f[:, :1] / np.float32(255))).sigmoid() for f in forests]
    for k in range(2):
        yield [m[:, k].numpy() for m in maps], [(f[:, 1] >> k & 1).astype(bool) for f in forests]


def losses(events):
    return {e.index: e.losses["loss"] for e in events if isinstance(e, Step) and e.losses}


def test_a_run_gives_a_package_that_opens(finished):
    run, _ = finished
    card = open_model(run / "model").card
    assert card.id == "tiny"
    assert card.structure == "nuclei"
    assert card.output_names == ("foreground", "boundary")
    assert set(card.feature_sets) == {"ilastik", "compact", "s2d"}
    assert 12 < card.object_diameter < 26
    assert card.training["command"].startswith("napari-cellda enhancer train --images")
    assert "--set forests=3" in card.training["command"]
    assert "--set 'id=\"tiny\"'" in card.training["command"]
    assert sum(card.training["map_histogram"]) == pytest.approx(1, abs=0.01)
    assert set(card.training["scores"]) == {"forest", "enhanced foreground", "enhanced boundary"}
    assert card.cover is not None
    assert Run(run).state == "done"


def test_it_says_what_it_does(finished):
    _, events = finished
    titles = [e.title for e in events if isinstance(e, Stage)]
    assert titles == [
        "Open the annotated images", "Train forests and predict with them",
        "Train the enhancer", "Write the model",
    ]  # fmt: skip
    assert list(losses(events)) == [1, 2, 3, 4]
    assert np.isfinite(list(losses(events).values())).all()
    assert {e.index for e in events if isinstance(e, Score)} == {2, 4}
    assert Run(finished[0]).previews() == {"forest, enhanced": [2, 4]}


def test_the_scores_on_the_card_hold_for_the_package_at_a_half(finished, source, tmp_path):
    run, _ = finished
    training = open_model(run / "model").card.training
    assert all(0 < t < 1 for t in training["thresholds_before_calibration"].values())
    names = training["thresholds_before_calibration"]
    held_out = held_out_maps(source, tmp_path, run / "model")
    for (maps, truths), name in zip(held_out, names, strict=True):
        pairs = zip(maps, truths, strict=True)
        dice = np.mean([pixel_scores(m > 0.5, truth).dice for m, truth in pairs])
        assert dice == pytest.approx(training["scores"][f"enhanced {name}"], abs=0.01)


def test_calibration_moves_a_threshold_to_a_half():
    network = UNet(1, 2, width=4, depth=2).eval()
    maps = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        before = network(maps).sigmoid()
        shift_logits(network, [0.3, 0.8])
        after = network(maps).sigmoid()
    assert torch.equal(after[:, 0] > 0.5, before[:, 0] > 0.3)
    assert torch.equal(after[:, 1] > 0.5, before[:, 1] > 0.8)


def test_a_threshold_moves_only_as_far_as_the_forests_agree():
    peak = 1 - np.abs(THRESHOLDS - 0.3)
    agreeing = np.stack([peak, peak - 0.1, peak + 0.05])
    assert THRESHOLDS[steady_threshold(agreeing)] == 0.3
    assert THRESHOLDS[steady_threshold(peak[np.newaxis])] == 0.3
    # Two that want 0.3 and one that wants 0.7: the mean is best at 0.3, and says little.
    split = np.stack([peak, peak, 1 - np.abs(THRESHOLDS - 0.7)])
    assert THRESHOLDS[split.mean(axis=0).argmax()] == 0.3
    assert THRESHOLDS[steady_threshold(split)] == 0.5


def test_training_can_begin_from_an_earlier_enhancer(source, finished, tmp_path):
    earlier = finished[0] / "model"
    overrides = {**QUICK, "init": str(earlier), "steps": 1, "learning_rate": 1e-9, "average": 0}
    run_quietly(task(source, tmp_path / "run", overrides=overrides))
    later = open_model(tmp_path / "run" / "model")
    weights, begun = (open_model(p).network.state_dict() for p in (later.card.folder, earlier))
    for name in weights:
        if "running" not in name and "num_batches" not in name and name != "head.bias":
            torch.testing.assert_close(weights[name], begun[name], atol=1e-6, rtol=0)
    origin = later.card.training["begun_from"]
    assert origin["weights_sha256"] == open_model(earlier).sha256
    assert "--set forests=3" in origin["command"]
    assert origin["weights_sha256"][:12] in (later.card.folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"depth 2 .* expected .* depth 3"):
        run_quietly(task(source, tmp_path / "other", overrides={**overrides, "depth": 3}))


def test_a_stopped_run_resumes_to_the_same_network(source, finished, tmp_path):
    run = tmp_path / "run"
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 4 + 2  # four forests, two steps

    first = list(task(source, run, stop=stop))
    assert list(losses(first)) == [1, 2]
    assert (run / "maps").is_dir()
    rest = list(run_enhancer_training(run, resume=True, device="cpu", threads=1))
    assert any(isinstance(e, Note) and "step 2 of 4" in e.text for e in rest)
    assert losses(first) | losses(rest) == losses(finished[1])
    networks = [open_model(folder / "model").network.state_dict() for folder in (run, finished[0])]
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


def test_a_run_that_is_done_keeps_no_maps_and_is_not_done_again(finished):
    run, _ = finished
    assert not (run / "maps").exists()
    log = (run / "events.jsonl").read_bytes()
    told = list(run_enhancer_training(run, resume=True, device="cpu", threads=1))
    assert [type(event) for event in told] == [Note]
    assert (run / "events.jsonl").read_bytes() == log


def test_stopping_before_the_first_forest_is_a_sentence(source, tmp_path):
    with pytest.raises(UserError, match="before the first forest"):
        run_quietly(task(source, tmp_path / "run", stop=lambda: True))


def test_a_resume_refuses_what_is_no_such_run(tmp_path, source, finished):
    with pytest.raises(UserError, match=r"no run\.yaml"):
        run_quietly(run_enhancer_training(tmp_path, resume=True))
    with pytest.raises(UserError, match="not empty"):
        run_quietly(task(source, finished[0]))
    with pytest.raises(UserError, match="folder of images"):
        run_quietly(run_enhancer_training(tmp_path / "x"))


def test_no_forest_predicts_its_own_plane(source, monkeypatch):
    planes = open_source(source / "images", source / "masks")
    from napari_cellda.core.enhancer_training import forests as enhancer_forests

    used = {"read": [], "predicted": []}
    original = enhancer_forests._predict

    def read(cls, plane, *rest):
        used["read"].append(plane.name)
        return original_read(plane, *rest)

    def predict(forest, plane, *rest):
        used["predicted"].append(plane.name)
        return original(forest, plane, *rest)

    original_read = enhancer_forests._Field.read
    monkeypatch.setattr(enhancer_forests._Field, "read", classmethod(read))
    monkeypatch.setattr(enhancer_forests, "_predict", predict)
    mix = enhancer_params(overrides=QUICK).mix
    for seed, style in enumerate(("strokes", "patch", "worst tiles") * 2):
        used["read"].clear()
        used["predicted"].clear()
        rng = np.random.default_rng(seed)
        maps = make_maps(planes, planes, mix, rng, style=style, threads=1)
        assert maps.shape == (2, 2, 64, 64)
        assert set(np.unique(maps[:, 1])) <= {0, 1, 2, 3}
        assert used["predicted"]
        assert not set(used["read"]) & set(used["predicted"])


def test_maps_are_a_function_of_the_generator(source):
    planes = open_source(source / "images", source / "masks")
    mix = enhancer_params(overrides=QUICK).mix
    one, two, other = (
        make_maps(planes, planes, mix, np.random.default_rng(s), threads=1) for s in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_forests_that_learned_nothing_are_left_out(tmp_path):
    truth = np.zeros((2, 1, 8, 8), np.uint8)
    truth[..., 4:] = 1
    good, blind = truth * 200, np.full_like(truth, 120)
    for index, maps in enumerate((good, blind, good)):
        np.save(tmp_path / f"train_{index:05d}.npy", np.concatenate([maps, truth], axis=1))
    assert map_contrast(np.concatenate([good, truth], axis=1)) == pytest.approx(200 / 255)
    cache = MapCache.open(tmp_path, "train")
    assert len(cache.forests) == 2
    assert sum(cache.histogram()) == pytest.approx(1)
    assert cache.histogram()[0] == cache.histogram()[7] == 0.5
    for path in sorted(tmp_path.glob("train_*"))[::2]:
        path.unlink()
    assert len(MapCache.open(tmp_path, "train").forests) == 1


def test_crops_hold_what_was_cached(tmp_path):
    rng = np.random.default_rng(0)
    forest = rng.integers(0, 256, (3, 2, 20, 20)).astype(np.uint8)
    np.save(tmp_path / "validation_00000.npy", forest)
    cache = MapCache.open(tmp_path, "validation")
    crop = cache.crop(6, np.random.default_rng(5))
    windows = np.lib.stride_tricks.sliding_window_view(forest, (6, 6), axis=(2, 3))
    assert (windows.transpose(0, 2, 3, 1, 4, 5) == crop).all(axis=(3, 4, 5)).any()
    assert cache.crop(500, rng).shape == (2, 20, 20)


def test_a_look_rescales_image_and_truth_together():
    image = np.zeros((1, 60, 80), np.float32)
    image[:, 20:40, 20:40] = 1
    seen, truth = Look(scale=1.5).apply(image, image > 0, np.random.default_rng(0))
    assert seen.shape == truth.shape == (1, 90, 120)
    assert ((seen > 0.5) == truth).mean() > 0.98
    noisy, same = Look(noise=0.2).apply(image, image > 0, np.random.default_rng(0))
    assert np.array_equal(same, image > 0)
    assert (noisy - image).std() == pytest.approx(0.2, rel=0.1)
    drawn = [Look.draw(ForestMix(), np.random.default_rng(i)) for i in range(50)]
    assert any(look.scale == 1 for look in drawn)
    assert all(1 / 1.61 < look.scale < 1.61 for look in drawn)


def test_hollow_objects_fade_inside_and_keep_their_rim():
    mask = np.zeros((1, 80, 80), bool)
    mask[0, 20:60, 20:60] = True
    image = np.where(mask, 1, 0.2).astype(np.float32)
    seen, truth = Look(hollow=1, rim=3).apply(image, mask, np.random.default_rng(0))
    assert np.array_equal(truth, mask)
    assert np.array_equal(seen[~mask], image[~mask])
    inside, rim = seen[0, 30:50, 30:50], seen[0, 20, 20:60]
    assert inside.mean() < 0.7 < 0.95 < rim.mean()
    assert inside.min() >= 0.2 - 1e-6
    full = np.ones_like(mask)
    assert np.array_equal(Look(hollow=1).apply(image, full, np.random.default_rng(0))[0], image)
    drawn = [Look.draw(ForestMix(hollow_share=1), np.random.default_rng(i)) for i in range(9)]
    assert all(look.hollow > 0 for look in drawn)


def test_images_of_one_set_may_differ_in_brightness():
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10:30, 10:30] = True
    image = np.where(mask, 0.5, -0.1).astype(np.float32)
    look, rng = Look(varied=0.4), np.random.default_rng(0)
    seen = np.stack([look.apply(image, mask, rng)[0] for _ in range(40)])
    assert seen.dtype == np.float32
    on, beside = seen[:, mask].mean(axis=1), seen[:, ~mask].mean(axis=1)
    # log(gain * 0.5 ** gamma) and log(gain), of which the standard deviation is asked for.
    assert np.log(-beside / 0.1).std() == pytest.approx(0.4, rel=0.4)
    assert np.log(on).std() > 0.3
    assert np.ptp(on / -beside) > 0.5  # gamma changes one against the other
    drawn = [Look.draw(ForestMix(varied_share=1), np.random.default_rng(i)) for i in range(9)]
    assert all(look.varied > 0 for look in drawn)


def test_good_maps_are_pushed_until_their_area_is_right():
    y, x = np.mgrid[:48, :48] - 24
    distance = torch.from_numpy(np.hypot(y, x).astype(np.float32))[None]
    truth = (distance < 14).float()
    good, poor = torch.sigmoid(15.5 - distance), torch.sigmoid(15.5 - distance.roll(20, 2))
    maps = torch.stack([good, poor, good, torch.rand(1, 48, 48)])
    masks = torch.stack([truth, truth, torch.zeros_like(truth), truth])
    made = centre_maps(maps, masks, 1, np.random.default_rng(0))
    assert (maps[0] > 0.5).sum() > 1.15 * truth.sum()
    assert float((made[0] > 0.5).sum()) == pytest.approx(float(truth.sum()), rel=0.02)
    assert torch.equal(made[1:], maps[1:])
    many = maps[:1].repeat(200, 1, 1, 1)
    made = centre_maps(many, masks[:1].repeat(200, 1, 1, 1), 0.5, np.random.default_rng(1))
    moved = (made != many).flatten(1).any(dim=1).float().mean()
    assert 0.35 < moved < 0.65
    assert centre_maps(maps, masks, 0, np.random.default_rng(0)) is maps


def test_truth_of_each_kind_of_mask():
    labels = np.zeros((7, 9), np.int32)
    labels[1:6, 1:4] = 1
    labels[1:6, 4:8] = 2
    foreground, boundary = make_truth(labels, "instances", ("foreground", "boundary"))
    assert np.array_equal(foreground, labels > 0)
    assert boundary[3].tolist() == [True, True, False, True, True, False, False, True, True]
    merged = make_truth(labels, "foreground", ("boundary",))[0]
    assert not merged[3, 3:5].any()
    walls = make_truth(boundary.astype(np.uint8), "boundary", ("boundary", "foreground"))
    assert np.array_equal(walls[0], boundary)
    assert np.array_equal(walls[1], ~boundary)


def test_windows_see_the_boundary_beyond_their_edge(source):
    plane = open_source(source / "images", source / "masks")[0]
    whole = plane.truth((slice(0, 96), slice(0, 128)))
    part = plane.read((slice(10, 50), slice(17, 90)))[1]
    assert np.array_equal(part, whole[:, 10:50, 17:90])


def test_a_part_of_a_plane_reads_its_own_place(source):
    plane = open_source(source / "images", source / "masks")[0]
    image, truth = plane.read((slice(0, 96), slice(40, 100)))
    part = plane.columns(30, 110)
    assert part.shape == (96, 80)
    inner = part.read((slice(0, 96), slice(10, 70)))
    assert np.array_equal(inner[0], image)
    assert np.array_equal(inner[1], truth)
    assert part.same_as(plane)


def test_the_held_out_part_is_apart_from_the_rest(source):
    planes = open_source(source / "images", source / "masks")
    left, right = hold_out(planes, 0.25, "region")
    assert [p.shape for p in left] == [(96, 96)] * 4
    assert [(p.shape, p.first_column) for p in right] == [((96, 32), 96)] * 4
    training, kept = hold_out(planes, 0.25)
    assert (training, kept) == (planes[:3], planes[3:])
    assert len(hold_out(planes, 0.5)[1]) == 4
    assert not planes[0].same_as(planes[1])


def test_the_diameter_is_that_of_a_disc_of_the_same_area(tmp_path):
    disc = (np.hypot(*np.mgrid[-20:21, -20:21]) <= 10).astype(np.uint8)
    for name in ("a.png", "b.png"):
        write(tmp_path, name, disc * 100, disc)
    planes = open_source(tmp_path / "images", tmp_path / "masks")
    assert object_diameter(planes) == pytest.approx(20, abs=0.5)
    assert object_diameter([replace(p, masks_are="boundary") for p in planes]) is None


def test_ids_of_any_size_are_objects_of_their_own(tmp_path):
    disc = np.hypot(*np.mgrid[-20:21, -20:21]) <= 10
    halves = np.where(np.arange(41) < 20, 2**60, 2**60 + 1)
    for name in ("a.tif", "b.tif"):
        write(tmp_path, name, disc * np.uint8(100), np.where(disc, halves, -1) + 1)
    planes = open_source(tmp_path / "images", tmp_path / "masks")
    assert object_diameter(planes) == pytest.approx(20 / np.sqrt(2), abs=0.5)
    between = planes[0].truth((slice(18, 22), slice(19, 21)))[1]
    assert between.all()
    raw = [replace(p, labels=np.where(disc, halves, -1)) for p in planes]
    assert object_diameter(raw) == pytest.approx(20 / np.sqrt(2), abs=0.5)


def test_membranes_train_with_one_output(tmp_path):
    for index in range(2):
        sample = organelles_field((96, 96), index)
        mask = sample.boundary_mask.astype(np.uint8) * 255
        write(tmp_path, f"{index}.png", sample.image, mask)
    overrides = {**QUICK, "shows": "membranes", "steps": 2}
    events = list(task(tmp_path, tmp_path / "run", masks_are="boundary", overrides=overrides))
    assert any(isinstance(e, Note) and "2 annotated planes" in e.text for e in events)
    assert open_model(tmp_path / "run" / "model").card.output_names == ("boundary",)


def grey(value=None, shape=(64, 64)):
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 255, shape).astype(np.uint8)
        if value is None
        else np.full(shape, value, np.uint8)
    )


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"a": grey(0), "b": grey(0)}, "are empty: no foreground"),
        ({"a": grey(1), "b": grey(1)}, "no background"),
        ({"a": grey()}, "1 annotated plane"),
        ({"a": grey(), "c": grey()}, r"c\.png' has no image"),
        ({"a": grey(), "b": grey(shape=(64, 63))}, r"b\.png' has shape \(64, 63\)"),
    ],
)
def test_bad_sources_are_refused_in_one_sentence(tmp_path, masks, message):
    for name in "ab":
        write(tmp_path, f"{name}.png", grey(), grey())
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    for name, mask in masks.items():
        imageio.imwrite(tmp_path / "masks" / f"{name}.png", mask)
    with pytest.raises(UserError, match=message) as caught:
        open_source(tmp_path / "images", tmp_path / "masks")
    assert "\n" not in str(caught.value)


def test_images_of_different_channels_are_refused(tmp_path):
    write(tmp_path, "a.png", grey(), grey())
    write(tmp_path, "b.png", grey(shape=(64, 64, 3)), grey())
    with pytest.raises(UserError, match=r"number of channels \(\[1, 3\]\)"):
        open_source(tmp_path / "images", tmp_path / "masks", channels="all")
    assert len(open_source(tmp_path / "images", tmp_path / "masks")) == 2


def test_patches_of_one_class_are_refused(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0] = 1
    for name in ("a.png", "b.png"):
        write(tmp_path, name, grey(), mask)
    planes = open_source(tmp_path / "images", tmp_path / "masks", "foreground")
    mix = ForestMix(map_size=32, rescaled_share=1, largest_scale=1.0001, spoiled_share=0)
    maps = make_maps(planes, planes, mix, np.random.default_rng(0), style="patch", threads=1)
    assert maps.shape[2:] == (32, 32)
    mix = ForestMix(map_size=32, rescaled_share=1, largest_scale=4)
    with pytest.raises(UserError, match="one class only"):
        for seed in range(40):
            make_maps(planes, planes, mix, np.random.default_rng(seed), style="patch", threads=1)


def test_every_preset_is_valid_and_bad_settings_are_named():
    for name in PRESETS:
        assert isinstance(enhancer_params(name), EnhancerParams)
    assert enhancer_params("gpu").width == 32
    assert enhancer_params("published").bce == 1
    with pytest.raises(UserError, match="no preset 'fast'"):
        enhancer_params("fast")
    with pytest.raises(UserError, match="'steps' of Enhancer training is 0; expected at least 1"):
        enhancer_params(overrides={"steps": 0})
    with pytest.raises(UserError, match="no setting 'stepz'; did you mean steps"):
        enhancer_params(overrides={"stepz": 5})


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("shows", "nuclei: DAPI", "is 'nuclei: DAPI'; expected up to 100 of the letters A to Z"),
        ("shows", "", "expected up to 100"),
        ("licence", "blub", "is 'blub'; expected the SPDX name of a licence, such as CC-BY-4.0."),
        ("licence", "cc0-1.0", "is 'cc0-1.0'; expected .*, such as CC0-1.0."),
        ("doi", "nonsense", "is 'nonsense'; expected a DOI such as"),
    ],
)
def test_what_no_package_can_say_is_refused_before_the_training(
    setting, value, expected, source, tmp_path
):
    begun = task(source, tmp_path / "run", overrides={**QUICK, setting: value})
    with pytest.raises(UserError, match=f"'{setting}' of Enhancer training .*{expected}"):
        next(begun)
    assert not (tmp_path / "run").exists()


def test_what_a_package_can_say_is_taken():
    for doi in ("10.1038/s41592-019-0612-7", "https://example.org/data", ""):
        assert enhancer_params(overrides={"doi": doi, "licence": "MIT"}).doi == doi


def test_licences_are_those_that_bioimageio_takes():
    from bioimageio.spec.model.v0_5 import LicenseId

    for name in ("CC-BY-4.0", "MIT", "GPL-3.0-only"):
        assert LicenseId(name) in licence_names()
    with pytest.raises(ValidationError):
        LicenseId("GPL-3.0+")
    assert "GPL-3.0+" not in licence_names()


def test_every_setting_has_its_help():
    assert all(field.description for field in EnhancerParams.model_fields.values())
