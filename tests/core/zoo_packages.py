"""Model packages like those that are published, with random weights.

The five enhancers of `PUBLISHED` follow the RDFs of the published ones field by field: format
0.4, axes, shapes, halo, preprocessing, weights entries, architecture and its arguments. Only the
weights, the texts and the test arrays are made up.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
import yaml
from torch import nn

from napari_cellda.core.modelzoo.package import PackageInfo, write_package
from napari_cellda.core.modelzoo.probe import made_up_map
from napari_cellda.core.nets import torch_em
from napari_cellda.core.nets.unet import UNet

TRAP = "raise SystemExit('the package\\'s Python file was run')\n"
"""What every package's Python file holds."""

SCALE_RANGE = {"mode": "per_sample", "min_percentile": 0.0, "max_percentile": 100.0}


@dataclass(frozen=True)
class Published:
    """What makes one published enhancer."""

    nickname: str
    name: str
    doi: str
    architecture: str
    kwargs: dict[str, Any]
    min_shape: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    n_outputs: int
    scale_range: bool = True
    torchscript: bool = True
    axes: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "axes", "bcyx" if len(self.min_shape) == 2 else "bczyx")


def _kwargs(**changes: Any) -> dict[str, Any]:
    """Return the arguments as torch-em's exporter writes them: all but the classes."""
    common = {
        "final_activation": "Sigmoid",
        "gain": 2,
        "in_channels": 1,
        "postprocessing": None,
        "return_side_outputs": False,
    }
    return {**common, **changes}


ANISOTROPIC = [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]

PUBLISHED = {
    p.nickname: p
    for p in (
        Published(
            "hiding-blowfish",
            "EnhancerMitochondriaEM2D",
            "10.5281/zenodo.6406756",
            "UNet2d",
            _kwargs(depth=4, initial_features=64, out_channels=2),
            (256, 256),
            (16, 16),
            (32, 32),
            2,
        ),
        Published(
            "hiding-blowfish-v1",
            "EnhancerMitochondriaEM2D",
            "10.5281/zenodo.6406756",
            "UNet2d",
            _kwargs(depth=4, initial_features=64, out_channels=2),
            (32, 32),
            (16, 16),
            (8, 8),
            2,
        ),
        Published(
            "independent-shrimp",
            "EnhancerMitochondriaEM3D",
            "10.5281/zenodo.6811491",
            "AnisotropicUNet",
            _kwargs(
                scale_factors=ANISOTROPIC,
                initial_features=32,
                out_channels=2,
                anisotropic_kernel=False,
            ),
            (16, 128, 128),
            (8, 16, 16),
            (4, 32, 32),
            2,
        ),
        Published(
            "determined-chipmunk",
            "EM3DBoundaryEnhancer",
            "10.5281/zenodo.6808325",
            "UNet3d",
            _kwargs(depth=4, initial_features=32, out_channels=1),
            (32, 128, 128),
            (16, 16, 16),
            (8, 8, 8),
            1,
        ),
        Published(
            "amiable-crocodile",
            "EnhancerBoundaryEM2D",
            "10.5281/zenodo.8142283",
            "UNet2d",
            _kwargs(depth=4, initial_features=32, out_channels=1, norm="BatchNorm"),
            (32, 32),
            (16, 16),
            (8, 8),
            1,
            scale_range=False,
            torchscript=False,
        ),
    )
}


def published_rdf(model: Published) -> dict[str, Any]:
    """Return the RDF of a published enhancer, without its weights' checksums."""
    spatial = model.axes[2:]
    ones = [1] * len(spatial)
    weights: dict[str, Any] = {
        "pytorch_state_dict": {
            "source": "weights.pt",
            "architecture": f"unet.py:{model.architecture}",
            "architecture_sha256": _sha256(TRAP.encode()),
            "kwargs": dict(sorted(model.kwargs.items())),
            "dependencies": "conda:environment.yaml",
        }
    }
    if model.torchscript:
        weights["torchscript"] = {
            "source": "weights-torchscript.pt",
            "parent": "pytorch_state_dict",
        }
    given: dict[str, Any] = {
        "name": "input0",
        "axes": model.axes,
        "data_type": "float32",
        "data_range": ["-inf", "inf"],
        "shape": {"min": [1, 1, *model.min_shape], "step": [0, 0, *model.step]},
    }
    if model.scale_range:
        kwargs = {**SCALE_RANGE, "axes": "c" + spatial}
        given["preprocessing"] = [{"name": "scale_range", "kwargs": kwargs}]
    return {
        "format_version": "0.4.6",
        "type": "model",
        "name": model.name,
        "description": f"Prediction enhancer, {model.name}.",
        "authors": [{"name": "Some Body", "affiliation": "Some Place"}],
        "cite": [{"text": "From Shallow to Deep", "doi": "10.3389/fcomp.2022.805166"}],
        "documentation": "documentation.md",
        "license": "CC-BY-4.0",
        "covers": ["cover.jpg"],
        "tags": ["unet", "shallow2deep"],
        "timestamp": "2022-07-09T16:40:16.405612",
        "config": {"bioimageio": {"nickname": model.nickname}},
        "inputs": [given],
        "outputs": [
            {
                "name": "output0",
                "axes": model.axes,
                "data_type": "float32",
                "data_range": ["-inf", "inf"],
                "halo": [0, 0, *model.halo],
                "shape": {
                    "reference_tensor": "input0",
                    "scale": [1, float(model.n_outputs), *ones],
                    "offset": [0] * (2 + len(ones)),
                },
            }
        ],
        "test_inputs": ["test_input_0.npy"],
        "test_outputs": ["test_output_0.npy"],
        "weights": weights,
    }


def make_published(
    folder: Path, nickname: str, seed: int = 0, **overrides: Any
) -> tuple[Path, torch.nn.Module]:
    """Write the folder of one published enhancer.

    Parameters
    ----------
    folder : Path
        Where; created.
    nickname : str
        A key of `PUBLISHED`.
    seed : int
        Of the weights.
    **overrides
        Arguments of the architecture to change, such as a smaller ``initial_features``.

    Returns
    -------
    folder : Path
    network : torch.nn.Module
        Whose weights were written.
    """
    built, network = _built(nickname, seed, tuple(sorted(overrides.items())))
    shutil.copytree(built, folder)
    return folder, network


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="zoo-")


@functools.cache
def _built(
    nickname: str, seed: int, overrides: tuple[tuple[str, Any], ...]
) -> tuple[Path, torch.nn.Module]:
    """Write a published package, once per process: tracing takes a while."""
    model, changes = PUBLISHED[nickname], dict(overrides)
    rdf = published_rdf(model)
    rdf["weights"]["pytorch_state_dict"]["kwargs"].update(changes)
    network = random_network(model.architecture, {**model.kwargs, **changes}, seed)
    folder = Path(tempfile.mkdtemp(dir=_scratch().name))
    (folder / "unet.py").write_text(TRAP)
    (folder / "environment.yaml").write_text("name: torch-em-deploy\ndependencies: [pytorch]\n")
    (folder / "documentation.md").write_text(f"# {model.name}\n")
    imageio.imwrite(folder / "cover.jpg", np.full((32, 64, 3), 128, np.uint8))
    sides = [2 * step for step in model.step]
    given = np.random.default_rng(seed).random((1, 1, *sides), np.float32)
    with torch.inference_mode():
        result = network(torch.from_numpy(given)).numpy()
    np.save(folder / "test_input_0.npy", given)
    np.save(folder / "test_output_0.npy", result)
    torch.save(network.state_dict(), folder / "weights.pt")
    if model.torchscript:
        save_torchscript(network, given, folder / "weights-torchscript.pt")
    write_rdf(folder, rdf)
    return folder, network


def random_network(architecture: str, kwargs: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """Return a torch-em U-Net in eval mode whose answer depends visibly on its input."""
    torch.manual_seed(seed)
    network = getattr(torch_em, architecture)(**kwargs)
    return enliven(network)


def random_unet(seed: int = 0, **config: Any) -> UNet:
    """Return a U-Net of ours in eval mode whose answer depends visibly on its input."""
    torch.manual_seed(seed)
    return enliven(UNet(**config))


def enliven(network: Any) -> Any:
    """Give norms statistics as after training, and the logits a standard deviation of 1."""
    sides = [4 * multiple for multiple in network.multiples]
    maps = np.stack([[made_up_map(sides, seed)] * network.in_channels for seed in range(2)])
    norms = [m for m in network.modules() if getattr(m, "track_running_stats", False)]
    *_, last = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    for norm in norms:
        norm.momentum, norm.usual_momentum = 1.0, norm.momentum
    logits = []
    hook = last.register_forward_hook(lambda *args: logits.append(args[-1]))
    with torch.no_grad():
        network.train()(torch.from_numpy(maps))
        scale = 1 / logits[0].std()
        last.bias.copy_((last.bias - logits[0].mean()) * scale)
        last.weight.mul_(scale)
    hook.remove()
    for norm in norms:
        norm.momentum = norm.usual_momentum
    return network.eval()


def save_torchscript(network: torch.nn.Module, given: np.ndarray, path: Path) -> None:
    """Trace a network as the published ones were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.from_numpy(given)).save(str(path))


def write_rdf(folder: Path, rdf: dict[str, Any], *, checksums: bool = True) -> None:
    """Write an RDF, with the checksums of the weights that are there."""
    for entry in rdf["weights"].values():
        path = folder / entry["source"]
        if checksums and path.exists():
            entry["sha256"] = _sha256(path.read_bytes())
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))


def read_rdf(folder: Path) -> dict[str, Any]:
    """Return the RDF of a folder."""
    return yaml.safe_load((folder / "rdf.yaml").read_text())


def change_rdf(folder: Path, **fields: Any) -> None:
    """Replace top-level fields of a folder's RDF; None removes one."""
    rdf = {**read_rdf(folder), **fields}
    rdf = {key: value for key, value in rdf.items() if value is not None}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))


def make_own(folder: Path, network: UNet | None = None, **info: Any) -> Path:
    """Write a package of ours, by default of a small 2D U-Net, without ONNX."""
    network = network or random_unet(width=4, depth=2)
    names = ("foreground", "boundary")[: network.config["out_channels"]]
    sides = (4 * network.multiple,) * network.config["ndim"]
    shape = (network.config["in_channels"], *sides)
    given = np.random.default_rng(0).random(shape, np.float32)
    fields = {
        "id": folder.name,
        "name": "A small enhancer",
        "description": "Random weights.",
        "output_names": names,
        "structure": "nuclei",
        "object_diameter": 20.0,
        "feature_sets": ("ilastik",),
        "training": {"steps": 3},
    }
    onnx = info.pop("onnx", False)
    return write_package(network, PackageInfo(**{**fields, **info}), given, folder, onnx=onnx)


def zip_folder(folder: Path, path: Path, inside: str = "") -> Path:
    """Zip a package; `inside` names a folder that holds it in the zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
