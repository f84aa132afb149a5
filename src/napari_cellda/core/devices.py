"""The devices that networks are trained on, and what puts a network on one."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Literal

from napari_cellda.core.errors import UserError
from napari_cellda.core.processes import world_size

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
Precision = Literal["32-true", "bf16-mixed"]


def find_device(wish: str = "auto") -> str:
    """Return the device to train on.

    Parameters
    ----------
    wish : str
        "auto" (CUDA, then MPS, then CPU), "cpu", "cuda" or "mps".

    Raises
    ------
    UserError
        If it is none of these, or this machine has none.
    """
    if wish not in DEVICES:
        raise UserError(f"--device is '{wish}'; expected auto, cpu, cuda or mps.")
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [*(name for name, is_there in found.items() if is_there), "cpu"]
    if wish not in ("auto", *there):
        raise UserError(
            f"--device is '{wish}', but torch finds no such device here; expected auto or "
            f"{' or '.join(there)}."
        )
    return there[0] if wish == "auto" else wish


def likes_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 natively, so that mixed precision pays."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu":
        return False
    from napari_cellda.core.modelzoo.network import has_bfloat16

    return has_bfloat16()


def make_fabric(device: str = "auto", precision: Precision | None = None) -> Any:
    """Return Lightning's Fabric for a device.

    Parameters
    ----------
    device : str
        See `find_device`. Of several CUDA devices it is torch's current one, which the queue of
        runs sets.
    precision : str, optional
        None: bfloat16 autocast on CUDA and on processors that multiply it natively, else float32.
    """
    import torch
    from lightning_fabric import Fabric

    device = find_device(device)
    precision = precision or ("bf16-mixed" if likes_bfloat16(device) else "32-true")
    # It announces the precision on stderr, among what is meant for the user.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if world_size() == 1:
        one: Any = [torch.cuda.current_device()] if device == "cuda" else 1
        return Fabric(accelerator=device, devices=one, precision=precision)
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    # Adversarial steps leave one network without gradients.
    strategy = "ddp_find_unused_parameters_true"
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=world_size() // devices,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def setup(fabric: Any, network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Any:
    """Put a network, in channels_last memory, and its optimiser on a Fabric's device.

    Returns
    -------
    model, optimiser
        To be called and stepped; the network itself is moved in place and is what to keep.
    """
    import torch

    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fabric.setup(network, optimiser)


def prepare(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    device: str = "auto",
    precision: Precision | None = None,
) -> tuple[Any, Any, Any]:
    """Do `make_fabric` and `setup` for a training with one network.

    Returns
    -------
    fabric, model, optimiser
        Lightning Fabric's; call ``fabric.to_device`` on batches and ``fabric.backward`` on losses.
    """
    fabric = make_fabric(device, precision)
    model, ready = setup(fabric, network, optimiser)
    return fabric, model, ready
