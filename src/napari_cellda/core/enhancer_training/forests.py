"""Forests like those that users train, and their maps: what an enhancer learns from.

An enhancer helps with forests like those it has met [1]_. So most forests here are trained on the
strokes of a simulated annotator, some after rounds of correction; others on dense patches, as in
the paper, or on patches and the tiles that an earlier stage got worst. Each one sees the source
through a `Look` of its own (blur, noise, texture, uneven light, another size). A forest never
predicts a plane that it was trained on.

References
----------
.. [1] Matskevych et al., "From Shallow to Deep", Frontiers in Computer Science, 2022.
   https://doi.org/10.3389/fcomp.2022.805166
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from pydantic import Field

from napari_cellda.core.annotator import error_strokes, random_strokes
from napari_cellda.core.enhancer_training.looks import Look
from napari_cellda.core.errors import UserError
from napari_cellda.core.features import compute_features
from napari_cellda.core.features.sets import FeatureSpec
from napari_cellda.core.forest import Forest, ForestParams, fit_forest
from napari_cellda.core.params import BaseParams
from napari_cellda.core.tiles import middle_slice, reflect_pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.enhancer_training.source import SourcePlane, Window

Style = Literal["strokes", "patch", "worst tiles"]

TILE = 25
"""Side of the tiles among which the worst are chosen, as in torch-em's shallow2deep."""
_TRIES = 20


class ForestMix(BaseParams):
    """Which forests an enhancer meets."""

    forests: int = Field(96, ge=1, le=5000)
    """Forests whose maps the enhancer is trained on."""
    validation_forests: int = Field(10, ge=1, le=200)
    """Further forests, all trained on strokes, whose maps choose the checkpoint."""
    maps_per_forest: int = Field(6, ge=1, le=100)
    """Windows that each forest predicts, on planes it was not trained on."""
    map_size: int = Field(320, ge=32, le=2048)
    """Side of these windows in pixels; smaller planes are mirrored."""
    trees: int = Field(100, ge=5, le=500)
    """Trees of a forest; a third of the forests have half as many."""
    stroke_share: float = Field(0.7, ge=0, le=1)
    """Share of forests trained on simulated strokes; the others are trained on dense patches."""
    worst_tile_share: float = Field(0.5, ge=0, le=1)
    """Share of the dense forests that are trained on again with the tiles they got worst."""
    corrections: int = Field(4, ge=0, le=20)
    """Most rounds in which an annotator corrects a forest; each has 0 to this many."""
    ilastik_share: float = Field(0.7, ge=0, le=1)
    """Share of forests with ilastik's 49 features; the rest have the compact or the s2d set."""
    spoiled_share: float = Field(0.6, ge=0, le=1)
    """Share of forests that see the source blurred, noisy, textured or unevenly lit."""
    rescaled_share: float = Field(0.4, ge=0, le=1)
    """Share of forests that see the source enlarged or reduced."""
    largest_scale: float = Field(1.6, ge=1, le=4)
    """Largest enlargement, and reduction by as much."""
    varied_share: float = Field(0.4, ge=0, le=1)
    """Share of forests whose images differ in brightness and gamma, from those painted too."""
    hollow_share: float = Field(0.0, ge=0, le=1)
    """Share of forests that see objects stained along their rim, their inside faded."""


def make_maps(
    training: Sequence[SourcePlane],
    predicted: Sequence[SourcePlane],
    mix: ForestMix,
    rng: np.random.Generator,
    *,
    style: Style | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Train one forest and predict windows with it.

    Parameters
    ----------
    training, predicted : sequence of SourcePlane
        Where it is trained and where it predicts; a plane used for the first is left out of the
        second, so that two planes are the least.
    mix : ForestMix
    rng : Generator
    style : {"strokes", "patch", "worst tiles"}, optional
        None draws one by the shares of `mix`.
    threads : int, optional

    Returns
    -------
    (N, 2, S, S) ndarray of uint8
        Channel 0 the forest's foreground map times 255; channel 1 the truth, output k in bit k.
        S is `mix.map_size`.
    """
    style = style or _draw_style(mix, rng, len(training))
    look, spec = Look.draw(mix, rng), _draw_spec(mix, rng)
    chosen, others = _divide(training, predicted, 2 if style == "worst tiles" else None, rng)
    fields = _read_fields(chosen, look, spec, rng, threads)
    forest = _train(style, fields, mix, rng, threads)
    windows = [others[i] for i in rng.integers(len(others), size=mix.maps_per_forest)]
    return np.stack([_predict(forest, plane, look, spec, mix, rng, threads) for plane in windows])


def _divide(
    training: Sequence[SourcePlane],
    predicted: Sequence[SourcePlane],
    n: int | None,
    rng: np.random.Generator,
) -> tuple[list[SourcePlane], list[SourcePlane]]:
    """Draw `n` planes (None: one or two) to train on, and list those that remain to predict."""
    n = n or int(rng.integers(1, min(3, len(training))))
    filled = [p for p in training if (p.labels != 0).any() and (p.labels == 0).any()]
    chosen = [filled[i] for i in rng.choice(len(filled), min(n, len(filled)), replace=False)]
    others = [p for p in predicted if not any(p.same_as(used) for used in chosen)]
    # Only when the one plane to be predicted is the one plane with both classes.
    return chosen, others or [p for p in training if not any(p.same_as(used) for used in chosen)]


def _read_fields(
    chosen: list[SourcePlane],
    look: Look,
    spec: FeatureSpec,
    rng: np.random.Generator,
    threads: int | None,
) -> list[_Field]:
    for _ in range(_TRIES):
        fields = [_Field.read(plane, look, spec, rng, threads) for plane in chosen]
        if all(0 < field.truth.mean() < 1 for field in fields):
            return fields
    raise UserError(
        f"All patches of '{chosen[0].name}' show one class only; expected masks with foreground "
        "and background of at least a few pixels each."
    )


@dataclass(frozen=True)
class _Field:
    """A window that a forest is trained on."""

    features: NDArray[np.float32]
    truth: NDArray[np.int8]
    """(h, w) class index."""

    @classmethod
    def read(
        cls,
        plane: SourcePlane,
        look: Look,
        spec: FeatureSpec,
        rng: np.random.Generator,
        threads: int | None,
    ) -> _Field:
        side = int(rng.integers(384, 1025) / look.scale)
        window = _window_with_both(plane, side, rng)
        image, truth = look.apply(*plane.read(window), rng)
        return cls(compute_features(image, spec, threads=threads), truth[0].astype(np.int8))

    def samples(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        return self.features[:, chosen].T, self.truth[chosen]


def _train(
    style: Style,
    fields: list[_Field],
    mix: ForestMix,
    rng: np.random.Generator,
    threads: int | None,
) -> Forest:
    if style == "strokes":
        return _train_on_strokes(fields, mix, rng, threads)
    return _train_on_patch(fields, style == "worst tiles", mix, rng, threads)


def _train_on_strokes(
    fields: list[_Field], mix: ForestMix, rng: np.random.Generator, threads: int | None
) -> Forest:
    """Train as a person does: a few strokes, then rounds of two per class in the errors."""
    length, width = rng.uniform(20, 60), float(rng.integers(2, 6))
    per_field = -(-int(rng.integers(4, 13)) // len(fields))
    painted = [
        random_strokes(f.truth, per_field, length, width, rng, n_classes=2) > 0 for f in fields
    ]
    params = _draw_params(mix, rng, threads)
    forest = _fit(fields, painted, params)
    more = max(1, 2 // len(fields))
    for _ in range(int(rng.integers(mix.corrections + 1))):
        for field, paint in zip(fields, painted, strict=True):
            wrong = forest.predict(field.features).argmax(axis=0)
            paint |= error_strokes(field.truth, wrong, more, rng, length=length, width=width) > 0
        forest = _fit(fields, painted, params)
    return forest


def _train_on_patch(
    fields: list[_Field],
    worst_tiles: bool,
    mix: ForestMix,
    rng: np.random.Generator,
    threads: int | None,
) -> Forest:
    """Train on a dense patch of the first field, then on its worst tiles in the second."""
    params = _draw_params(mix, rng, threads).model_copy(update={"max_per_class": 5000})
    chosen = [np.zeros(field.truth.shape, bool) for field in fields]
    chosen[0][_patch_with_both(fields[0].truth, rng)] = True
    forest = _fit(fields, chosen, params)
    for _ in range(int(rng.integers(1, 4)) if worst_tiles else 0):
        for field, picked in zip(fields[1:], chosen[1:], strict=True):
            budget = max(1, int(0.1 * sum(c.sum() for c in chosen) / TILE**2))
            picked |= _worst_tiles(forest.predict(field.features)[1], field.truth, picked, budget)
        forest = _fit(fields, chosen, params)
    return forest


def _fit(fields: list[_Field], chosen: list[NDArray[np.bool_]], params: ForestParams) -> Forest:
    samples = [field.samples(pixels) for field, pixels in zip(fields, chosen, strict=True)]
    features = np.concatenate([s[0] for s in samples])
    return fit_forest(features, np.concatenate([s[1] for s in samples]), 2, params)


def _worst_tiles(
    predicted_map: NDArray[np.float32],
    truth: NDArray[np.int8],
    taken: NDArray[np.bool_],
    n: int,
) -> NDArray[np.bool_]:
    """Mark the `n` tiles with the largest mean error that are not taken yet."""
    error = np.where(taken, 0, np.abs(predicted_map - truth))
    rows, columns = (-(-side // TILE) for side in truth.shape)
    padded = np.zeros((rows * TILE, columns * TILE), np.float32)
    padded[: truth.shape[0], : truth.shape[1]] = error
    mean = padded.reshape(rows, TILE, columns, TILE).mean(axis=(1, 3))
    worst = np.zeros(mean.size, bool)
    worst[np.argsort(-mean.ravel(), kind="stable")[:n]] = True
    tiles = worst.reshape(mean.shape).repeat(TILE, 0).repeat(TILE, 1)
    return np.asarray(tiles[: truth.shape[0], : truth.shape[1]])


def _predict(
    forest: Forest,
    plane: SourcePlane,
    look: Look,
    spec: FeatureSpec,
    mix: ForestMix,
    rng: np.random.Generator,
    threads: int | None,
) -> NDArray[np.uint8]:
    """Predict one random window; (2, S, S) as in `make_maps`."""
    size, margin = mix.map_size, min(spec.halo, 32)
    window = _random_window(plane.shape, int(np.ceil((size + 2 * margin) / look.scale)), rng)
    image, truth = look.apply(*plane.read(window), rng)
    # The rim is left out again: most of what users see lies away from the image's edge.
    inner = tuple(middle_slice(n, size) for n in truth.shape[1:])
    features = np.ascontiguousarray(
        compute_features(image, spec, threads=threads)[(slice(None), *inner)]
    )
    found = forest.predict(features)[1]
    bits = (truth[(slice(None), *inner)] << np.arange(len(truth))[:, None, None]).sum(axis=0)
    made = np.stack([np.round(found * 255), bits]).astype(np.uint8)
    missing = [size - n for n in made.shape[1:]]
    return np.asarray(reflect_pad(made, [0, 0], missing))


def _draw_style(mix: ForestMix, rng: np.random.Generator, n_planes: int) -> Style:
    if rng.random() < mix.stroke_share:
        return "strokes"
    # Worst tiles need a plane to train on, one to err on, and another to predict.
    return "worst tiles" if n_planes > 2 and rng.random() < mix.worst_tile_share else "patch"


def _draw_spec(mix: ForestMix, rng: np.random.Generator) -> FeatureSpec:
    if rng.random() < mix.ilastik_share:
        return FeatureSpec(name="ilastik")
    return FeatureSpec(name=cast('Literal["compact", "s2d"]', rng.choice(["compact", "s2d"])))


def _draw_params(mix: ForestMix, rng: np.random.Generator, threads: int | None) -> ForestParams:
    return ForestParams(
        trees=mix.trees if rng.random() < 0.67 else max(1, mix.trees // 2),
        min_samples_leaf=int(rng.choice([1, 1, 1, 2, 5])),
        max_depth=None if rng.random() < 0.8 else 15,
        seed=int(rng.integers(2**31)),
        jobs=threads,
    )


def _window_with_both(plane: SourcePlane, side: int, rng: np.random.Generator) -> Window:
    """Find a window with foreground and background in it; the whole plane when that fails."""
    for _ in range(_TRIES):
        window = _random_window(plane.shape, side, rng)
        share = plane.truth(window)[0].mean()
        if 0.005 <= share <= 0.995:
            return window
    return slice(0, plane.shape[0]), slice(0, plane.shape[1])


def _patch_with_both(truth: NDArray[np.int8], rng: np.random.Generator) -> Window:
    """Find a patch with at least 1 % of either class; the whole field when that fails."""
    for _ in range(_TRIES):
        window = _random_window(truth.shape, int(rng.integers(100, 301)), rng)
        if 0.01 <= truth[window].mean() <= 0.99:
            return window
    return slice(0, truth.shape[0]), slice(0, truth.shape[1])


def _random_window(shape: Sequence[int], side: int, rng: np.random.Generator) -> Window:
    starts = [int(rng.integers(max(n - side, 0) + 1)) for n in shape[:2]]
    rows, columns = (slice(s, min(s + side, n)) for s, n in zip(starts, shape, strict=False))
    return rows, columns
