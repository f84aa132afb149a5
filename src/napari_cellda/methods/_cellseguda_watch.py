"""What CellSegUDA tells while it runs: figures that need no target truth, previews, notes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.domain import UNKNOWN, Domain, Plane
from napari_cellda.core.adaptation.predict import (
    class_labels,
    maps_kind,
    mean_dice,
    predict_plane,
    preview_pixels,
)
from napari_cellda.core.events import Event, Note, Preview
from napari_cellda.core.tiles import middle_slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from napari_cellda.core.nets.segmenter import Segmenter

PLANES, SIDE = 4, 256
"""Planes per domain, and their side in pixels, that the figures are measured on."""
PLAUSIBLE_SHARE = (0.2, 5.0)
"""The target's share of foreground over the source's; beyond, the run is called ill."""


class Watch:
    """Looks at segmenter, decoder and discriminator from outside the training.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
    decoder, discriminator : Module or None
        None: it is not trained, so nothing is told of it.
    source : Domain
        Annotated planes kept aside.
    target : Domain
    """

    def __init__(
        self,
        fabric: Any,
        decoder: nn.Module | None,
        discriminator: nn.Module | None,
        *,
        source: Domain,
        target: Domain,
    ) -> None:
        self.fabric, self.decoder, self.discriminator = fabric, decoder, discriminator
        self.source, self.target = _middles(source), _middles(target)
        self.shown = preview_pixels(target)
        self.warned = False

    def figures(self, on_source: Segmenter, on_target: Segmenter) -> dict[str, float]:
        """Measure, without target truth, whether the training goes well.

        Parameters
        ----------
        on_source, on_target : Segmenter
            The segmenter in eval mode, with the norms that each domain is seen with.

        Returns
        -------
        dict of str to float
            ``source dice`` of planes kept aside (must not collapse), ``source foreground`` (of the
            masks) and ``target foreground`` (of the prediction), ``reconstruction error``, and
            ``discriminator accuracy`` (0.5: fooled, 1: not at all).
        """
        run = partial(predict_plane, fabric=self.fabric)
        source, target = self.source.planes, self.target.planes
        masks = np.concatenate([np.asarray(p.labels).ravel() for p in source])
        found = [class_labels(run(on_target, p.pixels)) > 0 for p in target]
        figures = {
            "source dice": mean_dice(self.source, lambda p: run(on_source, p.pixels)),
            "source foreground": float((masks[masks != UNKNOWN] > 0).mean()),
            "target foreground": float(np.mean([mask.mean() for mask in found])),
        }
        if self.decoder is not None:
            redrawn = [run(partial(self._redraw, on_target), p.pixels) for p in target]
            errors = [np.square(r - p.pixels).mean() for r, p in zip(redrawn, target, strict=True)]
            figures["reconstruction error"] = float(np.mean(errors))
        if self.discriminator is not None:
            right, wrong = (
                np.mean([(run(partial(self._likeness, s), p.pixels) > 0.5).mean() for p in planes])
                for s, planes in ((on_source, source), (on_target, target))
            )
            figures["discriminator accuracy"] = float(right + 1 - wrong) / 2
        return figures

    def notes(self, figures: Mapping[str, float]) -> Iterator[Event]:
        """Say, once, when the target's share of foreground is not plausible."""
        found, known = figures["target foreground"], figures["source foreground"]
        low, high = (known * factor for factor in PLAUSIBLE_SHARE)
        if self.warned or low <= found <= high:
            return
        self.warned = True
        yield Note(
            f"{found:.1%} of the target is segmented as foreground, but {known:.1%} of the source: "
            "if your images do not differ as much, stop, and try a source that is more like them "
            "or, where bright and dark are swapped between the two, the setting invert=0.5."
        )

    def previews(self, network: Segmenter, done: int) -> Iterator[Event]:
        """Show the map, what the decoder makes of it, and how source-like each place is."""
        run = partial(predict_plane, pixels=self.shown, fabric=self.fabric)
        maps = run(network)
        yield Preview(maps_kind(maps), maps, done)
        if self.decoder is not None:
            redrawn = run(partial(self._redraw, network))
            low, high = (np.percentile(self.shown, p) for p in (0.5, 99.5))
            scale = 1 / max(float(high - low), 1e-6)
            yield Preview("reconstruction", np.clip((redrawn - low) * scale, 0, 1), done)
            error = np.clip(np.abs(redrawn - self.shown).mean(axis=0) * scale, 0, 1)
            yield Preview("reconstruction error", error, done)
        if self.discriminator is not None:
            yield Preview("source likeness", run(partial(self._likeness, network))[0], done)

    def _redraw(self, network: Segmenter, x: Tensor) -> Tensor:
        assert self.decoder is not None
        redrawn: Tensor = self.decoder.eval()(network(x))
        return redrawn

    def _likeness(self, network: Segmenter, x: Tensor) -> Tensor:
        """Return how much each place looks like a source segmentation; (N, 1, Y, X) in [0, 1]."""
        assert self.discriminator is not None
        scores = torch.sigmoid(self.discriminator(network(x)).float())
        return F.interpolate(scores, x.shape[2:])


def _middles(domain: Domain) -> Domain:
    """Return the middle of the first planes, for figures that must cost little."""
    return Domain(tuple(_middle(plane) for plane in domain.planes[:PLANES]))


def _middle(plane: Plane) -> Plane:
    middle = tuple(middle_slice(size, SIDE) for size in plane.shape)
    labels = None if plane.labels is None else np.asarray(plane.labels)[middle]
    return replace(plane, pixels=np.array(plane.pixels[(slice(None), *middle)]), labels=labels)
