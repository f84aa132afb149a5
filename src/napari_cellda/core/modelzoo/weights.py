"""Turning a package's weights into a network, trusting as little as possible.

A state dict is data, and becomes a network only through one of our own classes; the package's
Python file is never imported.
"""

from __future__ import annotations

import pickle
import warnings
from typing import TYPE_CHECKING, Any

import torch

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.modelzoo.rdf import package_file
from napari_cellda.core.nets.cks import CksPrincipal
from napari_cellda.core.nets.ensemble import TwinSegmenters
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.core.nets.styled import StyledSegmenter
from napari_cellda.core.nets.torch_em import AnisotropicUNet, TorchEmUNet, UNet2d, UNet3d
from napari_cellda.core.nets.unet import UNet

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.modelzoo.card import ModelCard, WeightsEntry
    from napari_cellda.core.nets.packable import Packable

ARCHITECTURES: dict[str, type[Packable] | type[TorchEmUNet]] = {
    "UNet": UNet,
    "UNet2d": UNet2d,
    "UNet3d": UNet3d,
    "AnisotropicUNet": AnisotropicUNet,
    "Segmenter": Segmenter,
    "StyledSegmenter": StyledSegmenter,
    "CksPrincipal": CksPrincipal,
    "TwinSegmenters": TwinSegmenters,
}
MOST_REPEATED = 4
"""Times the size of its file that a state dict may take: tied weights lie there only once."""
_WRAPPERS = ("model_state", "state_dict", "model_state_dict")


def weights_path(card: ModelCard, entry: WeightsEntry) -> Path:
    """Return where an entry's file lies, after checking that it is inside and intact.

    Raises
    ------
    UserError
        If it is missing, outside the package, or its sha256 is not the one in the RDF.
    """
    assert card.folder is not None
    if "://" in entry.source:
        raise UserError(
            f"{card.name} keeps its weights at {entry.source}: open it by its id or address "
            "instead of this file."
        )
    path = package_file(card.folder, entry.source)
    if path is None:
        raise UserError(
            f"{card.name} lacks its weights file {entry.source}; only files inside its package are "
            "used."
        )
    if entry.sha256 and (found := file_sha256(path)) != entry.sha256:
        raise UserError(
            f"{entry.source} of {card.name} is damaged or was changed: its sha256 is {found[:12]}, "
            f"and {entry.sha256[:12]} is expected."
        )
    return path


def is_known(entry: WeightsEntry) -> bool:
    """Whether a state dict belongs to an architecture that is built in."""
    return entry.format == "pytorch_state_dict" and entry.architecture in ARCHITECTURES


def load_network(card: ModelCard, entry: WeightsEntry, path: Path) -> Packable | TorchEmUNet:
    """Build the network of a state dict of a known architecture, in eval mode, on the CPU.

    Parameters
    ----------
    card : ModelCard
    entry : WeightsEntry
    path : Path
        Of the entry's file, checked.

    Raises
    ------
    UserError
        If the file is not a plain state dict, or does not fit the architecture.
    """
    try:
        # Without memory: the weights in the file become the network's own, if they fit.
        with torch.device("meta"):
            network = ARCHITECTURES[entry.architecture](**_plain(entry.kwargs))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{card.name} asks for a {entry.architecture} with arguments that it does not take: "
            f"{str(error).splitlines()[0]}."
        ) from error
    try:
        network.load_state_dict(load_state(path), assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{entry.source} of {card.name} does not fit a {entry.architecture}: {first}"
        ) from error
    return network.eval()


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running anything in it.

    Raises
    ------
    UserError
        If the file needs unpickling of more than tensors, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                # A refused pickle is said below in one sentence, and not by torch in three.
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"'{path}' is refused: it is a pickle that would run code when loaded, "
            "not a plain state dict."
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise UserError(f"'{path}' cannot be read as a state dict; it is damaged.") from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(map(_is_plain_tensor, state.values())):
        raise UserError(f"'{path}' holds something other than a state dict.")
    if sum(value.nbytes for value in state.values()) > MOST_REPEATED * path.stat().st_size:
        raise UserError(f"'{path}' is refused: it repeats what it holds many times.")
    return {
        str(key): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _is_plain_tensor(value: Any) -> bool:
    """Whether it is a tensor of real numbers, each of which is in the file.

    One that repeats a number a million times would take memory that the file does not show.
    """
    return (
        torch.is_tensor(value)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return `kwargs` without the entries that torch-em writes for classes it left at default."""
    defaults = ("conv_block_impl", "pooler_impl", "sampler_impl")
    return {key: value for key, value in kwargs.items() if key not in defaults}
