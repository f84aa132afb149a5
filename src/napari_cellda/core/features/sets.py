"""Which pixel features there are: the groups, the published sets and what a user chose of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import field_validator

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams

GROUPS = {
    "raw": "raw intensity",
    "gaussian": "Gaussian smoothing",
    "laplacian": "Laplacian of Gaussian",
    "gradient": "Gaussian gradient magnitude",
    "dog": "difference of Gaussians",
    "structure": "structure tensor eigenvalue",
    "hessian": "Hessian of Gaussian eigenvalue",
}
"""Every group's name in settings and its title for people, in the order of the channels."""

EIGENVALUE_GROUPS = ("structure", "hessian")
"""Groups that give one channel per spatial axis, largest eigenvalue first."""

DOG_RATIO = 0.66
"""A difference of Gaussians is smoothing by s minus smoothing by this times s."""

SMALLEST_DERIVATIVE_SCALE = 0.5
"""Below this scale the kernels of all but smoothing are too short to mean anything."""


@dataclass(frozen=True)
class FeatureSet:
    """One published set of filters."""

    groups: tuple[str, ...]
    scales: tuple[float, ...]
    presmoothed: bool
    """Smooth first, then filter at a scale of at most 1, as ilastik does."""
    outer: float
    """The structure tensor's outer scale, as a multiple of its inner scale."""
    window: float
    """Radius of the filters in units of their scale; 0 is 3 plus half the order of derivative."""


SETS = {
    "ilastik": FeatureSet(
        ("gaussian", "laplacian", "gradient", "dog", "structure", "hessian"),
        (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0),
        presmoothed=True,
        outer=0.5,
        window=2.0,
    ),
    "compact": FeatureSet(
        ("gaussian", "laplacian", "gradient", "structure", "hessian"),
        (0.7, 1.6, 3.5, 5.0),
        presmoothed=False,
        outer=0.5,
        window=0.0,
    ),
    "s2d": FeatureSet(
        ("raw", "gaussian", "laplacian", "gradient", "structure", "hessian"),
        (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0),
        presmoothed=False,
        outer=2.0,
        window=0.0,
    ),
}

PRESMOOTHING_WINDOW = 3.5


class FeatureSpec(BaseParams):
    """The pixel features of a forest.

    Notes
    -----
    `ilastik` are ilastik's 37 filters, 49 channels in 2D [1]_; `compact` are torch-em's 28 channels
    and `s2d` the 44 channels of the shallow-to-deep paper [2]_. Scales are in pixels.

    The structure tensor takes its derivatives at the inner scale s and averages their products at
    the outer scale. ilastik asks for 0.5 s outside; builds of its library fastfilters have been
    seen to swap the two. Here they are as asked for.

    References
    ----------
    .. [1] Berg et al., "ilastik: interactive machine learning for (bio)image analysis", Nature
       Methods, 2019. https://doi.org/10.1038/s41592-019-0582-9
    .. [2] Matskevych et al., "From Shallow to Deep: Exploiting Feature-Based Classifiers for
       Domain Adaptation in Semantic Segmentation", Frontiers in Computer Science, 2022.
       https://doi.org/10.3389/fcomp.2022.805166
    """

    name: Literal["ilastik", "compact", "s2d"] = "ilastik"
    """The set of filters: ilastik (49 channels in 2D), compact (28) or s2d (44)."""
    ndim: Literal[2, 3] = 2
    """Filter planes (2) or volumes (3)."""
    groups: tuple[str, ...] | None = None
    """The groups of filters to use; empty for all that the set has."""
    scales: tuple[float, ...] | None = None
    """The scales in pixels; empty for the set's own. Below 0.5 only smoothing is computed."""

    @field_validator("groups")
    @classmethod
    def _known_groups(cls, groups: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for group in groups or ():
            if group not in GROUPS:
                raise UserError(
                    f"There is no feature group {group!r}; expected some of {', '.join(GROUPS)}."
                )
        # One order only, so that a forest and its channels cannot be told apart by mistake.
        return tuple(g for g in GROUPS if g in groups) if groups else None

    @field_validator("scales")
    @classmethod
    def _sane_scales(cls, scales: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for scale in scales or ():
            if not 0.1 <= scale <= 100:
                raise UserError(f"A feature scale is {scale:g} pixels; expected 0.1 to 100.")
        return tuple(sorted(set(scales))) if scales else None

    @property
    def set(self) -> FeatureSet:
        """The published set this is taken from."""
        return SETS[self.name]

    def filters(self) -> tuple[tuple[str, float], ...]:
        """List the (group, scale) pairs in the order of their channels; raw has scale 0.

        Raises
        ------
        UserError
            If the chosen groups and scales leave nothing.
        """
        pairs: list[tuple[str, float]] = []
        for group in self.groups or self.set.groups:
            if group == "raw":
                pairs.append((group, 0.0))
                continue
            pairs.extend(
                (group, scale)
                for scale in self.scales or self.set.scales
                if group == "gaussian" or scale >= SMALLEST_DERIVATIVE_SCALE
            )
        if not pairs:
            raise UserError(
                "The chosen feature groups and scales leave no feature: expected at least one "
                "scale of 0.5 pixels or more, or Gaussian smoothing."
            )
        return tuple(pairs)

    def width(self, group: str) -> int:
        """Count the channels that one filter of `group` gives."""
        return self.ndim if group in EIGENVALUE_GROUPS else 1

    def count(self, n_channels: int = 1) -> int:
        """Count the features of an image with `n_channels` channels."""
        return n_channels * sum(self.width(group) for group, _ in self.filters())

    def names(self, n_channels: int = 1) -> tuple[str, ...]:
        """Name every feature of an image with `n_channels` channels, for people."""
        single: list[str] = []
        for group, scale in self.filters():
            title = GROUPS[group] if group == "raw" else f"{GROUPS[group]}, {scale:g} px"
            width = self.width(group)
            single += [title] if width == 1 else [f"{title}, {i + 1}" for i in range(width)]
        if n_channels == 1:
            return tuple(single)
        return tuple(f"channel {c + 1}: {name}" for c in range(n_channels) for name in single)

    @property
    def halo(self) -> int:
        """Pixels around a tile that its features depend on, per side and axis."""
        return max(self._reach(group, scale) for group, scale in self.filters())

    def _reach(self, group: str, scale: float) -> int:
        if group == "raw":
            return 0
        before, at = self.presmoothing(scale)
        reach = math.ceil(PRESMOOTHING_WINDOW * before)
        order = {"gaussian": 0, "dog": 0, "gradient": 1, "structure": 1}.get(group, 2)
        reach += self._radius(at, order)
        if group == "structure":
            reach += self._radius(self.set.outer * at, 0)
        return reach

    def _radius(self, sigma: float, order: int) -> int:
        return math.ceil((self.set.window or 3 + 0.5 * order) * sigma)

    def presmoothing(self, scale: float) -> tuple[float, float]:
        """Split a scale into (sigma of the smoothing before, sigma of the filter itself).

        ilastik smooths by sqrt(s^2 - 1) and filters at 1 for s > 1, which makes the filters short.
        For s <= 1 it smooths by s and filters at s again, an effective scale of sqrt(2) s; kept, so
        that a forest sees what it would see there. (0, s) for sets without this.
        """
        if not self.set.presmoothed:
            return 0.0, scale
        return (math.sqrt(scale**2 - 1), 1.0) if scale > 1 else (scale, scale)
