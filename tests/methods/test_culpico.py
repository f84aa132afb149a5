"""CULPICO against slow, literal versions of its equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapt_jobs import make_job

from napari_cellda.core.adaptation.domain import UNKNOWN
from napari_cellda.core.events import Note, Preview, Score
from napari_cellda.methods import find_method
from napari_cellda.methods.culpico import discrepancy_map, source_loss, target_loss
from outcomes import outcome


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 1, 5, 6, generator=generator, requires_grad=True) for _ in range(2)]


def bce(p, y):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x.detach(), np.float64)))


def test_equation_1_is_the_mean_cross_entropy_of_both(logits):
    truth = torch.randint(0, 2, (2, 1, 5, 6), generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for x in logits:
        p, total = sigmoid(x), 0.0
        for index in np.ndindex(*p.shape):
            total += bce(p[index], float(truth[index]))
        expected += total / p.size
    assert source_loss(*logits, truth).item() == pytest.approx(expected, rel=1e-5)


def test_unknown_pixels_of_the_source_do_not_count(logits):
    truth = torch.zeros(2, 1, 5, 6, dtype=torch.int64)
    truth[:, :, :, 3:] = UNKNOWN
    cut = [x[..., :3] for x in logits]
    assert torch.allclose(source_loss(*logits, truth), source_loss(*cut, truth[..., :3]))


def test_equations_2_to_4_pixel_by_pixel(logits):
    p_m, p_n = map(sigmoid, logits)
    to_m = to_n = 0.0
    for index in np.ndindex(*p_m.shape):
        weight = 1 - abs(p_m[index] - p_n[index])
        to_m += weight * bce(p_m[index], float(p_n[index] > 0.5))
        to_n += weight * bce(p_n[index], float(p_m[index] > 0.5))
    found = target_loss(*logits)
    assert found.m.item() == pytest.approx(to_m / p_m.size, rel=1e-5)
    assert found.n.item() == pytest.approx(to_n / p_m.size, rel=1e-5)
    assert found.discrepancy.item() == pytest.approx(np.abs(p_m - p_n).mean(), rel=1e-5)


def test_networks_that_agree_learn_their_own_pseudo_label(logits):
    found = target_loss(logits[0], logits[0])
    p = sigmoid(logits[0])
    assert (found.m + found.n).item() == pytest.approx(2 * bce(p, p > 0.5).mean(), rel=1e-5)


def test_sure_networks_that_contradict_each_other_learn_nothing():
    sure = torch.full((1, 1, 4, 4), 12.0)
    found = target_loss(sure, -sure)
    assert (found.m + found.n).item() < 1e-3


def test_weights_and_pseudo_labels_carry_no_gradient(logits):
    m, n = logits
    found = target_loss(m, n)
    (gradient,) = torch.autograd.grad(found.m + found.n, m, retain_graph=True)
    with torch.no_grad():
        p_m, p_n = torch.sigmoid(m), torch.sigmoid(n)
        weight = 1 - (p_m - p_n).abs()
        # d BCE(sigmoid(x), y) / dx = sigmoid(x) - y, with weight and pseudo-label frozen
        expected = weight * (p_m - (p_n > 0.5).float()) / m.numel()
    assert torch.allclose(gradient, expected, atol=1e-7)


def test_swapping_the_networks_changes_nothing(logits):
    m, n = logits
    there, back = target_loss(m, n), target_loss(n, m)
    assert torch.allclose(there.m, back.n)
    assert torch.allclose(there.n, back.m)


def test_without_confidence_every_pixel_counts_alike(logits):
    m, n = logits
    expected = torch.nn.functional.binary_cross_entropy_with_logits(m, (n > 0).float())
    assert torch.allclose(target_loss(m, n, confidence=0.0).m, expected)


def test_the_discrepancy_lies_between_0_and_1(logits):
    d = discrepancy_map(*(torch.sigmoid(x) for x in logits))
    assert 0 <= d.min().item() <= d.max().item() <= 1


@pytest.mark.parametrize(("warmup", "window", "said"), [(9, 2, False), (1, 2, False), (0, 1, True)])
def test_disagreement_is_told_once_there_were_steps_to_agree(tmp_path, warmup, window, said):
    changes = {"steps": 4, "crop": 32, "batch": 1, "width": 4, "depth": 1}
    params = find_method("culpico").settings(
        "cpu", {**changes, "warmup": warmup, "selection_window": window, "learning_rate": 1e-9}
    )
    events, adapted = outcome(find_method("culpico").adapt(make_job(tmp_path), params))
    told = any(isinstance(e, Note) and "did not come to agree" in e.text for e in events)
    assert told == said
    assert ("discrepancy" in adapted.scores) == (warmup < 4)


@pytest.mark.parametrize("preview_every", [0, 3])
def test_checkpoints_are_chosen_at_the_same_steps_whatever_is_shown(tmp_path, preview_every):
    changes = {"steps": 5, "crop": 32, "batch": 1, "width": 4, "depth": 1, "warmup": 1}
    params = find_method("culpico").settings(
        "cpu", {**changes, "validate_every": 2, "preview_every": preview_every}
    )
    events, _ = outcome(find_method("culpico").adapt(make_job(tmp_path), params))
    scored = [e.index for e in events if isinstance(e, Score) and e.selects]
    assert scored == [2, 4, 5]
    shown = sorted({e.index for e in events if isinstance(e, Preview)})
    assert shown == ([3, 5] if preview_every else [])
