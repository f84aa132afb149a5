"""The devices that networks are trained on, by the names that users give."""

from __future__ import annotations

from napari_cellda.core.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


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
