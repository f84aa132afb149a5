"""Other looks of an annotated source: as if it came from another microscope."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_cellda.core.samples.shapes import smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.core.enhancer_training.forests import ForestMix


@dataclass(frozen=True)
class Look:
    """How one forest's source looks: as if from another microscope."""

    scale: float = 1.0
    blur: float = 0.0
    """Sigma in pixels."""
    noise: float = 0.0
    """Standard deviation, the image's range being about 0 to 1."""
    light: float = 0.0
    """Strength of a smooth change of brightness."""
    texture: float = 0.0
    """Standard deviation of a random texture, which forests take for structure here and there."""
    grain: float = 1.0
    """Size of that texture in pixels."""
    varied: float = 0.0
    """How much images differ: standard deviation of the logarithms of their gain and gamma."""
    hollow: float = 0.0
    """How far the inside of objects fades into what is around them."""
    rim: float = 1.0
    """Width in pixels of the rim that does not."""

    @classmethod
    def draw(cls, mix: ForestMix, rng: np.random.Generator) -> Look:
        """Draw one."""
        scale = 1.0
        if rng.random() < mix.rescaled_share:
            scale = float(mix.largest_scale ** rng.uniform(-1, 1))
        look = cls(scale)
        if rng.random() < mix.spoiled_share:
            spoiled = rng.random(4) < 0.5
            blur, noise, light, texture = spoiled * rng.uniform(0, (1.5, 0.25, 0.3, 0.3))
            grain = 8 ** rng.random()
            look = cls(scale, float(blur), float(noise), float(light), float(texture), grain)
        if rng.random() < mix.varied_share:
            look = replace(look, varied=float(rng.uniform(0, 0.4)))
        if mix.hollow_share and rng.random() < mix.hollow_share:
            look = replace(look, hollow=float(rng.uniform(0.3, 1)), rim=float(rng.uniform(1, 6)))
        return look

    def apply(
        self, image: NDArray[np.float32], truth: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Change an image (C, h, w), and the size of its truth (K, h, w)."""
        if self.scale != 1:
            image, truth = _rescale(image, truth, self.scale)
        if self.hollow:
            image = _hollow_out(image, truth[0], self.hollow, self.rim, rng)
        if self.varied:
            image = _expose(image, *np.exp(self.varied * rng.standard_normal(2)))
        if self.blur:
            image = ndimage.gaussian_filter(image, (0, self.blur, self.blur))
        if self.light:
            image = (image * (1 + self.light * _slope(image.shape[1:], rng))).astype(np.float32)
        if self.texture:
            image = image + self.texture * smooth_noise(image.shape[1:], self.grain, rng)
        if self.noise:
            image = image + self.noise * rng.standard_normal(image.shape, np.float32)
        return image, truth


def _rescale(
    image: NDArray[np.float32], truth: NDArray[np.bool_], scale: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    import torch
    from torch.nn.functional import interpolate

    size = tuple(max(1, round(n * scale)) for n in image.shape[1:])
    smooth = interpolate(
        torch.from_numpy(np.ascontiguousarray(image))[None], size, mode="bilinear", antialias=True
    )
    nearest = interpolate(
        torch.from_numpy(truth.astype(np.uint8))[None], size, mode="nearest-exact"
    )
    return smooth[0].numpy(), nearest[0].numpy().astype(bool)


def _expose(image: NDArray[np.float32], gain: float, gamma: float) -> NDArray[np.float32]:
    """Brighten an image and raise it to a power; what is below 0 is only brightened."""
    return np.asarray(gain * np.where(image > 0, np.abs(image) ** gamma, image), np.float32)


def _hollow_out(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    strength: float,
    rim: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Fade the inside of objects in patches, like the vesicular nuclei of stained tissue."""
    if mask.all() or not mask.any():
        return image
    # From 0 at the edge of an object, where half of the blurred mask remains, to 1 deep inside.
    depth = np.clip(2 * ndimage.gaussian_filter(mask.astype(np.float32), rim) - 1, 0, 1) * mask
    patches = np.clip(0.7 + 0.5 * smooth_noise(mask.shape, 2 * rim, rng), 0, 1)
    around = np.median(image[:, ~mask], axis=1)[:, None, None]
    return np.asarray(image + strength * depth * patches * (around - image), np.float32)


def _slope(shape: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a plane tilted in a random direction, from about -1 to 1; (h, w)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.asarray(np.sin(angle) * y[:, None] + np.cos(angle) * x[None, :])
