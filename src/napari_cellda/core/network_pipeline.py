"""A network of a model package on images, as `predict` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import Normalised, never
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.images.statistics import Source, moments, order_statistics
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.pipeline import PIECE_2D, PIECE_3D, Maps
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.classifier import Stop
    from napari_cellda.core.enhancer import Enhancer
    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.tiles import Region


@dataclass(frozen=True)
class NetworkPipeline:
    """One network with one input channel; see `pipeline.MapMaker`.

    An enhancer may be run on maps that another program made, such as ilastik's.
    """

    network: Enhancer
    channels: Channels = "grey"

    def compute(
        self,
        image: Image,
        stack: ExitStack,
        folder: Path,
        *,
        normalisation: Normalisation | None = None,
        stop: Stop = never,
    ) -> Task[Maps]:
        """Compute the maps of an image: background and foreground, and a boundary if there is one.

        Raises
        ------
        UserError
            If the image does not have one channel, or a network that takes maps is given an image.
        """
        card = self.network.card
        source = Normalised(image, normalisation or rdf_normalisation(card, image))
        probability = stack.enter_context(
            scratch_array((2, *image.label_shape), np.float32, folder)
        )
        boundary: Any = None
        if card.n_outputs > 1:
            boundary = stack.enter_context(scratch_array(image.label_shape, np.float32, folder))

        def read(region: Region) -> np.ndarray:
            block, _ = source.read(region)
            return np.asarray(block[0])

        shape = PIECE_3D if card.ndim == 3 else PIECE_2D
        pieces = [p for t in range(image.n_times) for p in grid(image.limits, shape, t)]
        yield Stage(f"{card.name} on {image.name}", len(pieces))
        for done, piece in enumerate(pieces, 1):
            found = self.network.enhance_region(read, piece, image.limits, stop=stop)
            if found is None:
                break
            write_region(image, probability, piece, np.stack([1 - found[0], found[0]]))
            if boundary is not None:
                write_region(image, boundary, piece, found[1])
            yield Step(done)
        of_membranes = known_structure(card.structure) == "boundaries"
        return Maps(probability, boundary=boundary, of_membranes=of_membranes)


def rdf_normalisation(card: ModelCard, image: Image) -> Normalisation:
    """Measure, over the whole image, the scaling that a package's RDF asks for.

    Parameters
    ----------
    card : ModelCard
    image : Image
        One channel.

    Returns
    -------
    Normalisation

    Raises
    ------
    UserError
        If the image has several channels, the RDF asks for something else than linear scaling, or
        for none at all while the image is not a map in [0, 1].
    """
    if image.n_channels != 1:
        raise UserError(
            f"'{image.name}' has {image.n_channels} channels in use, and {card.name} takes 1; "
            "choose one with --channels."
        )
    offset, factor = 0.0, 1.0
    for step in card.preprocessing:
        more_offset, more_factor = _linear_step(card, step, image)
        # x -> (x - offset) * factor, then (that - more_offset) * more_factor
        offset, factor = offset + more_offset / (factor or 1.0), factor * more_factor
    if not card.preprocessing:
        _check_is_map(card, image)
    return Normalisation(kind="none", offset=(offset,), factor=(factor,))


def _linear_step(card: ModelCard, step: dict[str, Any], image: Image) -> tuple[float, float]:
    """Return (offset, factor) of one preprocessing step, measured on the image where it asks."""
    name, kwargs = step["name"], step.get("kwargs", {})
    match name:
        case "scale_range":
            share = [kwargs.get("min_percentile", 0) / 100, kwargs.get("max_percentile", 100) / 100]
            low, high = order_statistics(Source.best(image), np.array(share))[0]
            return float(low), 1 / (float(high - low) + float(kwargs.get("eps", 1e-6)))
        case "zero_mean_unit_variance" if "mean" not in kwargs:
            mean, deviation = (float(value[0]) for value in moments(Source.best(image)))
            return mean, 1 / (deviation + float(kwargs.get("eps", 1e-6)))
        case "zero_mean_unit_variance" | "fixed_zero_mean_unit_variance":
            return float(np.ravel(kwargs["mean"])[0]), 1 / float(np.ravel(kwargs["std"])[0])
        case "scale_linear":
            gain = float(np.ravel(kwargs.get("gain", 1.0))[0])
            return -float(np.ravel(kwargs.get("offset", 0.0))[0]) / gain, gain
        case "ensure_dtype":
            return 0.0, 1.0
    raise UserError(f"{card.name} asks for the preprocessing '{name}', which is not known here.")


def _check_is_map(card: ModelCard, image: Image) -> None:
    low, high = order_statistics(Source.best(image), np.array([0.0, 1.0]))[0]
    if image.data.dtype.kind != "f" or low < 0 or high > 1:
        raise UserError(
            f"{card.name} takes a probability map in [0, 1], but '{image.name}' is "
            f"{image.data.dtype} from {low:g} to {high:g}; to enhance a forest's map of an image, "
            f"use: classify --enhancer {card.id}."
        )
