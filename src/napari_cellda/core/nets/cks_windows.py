"""Where the CKS principal finds cells, and the windows that it draws them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

OFF_IMAGE = -1e6
"""Logit where a window says nothing."""


class Detections(NamedTuple):
    """Candidates from all scales, G grid cells in all; places are pixel edges, (row, column)."""

    logits: Tensor
    """(N, G); the sigmoid is the score."""
    offsets: Tensor
    """(N, G, 2): from the centre of a grid cell to the cell, in strides."""
    centres: Tensor
    """(G, 2), in pixels."""
    strides: Tensor
    """(G,), in pixels."""

    @property
    def places(self) -> Tensor:
        """(N, G, 2): where the cells are, in pixels."""
        return self.centres + self.offsets * self.strides[:, None]


class Windows(NamedTuple):
    """Cells drawn one by one: n windows of W x W pixels."""

    logits: Tensor
    """(n, W, W)."""
    corners: Tensor
    """(n, 2) int: row and column of each window's first pixel; may be negative."""
    owner: Tensor
    """(n,) int: the image of the batch that each belongs to."""


class Found(NamedTuple):
    """The cells of one image, drawn in its own pixels."""

    points: Tensor
    """(n, 2): row and column of each cell, 0 = the centre of the first pixel."""
    scores: Tensor
    """(n,), in [0, 1], falling."""
    masks: Tensor
    """(n, S, S) bool."""
    corners: Tensor
    """(n, 2) int: row and column of each mask's first pixel; may be negative."""


def grid_centres(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Return the centres (H * W, 2) of a grid's cells in pixels: ``(i + 0.5) * stride``."""
    rows = (torch.arange(height, device=device) + 0.5) * stride
    columns = (torch.arange(width, device=device) + 0.5) * stride
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)


@torch.no_grad()
def refine(
    points: Tensor, owner: Tensor, found: Detections, *, score: float = 0.2, within: float = 12.0
) -> Tensor:
    """Replace points by the detections that belong to them: all that there is at inference.

    Parameters
    ----------
    points : (n, 2) Tensor
        In pixels, edges.
    owner : (n,) Tensor of int
    found : Detections
    score : float
        Weaker detections are not considered.
    within : float
        Largest distance in pixels.

    Returns
    -------
    (n, 2) Tensor
        Of each point, the strongest detection whose nearest point it is; itself without one.
    """
    image, cell = torch.nonzero(torch.sigmoid(found.logits) >= score, as_tuple=True)
    if not len(points) or not len(image):
        return points
    places = found.places[image, cell]
    distance = torch.cdist(places, points)
    distance = distance.masked_fill(image[:, None] != owner, torch.inf)
    nearest, which = distance.min(dim=1)
    close = nearest < within
    places, which, scores = places[close], which[close], found.logits[image, cell][close]
    best = scores.new_full((len(points),), -torch.inf).scatter_reduce(0, which, scores, "amax")
    # Of equally strong ones the first, so that the choice is the same every time.
    rank = torch.where(scores == best[which], torch.arange(len(which)).to(which), len(which))
    first = which.new_full((len(points),), len(which)).scatter_reduce(0, which, rank, "amin")
    taken = first < len(which)
    refined = points.clone()
    refined[taken] = places[first[taken]]
    return refined


def paint_largest(windows: Windows, shape: Sequence[int], values: Tensor, empty: float) -> Tensor:
    """Return the largest of `values` (n, W, W) at every pixel of (N, Y, X); `empty` without any."""
    canvas, _ = on_canvas(values, windows, shape, "amax", empty)
    return cropped(canvas, windows, shape)


def blank_windows(points: Tensor, owner: Tensor, side: int, weight: float) -> Windows:
    """Return windows around points whose drawings are undecided.

    With the prior of the same weight their M_p is above 1/2 where the hill is above half of
    its height: a disc at each point.

    Parameters
    ----------
    points : (n, 2) Tensor
        In pixels, edges.
    owner : (n,) Tensor of int
    side : int
        W.
    weight : float
    """
    logits = points.new_full((len(points), side, side), -weight / 2)
    return Windows(logits, points.round().long() - side // 2, owner)


def in_window(windows: Windows, shape: Sequence[int]) -> Tensor:
    """Return the pixels, (N, Y, X) bool, that lie in a window."""
    return paint_largest(windows, shape, torch.ones_like(windows.logits), 0.0) > 0


def ridges(windows: Windows, shape: Sequence[int], margin: float = 2.0) -> Tensor:
    """Return the pixels, (N, Y, X) bool, about as far from the nearest middle as from another.

    Lines between neighbouring cells, at which the distances differ by less than `margin` pixels:
    the edges of the Voronoi cells of the points.
    """
    distance = squared_distance(windows).sqrt().expand_as(windows.logits)
    nearest, index = on_canvas(distance, windows, shape, "amin", torch.inf)
    close = (distance - read_canvas(nearest, index) < margin).to(distance.dtype)
    count, _ = on_canvas(close, windows, shape, "sum")
    return cropped(count, windows, shape) > 1


def squared_distance(windows: Windows) -> Tensor:
    """Return how far each pixel (W, W) is from the window's middle, squared."""
    side = windows.logits.shape[-1]
    r = torch.arange(side, device=windows.logits.device) + 0.5 - side / 2
    return r[:, None] ** 2 + r[None, :] ** 2


def on_canvas(
    values: Tensor,
    windows: Windows,
    shape: Sequence[int],
    how: Literal["sum", "amax", "amin"],
    empty: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Join the values (n, W, W) of windows where these overlap; gradients flow.

    Returns
    -------
    canvas : (P,) Tensor
        See `canvas_index`; `empty` where no window lies.
    index : (n, W, W) Tensor of int
        Where each window's pixels are on it.
    """
    index, side = canvas_index(windows, shape)
    canvas = values.new_full((shape[0] * side[0] * side[1],), empty)
    return canvas.scatter_reduce(0, index.flatten(), values.flatten(), how), index


def canvas_index(windows: Windows, shape: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """Return where each window's pixels lie on a flat canvas with half a window around images.

    Returns
    -------
    index : (n, W, W) Tensor of int
    side : (int, int)
        Rows and columns of each of the canvas's images.
    """
    window = windows.logits.shape[-1]
    side = (shape[-2] + window, shape[-1] + window)
    steps = torch.arange(window, device=windows.corners.device)
    first = windows.corners + window // 2
    rows = windows.owner[:, None] * side[0] + first[:, :1] + steps
    columns = first[:, 1:] + steps
    return rows[:, :, None] * side[1] + columns[:, None, :], side


def read_canvas(canvas: Tensor, index: Tensor) -> Tensor:
    """Return what a canvas holds at the places of `canvas_index`; gradients flow.

    Trains several times as fast as ``canvas[index]``.
    """
    return canvas.flatten().index_select(0, index.flatten()).view_as(index)


def cut_windows(images: Tensor, windows: Windows, outside: float) -> Tensor:
    """Return what images (N, Y, X) show in each window, (n, W, W); `outside` where they end."""
    index, _ = canvas_index(windows, images.shape)
    margin = windows.logits.shape[-1] // 2
    return read_canvas(F.pad(images, (margin,) * 4, value=outside), index)


def cropped(canvas: Tensor, windows: Windows, shape: Sequence[int]) -> Tensor:
    """Return the images (N, Y, X) of a flat canvas, without what is around them."""
    window = windows.logits.shape[-1]
    margin = window // 2
    full = canvas.view(shape[0], shape[-2] + window, shape[-1] + window)
    return full[:, margin : margin + shape[-2], margin : margin + shape[-1]]


def gather(features: Tensor, owner: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut (n, side, side, C) squares out of (N, C, H, W) in one go; 0 outside.

    Their middles lie in the image or on its edge.
    """
    margin = side // 2
    padded = F.pad(features, (margin,) * 4).permute(0, 2, 3, 1)
    _, height, width, channels = padded.shape
    steps = torch.arange(side, device=corners.device) + margin
    rows = owner[:, None] * height + corners[:, :1] + steps
    index = rows[:, :, None] * width + (corners[:, 1:] + steps)[:, None, :]
    # Trains in half the time of ``flat[index]``.
    flat = padded.reshape(-1, channels).index_select(0, index.flatten())
    return flat.view(-1, side, side, channels)


class Double(nn.Module):
    """Double both sides of square maps (N, C, S, S), between pixels bilinear.

    Two matrix products: ``F.interpolate``, made for many channels, takes several times as long.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (N, C, 2 S, 2 S)."""
        identity = torch.eye(maps.shape[-1], device=maps.device, dtype=maps.dtype)[None]
        spread = F.interpolate(identity, scale_factor=2.0, mode="linear", align_corners=False)[0].T
        return spread @ maps @ spread.T
