"""The losses of CKS, by the numbers of the paper's equations (it uses 6 to 9 twice).

Windows are n squares of W x W pixels, one per cell; a canvas is a whole image. All are computed in
float32.

References
----------
.. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing", 2023.
   https://arxiv.org/abs/2304.10671
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn import functional as F

from napari_cellda.core.nets.cks_windows import (
    OFF_IMAGE,
    cropped,
    cut_windows,
    on_canvas,
    paint_largest,
    read_canvas,
    squared_distance,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_cellda.core.nets.cks_windows import Detections, Windows

Consistency = Literal["linear", "entropy"]
"""How one model follows the other."""
Following = Literal["linear", "entropy", "winner"]
EPS = 1e-8


def detection_loss(
    found: Detections,
    points: Tensor,
    owner: Tensor,
    *,
    radius: float = 8.0,
    score_weight: float = 1.0,
) -> dict[str, Tensor]:
    """L_det (Eq. 3): focal cross entropy of the scores, and how far off the offsets are.

    Parameters
    ----------
    found : Detections
    points : (n, 2) Tensor
        Of all cells, in pixels, edges.
    owner : (n,) Tensor of int
        The image of each.
    radius : float
        Grid cells whose centre is closer to a point, in pixels, are positive.
    score_weight : float
        1 in the paper.

    Returns
    -------
    dict
        ``score``: focal cross entropy (gamma 2, no alpha), the sum over all scales divided by the
        number of grid cells, times its weight. ``offset``: Huber loss of the offset to the
        nearest point in strides, mean over the positive grid cells.

    Notes
    -----
    The paper prints an L2 norm for the offsets; its code takes the Huber loss, as here.
    """
    logits = found.logits
    nearest, target = _nearest(found, points, owner)
    positive = nearest < radius
    entropy = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
    focal = (1 - torch.exp(-entropy)) ** 2 * entropy
    huber = F.huber_loss(found.offsets, target, reduction="none", delta=1.0).sum(dim=-1)
    count = positive.sum().clamp_min(1)
    return {
        "score": score_weight * focal.sum() / logits.numel(),
        "offset": torch.where(positive, huber, 0.0).sum() / count,
    }


def _nearest(found: Detections, points: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Return each grid cell's distance (N, G) to its nearest point, and that offset (N, G, 2)."""
    n, cells = found.logits.shape
    distance = found.logits.new_full((n, cells), torch.inf)
    target = torch.zeros_like(found.offsets)
    for image in range(n):
        own = points[owner == image]
        if len(own):
            distance[image], which = torch.cdist(found.centres, own).min(dim=1)
            target[image] = (own[which] - found.centres) / found.strides[:, None]
    return distance, target


class Drawn(NamedTuple):
    """Windows with what belongs to their pixels."""

    windows: Windows
    masks: Tensor
    """(n, W, W): m_i, the sigmoid of the logits."""
    foreground: Tensor
    """(n, W, W): M_c in each window, without gradient; 0 outside the image."""
    inside: Tensor
    """(n, W, W) bool: whether a pixel is in the image."""
    shape: tuple[int, int, int]
    """(N, Y, X) of the images."""


def lay_out(windows: Windows, foreground: Tensor) -> Drawn:
    """Look up what windows show.

    Parameters
    ----------
    windows : Windows
    foreground : (N, Y, X) Tensor
        M_c, in [0, 1].
    """
    around = cut_windows(foreground.detach(), windows, outside=-1.0)
    n, height, width = foreground.shape
    masks = torch.sigmoid(windows.logits)
    return Drawn(windows, masks, around.clamp_min(0), around >= 0, (n, height, width))


def others(values: Tensor, windows: Windows, shape: Sequence[int]) -> Tensor:
    """Return, at each window's pixels, the sum of all other windows' values; gradients flow."""
    total, index = on_canvas(values, windows, shape, "sum")
    return read_canvas(total, index) - values


def leaky_masks(logits: Tensor, slope: Tensor, leak: float) -> Tensor:
    """Return the sigmoid of logits, with a steeper gradient where a mask is sure and wrong.

    Such pixels have next to no gradient in a linear loss, so that a principal that first learned
    the cells' mean shape would keep it for long. The values are not changed.

    Parameters
    ----------
    logits : (n, W, W) Tensor
    slope : (n, W, W) Tensor
        The loss's derivative by the masks: pixels on the wrong side have its sign.
    leak : float
        Added to the sigmoid's own slope, which is 1/4 at most.
    """
    masks = torch.sigmoid(logits)
    if not leak:
        return masks
    wrong = logits.detach() * slope.detach() > 0
    return masks + leak * torch.where(wrong, logits - logits.detach(), 0.0)


def segmentation_loss(drawn: Drawn, how: Consistency = "linear", *, leak: float = 0.0) -> Tensor:
    """L_S (Eq. 8): what the collaborator taught the principal, and no pixel for two cells.

    Parameters
    ----------
    drawn : Drawn
    how : {"linear", "entropy"}
        "entropy" takes the cross entropy with ``M_c > 0.5`` in place of the first two terms, which
        the paper shows to be worse (Table V), in trainings that are far longer than those here.
    leak : float
        See `leaky_masks`; the paper has none. For "linear".

    Returns
    -------
    Tensor
        ``mean[(1 - M_c) m_i + M_c (1 - m_i) + m_i sum_{j != i} m_j]``. M_c passes no gradient; the
        overlap does, to both cells. Outside the image M_c = 0.
    """
    windows, shape, shared = drawn.windows, drawn.shape, drawn.foreground
    if how == "entropy":
        hard = (shared > 0.5).float()
        follow = F.binary_cross_entropy_with_logits(windows.logits, hard, reduction="none")
        return _mean(follow + drawn.masks * others(drawn.masks, windows, shape))
    slope = 1 - 2 * shared + 2 * others(drawn.masks.detach(), windows, shape)
    m = leaky_masks(windows.logits, slope, leak)
    return _mean((1 - shared) * m + shared * (1 - m) + m * others(m, windows, shape))


def warm_up_loss(drawn: Drawn) -> Tensor:
    """L_S of the first steps: a hard M_c, and an overlap that also pushes sure masks apart.

    ``mean[(1 - H) m_i + H (1 - m_i) + m_i sum_{j != i} softplus(l_j)]`` with ``H = M_c > 0.5``, as
    in the published code; the paper does not speak of it.
    """
    m, hard = drawn.masks, (drawn.foreground > 0.5).float()
    overlap = others(F.softplus(drawn.windows.logits), drawn.windows, drawn.shape)
    return _mean((1 - hard) * m + hard * (1 - m) + m * overlap)


def size_loss(drawn: Drawn, *, delta: float = 0.01, exponent: float = 0.5) -> Tensor:
    """L_MC (the second Eq. 6): keeps masks from vanishing.

    Parameters
    ----------
    drawn : Drawn
    delta : float
    exponent : float
        The code's 1/2: ``delta (mean m_i)^(-1/2)``, mean over cells. The paper prints 1, which
        explodes.

    Notes
    -----
    The sum of m_i runs over the image's pixels, the mean over the window's.
    """
    area = (drawn.masks * drawn.inside).sum(dim=(1, 2)).clamp(EPS, 1e6)
    share = area / drawn.masks.shape[-1] ** 2
    return delta * _mean(share**-exponent)


def winner_loss(drawn: Drawn, *, width: float, weight: float) -> Tensor:
    """Cross entropy of masks with the sharp ones for which L_S (Eq. 8) is smallest.

    Where ``M_c > 0.5`` that is one cell per pixel, whichever; it is given to the cell that claims
    it most, the maximum of M_p (Eq. 4). Elsewhere it is none. Eq. 8 itself has next to no gradient
    where a mask is sure and wrong, and needs trainings that are far longer.

    Parameters
    ----------
    drawn : Drawn
    width, weight : float
        Of the prior; see `prior_canvas`.

    Returns
    -------
    Tensor
        Mean over the windows' pixels that are in the image.
    """
    loss = F.binary_cross_entropy_with_logits(
        drawn.windows.logits, winners(drawn, width=width, weight=weight), reduction="none"
    )
    return (loss * drawn.inside).sum() / drawn.inside.sum().clamp_min(1)


def winners(drawn: Drawn, *, width: float, weight: float) -> Tensor:
    """Return the sharp masks (n, W, W) of `winner_loss`, without gradient."""
    windows = drawn.windows
    claims = windows.logits.detach() + weight * hill(windows, width)
    largest, index = on_canvas(claims, windows, drawn.shape, "amax", OFF_IMAGE)
    return ((claims >= read_canvas(largest, index)) & (drawn.foreground > 0.5)).float()


def hill(windows: Windows, width: float) -> Tensor:
    """Return the prior's hill (W, W), 1 in the middle (Eq. 4)."""
    return torch.exp(-squared_distance(windows) / (2 * width**2))


def prior_canvas(windows: Windows, shape: Sequence[int], *, width: float, weight: float) -> Tensor:
    """M_p (Eq. 4) of whole images, without gradient.

    ``sigmoid(max_i [logit_i + weight * exp(-r^2 / (2 width^2))])``, r from the window's middle;
    0 outside all windows. The paper takes the maximum of sigmoids, which is the same.

    Parameters
    ----------
    windows : Windows
    shape : (N, Y, X)
    width : float
        d, in pixels.
    weight : float
        pi, in units of the logit; 0 switches the prior off.

    Returns
    -------
    (N, Y, X) Tensor of float in [0, 1]
    """
    logits = windows.logits.detach()
    raised = logits + weight * hill(windows, width)
    return torch.sigmoid(paint_largest(windows, shape, raised, OFF_IMAGE))


def mark_points(canvas: Tensor, points: Tensor, owner: Tensor) -> Tensor:
    """Return M_p with 1 at the pixel of every point, as the published code has it."""
    marked = canvas.clone()
    rows, columns = points.floor().long().unbind(1)
    marked[owner, rows.clamp(0, canvas.shape[1] - 1), columns.clamp(0, canvas.shape[2] - 1)] = 1.0
    return marked


def foreground_loss(logits: Tensor, target: Tensor, how: Consistency = "linear") -> Tensor:
    """L_M (Eq. 6, or 5 with "entropy"): the collaborator follows the principal.

    Parameters
    ----------
    logits : (N, Y, X) Tensor
        Of M_c.
    target : (N, Y, X) Tensor
        M_p; passes no gradient.
    how : {"linear", "entropy"}
        linear: ``mean[(1 - M_p) M_c + M_p (1 - M_c)]``, whose gradient by M_c is
        ``(1 - 2 M_p) / pixels`` (Eq. 7). entropy: the cross entropy with ``M_p > 0.5``.
    """
    target = target.detach()
    if how == "entropy":
        return F.binary_cross_entropy_with_logits(logits, (target > 0.5).float())
    shared = torch.sigmoid(logits)
    return ((1 - target) * shared + target * (1 - shared)).mean()


def balanced_loss(logits: Tensor, target: Tensor, neither: Tensor) -> Tensor:
    """Cross entropy of M_c with ``target > 0.5``, cells and background weighing alike.

    For the head start: discs at the points cover a part of large cells only, so that nothing would
    be cell rather than background if all pixels weighed the same.

    Parameters
    ----------
    logits, target : (N, Y, X) Tensor
        As in `foreground_loss`.
    neither : (N, Y, X) Tensor of bool
        Where the rest of a cell may be: what is not cell here does not count as background.
    """
    cells = target.detach() > 0.5
    losses = F.binary_cross_entropy_with_logits(logits, cells.to(logits.dtype), reduction="none")
    parts = (cells, ~cells & ~neither)
    return torch.stack([(losses * p).sum() / p.sum().clamp_min(1) for p in parts]).mean()


def border_canvas(masks: Tensor, windows: Windows, shape: Sequence[int]) -> Tensor:
    """B_p (Eq. 9): ``tanh(sum_i e_i)`` with the edges e_i of every mask; gradients flow.

    Parameters
    ----------
    masks : (n, W, W) Tensor
    windows : Windows
    shape : (N, Y, X)

    Returns
    -------
    (N, Y, X) Tensor of float in [0, 1]
        ``e = sqrt((S_x^2 + S_y^2) / 8)``, 3 x 3 Sobel filters, clipped to [1e-8, 1] first (the root
        of 0 has no gradient). One sharp edge gives tanh(1) = 0.762, two that touch tanh(2) = 0.964.
    """
    total, _ = on_canvas(edges(masks), windows, shape, "sum")
    return torch.tanh(cropped(total, windows, shape))


def edges(masks: Tensor) -> Tensor:
    """Return the clipped Sobel magnitude (n, W, W) of masks."""
    padded = F.pad(masks[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    # Separable, by shifted sums: a convolution with one channel is slower and no clearer.
    smooth_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth_columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = smooth_rows[..., 2:] - smooth_rows[..., :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    return torch.sqrt(((across**2 + down**2) / 8).clamp(EPS, 1))


def border_loss(logits: Tensor, border: Tensor) -> Tensor:
    """L_B (Eq. 10): ``mean[(B_c - B_p)^2] / 2``; gradients flow into both models.

    Parameters
    ----------
    logits : (N, Y, X) Tensor
        Of B_c.
    border : (N, Y, X) Tensor
        B_p.
    """
    return 0.5 * ((torch.sigmoid(logits) - border) ** 2).mean()


def mask_loss(windows: Windows, labels: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of every window with the true mask of its cell: training with masks.

    Parameters
    ----------
    windows : Windows
    labels : (N, Y, X) Tensor of int
        Instance ids; negative where nothing is known.
    ids : (n,) Tensor of int
        The id of each window's cell.
    """
    here = cut_windows(labels, windows, outside=0)
    known = (here >= 0).float()
    loss = F.binary_cross_entropy_with_logits(
        windows.logits, (here == ids[:, None, None]).float(), known, reduction="sum"
    )
    return loss / known.sum().clamp_min(1)


def _mean(values: Tensor) -> Tensor:
    """Return the mean; 0, not NaN, of nothing."""
    return values.sum() / max(values.numel(), 1)
