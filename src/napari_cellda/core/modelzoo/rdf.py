"""Reading a bioimage.io model description (rdf.yaml), formats 0.4 and 0.5, without running it.

The text is read here rather than by bioimageio.spec, which takes a second to import, wants every
linked file at hand and refuses some published files over details that do not matter for running
them. `validation_summary` (in `validate`) still shows its verdict.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.card import ModelCard, WeightsEntry

if TYPE_CHECKING:
    from pathlib import Path

MAX_RDF_BYTES = 2_000_000
_AXES = {"bcyx", "bczyx"}
_LONG_AXES = {"batch": "b", "channel": "c"}


def is_rdf_name(name: str) -> bool:
    """Whether bioimage.io calls a file of this name a description."""
    plain = name.lower()
    return plain in ("rdf.yaml", "bioimageio.yaml", "model.yaml") or plain.endswith(
        (".rdf.yaml", ".bioimageio.yaml", ".model.yaml")
    )


def find_rdf(folder: Path) -> Path:
    """Return the description file in a package's folder.

    Raises
    ------
    UserError
        If there is none.
    """
    found = [path for path in folder.iterdir() if is_rdf_name(path.name) and path.is_file()]
    if found:
        return min(found, key=lambda path: (path.name != "rdf.yaml", path.name))
    raise UserError(f"{folder.name} is no model package: it holds no rdf.yaml.")


def read_card(folder: Path) -> ModelCard:
    """Read the card of an unpacked package.

    Parameters
    ----------
    folder : Path
        Holds ``rdf.yaml`` and the files it names.

    Returns
    -------
    ModelCard

    Raises
    ------
    UserError
        If the description is missing, unreadable, of another kind or format, or describes a
        model with other than one input and one output of axes ``bcyx`` or ``bczyx``.
    """
    path = find_rdf(folder)
    rdf = _load(path)
    version = str(rdf.get("format_version", ""))
    if rdf.get("type", "model") != "model":
        raise UserError(f"{path.name} describes a {rdf['type']}, not a model.")
    if not re.match(r"0\.[45](\.|$)", version):
        found = version or "none"
        raise UserError(f"{path.name} has format version {found}; 0.4 and 0.5 can be read.")
    try:
        return _card(rdf, folder, version)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path.name} is not a complete model description: {type(error).__name__} {error}."
        ) from error


def _load(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_RDF_BYTES:
        raise UserError(f"{path.name} is larger than any model description, and was not read.")
    try:
        rdf = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path.name} is no valid YAML: {reason}.") from error
    if not isinstance(rdf, dict):
        raise UserError(f"{path.name} is no model description: it holds no named fields.")
    return rdf


def _card(rdf: dict[str, Any], folder: Path, version: str) -> ModelCard:
    read_tensors = _tensors_04 if version.startswith("0.4") else _tensors_05
    tensors = read_tensors(*_one_input_one_output(rdf))
    config = rdf.get("config") or {}
    own = config.get("cellda") or {}
    names = tuple(own.get("output_names") or tensors.pop("channel_names") or ())
    tensors.pop("channel_names", None)
    if len(names) != tensors["n_outputs"]:
        names = _default_names(tensors["n_outputs"])
    field = own.get("receptive_field")
    return ModelCard(
        id=_id(rdf, folder),
        name=str(rdf["name"]),
        description=str(rdf.get("description") or ""),
        authors=tuple(_name(author) for author in rdf.get("authors") or ()),
        licence=str(rdf.get("license") or ""),
        attribution="\n".join(filter(None, map(_citation, rdf.get("cite") or ()))),
        cover=_file(folder, (rdf.get("covers") or [None])[0]),
        documentation=_file(folder, rdf.get("documentation")),
        folder=folder,
        format_version=version,
        kind=str(own.get("kind", "enhancer")),
        output_names=names,
        receptive_field=tuple(int(n) for n in field) if field else None,
        weights=tuple(
            _entry(name, entry) for name, entry in (rdf["weights"] or {}).items() if entry
        ),
        structure=str(own.get("structure") or ""),
        object_diameter=float(own["object_diameter"]) if own.get("object_diameter") else None,
        feature_sets=tuple(str(name) for name in own.get("feature_sets") or ()),
        training=dict(own.get("training") or {}),
        **tensors,
    )


def _one_input_one_output(rdf: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    for side in ("inputs", "outputs"):
        if len(rdf[side]) != 1:
            raise UserError(
                f"{rdf['name']} has {len(rdf[side])} {side}; one input and one output are expected."
            )
    return rdf["inputs"][0], rdf["outputs"][0]


def _tensors_04(given: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    axes = "".join(given["axes"])
    _check_axes(axes, "".join(result["axes"]))
    shape = given["shape"]
    least = list(shape["min"] if isinstance(shape, dict) else shape)
    step = list(shape["step"]) if isinstance(shape, dict) else [0] * len(axes)
    return {
        "input_axes": axes,
        "n_inputs": int(least[1]),
        "n_outputs": _n_outputs_04(result["shape"], int(least[1])),
        "channel_names": None,
        "min_shape": tuple(int(n) for n in least[2:]),
        "step": tuple(int(n) for n in step[2:]),
        "halo": tuple(int(n) for n in (result.get("halo") or [0] * len(axes))[2:]),
        "preprocessing": _processing(given.get("preprocessing"), "name"),
        "sigmoid_outside": _has_sigmoid(_processing(result.get("postprocessing"), "name")),
    }


def _n_outputs_04(shape: Any, n_inputs: int) -> int:
    """Return the output's channels: written out, or as input * scale + 2 * offset."""
    if not isinstance(shape, dict):
        return int(shape[1])
    scale = shape["scale"][1]
    scaled = 0.0 if scale is None else n_inputs * float(scale)
    return round(scaled + 2 * float(shape["offset"][1]))


def _tensors_05(given: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    axes = _short_axes(given["axes"])
    _check_axes(axes, _short_axes(result["axes"]))
    spatial = [axis["size"] for axis in given["axes"][2:]]
    parametrised = [isinstance(size, dict) for size in spatial]
    pairs = list(zip(spatial, parametrised, strict=True))
    return {
        "input_axes": axes,
        "n_inputs": len(given["axes"][1]["channel_names"]),
        "n_outputs": len(result["axes"][1]["channel_names"]),
        "channel_names": tuple(str(n) for n in result["axes"][1]["channel_names"]),
        "min_shape": tuple(int(size["min"] if is_range else size) for size, is_range in pairs),
        "step": tuple(int(size["step"]) if is_range else 0 for size, is_range in pairs),
        "halo": tuple(int(axis.get("halo") or 0) for axis in result["axes"][2:]),
        "preprocessing": _processing(given.get("preprocessing"), "id"),
        "sigmoid_outside": _has_sigmoid(_processing(result.get("postprocessing"), "id")),
    }


def _short_axes(axes: list[dict[str, Any]]) -> str:
    return "".join(_LONG_AXES.get(axis["type"], str(axis.get("id", "?"))) for axis in axes)


def _check_axes(given: str, result: str) -> None:
    if given not in _AXES or result != given:
        raise UserError(
            f"The model's axes are {given} to {result}; bcyx to bcyx or bczyx to bczyx can be used."
        )


def _processing(steps: list[dict[str, Any]] | None, key: str) -> tuple[dict[str, Any], ...]:
    """Return [{"name": ..., "kwargs": {...}}], whatever the format calls them."""
    return tuple(
        {"name": str(step[key]), "kwargs": dict(step.get("kwargs") or {})} for step in steps or ()
    )


def _has_sigmoid(steps: tuple[dict[str, Any], ...]) -> bool:
    return any(step["name"] == "sigmoid" for step in steps)


def _entry(name: str, entry: dict[str, Any]) -> WeightsEntry:
    """Read one weights entry; 0.4 writes ``file.py:Class`` or ``package.Class``, 0.5 a mapping."""
    architecture: Any = entry.get("architecture") or ""
    kwargs = entry.get("kwargs")
    if isinstance(architecture, dict):
        kwargs = architecture.get("kwargs")
        origin = str(architecture.get("import_from") or architecture.get("source") or "")
        callable_name = str(architecture.get("callable") or "")
    else:
        origin, _, callable_name = re.sub(r":+", ":", str(architecture)).rpartition(
            ":" if ":" in str(architecture) else "."
        )
    return WeightsEntry(
        format=str(name),
        source=str(entry["source"]),
        sha256=str(entry["sha256"]).lower() if entry.get("sha256") else None,
        architecture=callable_name,
        import_from=origin,
        kwargs=dict(kwargs or {}),
    )


def _id(rdf: dict[str, Any], folder: Path) -> str:
    zoo = (rdf.get("config") or {}).get("bioimageio") or {}
    return str(rdf.get("id") or zoo.get("nickname") or folder.name)


def _name(author: Any) -> str:
    return str(author.get("name", "")) if isinstance(author, dict) else str(author)


def _citation(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    link = entry.get("doi") or entry.get("url") or ""
    return " ".join(filter(None, [str(entry.get("text") or ""), str(link)]))


def _file(folder: Path, source: Any) -> Path | None:
    """Return a file of the package; None for links, and for what is not there."""
    name = source.get("source") if isinstance(source, dict) else source
    if not isinstance(name, str) or "://" in name:
        return None
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _default_names(n: int) -> tuple[str, ...]:
    return ("foreground", "boundary", *(f"output {i}" for i in range(3, n + 1)))[:n]
