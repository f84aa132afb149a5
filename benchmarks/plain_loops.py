"""The plainest correct training loop of each method: what ours is measured against.

Eager float32 in torch's own memory layout, the losses of torch.nn.functional, crops that lie on the
device already, a constant learning rate, and no loss is read. Networks are copies of the trainer's
and the batch is the trainer's, so that the first loss has to be the trainer's, too. Losses of CKS
that are a page long are the method's own: the plain loop is not made slow by writing them anew.
Where our layers are written for speed, it has torch's own or those of the published code.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.nets import cks_trunk, cks_windows, cut
from napari_cellda.core.nets.cks_windows import blank_windows, in_window, ridges
from napari_cellda.methods import _cks_losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Step = Callable[[int], Tensor]


def copies(*networks: torch.nn.Module) -> list[Any]:
    return [deepcopy(n).to(memory_format=torch.contiguous_format).train() for n in networks]


class Halve(torch.nn.Module):
    """A low-pass filter, one channel at a time."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)
        return F.conv2d(padded, kernel, stride=2, groups=x.shape[1])


def as_published(network: torch.nn.Module) -> torch.nn.Module:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, cut.Halve):
                setattr(module, name, Halve().to(next(network.parameters()).device))
            elif isinstance(child, torch.nn.InstanceNorm2d):
                setattr(module, name, torch.nn.InstanceNorm2d(child.num_features))
            elif isinstance(child, cks_trunk.Depthwise):
                setattr(module, name, plain_convolution(child))
            elif isinstance(child, cks_windows.Double):
                setattr(module, name, torch.nn.Upsample(scale_factor=2, mode="bilinear"))
    return network


def plain_convolution(layer: torch.nn.Conv2d) -> torch.nn.Conv2d:
    plain = torch.nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        padding=layer.padding,
        groups=layer.groups,
    )
    plain.load_state_dict(layer.state_dict())
    return plain.to(layer.weight.device)


def update(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def bce(logits: Tensor, truth: Tensor | float) -> Tensor:
    truth = truth if isinstance(truth, torch.Tensor) else torch.full_like(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth)


def supervised(trainer: Any, batch: Any) -> Step:
    (network,) = copies(trainer.network)
    adam = torch.optim.AdamW(network.parameters(), trainer.params.learning_rate)
    x, y = batch[0], (batch[1] > 0).float()

    def step(index: int) -> Tensor:
        logits = network(x)
        p = torch.sigmoid(logits)
        loss = bce(logits, y) + 1 - 2 * (p * y).sum() / (p**2 + y**2).sum()
        update(loss, adam)
        return loss

    return step


def pseudo_label(trainer: Any, batch: Any) -> Step:
    params = trainer.params
    (student,) = copies(trainer.network)
    teacher = deepcopy(student).eval().requires_grad_(False)
    adam = torch.optim.Adam(
        student.parameters(), params.learning_rate, weight_decay=params.weight_decay
    )
    x, x_teacher, maps = batch
    eta = torch.ones(2, device=x.device)

    def step(index: int) -> Tensor:
        pairs = zip(teacher.state_dict().values(), student.state_dict().values(), strict=True)
        with torch.no_grad():
            for mine, theirs in pairs:
                if mine.is_floating_point():
                    mine.lerp_(theirs, 1 - params.average)
            p_teacher = teacher(x_teacher)
        logits = student(x)
        p = torch.sigmoid(logits).detach()
        p = torch.cat([1 - p, p], dim=1)
        y = (1 - (p - eta[:, None, None]).abs()) * maps
        for k in (0, 1):
            eta[k] = (
                params.memory * eta[k] + (1 - params.memory) * p[:, k][maps[:, k] >= 0.5].mean()
            )
        labels = -(y[:, 1:] * F.logsigmoid(logits) + y[:, :1] * F.logsigmoid(-logits)).mean()
        loss = labels + bce(logits, p_teacher)
        update(loss, adam)
        return loss

    return step


def culpico(trainer: Any, batch: Any) -> Step:
    m, n = copies(trainer.twins.m, trainer.twins.n)
    adams = [torch.optim.Adam(net.parameters(), trainer.params.learning_rate) for net in (m, n)]
    x_s, y, x_t = batch[0], (batch[1] > 0).float(), batch[2]

    def step(index: int) -> Tensor:
        source = bce(m(x_s), y) + bce(n(x_s), y)
        a, b = m(x_t), n(x_t)
        p, q = torch.sigmoid(a).detach(), torch.sigmoid(b).detach()
        w = 1 - (p - q).abs()
        of_n = F.binary_cross_entropy_with_logits(a, (q > 0.5).float(), weight=w)
        of_m = F.binary_cross_entropy_with_logits(b, (p > 0.5).float(), weight=w)
        loss = source + of_n + of_m
        update(loss, *adams)
        return loss

    return step


def cellseguda(trainer: Any, batch: Any, *, with_labels: bool = False) -> Step:
    params = trainer.params
    s, r, d = copies(trainer.network, trainer.decoder, trainer.discriminator)
    rates = (params.learning_rate, params.decoder_rate, params.discriminator_rate)
    s_adam, r_adam, d_adam = (
        torch.optim.Adam(net.parameters(), rate) for net, rate in zip((s, r, d), rates, strict=True)
    )
    x_s, y_s, x_t, y_t = batch[0], (batch[1] > 0).float(), batch[2], (batch[3] > 0).float()

    def overlap(p: Tensor, y: Tensor) -> Tensor:
        return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    def step(index: int) -> Tensor:
        p_s, p_t = torch.sigmoid(s(x_s)), torch.sigmoid(s(x_t))
        update(bce(d(p_s.detach()), 1.0) + bce(d(p_t.detach()), 0.0), d_adam)
        d.requires_grad_(False)
        loss = overlap(p_s, y_s) + params.lam_adv * bce(d(p_t), 1.0)
        loss = loss + params.lam_rec * F.mse_loss(r(p_t), x_t)
        if with_labels:
            loss = loss + overlap(p_t, y_t)
        update(loss, s_adam, r_adam)
        d.requires_grad_(True)
        return loss

    return step


def cellsegssda(trainer: Any, batch: Any) -> Step:
    return cellseguda(trainer, batch, with_labels=True)


def style(trainer: Any, batch: Any) -> Step:
    """FastCUT: for half of the steps the mirrored image has to become the mirrored drawing."""
    seed, params = trainer.job.seed, trainer.params
    networks = (trainer.network.generator, trainer.style.discriminator, trainer.style.projection)
    g, d, f = map(as_published, copies(*networks))
    g_adam, d_adam, f_adam = (
        torch.optim.Adam(net.parameters(), params.style_rate, (0.5, 0.999)) for net in (g, d, f)
    )
    target, source = batch

    def lsgan(scores: Tensor, real: float) -> Tensor:
        return F.mse_loss(scores, torch.full_like(scores, real))

    def nce(queries: Tensor, keys: Tensor) -> Tensor:
        likeness = (queries @ keys.transpose(1, 2) / 0.07).flatten(0, 1)
        own = torch.arange(queries.shape[1], device=queries.device).repeat(len(queries))
        return F.cross_entropy(likeness, own)

    def step(index: int) -> Tensor:
        flip = bool(np.random.default_rng([seed, 3, index]).integers(2))
        fake = g(target.flip(-1) if flip else target)
        update((lsgan(d(fake.detach()), 0.0) + lsgan(d(source), 1.0)) / 2, d_adam)
        d.requires_grad_(False)
        again = [tap.flip(-1) if flip else tap for tap in g(fake, give="taps")]
        places = [
            torch.randperm(tap[0, 0].numel(), device=tap.device)[: params.patches] for tap in again
        ]
        with torch.no_grad():
            keys = f(g(target, give="taps"), places)
        contrasts = [nce(q, k) for q, k in zip(f(again, places), keys, strict=True)]
        loss = lsgan(d(fake), 1.0) + 10 * torch.stack(contrasts).mean()
        update(loss, g_adam, f_adam)
        d.requires_grad_(True)
        return loss

    return step


def segmentation(trainer: Any, batch: Any) -> Step:
    (network,) = copies(trainer.network.segmenter)
    adam = torch.optim.AdamW(network.parameters(), trainer.params.learning_rate)
    x, y = batch.source, (batch.source_labels > 0).float()

    def step(index: int) -> Tensor:
        loss = bce(network(x), y)
        update(loss, adam)
        return loss

    return step


def adaptation(trainer: Any, batch: Any) -> Step:
    (network,) = copies(trainer.network.segmenter)
    teacher = deepcopy(network).eval().requires_grad_(False)
    adam = torch.optim.AdamW(network.parameters(), trainer.params.adaptation_rate)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x, y = torch.cat([batch.source, batch.student]), (batch.source_labels > 0).float()

    def step(index: int) -> Tensor:
        with torch.no_grad():
            p = teacher(batch.clean)
        maps = torch.cat([1 - p, p], dim=1) * batch.present[:, :, None, None]
        source, target = network(x).split([len(y), len(batch.student)])
        loss = bce(source, y) + bce(target, maps.argmax(dim=1, keepdim=True).float())
        update(loss, adam)
        return loss

    return step


def cks(trainer: Any, batch: Any) -> Step:
    params = trainer.params
    principal, collaborator = copies(trainer.principal, trainer.collaborator)
    as_published(principal)
    weights = [*principal.parameters(), *collaborator.parameters()]
    adam = torch.optim.AdamW(weights, params.learning_rate)
    shape = batch.images[:, 0].shape
    prior = {"width": trainer.width, "weight": trainer.prior_weight}

    def step(index: int) -> Tensor:
        flip = -1 - index % 2
        found, windows = principal(batch.images, batch.points, batch.owner)
        foreground, border = (t.flip(flip) for t in collaborator(batch.images.flip(flip)))
        shared = torch.sigmoid(foreground)
        early = index < trainer.head_start
        blank = blank_windows(batch.points, batch.owner, params.window, prior["weight"])
        cells = _cks_losses.prior_canvas(blank if early else windows, shape, **prior)
        cells = _cks_losses.mark_points(cells, batch.points, batch.owner)
        if early:
            neither = in_window(blank, shape) & (shared.detach() > params.doubt)
            neither = neither & ~ridges(blank, shape)
            follow = _cks_losses.balanced_loss(foreground, cells, neither)
        else:
            follow = _cks_losses.foreground_loss(foreground, cells)
        drawn = _cks_losses.lay_out(windows, trainer.shared_foreground(foreground, index))
        edges = _cks_losses.border_canvas(drawn.masks, windows, shape)
        terms = [
            *detection_terms(found, batch, params),
            follow,
            _cks_losses.segmentation_loss(drawn, leak=params.leak),
            _cks_losses.border_loss(border, edges),
            _cks_losses.size_loss(drawn, delta=params.size_weight, exponent=params.size_exponent),
        ]
        loss = torch.stack(terms).sum()
        clipped_update(loss, weights, adam)
        return loss

    return step


def cks_masks(trainer: Any, batch: Any) -> Step:
    principal = as_published(*copies(trainer.principal))
    weights = list(principal.parameters())
    adam = torch.optim.AdamW(weights, trainer.params.learning_rate)

    def step(index: int) -> Tensor:
        found, windows = principal(batch.images, batch.points, batch.owner)
        terms = detection_terms(found, batch, trainer.params)
        mask = _cks_losses.mask_loss(windows, batch.labels, batch.ids)
        loss = torch.stack([*terms, mask]).sum()
        clipped_update(loss, weights, adam)
        return loss

    return step


def detection_terms(found: Any, batch: Any, params: Any) -> list[Tensor]:
    weight = params.score_weight
    terms = _cks_losses.detection_loss(found, batch.points, batch.owner, score_weight=weight)
    return list(terms.values())


def clipped_update(
    loss: Tensor, weights: list[torch.nn.Parameter], adam: torch.optim.Optimizer
) -> None:
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 5.0)
    adam.step()
