"""The CKS principal: finds cells as points and draws each in a window of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_cellda.core.errors import UserError
from napari_cellda.core.nets.cks_trunk import STRIDES, Encoder, Pyramid, conv_stack
from napari_cellda.core.nets.cks_windows import (
    Detections,
    Double,
    Found,
    Windows,
    gather,
    grid_centres,
    paint_largest,
    refine,
)
from napari_cellda.core.nets.packable import Packable
from napari_cellda.core.nets.unet import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STRIDE = STRIDES[0]
"""Of the map that cells are drawn from, in pixels."""
DETECTION_LEVELS = 3
"""Cells are looked for at strides 4, 8 and 16."""
ENCODING = (4, 8)
"""Channels and side of a position encoding."""


class CksPrincipal(Packable):
    """Detection and segmentation of single cells from one trunk [1]_.

    Parameters
    ----------
    in_channels : int
    widths, depths : four int each
        Of the ConvNeXt encoder.
    pyramid : int
        Channels of the feature pyramid.
    head : int
        Convolutions of the detection head.
    features : int
        Channels of a window.
    drawing : int
        Channels of the three convolutions before it.
    window : int
        Side of a cell's window in zoomed pixels, a multiple of 16; no cell gets larger than that.
    zoom : float
        Images are magnified by it first, so that cells have the size that the windows are for; a
        multiple of 1/8.
    least_score : float
        Weaker detections are dropped.
    apart : int
        Of detections that are closer, in zoomed pixels, the strongest is kept.
    drop_path : float

    Notes
    -----
    In eval mode ``forward`` returns four maps in [0, 1], (N, 4, Y, X), in the image's own pixels:

    0. foreground: the largest m_i of all cells,
    1. score: the strongest detection, of any scale, of the grid cell that a pixel lies in,
    2. 3. offset: ``0.5 + (place - pixel) / reach``, row and column, of that detection, with
       `offset_reach` in pixels.

    `find` returns the cells themselves. All norms are over the channels of one pixel, where the
    published code has instance norms: a tile then tells what the whole image would.

    References
    ----------
    .. [1] Yu, "Point-supervised single-cell segmentation via collaborative knowledge sharing",
       2023. https://arxiv.org/abs/2304.10671
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (24, 48, 96, 192),
        depths: Sequence[int] = (1, 1, 2, 1),
        pyramid: int = 48,
        head: int = 2,
        features: int = 16,
        drawing: int = 48,
        window: int = 64,
        zoom: float = 1.0,
        least_score: float = 0.25,
        apart: int = 8,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "widths": list(widths),
            "depths": list(depths),
            "pyramid": pyramid,
            "head": head,
            "features": features,
            "drawing": drawing,
            "window": window,
            "zoom": zoom,
            "least_score": least_score,
            "apart": apart,
            "drop_path": drop_path,
        }
        _check(self.config)
        self.window, self.zoom = window, float(zoom)
        self.apart = apart
        self.in_channels, self.out_channels = in_channels, 4
        self.multiple = whole_multiple(zoom)
        self.multiples = (self.multiple, self.multiple)
        self.tiles_exactly = False  # it looks further than any halo worth its time
        self.encoder = Encoder(in_channels, widths, depths, drop_path)
        self.pyramid = Pyramid(widths, pyramid)
        self.detection = conv_stack(pyramid, pyramid, head)
        self.score = nn.Conv2d(pyramid, 1, 1)
        self.offset = nn.Conv2d(pyramid, 2, 1)
        nn.init.constant_(self.score.bias, -2.0)  # type: ignore[arg-type]
        self.drawing = nn.Sequential(
            conv_stack(pyramid, drawing, 3), nn.Conv2d(drawing, features, 3, padding=1)
        )
        self.position = _position_encoder(pyramid)
        self.join = nn.Conv2d(ENCODING[0], features, 1, bias=False)
        self.finish = _finish(features)
        self.context = math.ceil(self.offset_reach)

    @property
    def offset_reach(self) -> float:
        """What an offset of 0 to 1 spans, in pixels of the image."""
        return self.window / self.zoom

    def slim(self, axis: int = 0) -> None:
        """Return None: the reach of a ConvNeXt is beyond any tile."""
        return None

    def detect(self, x: Tensor) -> tuple[Detections, Tensor, Tensor]:
        """Look for cells.

        Parameters
        ----------
        x : (N, C, Y, X) Tensor
            Zoomed; sides are multiples of 32.

        Returns
        -------
        Detections
        pyramid, drawing : (N, ..., Y / 4, X / 4) Tensor
            What `draw` needs.
        """
        levels = self.pyramid(self.encoder(x))
        logits, offsets, centres, strides = [], [], [], []
        for level, stride in zip(levels[:DETECTION_LEVELS], STRIDES, strict=False):
            y = self.detection(level)
            logits.append(self.score(y).flatten(1))
            offsets.append(self.offset(y).flatten(2).transpose(1, 2))
            centres.append(grid_centres(level.shape[2], level.shape[3], stride, x.device))
            strides.append(torch.full_like(centres[-1][:, 0], stride))
        found = Detections(
            torch.cat(logits, 1).float(),
            torch.cat(offsets, 1).float(),
            torch.cat(centres),
            torch.cat(strides),
        )
        return found, levels[0], self.drawing(levels[0])

    def draw(self, pyramid: Tensor, drawing: Tensor, places: Tensor, owner: Tensor) -> Windows:
        """Draw the cells at some places.

        Parameters
        ----------
        pyramid, drawing : Tensor
            See `detect`.
        places : (n, 2) Tensor
            In zoomed pixels, edges; inside the image.
        owner : (n,) Tensor of int

        Returns
        -------
        Windows
        """
        half = self.window // (2 * STRIDE)
        limits = torch.tensor(drawing.shape[2:], device=places.device)
        middle = torch.minimum((places / STRIDE).round().long().clamp_min(0), limits)
        here = gather(pyramid, owner, middle - 1, 2).mean(dim=(1, 2))
        channels, side = ENCODING
        encoding = self.position(here).view(-1, channels, side, side)
        encoding = F.interpolate(
            encoding, size=(2 * half, 2 * half), mode="bilinear", align_corners=False
        )
        features = gather(drawing, owner, middle - half, 2 * half).permute(0, 3, 1, 2)
        logits = self.finish(features + self.join(encoding))[:, 0]
        return Windows(logits.float(), (middle - half) * STRIDE, owner)

    def forward(self, x: Tensor, points: Tensor | None = None, owner: Tensor | None = None) -> Any:
        """Return the four maps of images; with points, what a training step needs.

        Parameters
        ----------
        x : (N, C, Y, X) Tensor
            Any size; zoomed already (to multiples of 32) when points are given.
        points : (n, 2) Tensor, optional
            Of every cell, in zoomed pixels, edges.
        owner : (n,) Tensor of int, optional
            The image of each point.

        Returns
        -------
        (N, 4, Y, X) Tensor of float in [0, 1], or (Detections, Windows)
            Windows lie where a sure detection belongs to a point, else at the point itself.
        """
        if points is not None and owner is not None:
            found, pyramid, drawing = self.detect(x)
            places = refine(points, owner, found)
            return found, self.draw(pyramid, drawing, places, owner)
        height, width = x.shape[2:]
        return self.forward_exact(pad_to_multiple(x, self.multiple))[:, :, :height, :width]

    def forward_exact(self, x: Tensor) -> Tensor:
        """Return the four maps of images whose sides are multiples of `multiple`."""
        zoomed = zoom_by(x, self.zoom)
        found, pyramid, drawing = self.detect(zoomed)
        peaks = self._peaks(found, zoomed.shape)
        image, row, column = torch.nonzero(peaks, as_tuple=True)
        places = torch.stack([row, column], 1) + 0.5
        windows = self.draw(pyramid, drawing, places, image)
        foreground = paint_largest(windows, zoomed.shape, torch.sigmoid(windows.logits), 0.0)
        maps = torch.cat([foreground[:, None], *self._dense(found, zoomed.shape)], dim=1)
        if self.zoom == 1:
            return maps
        return F.interpolate(maps, size=x.shape[2:], mode="bilinear", align_corners=False)

    def draw_at(self, x: Tensor, places: Tensor) -> Windows:
        """Draw the cells of one zoomed image (1, C, Y, X), of any size, at places (n, 2)."""
        _, pyramid, drawing = self.detect(pad_to_multiple(x, STRIDES[-1]))
        # No window's middle lies below or right of the image, where it could not be painted.
        last = torch.tensor([side // STRIDE * STRIDE for side in x.shape[2:]], device=x.device)
        places = torch.minimum(places, last)
        owner = torch.zeros(len(places), dtype=torch.long, device=x.device)
        return self.draw(pyramid, drawing, places, owner)

    @torch.no_grad()
    def find(self, x: Tensor, least_score: float | None = None) -> Found:
        """Find and draw the cells of one image.

        Parameters
        ----------
        x : (C, Y, X) Tensor
            Any size, in the image's own pixels.
        least_score : float, optional
            Weaker detections are dropped. None: the network's own.

        Returns
        -------
        Found
            All that were detected; some may be two windows of one cell, of which the better score
            is to lie on top.
        """
        height, width = x.shape[1:]
        zoomed = zoom_by(pad_to_multiple(x[None], self.multiple), self.zoom)
        found, pyramid, drawing = self.detect(zoomed)
        peaks = self._peaks(found, zoomed.shape, least_score)[0]
        row, column = torch.nonzero(peaks, as_tuple=True)
        scores, order = peaks[row, column].sort(descending=True, stable=True)
        places = torch.stack([row, column], 1)[order] + 0.5
        points = places / self.zoom - 0.5
        inside = (points < torch.tensor([height, width], device=x.device) - 0.5).all(dim=1)
        places, points, scores = places[inside], points[inside], scores[inside]
        windows = self.draw(pyramid, drawing, places, torch.zeros_like(order[: len(places)]))
        return Found(points, scores, *self._unzoomed(windows))

    def _unzoomed(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return masks in the image's own pixels and their corners."""
        if self.zoom == 1:
            return windows.logits > 0, windows.corners
        side = math.ceil(self.window / self.zoom) + 1
        corners = torch.floor(windows.corners / self.zoom).long()
        # Pixel p of a mask lies at edge (corner + p + 0.5) * zoom of the zoomed image.
        steps = torch.arange(side, device=corners.device) + 0.5
        places = (corners[..., None] + steps) * self.zoom - windows.corners[..., None]
        places = places / self.window * 2 - 1
        rows, columns = (places[:, k].to(windows.logits.dtype) for k in (0, 1))
        grid = torch.stack(
            [
                columns[:, None, :].expand(-1, side, -1),
                rows[:, :, None].expand(-1, -1, side),
            ],
            dim=-1,
        )
        # Zeros around a window leave the signs at its rim; Apple's graphics cards know no border.
        sampled = F.grid_sample(windows.logits[:, None], grid, align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1)
        return (sampled[:, 0] > 0) & inside, corners

    def _peaks(
        self, found: Detections, shape: Sequence[int], least_score: float | None = None
    ) -> Tensor:
        """Return (N, Y, X) scores that are the largest within `apart` pixels, 0 elsewhere.

        A local rule instead of the greedy non-maximum suppression of the paper: it is the same
        for a tile and the whole.
        """
        n, _, height, width = shape
        scores = torch.sigmoid(found.logits)
        least = self.config["least_score"] if least_score is None else least_score
        scores = torch.where(scores > least, scores, 0.0)
        spots = found.places.floor().long()
        rows, columns = spots[..., 0], spots[..., 1]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        scores = torch.where(inside, scores, 0.0)
        index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        canvas = scores.new_zeros(n, height * width).scatter_reduce(1, index, scores, "amax")
        canvas = canvas.view(n, 1, height, width)
        reach, side = self.apart, 2 * self.apart + 1
        rows = F.max_pool2d(canvas, (side, 1), 1, (reach, 0))
        largest = F.max_pool2d(rows, (1, side), 1, (0, reach))
        return torch.where((canvas == largest) & (canvas > 0), canvas, 0.0)[:, 0]

    def _dense(self, found: Detections, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the score (N, 1, Y, X) and the offset (N, 2, Y, X), both in [0, 1]."""
        n, _, height, width = shape
        best = torch.full((n, 1, height, width), -1.0, device=found.logits.device)
        place = torch.zeros((n, 2, height, width), device=found.logits.device)
        first = 0
        for stride in STRIDES[:DETECTION_LEVELS]:
            grid = (height // stride, width // stride)
            cells = slice(first, first + grid[0] * grid[1])
            score = torch.sigmoid(found.logits[:, cells]).view(n, 1, *grid)
            spots = found.places[:, cells].transpose(1, 2).reshape(n, 2, *grid)
            score, spots = (F.interpolate(t, scale_factor=float(stride)) for t in (score, spots))
            place = torch.where(score > best, spots, place)
            best = torch.maximum(score, best)
            first = cells.stop
        pixels = grid_centres(height, width, 1, best.device).T.reshape(1, 2, height, width)
        offset = 0.5 + (place - pixels) / self.window
        return best, offset.clamp(0, 1)


def _position_encoder(pyramid: int) -> nn.Sequential:
    """Return what makes a small map of a cell's window out of the features at its place."""
    channels, side = ENCODING
    return nn.Sequential(
        nn.Linear(pyramid, 256),
        nn.ReLU(inplace=True),
        nn.Linear(256, 256),
        nn.ReLU(inplace=True),
        nn.Linear(256, channels * side * side),
    )


def _finish(features: int) -> nn.Sequential:
    """Return what draws a cell out of its window's features."""
    last = nn.ConvTranspose2d(features, 1, 2, 2)
    nn.init.constant_(last.bias, -1.0)  # type: ignore[arg-type]  # most of a window is not the cell
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(features, features, 3, padding=1),
        nn.ReLU(inplace=True),
        last,
        Double(),
    )


def whole_multiple(zoom: float) -> int:
    """Return the least side whose zoomed side is a multiple of 32."""
    eighths = round(zoom * 8)
    return STRIDES[-1] * 8 // math.gcd(eighths, STRIDES[-1] * 8)


def zoom_by(x: Tensor, zoom: float) -> Tensor:
    """Magnify (N, C, Y, X) images; shrinking averages."""
    if zoom == 1:
        return x
    size = [side * round(zoom * 8) // 8 for side in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=zoom < 1)


def _check(config: dict[str, Any]) -> None:
    """Refuse what cannot be built: the arguments may come from a stranger's file."""
    limits = {"in_channels": 1024, "pyramid": 1024, "head": 16, "features": 512, "drawing": 1024}
    for name, most in {**limits, "window": 1024, "apart": 256}.items():
        if not isinstance(config[name], int) or not 1 <= config[name] <= most:
            raise UserError(f"A CKS network's {name} is from 1 to {most}, not {config[name]!r}.")
    if config["window"] % 16:
        raise UserError(f"A CKS network's window is a multiple of 16, not {config['window']!r}.")
    for name, most in (("widths", 4096), ("depths", 64)):
        values = config[name]
        if len(values) != len(STRIDES) or not all(1 <= int(value) <= most for value in values):
            raise UserError(
                f"A CKS network's {name} are {len(STRIDES)} numbers from 1 to {most}, not {values}."
            )
    zoom = config["zoom"]
    if not 1 / 8 <= zoom <= 16 or zoom * 8 % 1:
        raise UserError(f"A CKS network's zoom is a multiple of 1/8 up to 16, not {zoom!r}.")
    for name in ("least_score", "drop_path"):
        if not 0 <= config[name] < 1:
            raise UserError(f"A CKS network's {name} is from 0 to below 1, not {config[name]!r}.")
