"""Trying a network on a small, made-up forest map before anyone relies on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.modelzoo.network import Runner

SIZES_2D = ((256, 256), (512, 512))
SIZES_3D = ((32, 128, 128), (32, 256, 256))


def made_up_map(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return something like a forest's map: soft blobs and speckle in [0, 1], always the same.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape.
    seed : int

    Returns
    -------
    ndarray of float32
    """
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    waves = sum(
        np.sin(grid / 7 + phase)
        for grid, phase in zip(grids, rng.uniform(0, 6, len(grids)), strict=True)
    )
    speckle = rng.normal(0, 0.6, tuple(shape))
    blobs: np.ndarray = 1 / (1 + np.exp(-2.5 * (waves + speckle)))
    return blobs.astype(np.float32)


def probe_shape(card: ModelCard) -> tuple[int, ...]:
    """Return a small spatial shape that the network of a known architecture takes."""
    least = 128 if card.ndim == 2 else 32
    return tuple(-(-least // (step or 1)) * (step or 1) for step in card.step)


def settle_shape(runner: Runner, card: ModelCard) -> ModelCard:
    """Find out which input sizes a network really takes.

    Parameters
    ----------
    runner : Runner
    card : ModelCard

    Returns
    -------
    ModelCard
        As given; with a fixed size (step 0) when the network takes one size only, as traced
        TorchScripts do.

    Raises
    ------
    UserError
        If it runs on no size, or its output has another shape than the RDF says.
    """
    larger = tuple(n + step for n, step in zip(card.min_shape, card.step, strict=True))
    if any(card.step) and _runs(runner, card, card.min_shape) and _runs(runner, card, larger):
        return card
    sizes = SIZES_3D if card.ndim == 3 else SIZES_2D
    for size in (card.min_shape, *sizes):
        if _runs(runner, card, size):
            return replace(card, min_shape=size, step=(0,) * card.ndim)
    check_shape(runner, card, card.min_shape)
    raise AssertionError("it ran, after all")


def check_shape(runner: Runner, card: ModelCard, size: Sequence[int]) -> None:
    """Refuse a network that does not run on a size, or gives another shape than its RDF says.

    Raises
    ------
    UserError
    """
    if complaint := _complaint(runner, card, size):
        raise UserError(f"{card.name} could not be run: {complaint}")


def largest_difference(runner: Runner, reference: Runner, shape: Sequence[int]) -> float:
    """Return the largest difference of two runners' maps on a made-up map (C, [Z], Y, X)."""
    batch = np.stack([made_up_map(shape[1:], seed) for seed in range(shape[0])])[np.newaxis]
    return float(np.abs(runner(batch) - reference(batch)).max())


def probe_reach(runner: Runner, card: ModelCard, tolerance: float = 1e-4) -> tuple[int, ...] | None:
    """Measure the receptive field of a network that can only be run, by changing its input.

    Half of a map is replaced by another one; how far the output differs on the other side is the
    reach along that axis.

    Parameters
    ----------
    runner : Runner
    card : ModelCard
        Its sizes settled.
    tolerance : float
        Smaller differences of the map do not count.

    Returns
    -------
    tuple of int, or None
        None: it reaches across the whole block, as through an instance norm.
    """
    reaches = []
    for axis, (least, step) in enumerate(zip(card.min_shape, card.step, strict=True)):
        shape = list(card.min_shape)
        shape[axis] = max(least, 512 // step * step) if step else least
        given = np.stack([made_up_map(shape, seed) for seed in range(card.n_inputs)])
        changed = given.copy()
        middle = shape[axis] // 2
        np.moveaxis(changed, 1 + axis, 0)[middle:] = np.moveaxis(given, 1 + axis, 0)[middle:][::-1]
        difference = np.abs(runner(given[np.newaxis]) - runner(changed[np.newaxis]))
        others = tuple(a for a in range(difference.ndim) if a != 2 + axis)
        touched = np.flatnonzero(difference.max(axis=others)[:middle] > tolerance)
        reach = middle - int(touched[0]) if touched.size else 0
        if reach > shape[axis] // 2 - 2:
            return None
        reaches.append(reach)
    return tuple(reaches)


def _runs(runner: Runner, card: ModelCard, size: Sequence[int]) -> bool:
    return not _complaint(runner, card, size)


def _complaint(runner: Runner, card: ModelCard, size: Sequence[int]) -> str:
    """Say why a network does not run on one size; "" when it does."""
    batch = np.zeros((1, card.n_inputs, *size), np.float32)
    try:
        shape = runner(batch).shape
    except Exception as error:  # torch and onnxruntime raise many kinds
        return f"it fails on {tuple(size)} pixels ({str(error).strip().splitlines()[-1][:120]})."
    expected = (1, card.n_outputs, *size)
    return "" if shape == expected else f"it returns {shape} where {expected} is expected."
