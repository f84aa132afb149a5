"""The scaling of grey values as an RDF describes it: written for our networks, read for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.normalisation import PERCENTILES, Normalisation, span
from napari_cellda.core.images.statistics import Source, moments, order_statistics

if TYPE_CHECKING:
    from napari_cellda.core.images import Image
    from napari_cellda.core.modelzoo.card import ModelCard

Scaling = Literal["percentile", "minmax", "zscore", "dataset"]
EPS = 1e-9
"""Added to widths in the RDFs that we write; small, since ours are divided by as they are."""


def describe_scaling(scaling: Scaling, normalisation: Normalisation) -> dict[str, Any]:
    """Return the RDF's step for a scaling, as format 0.5 writes it.

    Parameters
    ----------
    scaling : str
        "dataset" is the same for every image: the numbers of `normalisation` are written down.
        The others are measured anew on each image, per channel.
    normalisation : Normalisation
    """
    measured = {"axes": ["y", "x"], "eps": EPS}
    match scaling:
        case "percentile" | "minmax":
            low, high = PERCENTILES if scaling == "percentile" else (0.0, 100.0)
            kwargs = {**measured, "min_percentile": low, "max_percentile": high}
            return {"id": "scale_range", "kwargs": kwargs}
        case "zscore":
            return {"id": "zero_mean_unit_variance", "kwargs": measured}
    stds = [1 / factor if factor else 1.0 for factor in normalisation.factor]
    fixed = {"mean": list(normalisation.offset), "std": stds, "axis": "channel"}
    return {"id": "fixed_zero_mean_unit_variance", "kwargs": fixed}


def rdf_normalisation(card: ModelCard, image: Image) -> Normalisation:
    """Measure, over the whole image, the scaling that a package's RDF asks for.

    Parameters
    ----------
    card : ModelCard
    image : Image
        As many channels as the network takes.

    Returns
    -------
    Normalisation

    Raises
    ------
    UserError
        If the image has other channels, the RDF asks for something else than linear scaling, or
        for none at all while the image is not a map in [0, 1].
    """
    if image.n_channels != card.n_inputs:
        raise UserError(
            f"'{image.name}' has {image.n_channels} channels in use, and {card.name} takes "
            f"{card.n_inputs}; choose with --channels."
        )
    offset, factor = np.zeros(card.n_inputs), np.ones(card.n_inputs)
    for step in card.preprocessing:
        more_offset, more_factor = _linear_step(card, step, image)
        # x -> (x - offset) * factor, then (that - more_offset) * more_factor
        offset = offset + np.divide(more_offset, factor, where=factor != 0, out=0 * offset)
        factor = factor * more_factor
    unscaled = all(step["name"] == "ensure_dtype" for step in card.preprocessing)
    if unscaled and card.kind == "enhancer":
        _check_is_map(card, image)
    return Normalisation(kind="none", offset=tuple(offset.tolist()), factor=tuple(factor.tolist()))


def preprocess(batch: np.ndarray, card: ModelCard) -> np.ndarray:
    """Apply an RDF's scaling to (N, C, [Z], Y, X) arrays, each measured as an image of its own."""
    axes = "czyx"[-batch.ndim + 1 :] if batch.ndim == 5 else "cyx"
    scaled = []
    for array in batch:
        image = image_from_array(array, axes, name="array")
        block = rdf_normalisation(card, image).apply(np.asarray(array, np.float32))
        scaled.append(block)
    return np.stack(scaled)


def _linear_step(
    card: ModelCard, step: dict[str, Any], image: Image
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset and factor of one step per channel, measured where it asks for it."""
    name, kwargs = step["name"], step.get("kwargs", {})
    eps = float(kwargs.get("eps", 1e-6))
    match name:
        case "scale_range":
            low, high = kwargs.get("min_percentile", 0), kwargs.get("max_percentile", 100)
            # Our trainings take the extremes where these are the same value; others' say nothing.
            offset, width = span(Source.best(image), low / 100, high / 100)
            return offset, _inverse(width, eps)
        case "zero_mean_unit_variance" if "mean" not in kwargs:
            mean, deviation = moments(Source.best(image))
            return mean, _inverse(deviation, eps)
        case "zero_mean_unit_variance" | "fixed_zero_mean_unit_variance":
            return np.ravel(kwargs["mean"]).astype(float), 1 / np.ravel(kwargs["std"]).astype(float)
        case "scale_linear":
            gain = np.ravel(kwargs.get("gain", 1.0)).astype(float)
            return -np.ravel(kwargs.get("offset", 0.0)) / gain, gain
        case "ensure_dtype":
            return np.zeros(1), np.ones(1)
    raise UserError(f"{card.name} asks for the preprocessing '{name}', which is not known here.")


def _inverse(width: np.ndarray, eps: float) -> np.ndarray:
    """Return 1 / (width + eps); 0 for a constant channel."""
    return np.where(width > 0, 1 / (width + eps), 0.0)


def _check_is_map(card: ModelCard, image: Image) -> None:
    low, high = order_statistics(Source.best(image), np.array([0.0, 1.0]))[0]
    if image.data.dtype.kind != "f" or low < 0 or high > 1:
        raise UserError(
            f"{card.name} takes a probability map in [0, 1], but '{image.name}' is "
            f"{image.data.dtype} from {low:g} to {high:g}; to enhance a forest's map of an image, "
            f"use: classify --enhancer {card.id}."
        )
