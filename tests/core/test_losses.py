import math

import numpy as np
import pytest
import torch

from napari_cellda.core.losses import bce_loss, dice_loss, mixed_loss


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (2, 3, 4, 5)))
    target = torch.from_numpy(rng.random((2, 3, 4, 5)))
    return logits, target


def literal_dice(a, b, w):
    """Equation 3 of the shallow-to-deep paper per channel, as 1 minus the score."""
    losses = []
    for c in range(a.shape[1]):
        overlap = sum_a = sum_b = 0.0
        for n in range(a.shape[0]):
            for y in range(a.shape[2]):
                for x in range(a.shape[3]):
                    p, t, weight = (float(v[n, c, y, x]) for v in (a, b, w))
                    overlap += weight * p * t
                    sum_a += weight * p * p
                    sum_b += weight * t * t
        losses.append(1 - 2 * overlap / (sum_a + sum_b))
    return sum(losses) / len(losses)


def literal_bce(logits, b, w):
    """Equation 4 with the minus and the bracket that it lacks."""
    total = weights = 0.0
    for z, t, weight in zip(logits.flatten(), b.flatten(), w.flatten(), strict=True):
        p = 1 / (1 + math.exp(-float(z)))
        total -= float(weight) * (float(t) * math.log(p) + (1 - float(t)) * math.log(1 - p))
        weights += float(weight)
    return total / weights


def test_dice_is_the_literal_sum(pair):
    logits, target = pair
    probability = torch.sigmoid(logits)
    expected = literal_dice(probability, target, torch.ones_like(target))
    assert dice_loss(probability, target).item() == pytest.approx(expected)


def test_bce_is_the_literal_sum(pair):
    logits, target = pair
    expected = literal_bce(logits, target, torch.ones_like(target))
    assert bce_loss(logits, target).item() == pytest.approx(expected)


def test_weights_multiply_every_pixel(pair):
    logits, target = pair
    weight = torch.from_numpy(np.random.default_rng(1).random((2, 1, 4, 5)))
    full = weight.expand_as(target)
    expected = literal_dice(torch.sigmoid(logits), target, full)
    assert dice_loss(torch.sigmoid(logits), target, weight).item() == pytest.approx(expected)
    expected = literal_bce(logits, target, full)
    assert bce_loss(logits, target, weight).item() == pytest.approx(expected)


def test_unpainted_pixels_have_no_say(pair):
    logits, target = pair
    weight = torch.zeros(2, 1, 4, 5)
    weight[:, :, :2] = 1
    changed = target.clone()
    changed[:, :, 2:] = 1 - changed[:, :, 2:]
    for loss in (dice_loss, bce_loss):
        assert loss(logits, target, weight) == loss(logits, changed, weight)


def test_identical_binary_maps_have_no_dice_loss():
    mask = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    assert dice_loss(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(1 - mask, mask).item() == pytest.approx(1)


def test_the_gradient_of_bce_vanishes_where_probability_equals_target():
    logits = torch.tensor([0.7, -1.3], requires_grad=True)
    bce_loss(logits, torch.sigmoid(logits).detach()).backward()
    assert logits.grad.abs().max() < 1e-7


def test_empty_maps_and_weights_stay_finite():
    zero = torch.zeros(1, 1, 2, 2)
    assert torch.isfinite(dice_loss(zero, zero))
    assert bce_loss(zero, zero, zero).item() == 0


def test_the_mix_is_the_weighted_sum(pair):
    logits, target = pair
    terms = mixed_loss(logits, target, bce=0.3, dice=2.0)
    assert terms["loss"].item() == pytest.approx(
        0.3 * bce_loss(logits, target).item() + 2 * dice_loss(torch.sigmoid(logits), target).item()
    )
    assert set(mixed_loss(logits, target, bce=1, dice=0)) == {"loss", "bce"}
