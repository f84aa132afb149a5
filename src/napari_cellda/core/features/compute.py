"""Compute pixel features: the filters themselves are bioimage-cpp's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.features.sets import (
    DOG_RATIO,
    GROUPS,
    PRESMOOTHING_WINDOW,
    SETS,
    FeatureSet,
    FeatureSpec,
)
from napari_cellda.core.threads import run_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GROUPS", "SETS", "FeatureSet", "FeatureSpec", "compute_features"]


class _Scale(NamedTuple):
    """All filters of one plane (or volume) at one scale, and where their results go."""

    plane: NDArray[np.float32]
    scale: float
    targets: tuple[tuple[str, NDArray[np.float32]], ...]
    """(group, view of the output with its channels first)."""


def compute_features(
    block: NDArray[np.floating], spec: FeatureSpec, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Compute the features of a block.

    Parameters
    ----------
    block : (C, Y, X) or (C, Z, Y, X) ndarray of float
        Finite. With `spec.ndim` 2 the planes of a stack are filtered one by one.
    spec : FeatureSpec
        Which features.
    threads : int, optional
        How many scales to work on at once; None takes the cores this process may use.

    Returns
    -------
    (F, Y, X) or (F, Z, Y, X) ndarray of float32
        C-contiguous, in the order of ``spec.names(C)``: per image channel, group, scale.

    Raises
    ------
    UserError
        If a pixel is not finite or the block's dimensions do not fit.

    Notes
    -----
    The edges of the block are mirrored, without repeating the outermost pixel. A tile equals the
    same part of the whole image when it was read with ``spec.halo`` more pixels wherever the image
    goes on, and cropped after.
    """
    if block.ndim not in (3, 4) or (spec.ndim == 3 and block.ndim == 3) or 0 in block.shape:
        raise UserError(
            f"Cannot compute {spec.ndim}D features of a block of shape {block.shape}; "
            "expected (channels, rows, columns) or (channels, planes, rows, columns)."
        )
    block = np.ascontiguousarray(block, dtype=np.float32)
    if not (np.isfinite(block.min()) and np.isfinite(block.max())):
        raise UserError(
            "The image block has pixels that are not finite; expected numbers only: "
            "normalise the image first."
        )
    features = np.empty((spec.count(len(block)), *block.shape[1:]), dtype=np.float32)
    # Large scales first: they take longest, and the threads end together.
    jobs = sorted(_jobs(block, spec, features), key=lambda job: -job.scale)
    run_threaded(lambda job: _filter_scale(job, spec), jobs, threads)
    return features


def _jobs(
    block: NDArray[np.float32], spec: FeatureSpec, features: NDArray[np.float32]
) -> list[_Scale]:
    """Split the work by image channel, plane and scale."""
    jobs = []
    per_channel = spec.count()
    planewise = block.ndim == 4 and spec.ndim == 2
    for c, channel in enumerate(block):
        out = features[c * per_channel : (c + 1) * per_channel]
        for z in range(len(channel)) if planewise else [slice(None)]:
            targets: dict[float, list[tuple[str, NDArray[np.float32]]]] = {}
            first = 0
            for group, scale in spec.filters():
                last = first + spec.width(group)
                targets.setdefault(scale, []).append((group, out[first:last, z]))
                first = last
            jobs += [_Scale(channel[z], scale, tuple(t)) for scale, t in targets.items()]
    return jobs


def _filter_scale(job: _Scale, spec: FeatureSpec) -> None:
    from bioimage_cpp.filters import gaussian_smoothing

    before, at = spec.presmoothing(job.scale) if job.scale else (0.0, 0.0)
    plane = job.plane
    if before:
        plane = gaussian_smoothing(plane, before, window_size=PRESMOOTHING_WINDOW)
    for group, target in job.targets:
        if group in ("structure", "hessian"):
            target[...] = np.moveaxis(_filter(group, plane, at, spec.set), -1, 0)
        else:
            target[0] = _filter(group, plane, at, spec.set)


def _filter(
    group: str, plane: NDArray[np.float32], sigma: float, features: FeatureSet
) -> NDArray[np.float32]:
    from bioimage_cpp import filters

    window = features.window
    match group:
        case "raw":
            return plane
        case "gaussian":
            result = filters.gaussian_smoothing(plane, sigma, window_size=window)
        case "laplacian":
            result = filters.laplacian_of_gaussian(plane, sigma, window_size=window)
        case "gradient":
            result = filters.gaussian_gradient_magnitude(plane, sigma, window_size=window)
        case "dog":
            result = filters.gaussian_smoothing(plane, sigma, window_size=window)
            result -= filters.gaussian_smoothing(plane, DOG_RATIO * sigma, window_size=window)
        case "structure":
            result = filters.structure_tensor_eigenvalues(
                plane, sigma, features.outer * sigma, window_size=window
            )
        case _:
            result = filters.hessian_of_gaussian_eigenvalues(plane, sigma, window_size=window)
    return result  # type: ignore[no-any-return]
