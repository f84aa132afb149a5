"""Describing a network of ours in the terms of bioimage.io's format 0.5."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field

from napari_cellda.core.images.image import Channels
from napari_cellda.core.images.normalisation import Normalisation
from napari_cellda.core.modelzoo.onnx_export import OPSET
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.modelzoo.preprocessing import Scaling, describe_scaling
from napari_cellda.core.nets.receptive_field import architecture_reach
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from napari_cellda.core.nets.packable import Packable


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
    """(text, DOI or web address) of methods and of every data set it was trained on."""
    documentation: str = ""
    """Markdown; provenance and limits."""
    tags: tuple[str, ...] = ()
    kind: str = "enhancer"
    """``"enhancer"`` takes a forest map, ``"network"`` an image."""
    output_kind: Literal["foreground", "classes", "instances"] = "foreground"
    """See `ModelCard.output_kind`."""
    scaling: Scaling | None = None
    """How images are scaled before the network; None: not at all."""
    normalisation: Normalisation | None = None
    """The numbers, for the scaling "dataset"."""
    instance_step: dict[str, Any] = Field(default_factory=dict)
    """Settings of the step that makes objects of dense maps."""
    output_names: tuple[str, ...] = ("foreground",)
    input_name: str = "forest_map"
    channels: Channels | None = None
    """Of an image, those that a network was trained on; None is not recorded."""
    input_range: tuple[float | None, float | None] = (0.0, 1.0)
    structure: str = ""
    """What the foreground is, e.g. ``"nuclei"``."""
    object_diameter: float | None = Field(None, gt=0)
    """Equivalent diameter of the objects it was trained on, in pixels."""
    feature_sets: tuple[str, ...] = ()
    """Feature sets of the forests whose maps it was trained on."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Anything else worth keeping; plain YAML values only."""


def describe(parts: Path, network: Packable, info: PackageInfo) -> dict[str, Any]:
    """Describe a network.

    Parameters
    ----------
    parts : Path
        Folder with the files of the package, under their own names.
    network : Packable
        In eval mode, on the CPU.
    info : PackageInfo

    Returns
    -------
    dict
        The content of ``rdf.yaml``.

    Raises
    ------
    pydantic.ValidationError
        If it breaks bioimage.io's rules.
    """
    from bioimageio.spec import ValidationContext, dump_description
    from bioimageio.spec.model import v0_5 as spec

    reach = architecture_reach(network)
    around = reach or (network.context,) * len(network.multiples)
    # bioimageio.core pads whole images by the halo, before it measures how to scale them: of a
    # network that takes images it would give other numbers than `predict`.
    halo = (0,) * len(network.multiples)
    if info.kind == "enhancer":
        halo = _rdf_halo(parts, network.multiple, around)
    with ValidationContext(perform_io_checks=False, root=parts):
        description = spec.ModelDescr(
            id=spec.ModelId(info.id),
            name=info.name,
            description=info.description,
            authors=[spec.Author(name=author) for author in info.authors],
            license=spec.LicenseId(info.licence),
            cite=[_cite(text, reference) for text, reference in info.citations],
            tags=list(info.tags),
            covers=[_file(parts / "cover.png")],
            documentation=_file(parts / "README.md"),
            inputs=[_input(parts, info, network, halo)],
            outputs=[_output(parts, info, network, halo)],
            weights=_weights(parts, network),
            config=spec.Config.model_validate({"cellda": _own_config(info, reach)}),
        )
        return dict(dump_description(description))


def _file(path: Path) -> Any:
    from bioimageio.spec.common import FileDescr, RelativeFilePath, Sha256

    return FileDescr(source=RelativeFilePath(Path(path.name)), sha256=Sha256(file_sha256(path)))


def _rdf_halo(parts: Path, multiple: int, reach: tuple[int, ...]) -> tuple[int, ...]:
    """Return the halo for other programs: the receptive field, as far as the test input allows.

    The format asks for blocks larger than two halos, the test input included.
    """
    sides = np.load(parts / "test_input.npy", mmap_mode="r").shape[2:]
    return tuple(
        min(-(-w // multiple), (side // multiple - 1) // 2) * multiple
        for w, side in zip(reach, sides, strict=True)
    )


def _cite(text: str, reference: str) -> Any:
    """Return an entry with a DOI or, for what starts otherwise, a web address."""
    from bioimageio.spec.model import v0_5 as spec

    if reference.startswith("10."):
        return spec.CiteEntry(text=text, doi=spec.Doi(reference))
    return spec.CiteEntry(text=text, url=spec.HttpUrl(reference))


def _input(parts: Path, info: PackageInfo, network: Packable, halo: tuple[int, ...]) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    n_inputs = network.in_channels
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
        preprocessing=_preprocessing(info),
    )


def _preprocessing(info: PackageInfo) -> list[Any]:
    if info.scaling is None:
        return []
    normalisation = info.normalisation or Normalisation(offset=(0.0,), factor=(1.0,))
    return [
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        describe_scaling(info.scaling, normalisation),
    ]


def _output(parts: Path, info: PackageInfo, network: Packable, halo: tuple[int, ...]) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    axes = [
        _output_axis(axis, margin) for axis, margin in zip("zyx"[-len(halo) :], halo, strict=True)
    ]
    return spec.OutputTensorDescr(
        id=spec.TensorId("output"),
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=list(info.output_names)), *axes],
        test_tensor=_file(parts / "test_output.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        postprocessing=[spec.SigmoidDescr()] if network.gives_logits else [],
    )


def _output_axis(axis: str, halo: int) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    name = spec.AxisId(axis)
    size = spec.SizeReference(tensor_id=spec.TensorId("input"), axis_id=name)
    if not halo:
        return spec.SpaceOutputAxis(id=name, size=size)
    return spec.SpaceOutputAxisWithHalo(id=name, size=size, halo=halo)


def _weights(parts: Path, network: Packable) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    state_file = _file(parts / "weights.pt")
    state = spec.PytorchStateDictWeightsDescr(
        source=state_file.source,
        sha256=state_file.sha256,
        architecture=spec.ArchitectureFromLibraryDescr(
            callable=type(network).__name__,
            import_from=type(network).__module__,
            kwargs=dict(network.config),
        ),
        pytorch_version=spec.Version(torch.__version__.split("+")[0]),
    )
    if not (parts / "weights.onnx").exists():
        return spec.WeightsDescr(pytorch_state_dict=state)
    onnx_file = _file(parts / "weights.onnx")
    onnx = spec.OnnxWeightsDescr(
        source=onnx_file.source,
        sha256=onnx_file.sha256,
        parent="pytorch_state_dict",
        opset_version=OPSET,
    )
    return spec.WeightsDescr(pytorch_state_dict=state, onnx=onnx)


def _own_config(info: PackageInfo, reach: tuple[int, ...] | None) -> dict[str, Any]:
    own = info.model_dump(
        mode="json",
        include={
            "kind",
            "output_kind",
            "output_names",
            "structure",
            "object_diameter",
            "feature_sets",
        },
    )
    own["training"] = _plain(info.training)
    if info.channels is not None:
        own["channels"] = _plain(info.channels)
    if info.instance_step:
        own["instance_step"] = _plain(info.instance_step)
    return {**own, "receptive_field": None if reach is None else list(reach)}


def _plain(value: Any) -> Any:
    """Return a value as YAML can hold it: NumPy's numbers and arrays become Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
