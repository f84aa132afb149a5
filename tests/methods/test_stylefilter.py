"""StyleFilter: losses against literal ones, the filter, who learns from what, stages, resume."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapt_jobs import runs_out_of_memory
from torch import nn

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.adaptation.job import AdaptJob
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Stage, Step, run_quietly
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.nets.cut import Generator, Halve, PatchDiscriminator, Projection
from napari_cellda.core.nets.styled import StyledSegmenter
from napari_cellda.methods import find_method, stylefilter
from napari_cellda.methods._cut import StyleBatch, lsgan_loss, patch_nce
from napari_cellda.methods._stylefilter_losses import (
    cross_entropy,
    disturb_greys,
    filtered_labels,
    presence_f1,
)
from napari_cellda.methods._stylefilter_target import Target, thinned
from napari_cellda.methods._stylefilter_teacher import class_shares, class_weights
from napari_cellda.methods.stylefilter import Params
from outcomes import outcome, train_into

PLAIN = Normalisation(kind="none", offset=(0.0,), factor=(1.0,))
TINY = Params(
    steps=6, style_share=0.34, source_share=0.33, crop=32, style_crop=32, batch=2, style_width=4,
    style_blocks=1, patches=8, width=4, depth=2, validate_every=2, preview_every=2,
)  # fmt: skip
"""Two steps per stage."""


def plane(seed: int, *, dim: bool, labelled: bool, present: tuple[bool, ...] | None) -> Plane:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 44), np.int32)
    for k in (1, 2):
        top, left = rng.integers(0, 26, 2)
        labels[top : top + 12, left : left + 12] = k
    pixels = np.float32([0.2, 0.6, 1.0])[labels] * (0.5 if dim else 1)
    pixels += rng.normal(0, 0.05, labels.shape)
    return Plane(
        f"plane {seed}",
        pixels[None].astype(np.float32),
        PLAIN,
        labels=labels if labelled else None,
        present_mask=None if present is None else np.array([True, *present]),
    )


def job(folder, *, weak: bool = False, **changes) -> AdaptJob:
    shown = [(True, True), (True, False), (False, True), (True, True)]
    given = {
        "source": Domain(tuple(plane(i, dim=False, labelled=True, present=None) for i in range(4))),
        "target": Domain(
            tuple(
                plane(10 + i, dim=True, labelled=False, present=p if weak else None)
                for i, p in enumerate(shown)
            )
        ),
        "store": MemoryStore(), "scratch": folder, "device": "cpu",
        "classes": ("background", "a", "b"),
    }  # fmt: skip
    return AdaptJob(**{**given, **changes})


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


# -- losses --------------------------------------------------------------------------------------


def test_eq_1_cross_entropy_leaves_unknown_pixels_out():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 2, 4)), rng.integers(-1, 3, (2, 1, 2, 4))
    costs = []
    for n, y, x in np.ndindex(2, 2, 4):
        if labels[n, 0, y, x] != UNKNOWN:
            powers = [math.exp(v) for v in logits[n, :, y, x]]
            costs.append(-math.log(powers[labels[n, 0, y, x]] / sum(powers)))
    found = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(found) == pytest.approx(sum(costs) / len(costs))
    assert float(cross_entropy(torch.zeros(1, 3, 2, 2), torch.full((1, 1, 2, 2), UNKNOWN))) == 0


def test_cross_entropy_of_one_channel_is_that_of_two_classes():
    logit = torch.randn(2, 1, 3, 3)
    labels = torch.randint(-1, 2, (2, 1, 3, 3))
    both = torch.cat([torch.zeros_like(logit), logit], dim=1)
    assert float(cross_entropy(logit, labels)) == pytest.approx(float(cross_entropy(both, labels)))


def test_eq_2_and_3_pseudo_labels():
    rng = np.random.default_rng(1)
    maps = np.moveaxis(rng.dirichlet(np.ones(4), (3, 5, 6)), -1, 1)
    present = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    found = filtered_labels(torch.from_numpy(maps.copy()), torch.from_numpy(present))[:, 0]
    for n, y, x in np.ndindex(3, 5, 6):
        products = [maps[n, c, y, x] * present[n, c] for c in range(4)]
        assert found[n, y, x] == products.index(max(products))


def test_filter_anchors():
    maps = torch.softmax(torch.randn(1, 4, 6, 6), dim=1)
    assert torch.equal(
        filtered_labels(maps, torch.ones(1, 4, dtype=torch.bool)), maps.argmax(1, keepdim=True)
    )
    only = torch.tensor([[False, False, True, False]])
    assert (filtered_labels(maps, only) == 2).all()
    sure = filtered_labels(maps, torch.ones(1, 4, dtype=torch.bool), confidence=0.6)
    assert torch.equal(sure == UNKNOWN, maps.amax(1, keepdim=True) < 0.6)


def test_patch_nce_is_the_cross_entropy_of_the_own_place():
    rng = np.random.default_rng(2)
    q, k = (
        nn.functional.normalize(torch.from_numpy(rng.normal(size=(2, 5, 3))), dim=-1) for _ in "qk"
    )
    costs = []
    for n in range(2):
        for i in range(5):
            positive = float(q[n, i] @ k[n, i]) / 0.07
            # The original puts -10 at the own place among the negatives, before the division.
            negatives = [(-10.0 if i == j else float(q[n, i] @ k[n, j])) / 0.07 for j in range(5)]
            total = sum(math.exp(v) for v in [positive, *negatives])
            costs.append(-math.log(math.exp(positive) / total))
    assert float(patch_nce(q, k)) == pytest.approx(np.mean(costs), rel=1e-5)


def test_patch_nce_of_equal_distinct_patches_is_small_and_keys_get_no_gradient():
    q = nn.functional.normalize(torch.randn(1, 256, 256), dim=-1).requires_grad_()
    k = q.detach().clone().requires_grad_()
    loss = patch_nce(q, k)
    loss.backward()
    assert float(loss.detach()) < 0.05
    assert k.grad is None
    assert q.grad is not None


def test_lsgan_of_a_discriminator_that_cannot_tell():
    half = torch.full((2, 1, 3, 3), 0.5)
    both = (lsgan_loss(half, real=True) + lsgan_loss(half, real=False)) / 2
    assert float(both) == pytest.approx(0.25)


def test_presence_f1_counts_by_class():
    found = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    truth = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1]], bool)
    assert presence_f1(found, truth) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert presence_f1(found[:, :1], truth[:, :1]) == 1


def test_labels_of_a_stack_are_checked_on_the_whole_stack(tmp_path):
    flat = job(tmp_path, weak=True).target.planes
    planes = tuple(replace(p, image=f"stack {i // 2}") for i, p in enumerate(flat))
    stacks = job(tmp_path, weak=True, target=Domain(planes))
    target = Target(stacks, TINY)
    assert target.checked in ([[0, 1]], [[2, 3]])
    assert sorted([*target.adapted_to, *target.checked[0]]) == [0, 1, 2, 3]
    single = Target(replace(stacks, target=Domain(planes[:2])), TINY)
    assert (single.adapted_to, single.checked) == ([0, 1], [])

    # Of two classes each is in one plane only, where it is found.
    class Right:
        def predict(self, i: int) -> np.ndarray:
            maps = np.zeros((3, 40, 44), np.float32)
            maps[1 + i % 2] = 1
            return maps

    trainer = stylefilter._Trainer(stacks, TINY)
    trainer.checks.target = target
    for i in target.checked[0]:
        target.planes[i].present_mask[:] = True
    target.drawn = planes
    order = iter(target.checked[0])
    trainer.checks._segment = lambda pixels: Right().predict(next(order))
    assert trainer.checks._presence_score() == 1


def test_greys_are_disturbed_within_limits_and_by_the_seed_alone():
    x = torch.full((4, 1, 8, 8), 0.5)
    a, b = (disturb_greys(x, np.random.default_rng(3), 0.05, 0.2) for _ in range(2))
    assert torch.equal(a, b)
    assert 0 <= a.min() <= a.max() <= 1
    assert torch.equal(disturb_greys(x, np.random.default_rng(3), 0, 0), x)


# -- the balance of classes ----------------------------------------------------------------------


def test_weights_give_each_class_its_share_of_the_pixels():
    rng = np.random.default_rng(4)
    # The network is unsure of the rare class, which wins nowhere, though it is likelier in places.
    rare = torch.from_numpy(0.3 * rng.random(20_000).astype(np.float32) ** 3)
    first = torch.from_numpy(rng.random(20_000).astype(np.float32) > 0.3) * 0.4 + 0.3
    maps = torch.stack([first * (1 - rare), (1 - first) * (1 - rare), rare])
    assert not (maps.argmax(0) == 2).any()
    wanted = torch.tensor([0.6, 0.3, 0.1])
    weights = class_weights(maps, wanted)
    found = torch.bincount((maps * weights[:, None]).argmax(0), minlength=3) / 20_000
    assert float(weights[0]) == 1
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=0.02)


def test_weights_are_1_where_shares_are_right_and_limited_where_they_cannot_be():
    maps = torch.eye(3).repeat_interleave(torch.tensor([6, 3, 1]), dim=1)
    assert class_weights(maps, torch.tensor([0.6, 0.3, 0.1])).tolist() == pytest.approx([1, 1, 1])
    never = torch.stack([torch.ones(50), torch.zeros(50)])
    assert class_weights(never, torch.tensor([0.5, 0.5])).tolist() == pytest.approx([1, 20])


def test_class_shares_are_those_of_the_annotated_pixels():
    labels = np.array([[0, 1, 1, UNKNOWN], [2, 0, 0, UNKNOWN]])
    one = Plane("a", np.zeros((1, 2, 4), np.float32), PLAIN, labels=labels)
    assert class_shares(Domain((one,)), 3).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_planes_are_limited_by_their_pixels():
    planes = [plane(i, dim=False, labelled=True, present=None) for i in range(10)]
    assert thinned(range(10), planes, 40 * 44 * 10) == range(10)
    assert list(thinned([0, 2, 4, 6], planes, 40 * 44 * 2)) == [0, 4]
    assert list(thinned(range(10), planes, 1)) == [0]


# -- networks ------------------------------------------------------------------------------------


def test_generator_keeps_the_size_and_gives_the_features_of_its_taps():
    generator = Generator(2, width=4, blocks=5)
    image, taps = generator(torch.rand(1, 2, 32, 24), give="both")
    assert image.shape == (1, 2, 32, 24)
    assert image.abs().max() <= 1
    assert [tuple(t.shape[1:]) for t in taps] == [
        (2, 38, 30), (8, 32, 24), (16, 16, 12), (16, 8, 6), (16, 8, 6)
    ]  # fmt: skip
    assert tuple(t.shape[1] for t in taps) == generator.tap_channels
    again = generator(torch.rand(1, 2, 32, 24), give="taps")
    assert len(again) == 5


@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (2, 3)])
def test_halving_is_the_filter_at_every_second_pixel(shape):
    x = torch.rand(1, 2, *shape)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    line = [0.25, 0.5, 0.25]
    y = Halve()(x)
    assert y.shape == (1, 2, *((side + 1) // 2 for side in shape))
    for c, i, j in np.ndindex(*y.shape[1:]):
        window = padded[0, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected = sum(line[a] * line[b] * float(window[a, b]) for a, b in np.ndindex(3, 3))
        assert float(y[0, c, i, j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_each_image_is_normed_for_itself_whether_it_trains_or_not(images):
    x = torch.rand(images, 3, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    norm = Generator(1, width=3, blocks=1).layers[2]
    assert isinstance(norm, nn.InstanceNorm2d)
    expected = (x - x.mean((2, 3), True)) / (
        x.var((2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    (slope,) = torch.autograd.grad((expected**3).sum(), x)
    for norm.training in (True, False):
        assert torch.allclose(norm(x), expected, atol=1e-5)
        assert torch.allclose(torch.autograd.grad((norm(x) ** 3).sum(), x)[0], slope, atol=1e-3)


def test_projection_gives_unit_vectors_at_the_places():
    taps = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)]
    made = Projection((3, 5))(taps, [torch.tensor([0, 7]), torch.tensor([3])])
    assert [tuple(v.shape) for v in made] == [(2, 2, 256), (2, 1, 256)]
    assert all(torch.allclose(v.norm(dim=-1), torch.ones(v.shape[:2]), atol=1e-4) for v in made)


def test_styled_segmenter_is_style_then_segmentation_for_any_size():
    network = StyledSegmenter(1, 3, width=4, depth=3, style_width=4, style_blocks=1).eval()
    x = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        chained = network.segmenter(network.stylise(x))
        assert torch.allclose(network(x), chained, atol=1e-5)
        assert torch.equal(network(x), network.forward_exact(x))
        odd = network(torch.rand(2, 1, 37, 21) * 3 - 1)
    assert odd.shape == (2, 3, 37, 21)
    assert torch.allclose(odd.sum(1), torch.ones(2, 37, 21), atol=1e-5)
    assert not network.tiles_exactly
    assert network.slim() is None
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 3, 5)).shape == (1, 3, 3, 5)
    assert StyledSegmenter(style_blocks=0).tiles_exactly
    with pytest.raises(UserError, match="blocks"):
        StyledSegmenter(style_blocks=1000)


# -- who learns from what ------------------------------------------------------------------------


def test_style_step_trains_its_three_networks_and_the_adversary_leaves_the_judge(tmp_path):
    trainer = stylefilter._Trainer(job(tmp_path), TINY)
    style, batch = trainer.style, trainer.batch(0)
    assert isinstance(batch, StyleBatch)
    networks = (trainer.network.generator, style.discriminator, style.projection)
    before = [weights(n) for n in (*networks, trainer.network.segmenter)]
    trainer.step(0, batch)
    changed = [not torch.equal(weights(n), b) for n, b in zip(networks, before, strict=False)]
    assert changed == [True, True, True]
    assert torch.equal(weights(trainer.network.segmenter), before[-1])
    judge = weights(style.discriminator)
    generator = weights(trainer.network.generator)
    style._train_judge(batch.source, trainer.network.generator(batch.target))
    assert torch.equal(weights(trainer.network.generator), generator)
    assert not torch.equal(weights(style.discriminator), judge)


def test_a_style_step_is_taken_again_after_memory_ran_out_in_it(tmp_path):
    trainer = stylefilter._Trainer(job(tmp_path), TINY)
    batch = trainer.batch(0)
    runs_out_of_memory(trainer, 2)  # for the generator
    with pytest.raises(torch.OutOfMemoryError):
        trainer.step(0, batch)
    judge = weights(trainer.style.discriminator)
    trainer.step(0, batch)
    assert not torch.equal(judge, weights(trainer.style.discriminator))


@pytest.mark.parametrize("mode", ["fastcut", "cut"])
def test_both_modes_give_finite_losses(tmp_path, mode: str):
    trainer = stylefilter._Trainer(job(tmp_path), TINY.model_copy(update={"style_mode": mode}))
    for index in range(2):
        terms = trainer.step(index, trainer.batch(index))
        assert set(terms) == {"generator", "contrast", "discriminator"}
        assert all(math.isfinite(v) for v in terms.values())


def test_style_rate_falls_to_zero_at_the_end(tmp_path):
    trainer = stylefilter._Trainer(job(tmp_path), TINY.model_copy(update={"steps": 600}))
    rates = []
    for index in (0, 152, 203):
        trainer.style._set_rate(index)
        rates.append(trainer.style.g_adam.param_groups[0]["lr"])
    assert rates[:2] == [2e-4, 2e-4]
    assert rates[2] < 1e-5


def adapting(folder, **changes):
    trainer = stylefilter._Trainer(job(folder, weak=True), TINY.model_copy(update=changes))
    run_quietly(trainer.draw_target())
    trainer.begin_round()
    return trainer


def test_adaptation_leaves_the_style_alone_and_makes_its_labels_without_gradient(tmp_path):
    trainer = adapting(tmp_path)
    batch = trainer.batch(4)
    generator = weights(trainer.network.generator)
    assert not trainer._pseudo_labels(batch.clean, batch.present).requires_grad
    trainer.step(4, batch)
    assert torch.equal(weights(trainer.network.generator), generator)


def test_norms_keep_the_statistics_of_the_source_while_it_adapts(tmp_path):
    trainer = adapting(tmp_path)

    def statistics():
        return [b.clone() for n, b in trainer.network.segmenter.named_buffers() if "running" in n]

    trainer.step(3, trainer.batch(3))
    before = statistics()
    trainer.step(4, trainer.batch(4))
    assert all(torch.equal(a, b) for a, b in zip(statistics(), before, strict=True))
    # Adam starts anew with this stage.
    assert {int(state["step"]) for state in trainer.s_adam.state.values()} == {1}
    trainer.step(2, trainer.batch(2))
    assert not all(torch.equal(a, b) for a, b in zip(statistics(), before, strict=True))


@pytest.mark.parametrize("student", ["stylised", "both"])
def test_half_of_a_batch_is_half_of_everything_in_it(tmp_path, student: str):
    batch = adapting(tmp_path, student_input=student, batch=3).batch(4)
    present = torch.tensor([[True, False], [False, True], [True, True]])
    half = batch._replace(present=present).halved()
    assert torch.equal(half.source_labels, batch.source_labels[[0, 2]])
    assert torch.equal(half.clean, batch.clean[[0, 2]])
    assert torch.equal(half.present, present[[0, 2]])
    seen = [0, 2] if student == "stylised" else [0, 2, 3, 5]
    assert torch.equal(half.student, batch.student[seen])


def test_student_sees_what_was_chosen(tmp_path):
    quiet = {"noise": 0.0, "jitter": 0.0}
    stylised = adapting(tmp_path, **quiet).batch(4)
    original = adapting(tmp_path, student_input="original", **quiet).batch(4)
    both = adapting(tmp_path, student_input="both", **quiet).batch(4)
    assert torch.allclose(stylised.student, stylised.clean)
    assert torch.equal(original.clean, stylised.clean)
    assert not torch.allclose(original.student, stylised.student)
    assert torch.equal(both.student, torch.cat([stylised.student, original.student]))
    assert stylised.present.shape == (2, 3)


def test_images_without_labels_may_show_every_class(tmp_path):
    trainer = stylefilter._Trainer(job(tmp_path), TINY)
    run_quietly(trainer.draw_target())
    assert trainer.batch(4).present.all()
    assert trainer.checks.select == "adapted steps"
    assert len(trainer.target.adapted_to) == 4


# -- runs ----------------------------------------------------------------------------------------


def losses(events) -> dict[int, dict[str, float]]:
    return {e.index: e.losses for e in events if isinstance(e, Step) and e.losses}


def test_three_stages_share_one_count_and_show_what_they_do(tmp_path):
    events, adapted = outcome(stylefilter.adapt(job(tmp_path, weak=True), TINY))
    assert [e.title for e in events if isinstance(e, Stage)] == [
        "Learn the style of the source",
        "Train on the source",
        "Draw the target in the style of the source",
        "Adapt to the target",
    ]
    assert not any(isinstance(e, Note) for e in events)
    assert list(losses(events)) == [1, 2, 3, 4, 5, 6]
    assert "contrast" in losses(events)[2]
    assert "target" not in losses(events)[4]
    assert "target" in losses(events)[5]
    previews = {e.name: e.array for e in events if isinstance(e, Preview)}
    assert set(previews) == {
        "stylised", "classes", "pseudo-labels", "filtered labels", "confidence"
    }  # fmt: skip
    assert all(a.shape[-2:] == (40, 44) for a in previews.values())
    assert any(e.name == "present classes F1" for e in events if isinstance(e, Score))
    assert "image-level labels" in adapted.selection
    assert adapted.kind == "classes"
    assert not adapted.network.training


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_stopped_in_any_stage_joins_the_uninterrupted_one(tmp_path, after: int):
    events, whole = outcome(stylefilter.adapt(job(tmp_path / "a"), TINY))
    store, seen = MemoryStore(), []
    what = job(tmp_path / "b", store=store, stop=lambda: len(seen) >= after)
    train_into(seen, stylefilter.adapt(what, TINY))
    assert len(seen) == after
    # Another folder: what was drawn is drawn again.
    again, joined = outcome(stylefilter.adapt(job(tmp_path / "c", store=store), TINY))
    assert {**losses(seen), **losses(again)} == losses(events)
    assert torch.equal(weights(joined.network), weights(whole.network))


def test_it_stops_while_it_draws_as_well(tmp_path):
    drawing = []
    task = stylefilter.adapt(job(tmp_path, stop=lambda: len(drawing) > 1), TINY)
    events = []
    while True:
        try:
            events.append(next(task))
        except StopIteration as end:
            adapted = end.value
            break
        title = [e.title for e in events if isinstance(e, Stage)][-1]
        drawing += [events[-1]] if title.startswith("Draw") else []
    assert adapted.progress.stopped
    assert adapted.progress.steps == 4
    assert len(list(tmp_path.rglob("*.npy"))) == 1


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_a_network_that_has_not_learned_to_segment_is_not_to_be_written(tmp_path, steps: int):
    done = []
    what = job(tmp_path, stop=lambda: len(done) >= steps)
    adapted = train_into(done, stylefilter.adapt(what, TINY))
    assert adapted.progress.steps == steps
    assert adapted.segments == (steps > 2)


def test_the_generator_trains_in_train_mode_after_a_validation_too(tmp_path):
    trainer = stylefilter._Trainer(job(tmp_path), TINY)
    list(trainer.validate(1))
    assert not trainer.network.generator.training
    trainer.step(1, trainer.batch(1))
    assert trainer.network.generator.training


def test_drawn_images_are_kept(tmp_path):
    first = adapting(tmp_path)
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 4
    times = [f.stat().st_mtime_ns for f in files]
    run_quietly(first.draw_target())
    assert [f.stat().st_mtime_ns for f in files] == times


def test_without_style_the_images_are_segmented_as_they_are(tmp_path):
    params = TINY.model_copy(update={"style_share": 0.0})
    _, adapted = outcome(stylefilter.adapt(job(tmp_path), params))
    assert adapted.network.generator is None
    assert adapted.progress.steps == 6


def test_original_input_means_original_prediction(tmp_path):
    params = TINY.model_copy(update={"student_input": "original"})
    _, adapted = outcome(stylefilter.adapt(job(tmp_path), params))
    assert adapted.network.generator is None


def test_a_checkpoint_that_forgot_the_source_is_not_chosen(tmp_path):
    for weak, name in ((True, "present classes F1 and steps"), (False, "adapted steps")):
        trainer = stylefilter._Trainer(job(tmp_path, weak=weak), TINY)
        run_quietly(trainer.draw_target())
        trainer.checks.guard.value = 0.0
        assert {e.name: e.value for e in trainer.checks.scores(6)}[name] > 0
        trainer.checks.guard.value = 2.0
        assert {e.name: e.value for e in trainer.checks.scores(6)}[name] == 0


def test_a_later_checkpoint_is_chosen_unless_the_classes_are_found_much_worse(tmp_path):
    checks = stylefilter._Trainer(job(tmp_path, weak=True), TINY).checks
    chosen = {}
    for done, f1 in ((5, 0.8), (6, 0.78)):
        checks._presence_score = lambda f1=f1: f1
        scores = {e.name: e.value for e in checks.scores(done)}
        assert scores["present classes F1"] == f1
        chosen[done] = scores[checks.select]
    assert chosen == {5: pytest.approx(0.8 + 0.025), 6: pytest.approx(0.78 + 0.05)}
    assert chosen[6] > chosen[5]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="source"):
        run_quietly(stylefilter.adapt(job(tmp_path, source=None), TINY))


def test_two_classes_work_as_well(tmp_path):
    what = job(tmp_path, classes=("background", "foreground"))
    source = Domain(tuple(replace(p, labels=np.sign(p.labels)) for p in what.source.planes))
    _, adapted = outcome(stylefilter.adapt(replace(what, source=source), TINY))
    assert adapted.kind == "foreground"
    with torch.inference_mode():
        assert adapted.network(torch.rand(1, 1, 20, 20)).shape == (1, 1, 20, 20)


@pytest.mark.parametrize("preset", ["cpu", "gpu", "published"])
def test_presets_are_valid(preset: str):
    ends = find_method("stylefilter").settings(preset).stage_ends
    assert 0 < ends[0] < ends[1] < ends[2]


def test_pseudo_labels_are_those_of_the_network_before_and_weighed(tmp_path):
    trainer = adapting(tmp_path)
    batch = trainer.batch(4)
    before = trainer._pseudo_labels(batch.clean, batch.present)
    with torch.no_grad():
        for parameter in trainer.network.segmenter.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(trainer._pseudo_labels(batch.clean, batch.present), before)
    trainer.teacher.weights.copy_(torch.tensor([0.0, 0.0, 1.0]))
    found = trainer._pseudo_labels(batch.clean, batch.present)[:, 0]
    for labels, present in zip(found, batch.present, strict=True):
        assert (labels == (2 if present[2] else 0)).all()


def test_the_published_preset_labels_with_the_network_as_it_is(tmp_path):
    published = find_method("stylefilter").settings("published")
    assert (published.teacher, published.match_shares) == ("current", False)
    trainer = adapting(tmp_path, teacher="current", match_shares=False)
    assert torch.equal(trainer.teacher.weights, torch.ones(3))
    batch = trainer.batch(4)
    trainer.s.eval()
    maps = trainer.s(batch.clean).float()
    assert torch.equal(
        trainer._pseudo_labels(batch.clean, batch.present), filtered_labels(maps, batch.present)
    )


def test_rates_of_the_segmenter_fall_in_every_round_or_stay(tmp_path):
    steps = {"steps": 600, "style_share": 0.0, "source_share": 0.5, "rounds": 3}
    falls = stylefilter._Trainer(job(tmp_path), TINY.model_copy(update=steps))
    assert falls.params.round_starts == (300, 400, 500)
    rates = [falls._rate(i) for i in (30, 299, 310, 399, 410, 599)]
    assert [rates[0], rates[2], rates[4]] == pytest.approx([1e-3, 2e-4, 2e-4])
    assert max(rates[1], rates[3], rates[5]) < 2e-5
    steps["rate_falls"] = False
    stays = stylefilter._Trainer(job(tmp_path), TINY.model_copy(update=steps))
    assert [stays._rate(i) for i in (0, 299, 300, 349, 599)] == pytest.approx(
        [1e-3, 1e-3, 4e-6, 2e-4, 2e-4]
    )


def test_every_round_begins_with_the_network_as_it_is(tmp_path):
    trainer = adapting(tmp_path, rounds=2)
    assert trainer.params.round_starts == (4, 5)
    first = weights(trainer.teacher)
    trainer.step(4, trainer.batch(4))
    assert torch.equal(weights(trainer.teacher), first)
    now = weights(trainer.network.segmenter)
    trainer.step(5, trainer.batch(5))
    assert torch.equal(weights(trainer.teacher), now)
    assert not torch.equal(weights(trainer.network.segmenter), now)


def test_judge_sees_patches():
    assert PatchDiscriminator(1, 4)(torch.rand(2, 1, 64, 64)).shape[:2] == (2, 1)


def test_a_run_labels_like_the_network_that_was_trained_on_the_source(tmp_path):
    store, before = MemoryStore(), {}
    task = stylefilter.adapt(job(tmp_path, store=store), TINY.model_copy(update={"rounds": 1}))
    for event in iter(lambda: next(task, None), None):
        if isinstance(event, Stage) and event.title == "Adapt to the target":
            before = store.load("last")["parts"]["network"]
    teacher = store.load("last")["parts"]["teacher"]
    for name in ("unet.head.weight", "unet.head.bias"):
        assert torch.equal(teacher[f"segmenter.{name}"], before[f"segmenter.{name}"])
