"""Running a network: NumPy in, probabilities out, by the fastest way that stays within 0.01."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from pathlib import Path


class Runner(Protocol):
    """Runs a network; may be called from any thread."""

    name: str
    """How it runs, for the card and the benchmark, e.g. ``"torch bfloat16"``."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return float32 probabilities (N, K, [Z], Y, X) of float32 (N, C, [Z], Y, X)."""


class TorchRunner:
    """Runs a torch module, or a TorchScript, in eval mode.

    Parameters
    ----------
    network : torch.nn.Module
        Copied unless it is a TorchScript; the caller's stays as it is.
    sigmoid : bool
        Apply the sigmoid to what comes out.
    dtype : torch.dtype
        float32, or bfloat16 where the processor has it.
    device : torch.device or str
    fast : bool
        Fold batch norms into the convolutions before them and lay channels last. False is torch's
        plain eager mode: the reference that the fast way is held against.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sigmoid: bool,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        fast: bool = True,
    ) -> None:
        self.device, self.dtype, self.sigmoid, self.fast = (
            torch.device(device),
            dtype,
            sigmoid,
            fast,
        )
        self.name = f"torch {str(dtype).removeprefix('torch.')} on {self.device.type}"
        if isinstance(network, torch.jit.ScriptModule):
            self.network: nn.Module = network.to(self.device)
        else:
            copy = deepcopy(network).eval().requires_grad_(False)
            self.network = (fold_batch_norms(copy) if fast else copy).to(self.device, dtype)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of `x`."""
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
            layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
            tensor = tensor.to(self.device, self.dtype)
            if self.fast:
                tensor = tensor.contiguous(memory_format=layout)
            y = self.network(tensor).float()
            y = y.sigmoid_() if self.sigmoid else y
            result: np.ndarray = y.cpu().contiguous().numpy()
            return result


class OnnxRunner:
    """Runs an ONNX file with onnxruntime.

    Parameters
    ----------
    path : Path
    sigmoid : bool
        Apply the sigmoid to what comes out.
    threads : int or None
        None takes as many as torch uses.
    """

    name = "onnxruntime float32 on cpu"

    def __init__(self, path: Path, *, sigmoid: bool, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        providers = [
            name
            for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if name in onnxruntime.get_available_providers()
        ]
        self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self.sigmoid = sigmoid
        self.input = self.session.get_inputs()[0].name

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of `x`."""
        feed = {self.input: np.ascontiguousarray(x, dtype=np.float32)}
        y: np.ndarray = self.session.run(None, feed)[0]
        return 1.0 / (1.0 + np.exp(-y)) if self.sigmoid else y


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution in an `nn.Sequential` into it, in place."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(
                norm, nn.BatchNorm2d | nn.BatchNorm3d
            ):
                module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


def best_device() -> str:
    """Return ``"cuda"``, ``"mps"`` or ``"cpu"``, the first there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
