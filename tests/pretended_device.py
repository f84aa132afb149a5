"""A pretended device: its tensors lie in main memory, but do not meet those of the processor.

Where no graphics card is at hand, it shows what forgot to move its tensors to one. To be used in a
process of its own: torch cannot be talked out of it again.
"""

from __future__ import annotations

from typing import Any

import lightning_fabric
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("privateuseone", 0)
IS_KNOWN = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this torch can pretend: older ones cannot."""
MOVES = ("_to_copy", "copy_")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Where indices may be the processor's, as on a graphics card."""


class Moved(torch.Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Moved:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made: Moved = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=DEVICE, **layout
        )
        return made

    def __init__(self, inner: torch.Tensor) -> None:
        if inner.dtype == torch.float64:
            raise TypeError("Apple's graphics cards know no float64.")
        self.inner = inner

    def __deepcopy__(self, memo: Any) -> Moved:
        return Moved(self.inner.clone()).requires_grad_(self.requires_grad)

    def tolist(self) -> Any:
        return self.detach().inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do an operation in main memory; its result lies where the device would have it."""
    name = func.__name__.split(".")[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    moved = [tensor for tensor in tensors if isinstance(tensor, Moved)]
    others = [t for t in tensors if t.ndim and not isinstance(t, Moved)]
    indexed = name in INDEXED and isinstance(args[0], Moved)
    if moved and others and name not in MOVES and not indexed:
        shapes = [(type(tensor).__name__, tuple(tensor.shape)) for tensor in tensors]
        raise RuntimeError(f"{func} is given tensors of two devices: {shapes}")
    wanted = kwargs.get("device")
    here = bool(moved) if wanted is None else torch.device(wanted).type == DEVICE.type
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner = tree_map_only(Moved, lambda tensor: tensor.inner, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if name.endswith("_") and isinstance(args[0], torch.Tensor):
        return args[0]
    if not here or name == "_local_scalar_dense":
        return result
    return tree_map_only(torch.Tensor, Moved, result)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Numbers become tensors of the device within torch, where no operation is seen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor:
            device = kwargs.pop("device", "cpu")
            return func(*args, **kwargs).to(device)
        if func is torch.where and isinstance(args[0], Moved):
            args = [a if isinstance(a, torch.Tensor) else torch.tensor(a).to(DEVICE) for a in args]
        return func(*args, **kwargs)


def _fabric(**_: Any) -> Any:
    """Return a Fabric of the device."""
    fabric = _Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.strategy._root_device = DEVICE
    fabric.accelerator.setup_device = lambda device: None
    return fabric


_Fabric = lightning_fabric.Fabric


def pretend() -> None:
    """Let this process train on the device, to its end."""
    backend_registration._setup_privateuseone_for_python_backend("pretended")
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]  # it knows no such device
    lightning_fabric.Fabric = _fabric  # type: ignore[misc,assignment]
    _Functions().__enter__()
    _Operations().__enter__()
