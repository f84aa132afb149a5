"""Running a network: NumPy in, probabilities out, by the fastest way that stays within 0.01."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cellda.core.modelzoo.probe import largest_difference, probe_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_cellda.core.modelzoo.card import ModelCard

TOLERANCE = 0.01
"""How far a faster way may move any pixel of a map."""


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
        In eval mode; stays as it is. Copied to be made fast, unless it is a TorchScript.
    sigmoid : bool
        Apply the sigmoid to what comes out.
    dtype : torch.dtype
        float32, or bfloat16 where the processor has it.
    device : torch.device or str
    fast : bool
        Fold batch norms into the convolutions before them and choose the layout. False is torch's
        plain eager mode, on the network's own device and dtype: the reference that the fast way
        is held against.
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
        self.device, self.dtype, self.sigmoid = torch.device(device), dtype, sigmoid
        self.name = f"torch {str(dtype).removeprefix('torch.')} on {self.device.type}"
        if isinstance(network, torch.jit.ScriptModule):
            self.network: nn.Module = network.to(self.device)
        elif fast:
            folded = fold_batch_norms(deepcopy(network).eval().requires_grad_(False))
            self.network = folded.to(self.device, dtype)
        else:
            self.network = network
        self.layout = _best_layout(self.network, dtype) if fast else torch.contiguous_format
        if self.layout != torch.contiguous_format:
            kernels = (p for p in self.network.parameters() if p.ndim >= 4)
            for kernel in kernels:
                kernel.data = kernel.data.contiguous(memory_format=self.layout)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of `x`."""
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
            tensor = tensor.to(self.device, self.dtype).contiguous(memory_format=self.layout)
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
        # A plan per input size takes no less time and a third more memory.
        options.enable_mem_pattern = False
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
        return torch.from_numpy(y).sigmoid_().numpy() if self.sigmoid else y


def _best_layout(network: nn.Module, dtype: torch.dtype) -> torch.memory_format:
    """Return how tensors are best laid out.

    Measured: channels last halves the time in 2D, but norms over the image undo it, and in 3D it
    pays in bfloat16 only.
    """
    modules = list(network.modules())
    if isinstance(network, torch.jit.ScriptModule):
        return torch.contiguous_format
    if any(isinstance(m, nn.Conv3d) for m in modules):
        return torch.channels_last_3d if dtype == torch.bfloat16 else torch.contiguous_format
    norms = (nn.InstanceNorm2d, nn.GroupNorm)
    if dtype == torch.float32 and any(isinstance(m, norms) for m in modules):
        return torch.contiguous_format
    return torch.channels_last


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


def choose_runner(network: nn.Module, card: ModelCard, onnx_path: Path | None = None) -> Runner:
    """Return the fastest way to run a network whose maps stay within 0.01 of plain torch.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode; stays as it is.
    card : ModelCard
    onnx_path : Path, optional
        The same weights as ONNX.

    Notes
    -----
    Every way but torch's own float32 is first held against torch eager float32 on a made-up map,
    at half the tolerance.
    """
    device, sigmoid = best_device(), card.sigmoid_outside
    shape = (card.n_inputs, *probe_shape(card))
    reference = TorchRunner(network, sigmoid=sigmoid, fast=False)
    for make in _faster_ways(network, sigmoid, device, onnx_path):
        try:
            runner = make()
            difference = largest_difference(runner, reference, shape)
        except Exception:  # a damaged file, or an operation that is missing in this precision
            continue
        if difference <= TOLERANCE / 2:
            return runner
    return TorchRunner(network, sigmoid=sigmoid)


def _faster_ways(
    network: nn.Module, sigmoid: bool, device: str, onnx_path: Path | None
) -> Iterator[Callable[[], Runner]]:
    if device == "cuda" and torch.cuda.is_bf16_supported():
        yield partial(TorchRunner, network, sigmoid=sigmoid, dtype=torch.bfloat16, device="cuda")
    if device != "cpu":
        yield partial(TorchRunner, network, sigmoid=sigmoid, device=device)
    # Measured: onnxruntime in float32 is as fast as torch in bfloat16, and exact.
    if device == "cpu" and onnx_path is not None:
        yield partial(OnnxRunner, onnx_path, sigmoid=sigmoid)
    if device == "cpu" and has_bfloat16():
        yield partial(TorchRunner, network, sigmoid=sigmoid, dtype=torch.bfloat16)


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


def best_device() -> str:
    """Return ``"cuda"``, ``"mps"`` or ``"cpu"``, the first there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
