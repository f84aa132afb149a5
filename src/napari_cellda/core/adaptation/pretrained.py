"""Beginning with a network that was trained before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def load_pretrained(network: torch.nn.Module, source: Path | None) -> None:
    """Load whatever fits of a trained network into a new one, in place.

    Parameters
    ----------
    network : Module
    source : Path or None
        A run's folder, a package, or a checkpoint of weights; None leaves the network as it is.

    Raises
    ------
    UserError
        If it is damaged, would run code, or less than half of the network's weights fit.
    """
    if source is None:
        return
    state = _weights_of(source)
    mine = network.state_dict()
    fitting = {
        key: value for key, value in state.items() if key in mine and mine[key].shape == value.shape
    }
    loaded = sum(value.numel() for value in fitting.values())
    total = sum(value.numel() for value in mine.values())
    if loaded < total / 2:
        raise UserError(
            f"'{source}' holds another network: only {loaded / total:.0%} of the weights fit; "
            "choose one of the same method, width and depth."
        )
    network.load_state_dict({**mine, **fitting})


def _weights_of(source: Path) -> dict[str, torch.Tensor]:
    from napari_cellda.core.modelzoo.rdf import read_card
    from napari_cellda.core.modelzoo.source import find_package
    from napari_cellda.core.modelzoo.weights import load_state, weights_path

    if source.is_file() and source.suffix in (".pt", ".pth", ".safetensors"):
        return load_state(source)
    folder = source / "model" if (source / "run.yaml").is_file() else source
    card = read_card(find_package(folder))
    for entry in card.weights:
        if entry.format == "pytorch_state_dict":
            return load_state(weights_path(card, entry))
    raise UserError(f"'{source}' has no state dict, from which alone a training can begin.")
