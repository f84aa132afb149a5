"""Where an enhancer's training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.nets.unet import UNet

if TYPE_CHECKING:
    import torch

    from napari_cellda.core.enhancer_training.params import EnhancerParams


def begin_network(params: EnhancerParams, n_outputs: int) -> UNet:
    """Return the network that training begins with: random, or that of `params.init`.

    Raises
    ------
    UserError
        If the enhancer to begin from is of another architecture.
    """
    network = UNet(1, n_outputs, params.width, params.depth, norm="batch")
    if not params.init:
        return network
    try:
        earlier = open_model(params.init).network
    except ProgramRefused:
        earlier = None  # a yes would not help: nobody can train a program
    if not isinstance(earlier, UNet) or earlier.config != network.config:
        raise UserError(
            f"Training cannot begin from '{params.init}', which is {_describe(earlier)}; expected "
            f"{_describe(network)}: set width and depth to match."
        )
    network.load_state_dict(earlier.state_dict())
    return network


def origin(params: EnhancerParams) -> dict[str, Any]:
    """Describe what training begins from, for the card; {} when it begins at random."""
    if not params.init:
        return {}
    model = open_model(params.init)
    return {
        "id": model.card.id,
        "weights_sha256": model.sha256,
        "command": model.card.training.get("command", ""),
    }


def _describe(network: torch.nn.Module | None) -> str:
    if not isinstance(network, UNet):
        return "no U-Net of ours"
    config = network.config
    return (
        f"a U-Net of width {config['width']} and depth {config['depth']} with "
        f"{config['out_channels']} output(s)"
    )
