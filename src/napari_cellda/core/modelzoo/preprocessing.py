"""The scaling of grey values as an RDF describes it: written for our networks, read for all."""

from __future__ import annotations

from reprlib import repr as shortened
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
        If the image has other channels, the RDF asks for something else than linear scaling of
        whole images, or for none at all while the image is not a map in [0, 1].

    Notes
    -----
    Every step measures the image as it is, before all steps, as bioimageio.core does; where its
    axes have the channels, all of them together.
    """
    if image.n_channels != card.n_inputs:
        raise UserError(
            f"'{image.name}' has {image.n_channels} channels in use, and {card.name} takes "
            f"{card.n_inputs}; choose with --channels."
        )
    offset, factor = np.zeros(card.n_inputs), np.ones(card.n_inputs)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in card.preprocessing:
            more_offset, more_factor = _linear_step(card, step, image)
            # x -> (x - offset) * factor, then (that - more_offset) * more_factor
            offset = offset + np.divide(more_offset, factor, where=factor != 0, out=0 * offset)
            factor = factor * more_factor
    _check_range(card, offset, factor)
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
    """Return the offset and factor of one step, measured where it asks for it.

    Each is one number, or one per channel.
    """
    name, kwargs = step["name"], step["kwargs"]
    match name:
        case "scale_range":
            low, high = kwargs["min_percentile"], kwargs["max_percentile"]
            # Our trainings take the extremes where these are the same value; others' say nothing.
            offset, width = span(_measured(card, step, image), low / 100, high / 100)
            return offset, _inverse(width, kwargs["eps"])
        case "zero_mean_unit_variance":
            mean, deviation = moments(_measured(card, step, image))
            return mean, _inverse(deviation, kwargs["eps"])
        case "fixed_zero_mean_unit_variance":
            return np.array(kwargs["mean"]), 1 / np.array(kwargs["std"])
        case "scale_linear":
            gain = np.array(kwargs["gain"])
            return -np.array(kwargs["offset"]) / gain, gain
        case "ensure_dtype":
            return np.zeros(1), np.ones(1)
    raise UserError(f"{card.name} asks for the preprocessing '{name}', which is not known here.")


def _measured(card: ModelCard, step: dict[str, Any], image: Image) -> Source:
    """Return what a step measures: every channel by itself, or all of them together."""
    axes, space = set(step["kwargs"]["axes"]) - {"b"}, card.input_axes[2:]
    if axes - {"c"} != set(space):
        raise UserError(
            f"{card.name} asks for {step['name']} over the axes '{step['kwargs']['axes']}'; "
            f"'{space}' or 'c{space}' is expected."
        )
    return Source.best(image, pooled="c" in axes)


def _inverse(width: np.ndarray, eps: float) -> np.ndarray:
    """Return 1 / (width + eps); 0 for a constant channel."""
    inverse = np.zeros_like(width)
    np.divide(1, width + eps, where=width > 0, out=inverse)
    return inverse


def _check_range(card: ModelCard, offset: np.ndarray, factor: np.ndarray) -> None:
    """Refuse numbers that would turn to infinity or to nothing as float32."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.array([offset, factor], np.float32)
    if not np.isfinite(held).all() or np.any((held[1] == 0) & (factor != 0)):
        raise UserError(
            f"{card.name} asks to subtract {shortened(offset.tolist())} and to multiply by "
            f"{shortened(factor.tolist())}; numbers that float32 can hold are expected."
        )


def _check_is_map(card: ModelCard, image: Image) -> None:
    low, high = order_statistics(Source.best(image), np.array([0.0, 1.0]))[0]
    if image.data.dtype.kind != "f" or low < 0 or high > 1:
        raise UserError(
            f"{card.name} takes a probability map in [0, 1], but '{image.name}' is "
            f"{image.data.dtype} from {low:g} to {high:g}; to enhance a forest's map of an image, "
            f"use: classify --enhancer {card.id}."
        )
