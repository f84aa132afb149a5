"""Writing a U-Net as ONNX, for programs without torch and processors without bfloat16."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cellda.core.nets.packable import Packable

OPSET = 18
LARGEST = 2**15
"""Largest side that the exported graph says it takes, in pixels."""


def can_export_onnx() -> bool:
    """Whether onnx and onnxscript are installed (the extra ``onnx``)."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


def write_onnx(path: Path, network: Packable) -> None:
    """Write a network, without its padding, as one ONNX file.

    Parameters
    ----------
    path : Path
    network : Packable
        In eval mode, on the CPU.

    Notes
    -----
    The graph returns logits and takes any number of images whose sides are multiples of
    ``2 ** depth``; padding would tie it to one size.
    """
    multiple = network.multiple
    example = torch.zeros(2, network.in_channels, *(2 * multiple for _ in network.multiples))
    names = "zyx"[-len(network.multiples) :]
    free: dict[int, object] = {0: torch.export.Dim("n", min=1, max=1024)}
    for axis, name in enumerate(names, 2):
        free[axis] = torch.export.Dim(name, min=1, max=LARGEST // multiple) * multiple
    with _quiet():
        program = torch.onnx.export(
            _Exact(network),
            (example,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None, "the exporter returns a program when it is given no file"
    model = program.model_proto
    forget_origin(model)
    path.write_bytes(model.SerializeToString())


def forget_origin(model: Any) -> None:
    """Drop what the exporter notes beside the graph: stack traces with the paths of this machine.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place; what it computes stays the same.
    """
    for graph in (model.graph, *model.functions):
        values = [] if graph is not model.graph else [*graph.input, *graph.output]
        for noted in (graph, *graph.node, *graph.value_info, *values):
            del noted.metadata_props[:]
            noted.doc_string = ""
    del model.metadata_props[:]


class _Exact(torch.nn.Module):
    """A U-Net without its padding."""

    def __init__(self, network: Packable) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.forward_exact(x)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
