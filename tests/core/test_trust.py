import numpy as np
import pytest

from napari_cellda.core.enhancer.trust import (
    TrustThresholds,
    check_trust,
    contradiction,
    object_diameter,
    unsureness,
)
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.modelzoo.structures import known_structure

NUCLEI = ModelCard("nuclei", "Nuclei", structure="nuclei", object_diameter=20.0)


LENIENT = TrustThresholds(contradicted=2)


def discs(diameter, spacing=None, shape=(256, 256)):
    """A map with discs on a grid, 0.9 inside and 0.1 outside."""
    spacing = spacing or 2 * diameter
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y % spacing - spacing / 2, x % spacing - spacing / 2)
    return np.where(distance < diameter / 2, 0.9, 0.1).astype(np.float32)


def test_a_good_answer_raises_no_doubt():
    forest = discs(20)
    noisy = np.clip(forest + np.random.default_rng(0).normal(0, 0.1, forest.shape), 0, 1)
    assert check_trust(NUCLEI, noisy.astype(np.float32), forest, class_name="nuclei") == []


def test_a_repaired_speckle_raises_no_doubt():
    forest = discs(20)
    speckled = forest.copy()
    speckled[np.random.default_rng(0).random(forest.shape) < 0.03] = 0.8
    assert check_trust(NUCLEI, speckled, forest) == []


def test_invented_objects_are_doubted():
    forest, enhanced = discs(20), discs(20)
    forest[:, 80:] = 0.1
    (sentence,) = check_trust(NUCLEI, forest, enhanced)
    assert "adds objects" in sentence
    assert "%" in sentence


def test_erased_objects_are_doubted():
    forest, enhanced = discs(20), discs(20)
    enhanced[:, 80:] = 0.1
    (sentence,) = check_trust(NUCLEI, forest, enhanced)
    assert "removes objects" in sentence


def test_a_doubtful_forest_may_be_overruled():
    forest = np.where(discs(20) > 0.5, 0.6, 0.4).astype(np.float32)
    forest[0, :2] = 0, 1  # not a flat map
    assert check_trust(NUCLEI, forest, discs(20)) == []
    assert contradiction(forest, 1 - forest) == pytest.approx((1 / 65536, 1 / 65536))


def test_a_vague_answer_is_doubted():
    forest = discs(20)
    vague = np.where(forest > 0.5, 0.55, 0.0).astype(np.float32)
    (sentence,) = check_trust(NUCLEI, forest, vague)
    assert "unsure of 100%" in sentence
    assert unsureness(np.array([0.1, 0.3, 0.7, 0.9, 1.0])) == 0.5
    assert unsureness(np.zeros(4)) == 0


def test_an_answer_with_nothing_in_it_is_not_called_vague():
    forest = discs(20) * 0.5
    nearly_empty = np.zeros_like(forest)
    nearly_empty[:10, :10] = 0.4
    assert check_trust(NUCLEI, forest, nearly_empty) == []


def test_a_size_is_doubted_only_where_both_maps_show_it():
    enhanced = discs(40, shape=(512, 512))
    card = ModelCard("nuclei", "Nuclei", structure="nuclei", object_diameter=40.0)
    assert "rescale" in check_trust(card, discs(10, shape=(512, 512)))[0]
    assert check_trust(card, discs(10, shape=(512, 512)), enhanced, thresholds=LENIENT) == []
    both = check_trust(card, discs(10, shape=(512, 512)), discs(11, shape=(512, 512)))
    assert "rescale" in both[-1]


def test_contradiction_counts_both_ways():
    forest = np.array([0.1, 0.1, 0.9, 0.45, 0.9])
    enhanced = np.array([0.9, 0.2, 0.2, 0.55, 0.4])
    assert contradiction(forest, enhanced) == pytest.approx((0.2, 0.4))


def test_a_flat_map_is_the_only_thing_said():
    flat = np.random.default_rng(0).uniform(0.4, 0.6, (64, 64)).astype(np.float32)
    (sentence,) = check_trust(NUCLEI, flat, discs(20, shape=(64, 64)), class_name="mitochondria")
    assert "nearly flat" in sentence


@pytest.mark.parametrize("diameter", [6, 60])
def test_another_object_size_is_named_with_its_remedy(diameter):
    forest = discs(diameter, shape=(512, 512))
    (sentence,) = check_trust(NUCLEI, forest, forest)
    assert "trained on 20 px" in sentence
    factor = float(sentence.rsplit(" ", 1)[1].rstrip("."))
    assert factor == pytest.approx(20 / diameter, rel=0.15)
    assert check_trust(NUCLEI, forest, forest, rescale=factor) == []


def test_few_objects_say_nothing_about_size():
    forest = discs(60, spacing=200)
    assert check_trust(NUCLEI, forest, forest) == []


def test_an_unknown_size_is_not_compared():
    card = ModelCard("x", "x")
    assert check_trust(card, discs(60, shape=(512, 512)), discs(60, shape=(512, 512))) == []


@pytest.mark.parametrize(
    ("made_for", "called", "doubted"),
    [
        ("nuclei", "mitochondria", True),
        ("mitochondria", "cell membrane", True),
        ("boundaries", "Nucleus", True),
        ("nuclei", "nucleus", False),
        ("nuclei", "class 1", False),
        ("", "nuclei", False),
        ("cells", "nuclei", False),
    ],
)
def test_another_structure_is_doubted(made_for, called, doubted):
    card = ModelCard("x", "x", structure=made_for)
    found = check_trust(card, discs(20), discs(20), class_name=called)
    assert bool(found) is doubted
    assert not doubted or (called in found[0] and made_for in found[0])


def test_only_the_forest_can_be_checked():
    assert check_trust(NUCLEI, discs(20)) == []
    assert len(check_trust(NUCLEI, discs(60, shape=(512, 512)))) == 1


def test_a_stack_is_checked_too():
    stack = np.stack([np.full((256, 256), 0.1, np.float32), discs(6), discs(6)])
    (sentence,) = check_trust(NUCLEI, stack, stack)
    assert "rescale" in sentence


def test_thresholds_can_be_given():
    forest, enhanced = discs(20), discs(20)
    forest[:, 200:] = 0.1
    assert check_trust(NUCLEI, forest, enhanced) == []
    strict = TrustThresholds(contradicted=0.1)
    assert len(check_trust(NUCLEI, forest, enhanced, thresholds=strict)) == 1


def test_sentences_are_plain():
    forest, enhanced = discs(60, shape=(512, 512)), discs(6, shape=(512, 512))
    found = check_trust(NUCLEI, forest, enhanced, class_name="mito")
    assert len(found) == 3
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in found)


@pytest.mark.parametrize("diameter", [6, 12, 20, 45])
def test_the_diameter_of_separate_discs(diameter):
    measured, n_objects = object_diameter(discs(diameter, shape=(360, 360)))
    assert measured == pytest.approx(diameter, rel=0.1)
    assert n_objects >= 9


def test_touching_discs_are_told_apart():
    measured, _ = object_diameter(discs(20, spacing=19, shape=(380, 380)))
    assert measured == pytest.approx(20, rel=0.15)


def test_specks_are_left_out():
    map_ = discs(20)
    map_[::16, 1::16] = 0.9
    assert object_diameter(map_)[0] == pytest.approx(20, rel=0.1)


def test_an_empty_map_has_no_objects():
    assert object_diameter(np.zeros((20, 20))) == (0.0, 0)
    assert object_diameter(np.eye(20)) == (0.0, 0)


@pytest.mark.parametrize(
    ("words", "structure"),
    [
        ("EnhancerMitochondriaEM2D", "mitochondria"),
        ("EM3DBoundaryEnhancer", "boundaries"),
        ("Nuclei in fluorescence", "nuclei"),
        ("cells", ""),
        ("", ""),
    ],
)
def test_structures_are_known_by_their_words(words, structure):
    assert known_structure(words) == structure
