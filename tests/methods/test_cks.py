"""CKS: every loss against a slow literal one, who learns from whom, and what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from adapt_jobs import make_job, nuclei_domain, unlabelled

from napari_cellda.core.adaptation.domain import Plane
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Score, Step
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.instances.windows import find_in_plane, finder, window_params
from napari_cellda.core.nets.cks import CksPrincipal, whole_multiple
from napari_cellda.core.nets.cks_collaborator import Collaborator
from napari_cellda.core.nets.cks_trunk import Depthwise
from napari_cellda.core.nets.cks_windows import (
    Detections,
    Double,
    Windows,
    blank_windows,
    canvas_index,
    grid_centres,
    in_window,
    paint_largest,
    refine,
    ridges,
)
from napari_cellda.methods import find_method
from napari_cellda.methods._cks_crops import Batch, at_most, cut_crop, hazed, is_dark, noisy, turned
from napari_cellda.methods._cks_losses import (
    balanced_loss,
    border_canvas,
    border_loss,
    detection_loss,
    edges,
    foreground_loss,
    lay_out,
    leaky_masks,
    mark_points,
    mask_loss,
    prior_canvas,
    segmentation_loss,
    size_loss,
    warm_up_loss,
    winner_loss,
    winners,
)
from napari_cellda.methods._cks_trainer import Trainer, zoom_for
from outcomes import outcome

W, SHAPE = 16, (2, 24, 32)
TINY = {
    "widths": (8, 8, 8, 8),
    "depths": (1, 1, 1, 1),
    "pyramid": 8,
    "head": 1,
    "drawing": 8,
    "features": 4,
    "window": 16,
}


def some_windows(seed=0, n=5):
    """Windows that overlap, leave their image, and belong to two images."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (n, W, W))).float().requires_grad_()
    rows, columns = (torch.from_numpy(4 * rng.integers(-2, side // 4 - 1, n)) for side in SHAPE[1:])
    owner = torch.from_numpy(np.sort(rng.integers(0, 2, n)))
    return Windows(logits, torch.stack([rows, columns], dim=1), owner)


def some_canvas(seed=1):
    return torch.from_numpy(np.random.default_rng(seed).random(SHAPE)).float()


def pixels_of(windows):
    """(window, row and column in it, image, row and column in the image), all of them."""
    for i, (corner, image) in enumerate(zip(windows.corners, windows.owner, strict=True)):
        for y in range(W):
            for x in range(W):
                yield i, y, x, int(image), int(corner[0]) + y, int(corner[1]) + x


def in_image(row, column):
    return 0 <= row < SHAPE[1] and 0 <= column < SHAPE[2]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


# -- the network ---------------------------------------------------------------------------------


def test_maps_have_the_size_of_the_image_and_stay_in_range():
    network = CksPrincipal(2, **TINY, zoom=0.75).eval()
    with torch.inference_mode():
        maps = network(torch.rand(2, 2, 70, 45))
    assert maps.shape == (2, 4, 70, 45)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert whole_multiple(0.75) == 128
    assert whole_multiple(1.0) == 32
    assert whole_multiple(2.0) == 16


def test_a_zoom_keeps_places_where_they_are():
    network = CksPrincipal(1, **TINY, zoom=2.0).eval()
    with torch.no_grad():  # every grid cell detects its own centre
        for head in (network.score, network.offset):
            head.weight.zero_()
            head.bias.fill_(0.0)
        network.score.bias.fill_(3.0)
        network.apart = 1
        found = network.find(torch.rand(1, 32, 48))
        assert not len(network.find(torch.rand(1, 32, 48), least_score=0.99).points)
    # The centre of a 4 x 4 cell, which is 2 x 2 pixels here; known to a zoomed pixel.
    assert float(found.points.min()) == pytest.approx(0.5, abs=0.26)
    assert float(found.points[:, 0].max()) == pytest.approx(30.5, abs=0.26)
    assert float(found.points[:, 1].max()) == pytest.approx(46.5, abs=0.26)


def test_only_the_strongest_of_near_detections_is_kept():
    network = CksPrincipal(1, **TINY).eval()
    centres = torch.tensor([[10.5, 10.5], [14.5, 10.5], [30.5, 30.5], [40.5, 40.5], [90.0, 5.0]])
    logits = torch.tensor([[1.0, 2.0, 0.0, -3.0, 5.0]])
    found = Detections(logits, torch.zeros(1, 5, 2), centres, torch.full((5,), 4.0))
    peaks = network._peaks(found, (1, 1, 64, 64))[0]
    assert torch.nonzero(peaks).tolist() == [[14, 10], [30, 30]]
    assert peaks[14, 10] == torch.sigmoid(torch.tensor(2.0))


def test_offsets_point_at_the_strongest_detection():
    network = CksPrincipal(1, **TINY).eval()
    with torch.no_grad():
        network.score.weight.zero_()
        network.offset.weight.zero_()
        network.offset.bias.copy_(torch.tensor([0.25, -0.5]))
        maps = network(torch.rand(1, 1, 32, 32))[0]
    # Equal scores everywhere: the finest scale wins, its cell (0, 0) has its centre at (2, 2).
    row, column = 1, 3
    expected = 0.5 + (2 + 0.25 * 4 - (row + 0.5)) / network.offset_reach
    assert maps[2, row, column] == pytest.approx(expected)
    expected = 0.5 + (2 - 0.5 * 4 - (column + 0.5)) / network.offset_reach
    assert maps[3, row, column] == pytest.approx(expected)


def test_points_move_to_the_detection_that_is_theirs():
    points = torch.tensor([[10.0, 10.0], [30.0, 30.0], [10.0, 10.0]])
    owner = torch.tensor([0, 0, 1])
    centres = torch.tensor([[12.0, 10.0], [8.0, 10.0], [29.0, 30.0], [45.0, 30.0]])
    logits = torch.tensor([[0.5, 1.0, -3.0, 4.0], [-9.0, -9.0, -9.0, -9.0]])
    found = Detections(logits, torch.zeros(2, 4, 2), centres, torch.ones(4))
    # the stronger of two; too weak and too far ones are not taken; none in the second image
    assert refine(points, owner, found).tolist() == [[8, 10], [30, 30], [10, 10]]


def test_bad_arguments_from_a_file_are_refused():
    with pytest.raises(UserError, match="multiple of 16"):
        CksPrincipal(1, **{**TINY, "window": 20})
    with pytest.raises(UserError, match="widths"):
        CksPrincipal(1, **{**TINY, "widths": (8, 8)})
    with pytest.raises(UserError, match="multiple of 1/8"):
        CksPrincipal(1, **TINY, zoom=0.3)


def test_it_can_be_built_without_memory_as_packages_are_opened():
    with torch.device("meta"):
        assert CksPrincipal(1, **TINY).score.weight.is_meta


def test_zooms_are_coarse_steps():
    assert [zoom_for(z) for z in (0.01, 0.3, 0.6, 0.95, 1.3, 100)] == [0.125, 0.25, 0.5, 1, 1.25, 8]


# -- L_det ---------------------------------------------------------------------------------------


def test_detection_loss_is_eq_3():
    rng = np.random.default_rng(0)
    grids = [(6, 8, 4), (3, 4, 8)]
    centres = torch.cat([grid_centres(h, w, s, torch.device("cpu")) for h, w, s in grids])
    strides = torch.cat([torch.full((h * w,), float(s)) for h, w, s in grids])
    logits = torch.from_numpy(rng.normal(0, 1, (2, len(centres)))).float()
    offsets = torch.from_numpy(rng.normal(0, 1, (2, len(centres), 2))).float()
    points, owner = torch.tensor([[5.0, 6.0], [12.0, 20.0], [3.0, 3.0]]), torch.tensor([0, 0, 1])
    focal = huber = count = 0.0
    for image in range(2):
        own = points[owner == image]
        for g in range(len(centres)):
            distances = [math.dist(centres[g].tolist(), p.tolist()) for p in own]
            nearest = own[int(np.argmin(distances))]
            p = sigmoid(float(logits[image, g]))
            p = p if min(distances) < 8 else 1 - p
            focal -= (1 - p) ** 2 * math.log(p)
            if min(distances) < 8:
                count += 1
                for axis in range(2):
                    wanted = float(nearest[axis] - centres[g, axis]) / float(strides[g])
                    d = abs(float(offsets[image, g, axis]) - wanted)
                    huber += 0.5 * d * d if d < 1 else d - 0.5
    terms = detection_loss(Detections(logits, offsets, centres, strides), points, owner)
    assert float(terms["score"]) == pytest.approx(focal / logits.numel(), rel=1e-5)
    assert float(terms["offset"]) == pytest.approx(huber / count, rel=1e-5)
    heavier = detection_loss(
        Detections(logits, offsets, centres, strides), points, owner, score_weight=10
    )
    assert float(heavier["score"]) == pytest.approx(10 * focal / logits.numel(), rel=1e-5)


def test_an_image_without_points_is_all_background():
    found = Detections(torch.zeros(1, 4), torch.zeros(1, 4, 2), torch.rand(4, 2), torch.ones(4))
    terms = detection_loss(found, torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert float(terms["score"]) == pytest.approx(0.25 * math.log(2))
    assert float(terms["offset"]) == 0


# -- L_S -----------------------------------------------------------------------------------------


def literal_others(windows, values):
    total = np.zeros(values.shape)
    places = list(pixels_of(windows))
    for i, y, x, image, row, column in places:
        for j, v, u, other, below, right in places:
            if i != j and (image, row, column) == (other, below, right):
                total[i, y, x] += float(values[j, v, u])
    return total


@pytest.mark.parametrize("kind", ["linear", "entropy", "warm up"])
def test_segmentation_loss_is_eq_8(kind):
    windows, canvas = some_windows(n=3), some_canvas()
    m = torch.sigmoid(windows.logits).detach().numpy()
    soft = torch.nn.functional.softplus(windows.logits).detach().numpy()
    others = literal_others(windows, soft if kind == "warm up" else m)
    total = 0.0
    for i, y, x, image, row, column in pixels_of(windows):
        shared = float(canvas[image, row, column]) if in_image(row, column) else 0.0
        p = float(m[i, y, x])
        if kind == "warm up":
            shared = float(shared > 0.5)
        if kind == "entropy":
            total -= math.log(p if shared > 0.5 else 1 - p)
        else:
            total += (1 - shared) * p + shared * (1 - p)
        total += p * others[i, y, x]
    drawn = lay_out(windows, canvas)
    loss = warm_up_loss(drawn) if kind == "warm up" else segmentation_loss(drawn, kind)
    assert float(loss.detach()) == pytest.approx(total / m.size, rel=1e-4)


def test_each_pixel_of_a_cell_goes_to_the_one_that_claims_it_most():
    windows, canvas = some_windows(n=4), some_canvas()
    logits = windows.logits.detach()
    claims = {}
    for i, y, x, image, row, column in pixels_of(windows):
        r2 = (y + 0.5 - W / 2) ** 2 + (x + 0.5 - W / 2) ** 2
        claim = float(logits[i, y, x]) + 2 * math.exp(-r2 / (2 * 5.0**2))
        claims.setdefault((image, row, column), []).append((claim, i))
    total, count = 0.0, 0
    for i, y, x, image, row, column in pixels_of(windows):
        if in_image(row, column):
            mine = max(claims[image, row, column])[1] == i and canvas[image, row, column] > 0.5
            p = sigmoid(float(logits[i, y, x]))
            total -= math.log(p if mine else 1 - p)
            count += 1
    loss = winner_loss(lay_out(windows, canvas), width=5.0, weight=2.0)
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5)
    loss.backward()
    assert windows.logits.grad.abs().sum() > 0


def test_no_sharp_masks_are_better_than_the_winners_by_eq_8():
    windows, canvas = some_windows(n=3), some_canvas()
    best = winners(lay_out(windows, canvas), width=5.0, weight=2.0)

    def eq_8(masks):
        sharp = windows._replace(logits=60.0 * masks - 30.0)
        return float(segmentation_loss(lay_out(sharp, canvas)))

    rng = torch.Generator().manual_seed(0)
    for share in (0.001, 0.01, 0.1, 0.5):
        for _ in range(5):
            flipped = torch.rand(best.shape, generator=rng) < share
            assert eq_8(best) <= eq_8(torch.where(flipped, 1 - best, best)) + 1e-6


def test_two_masks_at_one_place_pay_their_mean():
    logits = torch.full((1, W, W), -20.0)
    logits[0, 4:12, 4:9] = 20.0
    corner, owner = torch.tensor([[4, 4]]), torch.tensor([0])
    one = Windows(logits, corner, owner)
    two = Windows(logits.repeat(2, 1, 1), corner.repeat(2, 1), owner.repeat(2))
    canvas = torch.zeros(1, 24, 24)
    apart = segmentation_loss(lay_out(one, canvas))
    together = segmentation_loss(lay_out(two, canvas))
    assert float(together - apart) == pytest.approx(float(torch.sigmoid(logits).mean()), abs=1e-6)


def test_the_principal_learns_from_the_collaborator_and_not_the_reverse():
    windows, canvas = some_windows(), some_canvas().requires_grad_()
    segmentation_loss(lay_out(windows, canvas)).backward()
    assert canvas.grad is None
    assert windows.logits.grad is not None
    assert windows.logits.grad.abs().sum() > 0


def test_a_leak_changes_no_value_and_wakes_what_is_sure_and_wrong():
    logits = torch.tensor([[[-8.0, 8.0], [-8.0, 8.0]]], requires_grad=True)
    slope = torch.tensor([[[-0.5, 0.5], [0.5, -0.5]]])  # wrong, wrong; right, right
    masks = leaky_masks(logits, slope, 0.05)
    assert torch.equal(masks, torch.sigmoid(logits))
    (slope * masks).sum().backward()
    plain = slope * torch.sigmoid(logits) * (1 - torch.sigmoid(logits))
    extra = torch.tensor([[[-0.025, 0.025], [0.0, 0.0]]])
    assert torch.allclose(logits.grad, (plain + extra).detach(), atol=1e-7)
    windows, canvas = some_windows(), some_canvas()
    drawn = lay_out(windows, canvas)
    assert torch.equal(segmentation_loss(drawn), segmentation_loss(drawn, leak=0.05))


def test_the_overlap_pushes_both_cells():
    logits = torch.zeros(2, W, W, requires_grad=True)
    corners, owner = torch.tensor([[0, 0], [0, 0]]), torch.tensor([0, 0])
    half = torch.full((1, 24, 24), 0.5)  # follows neither way: only the overlap is left
    segmentation_loss(lay_out(Windows(logits, corners, owner), half)).backward()
    assert logits.grad is not None
    # d(m_i m_j + m_j m_i) / dl_i = 2 m_j m_i (1 - m_i), over both windows' pixels
    assert torch.allclose(logits.grad, torch.full_like(logits, 2 * 0.5 * 0.25 / (2 * W * W)))


# -- L_M -----------------------------------------------------------------------------------------


def test_m_p_is_eq_4():
    windows = some_windows()
    logits = windows.logits.detach()
    expected = np.zeros(SHAPE)
    for i, y, x, image, row, column in pixels_of(windows):
        if in_image(row, column):
            r2 = (y + 0.5 - W / 2) ** 2 + (x + 0.5 - W / 2) ** 2
            value = sigmoid(float(logits[i, y, x]) + 2 * math.exp(-r2 / (2 * 5.0**2)))
            expected[image, row, column] = max(expected[image, row, column], value)
    found = prior_canvas(windows, SHAPE, width=5.0, weight=2.0)
    assert not found.requires_grad
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_without_a_logit_the_prior_alone_speaks():
    windows = Windows(torch.zeros(1, W, W), torch.tensor([[4, 8]]), torch.tensor([0]))
    found = prior_canvas(windows, (1, 24, 32), width=1000.0, weight=2.0)
    assert float(found[0, 12, 16]) == pytest.approx(0.881, abs=1e-3)
    assert float(found[0, 0, 0]) == 0
    marked = mark_points(found, torch.tensor([[1.5, 2.5]]), torch.tensor([0]))
    assert float(marked[0, 1, 2]) == 1
    assert float((marked - found).abs().sum()) == 1


@pytest.mark.parametrize("how", ["linear", "entropy"])
def test_foreground_loss_is_eq_6_or_5(how):
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=SHAPE)).float().requires_grad_()
    target = some_canvas()
    total = 0.0
    for value, wanted in zip(logits.detach().flatten(), target.flatten(), strict=True):
        c, p = sigmoid(float(value)), float(wanted)
        if how == "linear":
            total += (1 - p) * c + p * (1 - c)
        else:
            total -= math.log(c) if p > 0.5 else math.log(1 - c)
    loss = foreground_loss(logits, target, how)
    assert float(loss.detach()) == pytest.approx(total / target.numel(), rel=1e-5)


def test_cells_and_background_weigh_alike_in_the_balanced_loss():
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=SHAPE)).float()
    target = some_canvas() * 0.6  # a sixth above 1 / 2
    neither = some_canvas(4) > 0.7
    losses = {True: [], False: []}
    for value, wanted, close in zip(
        *(t.flatten().tolist() for t in (logits, target, neither)), strict=True
    ):
        c, cell = sigmoid(value), wanted > 0.5
        if cell or not close:
            losses[cell].append(-math.log(c if cell else 1 - c))
    expected = (np.mean(losses[True]) + np.mean(losses[False])) / 2
    assert float(balanced_loss(logits, target, neither)) == pytest.approx(expected, rel=1e-5)
    assert float(balanced_loss(logits, target * 0, neither)) < 1  # no cells, no division by 0
    assert float(balanced_loss(logits, target * 0, neither | True)) == 0


def test_what_lies_in_a_window():
    windows = some_windows()
    found = in_window(windows, SHAPE)
    expected = np.zeros(SHAPE, bool)
    for owner, (top, left) in zip(windows.owner.tolist(), windows.corners.tolist(), strict=True):
        expected[owner, max(top, 0) : max(top + W, 0), max(left, 0) : max(left + W, 0)] = True
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found.numpy(), expected)


def test_ridges_lie_where_two_cells_are_about_as_near():
    windows = some_windows()
    found = ridges(windows, SHAPE, 2.0)
    middles = list(zip(windows.owner.tolist(), windows.corners.tolist(), strict=True))
    expected = np.zeros(SHAPE, bool)
    for image, row, column in np.ndindex(SHAPE):
        distances = sorted(
            math.hypot(row + 0.5 - top - W / 2, column + 0.5 - left - W / 2)
            for owner, (top, left) in middles
            if owner == image and 0 <= row - top < W and 0 <= column - left < W
        )
        expected[image, row, column] = len(distances) > 1 and distances[1] - distances[0] < 2.0
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("count", [3, 0])
def test_doubled_maps_are_what_interpolation_gives(count):
    maps = torch.randn(count, 1, 16, 16, requires_grad=True)
    doubled = Double()(maps)
    expected = torch.nn.functional.interpolate(maps, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(doubled, expected)
    doubled.sum().backward()
    torch.testing.assert_close(maps.grad, torch.full_like(maps, 4.0))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 6, 5, 9), (1, 3, 1, 1), (3, 4, 16, 16)])
def test_a_depthwise_convolution_trains_as_torchs_own(shape, memory):
    ours = Depthwise(shape[1], 7).double()
    theirs = torch.nn.Conv2d(shape[1], shape[1], 7, padding=3, groups=shape[1]).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory)
    weights = torch.randn(shape, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        x = images.clone().requires_grad_()
        y = layer(x)
        (y * weights).sum().backward()
        found.append((y, x.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*found)
    torch.testing.assert_close(ours.eval()(images), found[0][0])


def test_a_depthwise_convolution_trains_in_float32():
    layer, x = Depthwise(4, 7), torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x.bfloat16().float()))


@pytest.mark.parametrize("side", [32, 33, 34, 35, 36])
def test_windows_at_the_edge_of_any_image_can_be_painted(side):
    principal = CksPrincipal(**TINY).eval()
    places = torch.tensor([[side - 0.1, side - 0.1], [0.0, side - 0.1], [side - 2.0, 3.0]])
    windows = principal.draw_at(torch.zeros(1, 1, side, side), places)
    painted = paint_largest(windows, (1, side, side), torch.ones_like(windows.logits), 0.0)
    assert painted[0, -1, -1] == painted[0, 0, -1] == painted[0, -1, 0] == 1


def test_the_gradient_of_the_foreground_loss_is_eq_7():
    shared, target = some_canvas(4), some_canvas(5)
    logits = torch.logit(shared).requires_grad_()
    foreground_loss(logits, target).backward()
    by_shared = logits.grad / (shared * (1 - shared))
    expected = (1 - 2 * target) / target.numel()
    np.testing.assert_allclose(by_shared.numpy(), expected.numpy(), rtol=1e-3, atol=1e-9)


def test_the_collaborator_learns_from_the_principal_and_not_the_reverse():
    windows = some_windows()
    logits = torch.zeros(SHAPE, requires_grad=True)
    foreground_loss(logits, prior_canvas(windows, SHAPE, width=5.0, weight=2.0)).backward()
    assert windows.logits.grad is None
    assert logits.grad is not None


# -- L_B -----------------------------------------------------------------------------------------


def literal_edges(mask):
    height, width = mask.shape
    found = np.zeros(mask.shape)

    def at(y, x):
        return mask[abs(y) if y < height else 2 * height - 2 - y][
            abs(x) if x < width else 2 * width - 2 - x
        ]

    for y in range(height):
        for x in range(width):
            sx = sum(
                k * (at(y + d, x + 1) - at(y + d, x - 1)) for d, k in ((-1, 1), (0, 2), (1, 1))
            )
            sy = sum(
                k * (at(y + 1, x + d) - at(y - 1, x + d)) for d, k in ((-1, 1), (0, 2), (1, 1))
            )
            found[y, x] = math.sqrt(min(max((sx**2 + sy**2) / 8, 1e-8), 1))
    return found


def test_border_loss_is_eq_9_and_10():
    windows = some_windows()
    m = torch.sigmoid(windows.logits)
    sums = np.zeros(SHAPE)
    drawn = [literal_edges(one) for one in m.detach().numpy()]
    for i, y, x, image, row, column in pixels_of(windows):
        if in_image(row, column):
            sums[image, row, column] += drawn[i][y, x]
    canvas = border_canvas(m, windows, SHAPE)
    np.testing.assert_allclose(canvas.detach().numpy(), np.tanh(sums), atol=1e-5)
    logits = torch.from_numpy(np.random.default_rng(6).normal(size=SHAPE)).float().requires_grad_()
    loss = border_loss(logits, canvas)
    squares = (torch.sigmoid(logits).detach().numpy() - np.tanh(sums)) ** 2
    assert float(loss.detach()) == pytest.approx(0.5 * squares.mean(), rel=1e-4)
    loss.backward()
    assert logits.grad.abs().sum() > 0
    assert windows.logits.grad.abs().sum() > 0
    assert windows.logits.grad.isfinite().all()


def test_one_edge_gives_0762_and_nothing_else():
    mask = torch.zeros(1, W, W)
    mask[0, 4:12, 4:12] = 1
    e = torch.tanh(edges(mask))[0]
    assert float(e[8, 4]) == pytest.approx(0.762, abs=1e-3)
    assert float(e[8, 8]) == pytest.approx(1e-4, rel=1e-3)
    assert float(e[0, 0]) == pytest.approx(1e-4, rel=1e-3)
    two = Windows(torch.zeros(2, W, W), torch.tensor([[0, 0], [0, 0]]), torch.tensor([0, 0]))
    touching = border_canvas(mask.repeat(2, 1, 1), two, (1, 24, 24))
    assert float(touching[0, 8, 4]) == pytest.approx(0.964, abs=1e-3)


# -- L_MC and masks ------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_size_loss_is_eq_6(exponent):
    windows = some_windows()
    m = torch.sigmoid(windows.logits).detach().numpy()
    areas = np.zeros(len(m))
    for i, y, x, _, row, column in pixels_of(windows):
        areas[i] += m[i, y, x] * in_image(row, column)
    expected = 0.01 * np.mean((areas / W**2) ** -exponent)
    loss = size_loss(lay_out(windows, some_canvas()), exponent=exponent)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_full_window_costs_delta():
    windows = Windows(torch.full((1, W, W), 30.0), torch.tensor([[0, 0]]), torch.tensor([0]))
    drawn = lay_out(windows, torch.ones(1, W, W))
    assert float(size_loss(drawn)) == pytest.approx(0.01)


def test_mask_loss_is_the_mean_cross_entropy():
    windows = some_windows()
    labels = torch.from_numpy(np.random.default_rng(7).integers(-1, 3, SHAPE))
    ids = torch.tensor([1, 2, 1, 2, 1])
    total, count = 0.0, 0
    for i, y, x, image, row, column in pixels_of(windows):
        label = int(labels[image, row, column]) if in_image(row, column) else 0
        if label >= 0:
            p = sigmoid(float(windows.logits[i, y, x].detach()))
            total -= math.log(p if label == ids[i] else 1 - p)
            count += 1
    assert float(mask_loss(windows, labels, ids).detach()) == pytest.approx(total / count, rel=1e-4)


def test_no_cells_cost_nothing():
    none = Windows(torch.zeros(0, W, W), torch.zeros(0, 2, dtype=torch.long), torch.zeros(0).long())
    drawn = lay_out(none, some_canvas())
    assert float(segmentation_loss(drawn)) == float(size_loss(drawn)) == 0
    assert float(border_canvas(drawn.masks, none, SHAPE).abs().sum()) == 0
    assert float(prior_canvas(none, SHAPE, width=3, weight=2).sum()) == 0
    assert canvas_index(none, SHAPE)[0].shape == (0, W, W)


# -- crops ---------------------------------------------------------------------------------------


def dotted_plane(side=40):
    """A plane that is bright at its points."""
    points = np.array([[5.0, 7.0], [30.0, 20.0], [33.0, 6.0]])
    pixels = np.zeros((1, side, side), np.float32)
    labels = np.zeros((side, side), np.int32)
    for k, (row, column) in enumerate(points.astype(int), 1):
        pixels[0, row, column] = labels[row, column] = k
    unit = Normalisation(offset=(0.0,), factor=(1.0,))
    return Plane("dots", pixels, unit, labels=labels, points=points), (points, np.arange(1, 4))


@pytest.mark.parametrize("crop", [24, 32, 96])
def test_points_stay_on_their_cells_through_crops_and_turns(crop):
    plane, cells = dotted_plane()
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cut = turned(cut_crop(plane, cells, crop, 1.0, rng), rng)
        for (row, column), name in zip(cut.points.tolist(), cut.ids.tolist(), strict=True):
            assert cut.images[0, 0, int(row), int(column)] == name
            assert cut.labels[0, int(row), int(column)] == name
            seen += 1
        # mirrored parts bring mirrored points: every bright pixel off the border has one
        inner = cut.labels[0, 2:-2, 2:-2]
        assert len(cut.points) >= int((inner > 0).sum())
    assert seen


def test_half_of_the_crops_get_noise_of_any_grain_and_no_more_than_asked_for():
    images = torch.from_numpy(np.random.default_rng(0).normal(5, 3, (1, 2, 48, 48))).float()
    added = [noisy(images, 0.4, np.random.default_rng(seed)) - images for seed in range(200)]
    strengths = [float(noise.std()) / 3 for noise in added if noise.any()]
    assert 70 < len(strengths) < 130
    assert 0.3 < max(strengths) < 0.45
    grains = [float((n.diff().abs() < 1e-5).float().mean()) for n in added if n.std() > 0.1]
    assert min(grains) < 0.01
    assert max(grains) > 0.5
    assert all(torch.equal(noisy(images, 0.0, np.random.default_rng(s)), images) for s in range(9))


def test_half_of_the_crops_get_smooth_light_and_no_more_than_asked_for():
    images = torch.from_numpy(np.random.default_rng(0).normal(5, 3, (1, 2, 48, 48))).float()
    added = [hazed(images, 2.0, np.random.default_rng(seed)) - images for seed in range(200)]
    lights = [light for light in added if light.any()]
    assert 70 < len(lights) < 130
    # A bicubic curve may leave the values between which it runs by a little.
    assert 1.8 < max(float(light.max()) for light in lights) / 3 < 2.3
    assert max(float(light.diff().abs().max()) for light in lights) < 0.7
    assert all(torch.equal(hazed(images, 0.0, np.random.default_rng(s)), images) for s in range(9))


def test_fluorescence_has_a_dark_background_and_phase_contrast_a_grey_one():
    rng = np.random.default_rng(0)
    fluorescence = rng.normal(0, 0.1, (1, 300, 400)).astype(np.float32)
    fluorescence[:, 50:150, 50:150] += 3
    phase = rng.normal(0, 1, (1, 300, 400)).astype(np.float32)
    assert is_dark(fluorescence)
    assert not is_dark(phase)
    assert not is_dark(-fluorescence)
    assert not is_dark(np.zeros((1, 40, 40), np.float32))


def test_half_of_a_batch_keeps_the_cells_of_its_crops():
    points = torch.tensor([[9.0, 8.0], [70.0, 20.0], [30.0, 40.0], [5.0, 63.5]])
    labels = torch.arange(3 * 128 * 128).reshape(3, 128, 128)
    owner, ids = torch.tensor([0, 1, 2, 2]), torch.tensor([5, 6, 7, 8])
    half = Batch(torch.rand(3, 1, 128, 128), points, owner, labels, ids).halved()
    assert half.owner.tolist() == [0, 1, 1]
    assert half.ids.tolist() == [5, 7, 8]
    assert torch.equal(half.labels, labels[[0, 2]])
    quarter = half.halved().halved()
    assert quarter.images.shape == (1, 1, 64, 64)
    assert torch.equal(quarter.labels, labels[:1, :64, :64])
    assert quarter.points.tolist() == [[9.0, 8.0]]
    # a cell on the new border is mostly outside
    one = Batch(torch.rand(1, 1, 128, 128), points, torch.zeros(4, dtype=torch.long), None, ids)
    assert one.halved().ids.tolist() == [5, 7]


def test_whole_crops_are_left_out_when_there_are_too_many_cells():
    owner = torch.tensor([0, 0, 0, 1, 1, 2])
    batch = Batch(torch.rand(3, 1, 8, 8), torch.rand(6, 2), owner)
    few = at_most(batch, 5)
    assert len(few.images) == 2
    assert few.owner.tolist() == [0, 0, 0, 1, 1]
    assert at_most(batch, 2).owner.tolist() == [0, 0]
    assert len(at_most(batch, 6).images) == 3


# -- the method ----------------------------------------------------------------------------------


def tiny(name="cks", **changes):
    small = {**TINY, "crop": 64, "steps": 4, "collaborator": 4, "border": 4, "cell_size": 16.0}
    small["head_start"] = 0
    return find_method(name).settings("cpu", {**small, **changes})


def drive(name, job, params):
    return outcome(find_method(name).adapt(job, params))


def test_each_loss_reaches_the_model_that_it_is_for(tmp_path):
    job = make_job(tmp_path, instances=True)
    trainer = Trainer(job, tiny(), job.target, 16.0, False)
    batch = trainer.batch(0)

    def grads(term):
        trainer.models.zero_grad(set_to_none=True)
        trainer.model.train()
        trainer.fabric.backward(trainer._losses(batch, 0)[term])
        return tuple(
            any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())
            for part in (trainer.principal, trainer.collaborator)
        )

    assert grads("score") == grads("offset") == (True, False)
    assert grads("segmentation") == (True, False)
    assert grads("foreground") == (False, True)
    assert grads("border") == (True, True)
    assert grads("size") == (True, False)


def test_the_head_start_teaches_the_collaborator_discs_of_the_cells_size(tmp_path):
    job = make_job(tmp_path, instances=True)
    params = tiny(steps=4, head_start=99, prior_width=0.45)
    trainer = Trainer(job, params, job.target, 16.0, False)
    batch = trainer.batch(0)
    assert set(trainer._losses(batch, 0)) == {"score", "offset", "foreground"}
    assert trainer.head_start == 4
    whole = tiny(steps=7, head_start=None)
    assert Trainer(job, whole, job.target, 16.0, False).head_start == 7
    assert "segmentation" in trainer._losses(batch, 1)
    blank = blank_windows(torch.tensor([[30.0, 34.0]]), torch.tensor([0]), 64, trainer.prior_weight)
    disc = trainer.principal_foreground(blank, (1, 64, 64))[0] > 0.5
    assert 2 * math.sqrt(int(disc.sum()) / math.pi) == pytest.approx(16.0, rel=0.1)
    assert (torch.nonzero(disc) + 0.5).mean(0).tolist() == [30.0, 34.0]


@pytest.mark.parametrize(("head_start", "told"), [(None, True), (1, False)])
def test_a_loss_that_is_never_taken_is_said(tmp_path, head_start, told):
    job = make_job(tmp_path, instances=True)
    params = tiny(steps=2, head_start=head_start, collaborator_loss="entropy")
    events, _ = drive("cks", job, params)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("collaborator_loss=entropy" in text for text in notes) == told


def test_what_looks_like_a_cell_is_no_background_after_a_tenth_of_the_head_start(tmp_path):
    trainer = Trainer(
        make_job(tmp_path, instances=True),
        tiny(steps=20, head_start=20, doubt=0.6),
        nuclei_domain("b"),
        16.0,
        False,
    )
    window = Windows(torch.zeros(1, 16, 16), torch.tensor([[8, 8]]), torch.tensor([0]))
    foreground = torch.full((1, 32, 40), torch.logit(torch.tensor(0.7)))
    foreground[:, :10] = torch.logit(torch.tensor(0.5))
    assert not trainer._neither(window, foreground, 1).any()
    expected = torch.zeros((1, 32, 40), dtype=torch.bool)
    expected[:, 10:24, 8:24] = True
    assert torch.equal(trainer._neither(window, foreground, 2), expected)
    trainer.params = trainer.params.model_copy(update={"doubt": 1.0})
    assert not trainer._neither(window, foreground, 5).any()


@pytest.mark.parametrize(("doubt", "even"), [(0.3, 0.3), (1.0, 0.5), (0.7, 0.5)])
def test_the_principal_follows_what_was_never_called_background(tmp_path, doubt, even):
    params = tiny(steps=8, head_start=4, doubt=doubt)
    job = make_job(tmp_path, instances=True)
    trainer = Trainer(job, params, job.target, 16.0, False)
    logits = torch.logit(torch.tensor([even, 0.5]))
    assert trainer.shared_foreground(logits, 3)[0] == pytest.approx(0.5)
    assert trainer.shared_foreground(logits, 4)[1] == pytest.approx(0.5)


def test_without_a_prior_there_is_no_head_start(tmp_path):
    job = make_job(tmp_path, instances=True)
    trainer = Trainer(job, tiny(head_start=4, prior="off"), job.target, 16.0, False)
    assert "segmentation" in trainer._losses(trainer.batch(0), 0)
    window = Windows(torch.full((1, 16, 16), -4.0), torch.tensor([[0, 0]]), torch.tensor([0]))
    assert float(trainer.principal_foreground(window, (1, 64, 64)).max()) == pytest.approx(
        sigmoid(-4.0)
    )


def test_what_it_returns_draws_the_same_cells_after_being_rebuilt(tmp_path):
    params = tiny(steps=2, preview_every=2, least_score=0.01)
    events, adapted = drive("cks", make_job(tmp_path, instances=True), params)
    shown = {event.name for event in events if isinstance(event, Preview)}
    assert shown == {
        "instances",
        "detected",
        "detections",
        "foreground M_c",
        "border B_c",
        "foreground M_p",
        "border B_p",
    }
    assert adapted.kind == "instances"
    assert adapted.extra["instances"]["diameter"] == 16
    with torch.no_grad():  # hardly trained: make its masks large enough to be seen
        adapted.network.finish[-2].bias.fill_(2.0)
    twin = CksPrincipal(**adapted.network.config)
    twin.load_state_dict(adapted.network.state_dict())
    pixels = nuclei_domain("b", 1).planes[0].pixels
    one, two = (
        find_in_plane(finder(n.eval()), pixels, window_params(n)) for n in (adapted.network, twin)
    )
    assert one[0].max() > 0
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1].scores, two[1].scores)


def test_masks_train_the_same_principal(tmp_path):
    job = make_job(tmp_path, instances=True, target=nuclei_domain("b"), diameter=None)
    events, adapted = drive("cks-masks", job, tiny("cks-masks", steps=2))
    losses = next(event.losses for event in events if isinstance(event, Step))
    assert set(losses) == {"loss", "score", "offset", "mask"}
    assert adapted.extra["instances"]["diameter"] > 5
    assert "the highest ap50 on the masks of images kept aside" in adapted.selection.lower()
    principal = CksPrincipal(**adapted.network.config)
    assert isinstance(adapted.network, type(principal))


def test_validation_masks_choose_by_ap50(tmp_path):
    job = make_job(tmp_path, instances=True, validation=nuclei_domain("b", 1, first=20))
    events, adapted = drive("cks", job, tiny(steps=2))
    scores = {event.name: event.value for event in events if isinstance(event, Score)}
    assert scores["validation ap50"] == scores["agreement"]
    assert "validation masks" in adapted.selection


@pytest.mark.parametrize("diameter", [0.0, -3.0, float("nan")])
def test_a_diameter_that_is_none_is_refused(tmp_path, diameter):
    with pytest.raises(UserError, match="diameter"):
        drive("cks", make_job(tmp_path, instances=True, diameter=diameter), tiny())


def test_no_points_are_refused(tmp_path):
    job = make_job(tmp_path, instances=True)
    bare = [Plane(p.name, p.pixels, p.normalisation) for p in job.target.planes]
    with pytest.raises(UserError, match="No target image has points"):
        drive("cks", make_job(tmp_path, target=type(job.target)(tuple(bare))), tiny())


def test_another_network_is_no_beginning(tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "other.pt")
    job = make_job(tmp_path, instances=True, pretrained=tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds another network"):
        drive("cks", job, tiny())


def test_a_principal_is_a_beginning(tmp_path):
    trained = CksPrincipal(1, **TINY)
    torch.save(trained.state_dict(), tmp_path / "principal.pt")
    job = make_job(tmp_path, instances=True, pretrained=tmp_path / "principal.pt")
    trainer = Trainer(job, tiny(), job.target, 16.0, False)
    mine = trainer.principal.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in trained.state_dict().items())


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_collaborator_takes_any_size(levels):
    shared = Collaborator(1, 4, 4, levels).eval()(torch.rand(2, 1, 30, 41))
    assert shared.foreground_logits.shape == shared.border_logits.shape == (2, 30, 41)


@pytest.mark.slow
def test_it_learns_nuclei_from_points_alone(tmp_path):
    target = nuclei_domain("b", 6, first=30)
    job = make_job(tmp_path, instances=True, target=unlabelled(target), validation=target)
    params = tiny(
        steps=300, head_start=180, cell_size=16.0, window=48, widths=(16, 16, 32, 32), pyramid=24
    )
    events, _ = drive("cks", job, params)
    assert [e.value for e in events if isinstance(e, Score)][-1] > 0.4
