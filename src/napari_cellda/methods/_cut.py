"""The first stage of StyleFilter: contrastive unpaired translation (CUT), target to source.

References
----------
.. [1] Park, Efros, Zhang, Zhu, "Contrastive learning for unpaired image-to-image translation",
   ECCV 2020. https://arxiv.org/abs/2007.15651
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellda.core.adaptation.training import held_still
from napari_cellda.core.devices import setup
from napari_cellda.core.loop import Stateful, set_learning_rate
from napari_cellda.core.nets.cut import Generator, PatchDiscriminator, Projection

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.07
BETAS = (0.5, 0.999)
"""Of Adam, as published."""


class StyleBatch(NamedTuple):
    """Crops (N, C, S, S) in [-1, 1]."""

    target: Tensor
    source: Tensor


class StyleTrainer:
    """Generator G, discriminator D and projection F, and one step of all three.

    Parameters
    ----------
    generator : Generator
        Trained in place.
    fabric : lightning_fabric.Fabric
    width : int
        Of the discriminator.
    mode : {"fastcut", "cut"}
        cut: weight 1 of the contrast, also of source images, which shall stay what they are;
        fastcut: weight 10, and mirrored images shall become mirrored drawings.
    rate : float
        Learning rate, falling to 0 along the last half (fastcut: quarter) of the steps.
    steps : int
    patches : int
        Places per tap that are compared.
    seed : int
    """

    def __init__(
        self,
        generator: Generator,
        fabric: Any,
        *,
        width: int,
        mode: Literal["fastcut", "cut"],
        rate: float,
        steps: int,
        patches: int,
        seed: int,
    ) -> None:
        self.fabric, self.mode, self.rate, self.steps = fabric, mode, rate, steps
        self.patches, self.seed = patches, seed
        self.discriminator = PatchDiscriminator(generator.tap_channels[0], width)
        self.projection = Projection(generator.tap_channels)
        networks = (generator, self.discriminator, self.projection)
        ready = [setup(fabric, n, torch.optim.Adam(n.parameters(), rate, BETAS)) for n in networks]
        (self.g, self.g_adam), (self.d, self.d_adam), (self.f, self.f_adam) = ready

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint must hold besides the generator."""
        return {
            "discriminator": self.discriminator,
            "projection": self.projection,
            "generator optimiser": self.g_adam,
            "discriminator optimiser": self.d_adam,
            "projection optimiser": self.f_adam,
        }

    def step(self, index: int, batch: StyleBatch) -> dict[str, Tensor]:
        """Train D, then G and F, on one pair of batches."""
        self._set_rate(index)
        self.g.train()  # its norms are quicker so, and previews are drawn in eval mode
        target, source = (self.fabric.to_device(t) for t in batch)
        fast = self.mode == "fastcut"
        flip = fast and bool(np.random.default_rng([self.seed, 3, index]).integers(2))
        # The identity term of CUT draws the source as well, which has to stay what it is.
        shown = (target.flip(-1) if flip else target) if fast else torch.cat([target, source])
        drawn, taps = self.g(shown.to(memory_format=torch.channels_last), give="both")
        fake = drawn[: len(target)]
        judged = self._train_judge(source, fake)
        with held_still(self.discriminator):
            terms = {"generator": lsgan_loss(self.d(fake), real=True)}
        again = self.g(drawn, give="taps")
        if flip:
            again = [tap.flip(-1) for tap in again]
            with torch.no_grad():
                taps = self.g(target, give="taps")
        places = [self._places(tap) for tap in taps]
        queries = self.f(again, places)
        with torch.no_grad():
            keys = self.f(taps, places)
        nce = [patch_nce(q, k) for q, k in zip(queries, keys, strict=True)]
        terms["contrast"] = torch.stack(nce).mean()
        for optimiser in (self.g_adam, self.f_adam):
            optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(terms["generator"] + (10 if fast else 1) * terms["contrast"])
        self.g_adam.step()
        self.f_adam.step()
        return {**terms, "discriminator": judged}

    def _train_judge(self, source: Tensor, fake: Tensor) -> Tensor:
        real, made = self.d(torch.cat([source, fake.detach()])).split([len(source), len(fake)])
        loss = (lsgan_loss(made, real=False) + lsgan_loss(real, real=True)) / 2
        self.d_adam.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.d_adam.step()
        return loss.detach()

    def _places(self, tap: Tensor) -> Tensor:
        count = tap.shape[2] * tap.shape[3]
        return torch.randperm(count, device=tap.device)[: self.patches]

    def _set_rate(self, index: int) -> None:
        """Keep the rate for half of the stage (three quarters in FastCUT), then fall to 0."""
        kept = 0.75 if self.mode == "fastcut" else 0.5
        left = (1 - index / self.steps) / (1 - kept)
        for optimiser in (self.g_adam, self.d_adam, self.f_adam):
            set_learning_rate(optimiser, self.rate * min(1.0, left))


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Contrast of patches: each shall be most like the same place of the other image [2]_.

    Parameters
    ----------
    queries, keys : (N, P, D) Tensor of unit vectors
        Of the drawn and of the original image, at the same places; keys get no gradient. The other
        places of the same image are the negatives.

    Returns
    -------
    Tensor
        Scalar: cross entropy of picking its own key among the P of the image.
    """
    queries, keys = queries.float(), keys.detach().float()
    likeness = queries @ keys.transpose(1, 2) / temperature
    own = torch.arange(likeness.shape[1], device=likeness.device).expand(likeness.shape[:2])
    # As in the original, where the own place is set to -10 among the negatives: counting it once.
    return F.cross_entropy(likeness.flatten(0, 1), own.flatten())


def lsgan_loss(scores: Tensor, *, real: bool) -> Tensor:
    """Mean squared distance of a discriminator's scores from 1 (real) or 0."""
    return (scores.float() - float(real)).square().mean()
