import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo_packages as zoo

from napari_cellda.core.enhancer import Enhancer, merge_enhanced
from napari_cellda.core.enhancer import tile_axes as enhancer_tiles
from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.model import Model
from napari_cellda.core.modelzoo.network import TorchRunner
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.modelzoo.probe import made_up_map
from napari_cellda.core.tiles import Region, reflect_pad, whole


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(enhancer_tiles, "CORES", {2: (32, 48), 3: (8, 16, 24)})


@pytest.fixture
def one_tile(monkeypatch):
    monkeypatch.setattr(enhancer_tiles, "CORES", {2: (4096, 4096), 3: (4096, 4096, 4096)})


def enhancer_of(network, folder, **info):
    return Enhancer.open(zoo.make_own(folder / "own-one", network, **info))


class Source:
    """A map that is read by region, and what was read of it."""

    def __init__(self, map_):
        self.map, self.limits, self.asked = map_, map_.shape, []

    def __call__(self, region):
        inside = zip(region.slices, self.limits, strict=True)
        assert all(0 <= part.start < part.stop <= limit for part, limit in inside)
        self.asked.append(region)
        return self.map[region.slices]


def tiled_and_whole(network, map_, folder, monkeypatch, cores):
    """Enhance a map in tiles of `cores`, and in one."""
    enhancer = enhancer_of(network, folder)
    results = []
    for sizes in (cores, (4096,) * len(cores)):
        monkeypatch.setitem(enhancer_tiles.CORES, len(cores), sizes)
        results.append(Enhancer(enhancer.model).enhance(map_))
    return results


@pytest.mark.parametrize(
    ("up", "shape"),
    [
        ("nearest", (100, 131)),
        ("bilinear", (100, 131)),
        ("transpose", (100, 131)),
        ("nearest", (64, 64)),
        ("nearest", (7, 200)),
        ("nearest", (1, 1)),
    ],
)
def test_tiles_equal_the_whole(up, shape, tmp_path, monkeypatch):
    network = zoo.random_unet(width=4, depth=3, up=up)
    tiled, untiled = tiled_and_whole(network, made_up_map(shape), tmp_path, monkeypatch, (40, 48))
    assert tiled.shape == (1, *shape)
    np.testing.assert_allclose(tiled, untiled, atol=1e-3)
    assert shape == (1, 1) or untiled.std() > 0.05


def test_tiles_equal_the_whole_in_3d(tmp_path, monkeypatch):
    network = zoo.random_unet(width=4, depth=1, ndim=3, out_channels=2)
    map_ = made_up_map((13, 30, 40))
    tiled, untiled = tiled_and_whole(network, map_, tmp_path, monkeypatch, (8, 16, 24))
    assert tiled.shape == (2, *map_.shape)
    np.testing.assert_allclose(tiled, untiled, atol=1e-3)
    assert untiled.std() > 0.05


def test_tiles_of_a_published_network_with_batch_norm_equal_the_whole(tmp_path, monkeypatch):
    folder, _ = zoo.make_published(tmp_path / "m", "amiable-crocodile", initial_features=4)
    model = Enhancer.open(folder).model
    map_ = made_up_map((40, 420))
    results = []
    for cores in ((64, 224), (4096, 4096)):
        monkeypatch.setitem(enhancer_tiles.CORES, 2, cores)
        results.append(Enhancer(model).enhance(map_))
    np.testing.assert_allclose(*results, atol=1e-3)
    assert results[0].std() > 0.05


def test_without_its_halo_a_tile_would_differ(tmp_path, monkeypatch):
    """The tests above can fail: half the halo is not enough."""
    network = zoo.random_unet(width=4, depth=3)
    model = enhancer_of(network, tmp_path).model
    map_ = made_up_map((100, 131))
    untiled = Enhancer(model).enhance(map_)
    monkeypatch.setitem(enhancer_tiles.CORES, 2, (40, 48))
    enhancer = Enhancer(model)
    enhancer._axes = [replace(axis, halo=min(axis.halo, 8)) for axis in enhancer._axes]
    assert np.abs(enhancer.enhance(map_) - untiled).max() > 1e-3


def test_a_region_is_its_part_of_the_whole(tmp_path, small_tiles):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=3), tmp_path)
    source = Source(made_up_map((1, 150, 170)))
    everything = enhancer.enhance_region(source, whole(source.limits), source.limits)
    region = Region(0, slice(0, 1), slice(41, 83), slice(100, 169))
    part = enhancer.enhance_region(source, region, source.limits)
    np.testing.assert_allclose(part, everything[(slice(None), *region.slices)], atol=1e-3)


def test_only_the_region_and_its_halo_are_read(tmp_path):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path)
    source = Source(np.zeros((1, 1000, 1000), np.float32))
    region = Region(0, slice(0, 1), slice(500, 520), slice(500, 520))
    enhancer.enhance_region(source, region, source.limits)
    (asked,) = source.asked
    halo = enhancer.halo
    assert 23 <= halo <= 24
    assert asked.y.start >= 500 - halo - 4
    assert asked.y.stop <= 520 + halo + 4


def test_the_image_is_reflected_at_its_border_by_one_step(tmp_path, one_tile):
    network = zoo.random_unet(width=4, depth=2)
    enhancer = enhancer_of(network, tmp_path)
    map_ = made_up_map((30, 40))
    padded = reflect_pad(map_, (4, 4), (4 + 2, 4))  # to multiples of 4, and 4 more
    with torch.inference_mode():
        expected = network(torch.from_numpy(padded)[None, None]).sigmoid().numpy()[0, :, 4:34, 4:44]
    np.testing.assert_allclose(enhancer.enhance(map_), expected, atol=0.01)


def test_a_2d_enhancer_takes_a_stack_plane_by_plane(tmp_path):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2, out_channels=2), tmp_path)
    stack = made_up_map((3, 40, 50))
    found = enhancer.enhance(stack)
    assert found.shape == (2, 3, 40, 50)
    for z, plane in enumerate(stack):
        np.testing.assert_allclose(found[:, z], enhancer.enhance(plane), atol=1e-3)


def test_a_3d_enhancer_takes_a_thin_stack(tmp_path):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2, ndim=3), tmp_path)
    assert enhancer.enhance(made_up_map((1, 20, 20))).shape == (1, 1, 20, 20)


def test_stop_ends_between_tiles(tmp_path, small_tiles):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path)
    source = Source(made_up_map((1, 100, 100)))
    answers = iter([False, False, True])
    found = enhancer.enhance_region(
        source, whole(source.limits), source.limits, stop=lambda: next(answers)
    )
    assert found is None
    assert len(source.asked) == 2


class Recorder:
    """A runner that returns its input, and remembers it."""

    name = "recorder"

    def __init__(self):
        self.seen = []

    def __call__(self, x):
        self.seen.append(x)
        return x


def recording(tmp_path, **changes):
    model = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path).model
    runner = Recorder()
    return Enhancer(Model(model.card, runner, model.network, model.sha256)), runner


def test_a_map_is_not_stretched_unless_asked(tmp_path):
    enhancer, runner = recording(tmp_path)
    map_ = np.linspace(0.2, 0.6, 400, dtype=np.float32).reshape(20, 20)
    np.testing.assert_array_equal(enhancer.enhance(map_)[0], map_)
    (seen,) = runner.seen
    assert seen.min() == pytest.approx(0.2)
    assert seen.max() == pytest.approx(0.6)


def test_a_map_is_stretched_from_the_range_of_the_whole_image(tmp_path):
    enhancer, _ = recording(tmp_path)
    map_ = np.full((1, 20, 20), 0.4, np.float32)
    map_[0, 3, 3] = 0.9  # beyond the range: clipped
    found = enhancer.enhance_region(
        lambda r: map_[r.slices], whole(map_.shape), map_.shape, scale_range=(0.2, 0.6)
    )
    assert found[0, 0, 0, 0] == pytest.approx(0.5)
    assert found[0, 0, 3, 3] == 1


def test_a_flat_map_is_never_stretched(tmp_path):
    enhancer, _ = recording(tmp_path)
    map_ = np.full((1, 20, 20), 0.4, np.float32)
    found = enhancer.enhance_region(
        lambda r: map_[r.slices], whole(map_.shape), map_.shape, scale_range=(0.3, 0.55)
    )
    np.testing.assert_allclose(found, 0.4)


@pytest.mark.parametrize("rescale", [0.5, 1.6])
def test_a_rescaled_region_is_its_part_of_the_whole(rescale, tmp_path, small_tiles):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path)
    source = Source(made_up_map((2, 90, 110)))

    def enhance(region):
        return enhancer.enhance_region(source, region, source.limits, rescale=rescale)

    everything = enhance(whole(source.limits))
    assert everything.shape == (1, 2, 90, 110)
    region = Region(0, slice(1, 2), slice(13, 57), slice(60, 110))
    np.testing.assert_allclose(
        enhance(region), everything[(slice(None), *region.slices)], atol=1e-3
    )


def test_rescaling_gives_the_network_larger_objects(tmp_path):
    enhancer, runner = recording(tmp_path)
    map_ = np.zeros((1, 40, 40), np.float32)
    map_[0, 10:20, 10:20] = 1
    found = enhancer.enhance_region(
        lambda r: map_[r.slices], whole(map_.shape), map_.shape, rescale=2.0
    )
    (seen,) = runner.seen
    assert (seen > 0.5).sum() == pytest.approx(4 * 100, rel=0.05)
    assert (found > 0.5).sum() == pytest.approx(100, rel=0.05)
    assert np.abs(found[0] - map_).mean() < 0.02


def test_rescaling_stops_too(tmp_path):
    enhancer, _ = recording(tmp_path)
    map_ = np.zeros((1, 40, 40), np.float32)
    found = enhancer.enhance_region(
        lambda r: map_[r.slices], whole(map_.shape), map_.shape, rescale=2.0, stop=lambda: True
    )
    assert found is None


def test_a_network_without_activation_is_clipped(tmp_path):
    model = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path).model
    logits = TorchRunner(model.network, sigmoid=False)
    found = Enhancer(Model(model.card, logits, model.network, "")).enhance(made_up_map((20, 20)))
    assert found.min() >= 0
    assert found.max() <= 1


def test_an_enhancer_of_two_channels_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"2 channels.*one"):
        enhancer_of(zoo.random_unet(in_channels=2, width=4, depth=2), tmp_path)


def test_a_network_for_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="takes images"):
        enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path, kind="network")


def test_running_out_of_memory_is_said_plainly(tmp_path):
    enhancer, _ = recording(tmp_path)

    def fail(_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] can't allocate memory")

    model = Model(enhancer.card, fail, None, "")
    with pytest.raises(UserError, match="not enough memory"):
        Enhancer(model).enhance(np.zeros((8, 8), np.float32))


def test_another_fault_is_not_hidden(tmp_path):
    enhancer, _ = recording(tmp_path)

    def fail(_):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Enhancer(Model(enhancer.card, fail, None, "")).enhance(np.zeros((8, 8), np.float32))


def test_the_seam_is_zero_or_measured(tmp_path):
    exact = enhancer_of(zoo.random_unet(width=4, depth=2), tmp_path / "a")
    assert exact.seam() == 0
    global_norm = enhancer_of(zoo.random_unet(width=4, depth=2, norm="instance"), tmp_path / "b")
    assert 0.001 < global_norm.seam() < 1


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_with_a_norm_over_the_tile_a_pixel_has_one_tile(norm, tmp_path, small_tiles):
    enhancer = enhancer_of(zoo.random_unet(width=4, depth=2, norm=norm), tmp_path)
    source = Source(made_up_map((1, 100, 130)))
    everything = enhancer.enhance_region(source, whole(source.limits), source.limits)
    region = Region(0, slice(0, 1), slice(20, 70), slice(40, 55))
    part = enhancer.enhance_region(source, region, source.limits)
    np.testing.assert_allclose(part, everything[(slice(None), *region.slices)], atol=1e-6)


def test_a_torchscript_of_one_size_enhances_any_size(tmp_path):
    class OneSize(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.avg_pool2d(x.reshape(1, 1, 256, 256), 3, 1, 1)

    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    rdf = zoo.read_rdf(folder)
    del rdf["weights"]["pytorch_state_dict"]
    rdf["outputs"][0]["shape"]["scale"][1] = 1.0
    given = np.zeros((1, 1, 256, 256), np.float32)
    program = folder / "weights-torchscript.pt"
    zoo.save_torchscript(OneSize(), given, program)
    zoo.write_rdf(folder, rdf)
    enhancer = Enhancer.open(folder, trusted={file_sha256(program)})
    map_ = made_up_map((300, 520))
    padded = torch.from_numpy(reflect_pad(map_, (1, 1), (1, 1)))[None, None]
    expected = torch.nn.functional.avg_pool2d(padded, 3, 1, 0).numpy()[0]
    np.testing.assert_allclose(enhancer.enhance(map_), expected, atol=1e-5)


def test_a_core_shrinks_until_its_block_fits(tmp_path, monkeypatch):
    model = enhancer_of(zoo.random_unet(width=4, depth=2, ndim=3), tmp_path).model
    sizes = []
    for budget in (4 * 2**30, 2**24):
        monkeypatch.setattr(enhancer_tiles, "BLOCK_BYTES", budget)
        axes = enhancer_tiles.tile_axes(model)
        block = np.prod([axis.largest_core + 2 * axis.reach for axis in axes])
        assert block * 4 * enhancer_tiles.ACTIVATIONS * 4 <= budget
        sizes.append([axis.largest_core for axis in axes])
    assert sizes[0] == [64, 256, 256]
    assert np.prod(sizes[1]) < np.prod(sizes[0])


def test_merging_replaces_a_class_and_shares_the_rest():
    forest = np.array([[0.5, 0.0, 0.2], [0.3, 1.0, 0.2], [0.2, 0.0, 0.6]], np.float32)
    foreground = np.array([0.8, 0.4, 1.0], np.float32)
    merged = merge_enhanced(forest, foreground, 1)
    expected = [[0.2 * 5 / 7, 0.3, 0.0], [0.8, 0.4, 1.0], [0.2 * 2 / 7, 0.3, 0.0]]
    np.testing.assert_allclose(merged, expected, atol=1e-6)
    np.testing.assert_allclose(merged.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(forest[1], [0.3, 1.0, 0.2])  # left as it was


def test_merging_a_missing_class_is_refused():
    with pytest.raises(UserError, match="Class 2"):
        merge_enhanced(np.ones((2, 3)) / 2, np.ones(3), 2)


def test_an_opened_enhancer_outlives_its_folder(tmp_path):
    folder = zoo.make_own(tmp_path / "own-one")
    enhancer = Enhancer.open(folder)
    shutil.rmtree(folder)
    assert enhancer.enhance(np.zeros((8, 8), np.float32)).shape == (1, 8, 8)
