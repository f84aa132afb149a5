import numpy as np
import torch

from napari_cellda.core.augment import (
    Deformation,
    MapNoise,
    deform,
    disturb_maps,
    flip_and_turn,
    relight,
)

STILL = Deformation(share=0)


def maps_and_truth(n=6, side=40):
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.random((n, 1, side, side)).astype(np.float32))
    return maps, (maps > 0.5).float()


def test_without_deformation_the_centre_is_cut_out_unchanged():
    maps, truth = maps_and_truth()
    cut, cut_truth = deform(maps, truth, 24, STILL, np.random.default_rng(0))
    assert torch.allclose(cut, maps[..., 8:32, 8:32], atol=1e-5)
    assert torch.equal(cut_truth, truth[..., 8:32, 8:32])


def test_map_and_truth_move_together():
    y, x = np.mgrid[:64, :64]
    disc = torch.from_numpy((np.hypot(y - 25, x - 36) < 14).astype(np.float32))[None, None]
    how = Deformation(share=1, rotation=90, scale=1.3, bend=4)
    for seed in range(5):
        moved, truth = deform(disc, disc, 48, how, np.random.default_rng(seed))
        assert set(torch.unique(truth).tolist()) <= {0.0, 1.0}
        assert ((moved > 0.5).float() - truth).abs().mean() < 0.01
        turned, turned_truth = flip_and_turn(moved, truth, np.random.default_rng(seed))
        assert ((turned > 0.5).float() - turned_truth).abs().mean() < 0.01


def test_zoom_changes_the_size_within_its_limit():
    disc = torch.from_numpy((np.hypot(*np.mgrid[-40:40, -40:40]) < 10).astype(np.float32))
    how = Deformation(share=1, rotation=0, scale=1.5, bend=0)
    areas = [
        deform(disc[None, None], disc[None, None], 64, how, np.random.default_rng(seed))[1].sum()
        for seed in range(30)
    ]
    ratio = np.sqrt(np.array(areas) / disc.sum().item())
    assert 1 / 1.56 < ratio.min() < 0.8
    assert 1.2 < ratio.max() < 1.56


def test_flips_are_the_eight_symmetries():
    image = torch.arange(4.0).reshape(1, 1, 2, 2)
    rng = np.random.default_rng(0)
    seen = {tuple(flip_and_turn(image, image, rng)[0].flatten().tolist()) for _ in range(200)}
    assert len(seen) == 8


def test_disturbed_maps_stay_maps_and_keep_their_order():
    maps, _ = maps_and_truth(20)
    out = disturb_maps(maps, MapNoise(share=1), np.random.default_rng(0))
    assert out.shape == maps.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out - maps).abs().mean() > 0.05
    kept = disturb_maps(maps, MapNoise(share=1, noise=0), np.random.default_rng(0))
    for before, after in zip(maps.flatten(1), kept.flatten(1), strict=True):
        assert (after[before.argsort()].diff() >= -1e-6).all()


def test_a_share_of_zero_leaves_maps_alone():
    maps, _ = maps_and_truth()
    assert torch.equal(disturb_maps(maps, MapNoise(share=0), np.random.default_rng(0)), maps)


def test_the_generator_decides_everything():
    maps, truth = maps_and_truth()
    how = Deformation(share=1)
    one, two = (deform(maps, truth, 32, how, np.random.default_rng(3))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_every_crop_gets_a_light_of_its_own():
    images = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    lit = relight(images, 0.4, np.random.default_rng(0))
    slopes = (lit[..., 0, 0] - lit[..., 1, 1]) / (images[..., 0, 0] - images[..., 1, 1])
    assert torch.allclose(slopes[:, 0], slopes[:, 1], atol=1e-3)  # channels stay what they are
    assert 0.6 <= slopes.min() < 0.9 < 1.1 < slopes.max() <= 1.4
    shifts = (lit - 0.5) - slopes[:, :1, None, None] * (images - 0.5)
    assert 0.05 < shifts.abs().max() <= 0.2 + 1e-3
    assert torch.equal(relight(images, 0, np.random.default_rng(0)), images)
