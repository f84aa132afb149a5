"""Domain map and quality without truth: what they measure, and what they notice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.core.images import image_from_array
from napari_cellda.core.inspect.domain_map import (
    advice,
    bottleneck_vector,
    domain_gap,
    embed_patches,
    gaps_to,
    project,
)
from napari_cellda.core.inspect.quality import (
    check_agreement,
    check_discrepancy,
    check_enhancer,
    overall,
    self_agreement,
)
from napari_cellda.core.inspect.trained import CAUTION, check_run, middle
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.tiles import whole


def slow_gap(a: np.ndarray, b: np.ndarray) -> float:
    """The energy coefficient, distance by distance."""
    mean = lambda p, q: np.mean([np.linalg.norm(x - y) for x in p for y in q])  # noqa: E731
    return 1 - (mean(a, a) + mean(b, b)) / (2 * mean(a, b))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_gap_equals_the_literal_rule(seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(5, 3)), rng.normal(rng.uniform(0, 3), size=(6, 3))
    assert domain_gap(a, b) == pytest.approx(slow_gap(a, b))
    assert 0 <= domain_gap(a, b) <= 1


def test_the_gap_of_a_set_to_itself_is_zero_and_grows_with_distance():
    points = np.random.default_rng(0).normal(size=(20, 4))
    gaps = [domain_gap(points, points + shift) for shift in (0, 1, 5, 100)]
    assert gaps[0] == pytest.approx(0)
    assert gaps == sorted(gaps)
    assert gaps[-1] > 0.95


def fields(scale: int, seed: int, n: int = 2):
    """Images of noise with structures of `scale` pixels."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    return [
        image_from_array(
            gaussian_filter(rng.random((160, 160)), scale).astype(np.float32), "yx", name=f"{i}"
        )
        for i in range(n)
    ]


def test_the_nearest_source_is_the_one_with_the_same_texture():
    domains = {
        name: run_quietly(embed_patches(fields(scale, seed), per_image=4, patch=64)).vectors
        for name, scale, seed in (("target", 2, 0), ("alike", 2, 1), ("coarse", 8, 2))
    }
    gaps = gaps_to("target", domains)
    assert list(gaps) == ["alike", "coarse"]
    assert gaps["alike"] < 0.3 < gaps["coarse"]
    assert "'alike' is the nearest source" in advice("target", gaps)


def test_the_advice_says_when_nothing_is_near():
    assert "'a' is the nearest source" in advice("t", {"a": 0.05, "b": 0.2})
    assert "'a' is hardly nearer than the next" in advice("t", {"a": 0.05, "b": 0.055})
    assert "not near" not in advice("t", {"a": 0.05, "b": 0.2})
    assert "gap 0.30, against 'b' 0.50. It is not near" in advice("t", {"a": 0.3, "b": 0.5})
    assert "labelled set" in advice("t", {})


def test_patches_carry_pictures_and_the_names_of_their_images():
    patches = run_quietly(embed_patches(fields(2, 0), per_image=3, patch=64))
    assert patches.images == ("0",) * 3 + ("1",) * 3
    assert patches.thumbnails.shape[0] == 6
    assert patches.thumbnails.dtype == np.uint8
    again = run_quietly(embed_patches(fields(2, 0), per_image=3, patch=64))
    np.testing.assert_array_equal(patches.vectors, again.vectors)


def test_images_smaller_than_a_patch_are_taken_whole():
    small = image_from_array(np.random.default_rng(0).random((40, 50)), "yx", name="small")
    assert len(run_quietly(embed_patches([small], per_image=3)).vectors) == 3


def test_the_bottleneck_is_the_coarsest_layer():
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.MaxPool2d(4),
        torch.nn.Conv2d(4, 9, 3, padding=1),
        torch.nn.Upsample(scale_factor=4),
        torch.nn.Conv2d(9, 1, 1),
    )
    block = np.random.default_rng(0).random((1, 40, 48)).astype(np.float32)
    found = bottleneck_vector(network, block)
    with torch.no_grad():
        expected = network[:3](torch.from_numpy(block[None, :, :32])).mean(dim=(0, 2, 3))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    assert network.training


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_two_clusters_stay_apart_on_the_map(method):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (15, 6)), rng.normal(8, 1, (15, 6))])
    spots = project(vectors, method)
    assert spots.shape == (30, 2)
    a, b = spots[:15], spots[15:]
    inner = max(np.linalg.norm(group - group.mean(0), axis=1).mean() for group in (a, b))
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 2 * inner


def test_pca_keeps_the_variance_of_the_two_main_axes():
    vectors = np.random.default_rng(0).normal(size=(40, 5))
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    main = np.sort(np.linalg.eigvalsh(np.cov(scaled.T, bias=True)))[::-1][:2]
    np.testing.assert_allclose(project(vectors).var(axis=0), main)


def test_too_few_patches_are_refused():
    with pytest.raises(UserError, match="at least 3"):
        project(np.zeros((2, 4)))
    with pytest.raises(UserError, match="'b' has 1 patch"):
        gaps_to("a", {"a": np.zeros((5, 2)), "b": np.zeros((1, 2))})
    with pytest.raises(UserError, match="without images"):
        run_quietly(embed_patches([]))


# -- quality -----------------------------------------------------------------------------------


def discs(radius: int, value: float = 0.95) -> np.ndarray:
    rows, columns = np.mgrid[:160, :160]
    plane = np.full((160, 160), 0.02, np.float32)
    for y in range(20, 160, 40):
        for x in range(20, 160, 40):
            plane[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = value
    return plane


CARD = ModelCard(id="n", name="n", object_diameter=20.0, training={})


@pytest.mark.parametrize(("radius", "level"), [(10, "green"), (6, "amber"), (16, "amber")])
def test_objects_unlike_the_training_are_noticed(radius: int, level: str):
    verdicts = {v.check: v for v in check_enhancer(CARD, discs(radius))}
    assert verdicts["Object size"].level == level
    assert "20 px" in verdicts["Object size"].reason


def test_the_zoom_before_the_enhancer_counts():
    verdicts = {v.check: v for v in check_enhancer(CARD, discs(5), rescale=2.0)}
    assert verdicts["Object size"].level == "green"


def test_a_map_unlike_those_of_the_training_is_noticed():
    forest_map = discs(10)
    shares, _ = np.histogram(forest_map, bins=10, range=(0, 1))
    alike = ModelCard(id="n", name="n", training={"map_histogram": list(shares / shares.sum())})
    other = ModelCard(id="n", name="n", training={"map_histogram": [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]})
    assert [v.level for v in check_enhancer(alike, forest_map)] == ["green"]
    (verdict,) = check_enhancer(other, forest_map)
    assert (verdict.level, verdict.value) == ("amber", pytest.approx(1))


def test_an_enhancer_that_removes_what_the_forest_sees_is_noticed():
    verdicts = check_enhancer(ModelCard(id="n", name="n"), discs(10), np.zeros((160, 160)))
    assert [(v.check, v.level) for v in verdicts] == [("Contradiction", "amber")]
    assert "removes" in verdicts[0].reason


def test_a_network_that_knows_no_direction_agrees_with_itself():
    block = discs(10)[None]
    scores = self_agreement(lambda b: (b[0] > 0.5).astype(np.float32), block)
    assert set(scores) == {"upside down", "mirrored", "darker", "brighter"}
    assert check_agreement(scores).level == "green"


def test_a_network_that_looks_at_the_place_does_not():
    def left_half(block: np.ndarray) -> np.ndarray:
        found = np.zeros(block.shape[-2:], np.float32)
        found[:, :80] = 1
        return found

    scores = self_agreement(left_half, discs(10)[None])
    assert scores["mirrored"] == 0
    assert scores["upside down"] == 1
    verdict = check_agreement(scores)
    assert (verdict.level, "mirrored" in verdict.reason) == ("red", True)


def test_a_network_that_hangs_on_brightness_does_not():
    block = np.linspace(0, 1, 100 * 100, dtype=np.float32).reshape(1, 100, 100)
    scores = self_agreement(lambda b: (b[0] > 0.9).astype(np.float32), block)
    assert scores["darker"] < 0.9


@pytest.mark.parametrize(
    ("curve", "level"),
    [([0.1, 0.3, 0.1, 0.05], "green"), ([0.3, 0.3, 0.27], "amber"), ([0.1, 0.2, 0.3], "red")],
)
def test_discrepancy_should_fall(curve, level):
    assert check_discrepancy(curve).level == level


def test_a_curve_without_length_says_nothing():
    assert check_discrepancy([0.3]) is None
    assert check_discrepancy([0.0, 0.0]) is None


def test_a_package_is_checked_on_a_part_of_an_image():
    image = image_from_array(discs(10), "yx", name="map")
    (verdict,) = check_run(bundled_folder("nuclei"), image, whole(image.limits))
    assert (verdict.check, verdict.level) == ("Self-agreement", "green")
    assert verdict.reason.endswith(CAUTION)


def test_the_middle_of_a_plane_is_cut_to_what_networks_take():
    plane = np.arange(700 * 100).reshape(1, 700, 100)
    found = middle(plane)
    assert found.shape == (1, 512, 96)
    np.testing.assert_array_equal(found, plane[:, 94:606, 2:98])


def test_the_gravest_verdict_counts():
    verdicts = [check_discrepancy([0.3, 0.1]), check_discrepancy([0.1, 0.3])]
    assert overall(verdicts).level == "red"
