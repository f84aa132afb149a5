"""Pseudo-labels against slow, literal versions of the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapt_jobs import make_job, nuclei_domain

from napari_cellda.core.adaptation.domain import Domain
from napari_cellda.core.averaging import MovingAverage
from napari_cellda.core.events import Preview, Score
from napari_cellda.methods._pseudo_label_losses import (
    UsualConfidence,
    log_probabilities,
    rectification,
    soft_cross_entropy,
    soft_dice,
)
from napari_cellda.methods.pseudo_label import Params, _Trainer, adapt
from outcomes import outcome


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def logits(generator):
    return torch.randn(2, 1, 4, 5, generator=generator, requires_grad=True)


def soft_labels(generator):
    y = torch.rand(2, 1, 4, 5, generator=generator)
    return torch.cat([1 - y, y], dim=1)


def test_equation_4_pixel_by_pixel(logits, generator):
    y = soft_labels(generator)
    p = torch.sigmoid(logits.detach()).double().numpy()
    total = 0.0
    for n, _, i, j in np.ndindex(*p.shape):
        y1, p1 = float(y[n, 1, i, j]), p[n, 0, i, j]
        total -= y1 * np.log(p1) + (1 - y1) * np.log(1 - p1)
    found = soft_cross_entropy(log_probabilities(logits), y)
    assert found.item() == pytest.approx(total / p.size, rel=1e-5)


def test_the_consistency_gradient_vanishes_at_agreement(logits):
    p = torch.sigmoid(logits.detach())
    loss = soft_cross_entropy(log_probabilities(logits), torch.cat([1 - p, p], dim=1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-7


def test_equation_3_is_one_minus_dice(logits, generator):
    y = soft_labels(generator)
    p = torch.sigmoid(logits.detach()).double().numpy()
    overlap = size = 0.0
    for n, _, i, j in np.ndindex(*p.shape):
        a, b = p[n, 0, i, j], float(y[n, 1, i, j])
        overlap += 2 * a * b
        size += a * a + b * b
    found = soft_dice(log_probabilities(logits), y)
    assert found.item() == pytest.approx(1 - overlap / size, rel=1e-5)


def test_dice_of_identical_binary_maps_is_0():
    y = torch.zeros(1, 2, 4, 4)
    y[:, 1, :2] = 1
    y[:, 0] = 1 - y[:, 1]
    assert soft_dice(torch.log(y), y).item() == pytest.approx(0, abs=1e-6)


def test_equation_6_pixel_by_pixel(generator):
    p = torch.rand(1, 3, 2, 2, generator=generator)
    eta = torch.tensor([0.9, 0.5, 0.2])
    found = rectification(p, eta)
    for n, k, i, j in np.ndindex(*p.shape):
        assert found[n, k, i, j].item() == pytest.approx(1 - abs(p[n, k, i, j] - eta[k]).item())


def test_a_label_weighs_fully_where_the_network_is_as_sure_as_ever():
    p = torch.full((1, 2, 1, 1), 0.7)
    assert torch.allclose(rectification(p, torch.tensor([0.7, 0.7])), torch.ones(1, 2, 1, 1))


def test_with_all_weights_1_the_rectified_loss_is_the_plain_one(logits, generator):
    y = soft_labels(generator)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[:, 1:])
    assert torch.allclose(soft_cross_entropy(log_probabilities(logits), 1.0 * y), expected)


def test_equation_7_counts_the_pixels_of_a_class_only():
    confidence = UsualConfidence(2, memory=0.75)
    p = torch.tensor([[[[0.9, 0.3]], [[0.1, 0.7]]]])
    labels = torch.tensor([[[[0.8, 0.1]], [[0.2, 0.9]]]])
    confidence.update(p, labels)
    assert torch.allclose(confidence.eta, 0.75 + 0.25 * torch.tensor([0.9, 0.7]))
    confidence.update(p[..., :1], labels[..., :1])  # no pixel of class 1: its eta stays
    assert confidence.eta[1].item() == pytest.approx(0.75 + 0.25 * 0.7)


def test_the_teacher_closes_in_as_the_power_of_its_memory():
    network = torch.nn.Linear(1, 1, bias=False)
    teacher = MovingAverage(network, 0.5)
    with torch.no_grad():
        teacher.network.weight.zero_()
        network.weight.fill_(1.0)
    for _ in range(6):
        teacher.follow(network)
    assert teacher.network.weight.item() == pytest.approx(1 - 0.5**6)


def trainer(tmp_path, **changes):
    job = make_job(tmp_path, target=nuclei_domain("b").foreground())
    params = Params(width=4, depth=1, crop=32, batch=2, **changes)
    return _Trainer(job, params, job.target)


def test_neither_teacher_nor_rectified_labels_carry_a_gradient(tmp_path):
    made = trainer(tmp_path)
    student, teacher, labels = made.batch(0)
    log_p = log_probabilities(made.network(student))
    assert not made._rectified(log_p.detach().exp(), labels).requires_grad
    assert not made._teacher_map(teacher).requires_grad
    assert not any(p.requires_grad for p in made.teacher.network.parameters())


@pytest.mark.parametrize("off", [{"consistency": False}, {"rectify": False}])
def test_every_term_can_be_switched_off(tmp_path, off):
    made = trainer(tmp_path, **off)
    losses = made.step(0, made.batch(0))
    assert ("consistency" in losses) == made.params.consistency
    assert (made.confidence.updates > 0) == made.params.rectify


def test_the_first_confidence_may_come_from_the_first_batch(tmp_path):
    made = trainer(tmp_path, first_confidence="batch", memory=0.999)
    made.step(0, made.batch(0))
    assert (made.confidence.eta < 0.9).all()


def test_labels_are_turned_with_the_image(tmp_path):
    # an image that is its own label tells whether both go through the same turns
    planes = nuclei_domain("b").foreground().planes
    target = Domain(tuple(replace(p, pixels=np.asarray(p.pseudo_map)[1:]) for p in planes))
    job = make_job(tmp_path, target=target)
    params = Params(width=4, depth=1, crop=32, batch=4, noise=0.0, jitter=0.0)
    images, for_teacher, labels = _Trainer(job, params, target).batch(5)
    assert torch.equal(images, for_teacher)
    assert torch.equal(images[:, 0], labels[:, 1])


def test_network_and_teacher_see_different_light(tmp_path):
    images, for_teacher, _ = trainer(tmp_path, noise=0.0, jitter=0.3).batch(0)
    for seen, other in zip(images, for_teacher, strict=True):
        slope, shift = np.polyfit(seen.numpy().ravel(), other.numpy().ravel(), 1)
        assert (slope, shift) != pytest.approx((1, 0), abs=1e-3)
        assert torch.allclose(seen * slope + shift, other, atol=1e-5)


@pytest.mark.parametrize("keep", ["teacher", "network"])
def test_what_is_kept_is_what_was_judged(tmp_path, keep):
    job = make_job(tmp_path, target=nuclei_domain("b").foreground())
    params = Params(width=4, depth=1, crop=32, batch=2, steps=6, preview_every=3, keep=keep)
    events, adapted = outcome(adapt(job, params))
    scores = [event for event in events if isinstance(event, Score)]
    best = job.store.load("best")["parts"]
    state = best["teacher"]["network"] if keep == "teacher" else best["network"]
    found = adapted.network.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert max(score.value for score in scores) == adapted.progress.best_score


def test_bent_crops_and_their_labels_stay_together(tmp_path):
    planes = nuclei_domain("b").foreground().planes
    target = Domain(tuple(replace(p, pixels=np.asarray(p.pseudo_map)[1:]) for p in planes))
    still = {"width": 4, "depth": 1, "crop": 32, "batch": 16, "noise": 0.0, "jitter": 0.0}
    made = _Trainer(make_job(tmp_path, target=target), Params(**still, deformed=1.0), target)
    images, _, labels = made.batch(0)
    assert images.shape == (16, 1, 32, 32)
    assert ((images > 0.5).float()[:, 0] - (labels[:, 1] > 0.5).float()).abs().mean() < 0.02


def test_the_rate_falls_when_the_agreement_stays(tmp_path):
    made = trainer(tmp_path, patience=1, learning_rate=1e-3)
    for index in range(4):  # nothing is learned, so no score is better than the first
        list(made.validate(index * 50 + 49))
    assert made.optimiser.param_groups[0]["lr"] == pytest.approx(2e-4)


def test_previews_show_both_maps_the_labels_and_what_these_weigh(tmp_path):
    made = trainer(tmp_path)
    made.confidence.eta = torch.tensor([0.9, 0.7])
    shown = {e.name: e.array for e in made.validate(49) if isinstance(e, Preview)}
    assert set(shown) == {"prediction", "teacher", "pseudo-label", "label weight"}
    y, x = 5, 7
    p, label = shown["prediction"][y, x], shown["pseudo-label"][y, x]
    weight = 1 - abs(p - 0.7) if label > 0.5 else 1 - abs(1 - p - 0.9)
    assert shown["label weight"][y, x] == pytest.approx(weight, abs=1e-6)
