"""Writing a network as a bioimage.io package, format 0.5, that others can run too."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from pydantic import ValidationError

from napari_cellda.core.atomic import put_in_place, tell_full_disk
from napari_cellda.core.errors import UserError
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.modelzoo.description import PackageInfo, describe
from napari_cellda.core.modelzoo.network import TorchRunner
from napari_cellda.core.modelzoo.onnx_export import can_export_onnx, write_onnx

if TYPE_CHECKING:
    from napari_cellda.core.nets.packable import Packable

__all__ = ["PackageInfo", "write_package"]


def write_package(
    network: Packable,
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
    network : Packable
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
        If the test input does not fit, the description breaks bioimage.io's rules, or the disk is
        full.
    """
    folder, network = Path(folder), deepcopy(network).cpu().eval()
    _check_input(network, info, test_input)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            parts = Path(scratch) / "package"
            with tell_full_disk(folder, Path(scratch)):
                parts.mkdir()
                _write_files(parts, network, info, test_input, cover)
                if onnx if onnx is not None else can_export_onnx():
                    write_onnx(parts / "weights.onnx", network)
                rdf = _describe(parts, network, info)
                text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True)
                (parts / "rdf.yaml").write_text(text, encoding="utf-8")
            put_in_place(parts, folder)
    except OSError as error:
        raise UserError(
            f"The model package {folder.name} could not be written: {error}."
        ) from error
    return folder


def _check_input(network: Packable, info: PackageInfo, test_input: np.ndarray) -> None:
    channels, ndim = network.in_channels, len(network.multiples)
    expected = f"({channels}, {'Z, Y, X' if ndim == 3 else 'Y, X'})"
    if test_input.ndim != 1 + ndim or test_input.shape[0] != channels:
        raise UserError(f"The test input has shape {test_input.shape}; {expected} is expected.")
    if any(side % network.multiple for side in test_input.shape[1:]):
        raise UserError(
            f"The test input has shape {test_input.shape}; its sides must be multiples of "
            f"{network.multiple}."
        )
    if len(info.output_names) != network.out_channels:
        raise UserError(
            f"The network has {network.out_channels} outputs, and "
            f"{len(info.output_names)} names were given for them."
        )


def _write_files(
    parts: Path,
    network: Packable,
    info: PackageInfo,
    test_input: np.ndarray,
    cover: np.ndarray | None,
) -> None:
    batch = np.ascontiguousarray(test_input[np.newaxis], np.float32)
    runner = TorchRunner(network, sigmoid=network.gives_logits, fast=False)
    result = runner(scaled(batch, info))
    np.save(parts / "test_input.npy", batch)
    np.save(parts / "test_output.npy", result)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    torch.save(state, parts / "weights.pt")
    (parts / "README.md").write_text(f"# {info.name}\n\n{info.documentation}\n", encoding="utf-8")
    import imageio.v3 as imageio

    imageio.imwrite(parts / "cover.png", _cover(batch[0], result[0]) if cover is None else cover)


def scaled(batch: np.ndarray, info: PackageInfo) -> np.ndarray:
    """Scale a test input as the package says that images are scaled."""
    if info.scaling is None:
        return batch
    axes = "czyx" if batch.ndim == 5 else "cyx"
    image = image_from_array(batch[0], axes, name="test input")
    if info.scaling == "dataset":
        assert info.normalisation is not None
        return info.normalisation.apply(batch[0])[np.newaxis]
    return measure_normalisation(image, info.scaling).apply(batch[0])[np.newaxis]


def _cover(given: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return an uint8 picture: input and outputs side by side, the middle plane of a stack."""
    maps = [*given, *result]
    planes = [plane if plane.ndim == 2 else plane[len(plane) // 2] for plane in maps]
    picture: np.ndarray = (np.clip(np.hstack(planes), 0, 1) * 255).round().astype(np.uint8)
    return picture


def _describe(parts: Path, network: Packable, info: PackageInfo) -> dict[str, Any]:
    try:
        return describe(parts, network, info)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"'{info.name}' does not make a bioimage.io package: {place}: {first['msg']}."
        ) from error
