"""CellSegUDA and CellSegSSDA: losses against literal ones, who learns from what, resume."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapt_jobs import runs_out_of_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.devices import make_fabric, setup
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Step, run_quietly
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.nets.discriminator import Discriminator
from napari_cellda.core.nets.norms import with_norms_of
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.methods import cellseguda, find_method
from napari_cellda.methods._cellseguda_losses import (
    adversarial_loss,
    discriminator_loss,
    overlap_loss,
    reconstruction_loss,
)
from napari_cellda.methods._cellseguda_polarity import _some, seems_swapped
from napari_cellda.methods.cellseguda import Params
from outcomes import outcome

PLAIN = Normalisation(kind="none", offset=(0.0,), factor=(1.0,))
TINY = Params(
    steps=4, crop=32, batch=2, width=4, decoder_width=4, discriminator_width=4, depth=2,
    validate_every=2, preview_every=2,
)  # fmt: skip


def plane(seed: int, *, bright: bool = True, labelled: bool = True, classes: int = 2) -> Plane:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 48), np.int32)
    for k in range(1, classes):
        top, left = rng.integers(0, 24, 2)
        labels[top : top + 14, left : left + 14] = k
    pixels = (labels if bright else -labels) + rng.normal(0, 0.2, labels.shape)
    return Plane(
        f"plane {seed}", pixels[None].astype(np.float32), PLAIN, labels=labels if labelled else None
    )


def job(*, labelled: int = 0, classes: int = 2, **changes) -> AdaptJob:
    source = Domain(tuple(plane(i, classes=classes) for i in range(4)))
    target = Domain(
        tuple(plane(10 + i, bright=False, labelled=i < labelled, classes=classes) for i in range(4))
    )
    given = {
        "target": target, "source": source, "store": MemoryStore(), "scratch": None,
        "classes": ("background", "a", "b")[:classes], "device": "cpu",
    }  # fmt: skip
    return AdaptJob(**{**given, **changes})


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


# -- losses --------------------------------------------------------------------------------------


def literal_overlap(y: np.ndarray, p: np.ndarray) -> float:
    """Eq. 1 with s = 1, over lists of pixels."""
    both = total = 0.0
    for truth, guess in zip(y.ravel(), p.ravel(), strict=True):
        if truth != UNKNOWN:
            both += truth * guess
            total += truth + guess
    return 1 - (2 * both + 1) / (total + 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_eq_1_overlap(seed: int):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(-1, 2, (2, 1, 3, 4)), rng.random((2, 1, 3, 4))
    found = overlap_loss(torch.from_numpy(p), torch.from_numpy(y))
    assert float(found) == pytest.approx(literal_overlap(y, p))


def test_eq_1_with_several_classes_is_the_mean_over_them():
    rng = np.random.default_rng(0)
    y, p = rng.integers(-1, 3, (2, 1, 3, 4)), rng.dirichlet(np.ones(3), (2, 3, 4))
    p = np.moveaxis(p, -1, 1)
    each = [
        literal_overlap(np.where(y == UNKNOWN, UNKNOWN, y == k), p[:, k : k + 1]) for k in range(3)
    ]
    found = overlap_loss(torch.from_numpy(p.copy()), torch.from_numpy(y))
    assert float(found) == pytest.approx(np.mean(each))


def test_eq_1_anchors():
    y = torch.tensor([[[[0, 1], [1, 0]]]])
    assert float(overlap_loss(y.float(), y)) == pytest.approx(0)
    assert float(overlap_loss(torch.zeros(1, 1, 2, 2), torch.zeros_like(y))) == 0
    unknown = torch.full_like(y, UNKNOWN)
    guess = torch.rand(1, 1, 2, 2, requires_grad=True)
    loss = overlap_loss(guess, unknown)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not guess.grad.any()


def test_eq_2_3_and_5_against_loops():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(2, 2, 1, 2, 3))

    def mean_of(values) -> float:
        return sum(values) / len(values)

    def sigmoid(v) -> float:
        return 1 / (1 + math.exp(-v))

    adversarial = mean_of([-math.log(sigmoid(v)) for v in target.ravel()])
    assert float(adversarial_loss(torch.from_numpy(target))) == pytest.approx(adversarial)
    # z = 1 for the source: -log D; z = 0 for the target: -log(1 - D).
    discriminator = mean_of([-math.log(sigmoid(v)) for v in source.ravel()]) + mean_of(
        [-math.log(1 - sigmoid(v)) for v in target.ravel()]
    )
    found = discriminator_loss(torch.from_numpy(source), torch.from_numpy(target))
    assert float(found) == pytest.approx(discriminator)
    x, redrawn = rng.normal(size=(2, 1, 3, 4, 4))
    squares = [(a - b) ** 2 for a, b in zip(x.ravel(), redrawn.ravel(), strict=True)]
    found = reconstruction_loss(torch.from_numpy(x), torch.from_numpy(redrawn))
    assert float(found) == pytest.approx(mean_of(squares))


# -- who learns from what ----------------------------------------------------------------------


def test_discriminator_step_leaves_the_segmenter_and_the_other_way_round():
    trainer = cellseguda._Trainer(job(), TINY)
    source, _, target, _ = trainer.batch(0)
    source_map, target_map = trainer._maps(source), trainer._maps(target)
    before = [weights(n) for n in (trainer.network, trainer.decoder, trainer.discriminator)]
    trainer._train_discriminator(source_map, target_map)
    assert torch.equal(weights(trainer.network), before[0])
    assert torch.equal(weights(trainer.decoder), before[1])
    judged = weights(trainer.discriminator)
    assert not torch.equal(judged, before[2])
    trainer._train_segmenter(trainer._target_terms(target, target_map))
    assert torch.equal(weights(trainer.discriminator), judged)
    assert not torch.equal(weights(trainer.network), before[0])
    assert not torch.equal(weights(trainer.decoder), before[1])


def test_a_step_is_taken_again_after_memory_ran_out_in_it():
    trainer = cellseguda._Trainer(job(), TINY)
    batch = trainer.batch(0)
    runs_out_of_memory(trainer, 2)  # for the segmenter
    with pytest.raises(torch.OutOfMemoryError):
        trainer.step(0, batch)
    judge = weights(trainer.discriminator)
    trainer.step(0, batch)
    assert not torch.equal(judge, weights(trainer.discriminator))


def test_reconstruction_reaches_segmenter_and_decoder_but_not_the_discriminator():
    trainer = cellseguda._Trainer(job(), TINY.model_copy(update={"lam_adv": 0.0}))
    target = trainer.batch(0)[2]
    terms = trainer._target_terms(target, trainer._maps(target))
    trainer.fabric.backward(terms["reconstruction"])
    for network in (trainer.network, trainer.decoder):
        assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad is None for p in trainer.discriminator.parameters())


def source_only(params: Params, what: AdaptJob) -> Segmenter:
    """Train on the source alone, in the plainest way; every random number as the method draws."""
    torch.manual_seed(what.seed)
    fabric = make_fabric("cpu")
    network = Segmenter(1, what.n_classes, params.width, params.depth, up="transpose", growth=8)
    model, adam = setup(fabric, network, torch.optim.Adam(network.parameters(), 5e-4))
    trainer = cellseguda._Trainer(what, params)
    for index in range(params.steps):
        images, labels, _, _ = trainer.batch(index)
        network.train()
        maps = model(images.to(memory_format=torch.channels_last)).float().sigmoid()
        adam.zero_grad()
        fabric.backward(overlap_loss(maps, labels))
        adam.step()
    return network


def test_without_adversary_and_reconstruction_it_is_source_only_training_bit_for_bit():
    params = TINY.model_copy(update={"lam_adv": 0.0, "lam_rec": 0.0, "norm_statistics": "training"})
    adapted = run_quietly(cellseguda.adapt(job(labelled=2), params))
    plain = source_only(params, job())
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            adapted.network.state_dict().values(), plain.state_dict().values(), strict=True
        )
    )


def test_norms_are_measured_on_the_given_images_and_the_network_stays():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3))
    x = torch.randn(6, 1, 8, 8) * 4 + 2
    before = {k: v.clone() for k, v in network.state_dict().items()}
    copy = with_norms_of(network, [x[:3], x[3:]])
    y = network[0](x).detach()
    assert torch.allclose(copy[1].running_mean, y.mean((0, 2, 3)), atol=1e-5)
    assert not copy.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_norms_are_measured_in_mixed_precision_which_ends_with_the_measuring(monkeypatch):
    trainer = cellseguda._Trainer(job(), TINY)
    trainer.fabric = make_fabric("cpu", "bf16-mixed")
    next(batches := trainer._norm_batches(trainer.target))
    assert not torch.is_autocast_enabled("cpu")
    batches.close()
    mixed = []

    def seen(network, batches):
        mixed.extend(torch.is_autocast_enabled("cpu") for _ in batches)
        return with_norms_of(network, [])

    monkeypatch.setattr(cellseguda, "with_norms_of", seen)
    trainer.final_network()
    assert mixed == [True] * cellseguda.NORM_BATCHES
    assert not torch.is_autocast_enabled("cpu")


def test_discriminator_halves_five_times():
    assert Discriminator(2, 4)(torch.zeros(1, 2, 64, 96)).shape == (1, 1, 2, 3)


# -- bright and dark ---------------------------------------------------------------------------


def planes(*, bright: bool, labelled: bool = True) -> Domain:
    return Domain(tuple(plane(i, bright=bright, labelled=labelled) for i in range(3)))


@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("target", [True, False])
def test_swapped_greys_are_noticed_without_target_labels(source: bool, target: bool):
    found = seems_swapped(planes(bright=source), planes(bright=target, labelled=False))
    assert found == (source != target)


def test_nothing_is_said_where_the_source_does_not_lean_as_its_cells_do():
    # Dark cells in images whose few brightest pixels are something else, as in phase contrast.
    odd = [replace(p, labels=1 - p.labels) for p in planes(bright=True).planes]
    assert not seems_swapped(Domain(tuple(odd)), planes(bright=False))
    rng = np.random.default_rng(0)
    even = replace(plane(0), pixels=rng.normal(size=(1, 40, 48)).astype(np.float32))
    assert not seems_swapped(planes(bright=True), Domain((even,)))


@pytest.mark.parametrize(("given", "read"), [(1, 1), (16, 16), (31, 16), (33, 11)])
def test_no_more_than_16_planes_are_read_to_tell(given: int, read: int):
    assert len(_some(Domain((plane(0),) * given))) == read


def test_source_crops_are_inverted_where_greys_seem_swapped_or_when_told():
    def inverted(**changes) -> float:
        trainer = cellseguda._Trainer(job(), TINY.model_copy(update={"batch": 32, **changes}))
        images, labels, _, _ = trainer.batch(0)
        darker = [i[0][k[0] > 0].mean() < 0 for i, k in zip(images, labels, strict=True)
                  if (k > 0).any()]  # fmt: skip
        return float(np.mean(darker))

    assert 0.2 < inverted() < 0.8
    assert inverted(invert=0.0) == 0
    assert inverted(invert=1.0) == 1
    notes = [e for e in outcome(cellseguda.adapt(job(), TINY))[0] if isinstance(e, Note)]
    assert any("invert=0" in e.text for e in notes)
    assert find_method("cellseguda").settings("published").invert == 0


@pytest.mark.parametrize("scaling", ["percentile", "minmax"])
def test_what_is_inverted_keeps_the_range_of_its_scaling(scaling: str):
    source = [replace(plane(i), pixels=np.clip(plane(i).pixels, 0, 1)) for i in range(4)]
    changes = {"invert": 1.0, "normalisation": scaling}
    trainer = cellseguda._Trainer(
        job(source=Domain(tuple(source))), TINY.model_copy(update=changes)
    )
    images, labels, _, _ = trainer.batch(0)
    assert images.min() >= 0
    assert images.max() > 0.9
    assert images[:, 0][labels[:, 0] > 0].mean() < 0.3


# -- runs --------------------------------------------------------------------------------------


def losses(events) -> dict[int, dict[str, float]]:
    return {e.index: e.losses for e in events if isinstance(e, Step)}


def test_a_stopped_run_joins_the_uninterrupted_one_exactly():
    events, whole = outcome(cellseguda.adapt(job(), TINY))
    store, asked = MemoryStore(), iter([False, False, True])
    first, _ = outcome(cellseguda.adapt(job(store=store, stop=lambda: next(asked)), TINY))
    second, joined = outcome(cellseguda.adapt(job(store=store), TINY))
    assert list(losses(first)) == [1, 2]
    assert {**losses(first), **losses(second)} == losses(events)
    assert torch.equal(weights(whole.network), weights(joined.network))


def test_it_shows_what_the_paper_shows():
    events, adapted = outcome(cellseguda.adapt(job(), TINY))
    previews = {e.name: e.array for e in events if isinstance(e, Preview)}
    assert set(previews) == {
        "foreground", "reconstruction", "reconstruction error", "source likeness"
    }  # fmt: skip
    assert all(a.shape[-2:] == (40, 48) for a in previews.values())
    assert all(a.min() >= 0 and a.max() <= 1 for a in previews.values())
    assert {e.name for e in events if isinstance(e, Score)} == {
        "source dice", "source foreground", "target foreground", "reconstruction error",
        "discriminator accuracy",
    }  # fmt: skip
    assert "no target label" in adapted.selection


def test_an_implausible_share_of_foreground_is_said_once(monkeypatch: pytest.MonkeyPatch):
    trainer = cellseguda._Trainer(job(), TINY)
    figures = {"source foreground": 0.1, "target foreground": 0.6}
    monkeypatch.setattr(trainer, "health", lambda network: figures)
    notes = [e for _ in range(2) for e in trainer._scores(trainer.network, 1)]
    assert [e.text[:5] for e in notes if isinstance(e, Note)] == ["60.0%"]


def test_several_classes_give_one_map_each():
    _, adapted = outcome(cellseguda.adapt(job(classes=3), TINY))
    assert adapted.kind == "classes"
    with torch.inference_mode():
        maps = adapted.network(torch.zeros(1, 1, 33, 50))
    assert maps.shape == (1, 3, 33, 50)
    assert torch.allclose(maps.sum(1), torch.ones(1, 33, 50), atol=1e-5)


def test_labelled_target_planes_are_learned_from_and_some_are_kept_aside():
    trainer = cellseguda._Trainer(job(labelled=3), TINY)
    kept = {p.name for p in trainer.validation.planes}
    assert len(kept) == 1
    learned = {p.name for p in trainer.target.planes if p.labels is not None}
    assert len(learned) == 2
    assert not learned & kept
    assert len(trainer.target) == 4
    events, adapted = outcome(cellseguda.adapt_with_labels(job(labelled=3), TINY))
    assert "kept aside" in adapted.selection
    assert any(e.losses["target segmentation"] > 0 for e in events if isinstance(e, Step))


def test_one_labelled_plane_is_not_spent_on_the_choice():
    trainer = cellseguda._Trainer(job(labelled=1), TINY)
    assert trainer.validation is None


def test_strokes_count_where_they_are_painted():
    what = job(labelled=1)
    painted = np.full((40, 48), UNKNOWN)
    painted[10:20, 10:20] = 1
    planes = (replace(what.target.planes[0], labels=painted), *what.target.planes[1:])
    events, _ = outcome(cellseguda.adapt_with_labels(replace(what, target=Domain(planes)), TINY))
    assert any(e.losses["target segmentation"] > 0 for e in events if isinstance(e, Step))


def test_what_is_missing_is_said():
    with pytest.raises(UserError, match="source"):
        run_quietly(cellseguda.adapt(job(source=None), TINY))
    with pytest.raises(UserError, match="use cellseguda"):
        run_quietly(cellseguda.adapt_with_labels(job(), TINY))
    missing = find_method("cellsegssda").missing({"target_images", "source_images", "source_masks"})
    assert missing == ["masks of some target images or brushstrokes on some target images"]


@pytest.mark.parametrize("preset", ["cpu", "gpu", "published"])
def test_presets_are_valid(preset: str):
    published = find_method("cellseguda").settings(preset)
    assert (published.lam_adv, published.lam_rec) == (1e-3, 1e-2)
