"""How far image domains are apart: patches as vectors, as a 2D map, and as one figure.

CULPICO's Fig. S4 maps the patches of several cell types with t-SNE and finds that a model does
worse the farther the target lies from its source; here the same map also advises which labelled
set is the nearest source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_cellda.core.classifier import Normalised, tile_features
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step, never
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image

PATCH = 128
THUMBNAIL = 48
"""Pixels of the small pictures."""
FEWEST = 3
"""Patches below which a domain has no spread to speak of."""

NEAR = 0.15
"""Where no source was nearer, the nearest was no better than any (benchmarks/domain_map.py)."""

Projection = Literal["pca", "tsne"]


@dataclass(frozen=True)
class Patches:
    """Patches of a domain: vectors, small pictures, and where they come from."""

    vectors: np.ndarray
    """(N, F) float64."""
    thumbnails: np.ndarray
    """(N, S, S) uint8."""
    images: tuple[str, ...]
    """The name of the image of each patch."""


def embed_patches(
    images: Sequence[Image],
    *,
    per_image: int = 8,
    patch: int = PATCH,
    network: torch.nn.Module | None = None,
    seed: int = 0,
    stop: Stop = never,
) -> Task[Patches]:
    """Turn random patches of a domain's images into vectors.

    Parameters
    ----------
    images : sequence of Image
        With their channels selected. Only the patches are read, so they may be of any size; each
        is normalised as for a forest, by its 1st and 99th percentile.
    per_image : int
        Patches of each image.
    patch : int
        Side in pixels; smaller images give smaller patches.
    network : torch.nn.Module, optional
        Embed by its bottleneck (see `bottleneck_vector`). None: by the mean and the standard
        deviation of pixel features (the compact set), which needs no network and knows scale,
        texture and edges.
    seed : int
        The same images and seed give the same patches.
    stop : callable
        Asked before every image.

    Yields
    ------
    Stage, Step

    Returns
    -------
    Patches

    Raises
    ------
    UserError
        If there is no image.
    """
    if not images:
        raise UserError("A domain without images cannot be mapped; choose at least one image.")
    rng = np.random.default_rng(seed)
    spec = FeatureSpec(name="compact")
    vectors, thumbnails, names = [], [], []
    yield Stage("Look at patches", len(images))
    for done, image in enumerate(images, 1):
        if stop():
            break
        source = Normalised.measure(image)
        for region in _random_patches(image, patch, per_image, rng):
            block = source.read(region)[0][:, 0]
            if network is None:
                vectors.append(_statistics(tile_features(source, region, spec)[0]))
            else:
                vectors.append(bottleneck_vector(network, block))
            thumbnails.append(_thumbnail(block))
            names.append(image.name)
        yield Step(done)
    return Patches(np.array(vectors, np.float64), np.array(thumbnails, np.uint8), tuple(names))


def _random_patches(image: Image, size: int, count: int, rng: np.random.Generator) -> list[Region]:
    nz, ny, nx = image.limits
    regions = []
    for _ in range(count):
        t, z = int(rng.integers(image.n_times)), int(rng.integers(nz))
        y, x = (int(rng.integers(max(1, limit - size + 1))) for limit in (ny, nx))
        rows, columns = slice(y, min(y + size, ny)), slice(x, min(x + size, nx))
        regions.append(Region(t, slice(z, z + 1), rows, columns))
    return regions


def _statistics(features: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of every feature: (F, ...) to (2 F,)."""
    flat = features.reshape(len(features), -1).astype(np.float64)
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1)])


def _thumbnail(block: np.ndarray) -> np.ndarray:
    """Shrink a normalised (C, Y, X) block to a small grey picture."""
    plane = np.clip(block.mean(axis=0), 0, 1)
    rows, columns = (
        np.linspace(0, size - 1, THUMBNAIL).round().astype(int) for size in plane.shape
    )
    small: np.ndarray = plane[np.ix_(rows, columns)] * 255
    return small.astype(np.uint8)


def bottleneck_vector(network: torch.nn.Module, block: np.ndarray) -> np.ndarray:
    """Embed a block by the layer of a network with the coarsest grid, averaged over space.

    Parameters
    ----------
    network : torch.nn.Module
        Takes (1, C, Y, X). Any architecture: the deepest of the outputs with the fewest pixels
        and the most channels is taken.
    block : (C, Y, X) ndarray of float32
        Cropped to multiples of 16.

    Returns
    -------
    (F,) ndarray of float64
    """
    import torch

    best: dict[str, torch.Tensor] = {}

    def look(module: torch.nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            return
        kept = best.get("output")
        rank = (-output.shape[2] * output.shape[3], output.shape[1])
        if kept is None or rank >= (-kept.shape[2] * kept.shape[3], kept.shape[1]):
            best["output"] = output

    height, width = (max(size // 16, 1) * 16 for size in block.shape[1:])
    cropped = torch.from_numpy(np.ascontiguousarray(block[None, :, :height, :width]))
    hooks = [module.register_forward_hook(look) for module in network.modules()]
    was_training = network.training
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(cropped.to(device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return np.asarray(best["output"][0].mean(dim=(1, 2)).double().cpu())


# -- figures ---------------------------------------------------------------------------------------


def standardise(vectors: np.ndarray) -> np.ndarray:
    """Give every feature the mean 0 and the deviation 1; constant ones become 0."""
    deviation = vectors.std(axis=0)
    scaled: np.ndarray = (vectors - vectors.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1)
    return scaled


def domain_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Measure how far two sets of vectors are apart.

    Parameters
    ----------
    a, b : (N, F), (M, F) ndarray of float
        Standardised together (see `standardise`).

    Returns
    -------
    float in [0, 1]
        The energy coefficient [1]_ (2 E|a-b| - E|a-a'| - E|b-b'|) / (2 E|a-b|): 0 when both are
        the same set, 1 when each is a single point far from the other. It needs no fitted
        distribution, so it holds for few patches.

    References
    ----------
    .. [1] Szekely, Rizzo, "Energy statistics: a class of statistics based on distances", Journal
       of Statistical Planning and Inference 2013.
    """
    from scipy.spatial.distance import cdist

    between = float(cdist(a, b).mean())
    within = float(cdist(a, a).mean() + cdist(b, b).mean())
    return max(0.0, 1 - within / (2 * between)) if between > 0 else 0.0


def gaps_to(target: str, domains: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Measure the gap from every other domain to one of them.

    Parameters
    ----------
    target : str
        A key of `domains`.
    domains : dict of str to (N, F) ndarray
        As embedded; standardised together here.

    Returns
    -------
    dict of str to float in [0, 1]
        The nearest first.

    Raises
    ------
    UserError
        If a domain has fewer than three patches.
    """
    for name, vectors in domains.items():
        if len(vectors) < FEWEST:
            raise UserError(
                f"'{name}' has {len(vectors)} patch(es); at least {FEWEST} are needed to compare."
            )
    scaled = dict(zip(domains, _standardise_together(list(domains.values())), strict=True))
    gaps = {name: domain_gap(scaled[target], v) for name, v in scaled.items() if name != target}
    return dict(sorted(gaps.items(), key=lambda item: item[1]))


def _standardise_together(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(standardise(np.concatenate(groups)), ends)


def advice(target: str, gaps: Mapping[str, float]) -> str:
    """Say which labelled set is the nearest source of a target, and whether that means much.

    The nearest is often, but not always, the best to learn from: a gap knows nothing of what is
    labelled, such as whether nuclei are dark or bright. Where no set is near, as across kinds of
    microscopes, nearness says nothing.
    """
    if not gaps:
        return "Add at least one labelled set to hear which is the nearest source."
    (nearest, gap), *others = gaps.items()
    if not others:
        return f"The gap from '{nearest}' to '{target}' is {gap:.2f} (0 the same, 1 far apart)."
    rest = ", ".join(f"'{name}' {value:.2f}" for name, value in others)
    clear = others[0][1] > 1.15 * gap
    sure = "is the nearest source" if clear else "is hardly nearer than the next"
    told = f"By looks, to '{target}' '{nearest}' {sure}: gap {gap:.2f}, against {rest}."
    if gap >= NEAR:
        told += (
            f" It is not near, though: on our test images, where no gap was below {NEAR}, the "
            "nearest was no better a source than another."
        )
    return told


def project(vectors: np.ndarray, method: Projection = "pca", seed: int = 0) -> np.ndarray:
    """Lay vectors out in two dimensions.

    Parameters
    ----------
    vectors : (N, F) ndarray of float
        At least three rows.
    method : {"pca", "tsne"}
        PCA keeps distances as well as a plane can; t-SNE keeps neighbours, as in CULPICO Fig. S4.
    seed : int
        Of t-SNE.

    Returns
    -------
    (N, 2) ndarray of float64

    Raises
    ------
    UserError
        If there are fewer than three rows.
    """
    if len(vectors) < FEWEST:
        raise UserError(f"{len(vectors)} patch(es) make no map; at least {FEWEST} are needed.")
    scaled = standardise(vectors)
    left, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
    # The sign of a principal axis is arbitrary: let its largest entry be positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    principal = left * sizes * signs
    if method == "pca":
        return np.pad(principal, ((0, 0), (0, max(0, 2 - principal.shape[1]))))[:, :2]
    from sklearn.manifold import TSNE

    perplexity = max(1.0, min(30.0, (len(vectors) - 1) / 3))
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(tsne.fit_transform(principal[:, :50]), np.float64)
