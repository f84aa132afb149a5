"""Opening a model: find it, read its card, load the weights that deserve most trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo import weights
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.modelzoo.network import Runner, TorchRunner
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.nets.unet import UNet

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from napari_cellda.core.modelzoo.card import ModelCard

Consent = Callable[[str], bool] | bool


@dataclass(frozen=True)
class Model:
    """An opened model: what it says about itself, and how to run it."""

    card: ModelCard
    runner: Runner
    """Probabilities (N, K, [Z], Y, X) of (N, C, [Z], Y, X)."""
    network: torch.nn.Module | None
    """The torch network, for training on; None when only ONNX or TorchScript could be loaded."""
    sha256: str
    """Of the weights in use."""


def open_model(source: str | Path, *, consent: Consent = False) -> Model:
    """Open a model package.

    Parameters
    ----------
    source : str or Path
        A bundled id, a folder or zip file, an rdf.yaml.
    consent : bool, or callable of (str) -> bool
        Asked, with a plain sentence, before a TorchScript program from elsewhere is run.

    Returns
    -------
    Model

    Raises
    ------
    UserError
        If the package cannot be read, trusted or run; one plain sentence.
    """
    from pathlib import Path

    folder = bundled_folder(str(source)) or Path(source)
    card = read_card(folder if folder.is_dir() else folder.parent)
    entry = next((e for e in card.weights if weights.is_known(e)), None)
    if entry is None:
        raise UserError(f"{card.name} has no weights that can be loaded.")
    network = weights.load_network(card, entry)
    if isinstance(network, UNet):
        # The RDF's minimum leaves room for a halo; this network takes a single cell.
        card = replace(card, min_shape=(network.multiple,) * card.ndim)
    return Model(
        replace(card, weight_format=entry.format),
        TorchRunner(network, sigmoid=card.sigmoid_outside),
        network,
        weights.file_sha256(weights.weights_path(card, entry)),
    )
