"""Writing a network as a bioimage.io package, format 0.5, that others can run too."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.network import TorchRunner
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.nets.receptive_field import architecture_reach
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr

    from napari_cellda.core.nets.unet import UNet

OPSET = 18


class PackageInfo(BaseParams):
    """What a package says about its network."""

    id: str
    """Folder name and id, e.g. ``"nuclei-2d"``."""
    name: str = Field(min_length=5, max_length=128)
    """Title; letters, digits, spaces and ``+-_()``."""
    description: str = Field(max_length=1024)
    """One or two sentences."""
    authors: tuple[str, ...] = Field(("napari-cellda developers",), min_length=1)
    licence: str = "CC-BY-4.0"
    """SPDX id of the weights' licence."""
    citations: tuple[tuple[str, str], ...] = (
        ("From shallow to deep: Matskevych et al., 2022", "10.3389/fcomp.2022.805166"),
    )
    """(text, DOI) of methods and of every data set it was trained on."""
    documentation: str = ""
    """Markdown; provenance and limits."""
    tags: tuple[str, ...] = ()
    kind: str = "enhancer"
    """``"enhancer"`` takes a forest map, ``"network"`` an image."""
    output_names: tuple[str, ...] = ("foreground",)
    input_name: str = "forest_map"
    input_range: tuple[float | None, float | None] = (0.0, 1.0)
    structure: str = ""
    """What the foreground is, e.g. ``"nuclei"``."""
    object_diameter: float | None = Field(None, gt=0)
    """Equivalent diameter of the objects it was trained on, in pixels."""
    feature_sets: tuple[str, ...] = ()
    """Feature sets of the forests whose maps it was trained on."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Anything else worth keeping; plain YAML values only."""


def write_package(
    network: UNet,
    info: PackageInfo,
    test_input: np.ndarray,
    folder: str | Path,
    *,
    cover: np.ndarray | None = None,
    onnx: bool | None = None,
) -> Path:
    """Write a network as a bioimage.io model package.

    Parameters
    ----------
    network : UNet
        Its weights are written as a state dict; left as it is.
    info : PackageInfo
    test_input : (C, Y, X) or (C, Z, Y, X) ndarray of float32
        Sides are multiples of the network's ``2 ** depth``; the test output is computed from it.
    folder : str or Path
        Becomes the package, whole or not at all; an older package there is replaced.
    cover : (Y, X) or (Y, X, 3) ndarray of uint8, optional
        None: the test input beside the outputs.
    onnx : bool, optional
        Add ONNX weights. None: when onnx and onnxscript are installed.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    UserError
        If the test input does not fit, or the description breaks bioimage.io's rules.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_input(network, info, test_input)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        parts = Path(scratch) / "parts"
        parts.mkdir()
        _write_files(parts, network, info, test_input, cover)
        if onnx if onnx is not None else _can_export_onnx():
            _write_onnx(parts / "weights.onnx", network, test_input)
        _save(_describe(parts, network, info), Path(scratch) / "package")
        _replace_folder(Path(scratch) / "package", folder)
    return folder


def _check_input(network: UNet, info: PackageInfo, test_input: np.ndarray) -> None:
    channels, ndim = network.config["in_channels"], network.config["ndim"]
    expected = f"({channels}, {'Z, Y, X' if ndim == 3 else 'Y, X'})"
    if test_input.ndim != 1 + int(ndim) or test_input.shape[0] != channels:
        raise UserError(f"The test input has shape {test_input.shape}; {expected} is expected.")
    if any(side % network.multiple for side in test_input.shape[1:]):
        raise UserError(
            f"The test input has shape {test_input.shape}; its sides must be multiples of "
            f"{network.multiple}."
        )
    if len(info.output_names) != network.config["out_channels"]:
        raise UserError(
            f"The network has {network.config['out_channels']} outputs, and "
            f"{len(info.output_names)} names were given for them."
        )


def _write_files(
    parts: Path, network: UNet, info: PackageInfo, test_input: np.ndarray, cover: np.ndarray | None
) -> None:
    batch = np.ascontiguousarray(test_input[np.newaxis], np.float32)
    result = TorchRunner(network, sigmoid=True, fast=False)(batch)
    np.save(parts / "test_input.npy", batch)
    np.save(parts / "test_output.npy", result)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    torch.save(state, parts / "weights.pt")
    (parts / "README.md").write_text(f"# {info.name}\n\n{info.documentation}\n", encoding="utf-8")
    import imageio.v3 as imageio

    imageio.imwrite(parts / "cover.png", _cover(batch[0], result[0]) if cover is None else cover)


def _cover(given: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return an uint8 picture: input and outputs side by side, the middle plane of a stack."""
    maps = [*given, *result]
    planes = [plane if plane.ndim == 2 else plane[len(plane) // 2] for plane in maps]
    picture: np.ndarray = (np.clip(np.hstack(planes), 0, 1) * 255).round().astype(np.uint8)
    return picture


def _can_export_onnx() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


class _Exact(torch.nn.Module):
    """A U-Net without the padding, which would tie the exported graph to one size."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.forward_exact(x)


def _write_onnx(path: Path, network: UNet, test_input: np.ndarray) -> None:
    import warnings
    from copy import deepcopy

    multiple = network.multiple
    spatial = {
        2 + axis: torch.export.Dim(name, min=1, max=2**15 // multiple) * multiple
        for axis, name in enumerate("zyx"[-(test_input.ndim - 1) :])
    }
    example = torch.zeros(1, test_input.shape[0], *(2 * multiple for _ in test_input.shape[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Exact(deepcopy(network).cpu().eval()),
            (example,),
            dynamo=True,
            dynamic_shapes=(spatial,),
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)


def _describe(parts: Path, network: UNet, info: PackageInfo) -> ModelDescr:
    from bioimageio.spec import ValidationContext
    from bioimageio.spec.model import v0_5 as spec

    reach = architecture_reach(network)
    halo = _rdf_halo(parts, network.multiple, reach)
    with ValidationContext(perform_io_checks=False, root=parts):
        return spec.ModelDescr(
            id=spec.ModelId(info.id),
            name=info.name,
            description=info.description,
            authors=[spec.Author(name=author) for author in info.authors],
            license=spec.LicenseId(info.licence),
            cite=[spec.CiteEntry(text=text, doi=spec.Doi(doi)) for text, doi in info.citations],
            tags=list(info.tags),
            covers=[_file(parts / "cover.png")],
            documentation=_file(parts / "README.md"),
            inputs=[_input(parts, info, network, halo)],
            outputs=[_output(parts, info, halo)],
            weights=_weights(parts, network),
            config=spec.Config.model_validate({"cellda": _own_config(info, reach)}),
        )


def _file(path: Path) -> Any:
    from bioimageio.spec.common import FileDescr, Sha256

    return FileDescr(source=path, sha256=Sha256(file_sha256(path)))


def _rdf_halo(parts: Path, multiple: int, reach: tuple[int, ...]) -> tuple[int, ...]:
    """Return the halo for other programs: the receptive field, as far as the test input allows.

    The format asks for blocks larger than two halos, the test input included.
    """
    sides = np.load(parts / "test_input.npy", mmap_mode="r").shape[2:]
    return tuple(
        min(-(-w // multiple), (side // multiple - 1) // 2) * multiple
        for w, side in zip(reach, sides, strict=True)
    )


def _input(parts: Path, info: PackageInfo, network: UNet, halo: tuple[int, ...]) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    n_inputs = int(network.config["in_channels"])
    names = (
        [info.input_name] if n_inputs == 1 else [f"{info.input_name}_{i}" for i in range(n_inputs)]
    )
    sizes = [
        spec.ParameterizedSize(min=2 * margin + network.multiple, step=network.multiple)
        for margin in halo
    ]
    return spec.InputTensorDescr(
        id=spec.TensorId("input"),
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=names),
            *(
                spec.SpaceInputAxis(id=spec.AxisId(axis), size=size)
                for axis, size in zip("zyx"[-len(halo) :], sizes, strict=True)
            ),
        ],
        test_tensor=_file(parts / "test_input.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32", range=info.input_range),
    )


def _output(parts: Path, info: PackageInfo, halo: tuple[int, ...]) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    axes = [
        spec.SpaceOutputAxisWithHalo(
            id=spec.AxisId(axis),
            size=spec.SizeReference(tensor_id=spec.TensorId("input"), axis_id=spec.AxisId(axis)),
            halo=margin,
        )
        for axis, margin in zip("zyx"[-len(halo) :], halo, strict=True)
    ]
    return spec.OutputTensorDescr(
        id=spec.TensorId("output"),
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=list(info.output_names)), *axes],
        test_tensor=_file(parts / "test_output.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        postprocessing=[spec.SigmoidDescr()],
    )


def _weights(parts: Path, network: UNet) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    state = spec.PytorchStateDictWeightsDescr(
        source=parts / "weights.pt",
        sha256=_file(parts / "weights.pt").sha256,
        architecture=spec.ArchitectureFromLibraryDescr(
            callable="UNet", import_from="napari_cellda.core.nets.unet", kwargs=dict(network.config)
        ),
        pytorch_version=spec.Version(torch.__version__.split("+")[0]),
    )
    if not (parts / "weights.onnx").exists():
        return spec.WeightsDescr(pytorch_state_dict=state)
    onnx = spec.OnnxWeightsDescr(
        source=parts / "weights.onnx",
        sha256=_file(parts / "weights.onnx").sha256,
        parent="pytorch_state_dict",
        opset_version=OPSET,
    )
    return spec.WeightsDescr(pytorch_state_dict=state, onnx=onnx)


def _own_config(info: PackageInfo, reach: tuple[int, ...]) -> dict[str, Any]:
    own = info.model_dump(
        mode="json",
        include={
            "kind",
            "output_names",
            "structure",
            "object_diameter",
            "feature_sets",
            "training",
        },
    )
    return {**own, "receptive_field": list(reach)}


def _save(description: ModelDescr, folder: Path) -> None:
    from bioimageio.spec import save_bioimageio_package_as_folder

    save_bioimageio_package_as_folder(description, output_path=folder)


def _replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in place of `target` by renaming."""
    old = new.parent / "old"
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
