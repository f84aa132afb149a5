"""Reading a bioimage.io model description (rdf.yaml), formats 0.4 and 0.5, without running it.

The text is read here rather than by bioimageio.spec, which takes a second to import, wants every
linked file at hand and refuses some published files over details that do not matter for running
them. `validation_summary` (in `validate`) still shows its verdict.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, cast

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.card import ModelCard, WeightsEntry
from napari_cellda.core.modelzoo.rdf_tensors import read_tensors
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.plain_yaml import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.images import Channels

MAX_RDF_BYTES = 2_000_000
MAX_RDF_NODES = 100_000


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
    raise UserError(f"{folder.resolve().name} is no model package: it holds no rdf.yaml.")


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
    rdf = load_rdf(path)
    try:
        version = str(rdf.get("format_version") or "none")
        if rdf.get("type", "model") != "model":
            raise UserError(f"{path.name} describes a {rdf['type']}, not a model.")
        if not re.match(r"0\.[45](\.|$)", version):
            raise UserError(f"{path.name} has format version {version}; 0.4 and 0.5 can be read.")
        return _card(rdf, folder, version)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path.name} is not a complete model description: {type(error).__name__} {error}."
        ) from error


def load_rdf(path: Path) -> dict[str, Any]:
    """Read the text of a description.

    Raises
    ------
    UserError
        If it is no YAML mapping, or larger than any description.
    """
    if path.stat().st_size > MAX_RDF_BYTES:
        raise UserError(f"{path.name} is larger than any model description, and was not read.")
    try:
        rdf = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path.name} is no valid YAML: {error}.") from error
    if not _is_small(rdf):
        raise UserError(f"{path.name} unfolds to more than any model description, and is refused.")
    if not isinstance(rdf, dict):
        raise UserError(f"{path.name} is no model description: it holds no named fields.")
    return rdf


def _is_small(value: Any) -> bool:
    """Whether a document stays small once its references to itself are followed."""
    pending, seen = [value], 0
    while pending:
        seen += 1
        if seen > MAX_RDF_NODES:
            return False
        node = pending.pop()
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list | tuple | set):
            pending += node
    return True


def _card(rdf: dict[str, Any], folder: Path, version: str) -> ModelCard:
    tensors = read_tensors(rdf, version)
    config = rdf.get("config") or {}
    own = config.get("cellda") or {}
    structure = str(own.get("structure") or known_structure(f"{rdf['name']} {_description(rdf)}"))
    named = own.get("output_names") or tensors.pop("channel_names", None) or ()
    tensors.pop("channel_names", None)
    names = _output_names([str(name) for name in named], tensors["n_outputs"], structure)
    return ModelCard(
        id=_id(rdf, folder),
        name=str(rdf["name"]),
        description=_description(rdf),
        authors=tuple(_name(author) for author in rdf.get("authors") or ()),
        licence=str(rdf.get("license") or ""),
        attribution="\n".join(filter(None, map(_citation, rdf.get("cite") or ()))),
        cover=package_file(folder, (rdf.get("covers") or [None])[0]),
        documentation=package_file(folder, rdf.get("documentation")),
        folder=folder,
        format_version=version,
        kind=str(own.get("kind", "enhancer")),
        output_kind=str(own.get("output_kind", "foreground")),
        instance_step=dict(own.get("instance_step") or {}),
        output_names=names,
        warnings=_warnings(rdf, own, tensors),
        receptive_field=_receptive_field(rdf, own, len(tensors["step"])),
        weights=tuple(
            _entry(name, entry) for name, entry in (rdf["weights"] or {}).items() if entry
        ),
        structure=structure,
        object_diameter=_object_diameter(rdf, own),
        feature_sets=tuple(str(name) for name in own.get("feature_sets") or ()),
        channels=_channels(own.get("channels")),
        training=dict(own.get("training") or {}),
        **tensors,
    )


def _channels(value: Any) -> Channels | None:
    """Read which channels of an image a network takes: a word, or numbers from 0."""
    if value is None or value in ("grey", "all"):
        return cast("Channels | None", value)
    numbers = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    if not numbers or not value or len(set(value)) < len(value):
        raise UserError(
            f"The model's channels are {value!r}; 'grey', 'all' or different numbers from 0 are "
            "expected."
        )
    return tuple(value)


def _receptive_field(rdf: dict[str, Any], own: dict[str, Any], ndim: int) -> tuple[int, ...] | None:
    field = own.get("receptive_field")
    if not field:
        return None
    reach = tuple(int(n) for n in field)
    if len(reach) != ndim or min(reach) < 0:
        raise UserError(
            f"{rdf['name']} has a receptive field of {field}; {ndim} numbers of pixels are "
            "expected."
        )
    return reach


def _object_diameter(rdf: dict[str, Any], own: dict[str, Any]) -> float | None:
    diameter = own.get("object_diameter")
    if not diameter:
        return None
    if not 0 < float(diameter) < math.inf:
        raise UserError(
            f"{rdf['name']} has an object diameter of {diameter}; pixels above 0 are expected."
        )
    return float(diameter)


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


def package_file(folder: Path, source: Any) -> Path | None:
    """Return a file of the package; None for links, and for what is not there."""
    name = source.get("source") if isinstance(source, dict) else source
    if not isinstance(name, str) or "://" in name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or a loop of links
        return None


def _description(rdf: dict[str, Any]) -> str:
    return str(rdf.get("description") or "")


def _output_names(named: list[str], n_outputs: int, structure: str) -> tuple[str, ...]:
    """Return one name per output: the package's if they tell anything, else the usual ones."""
    if len(named) == n_outputs and not all(name.startswith("channel") for name in named):
        return tuple(named)
    if n_outputs == 1 and structure == "boundaries":
        return ("boundary",)
    others = (f"output {i}" for i in range(3, n_outputs + 1))
    return ("foreground", "boundary", *others)[:n_outputs]


def _warnings(rdf: dict[str, Any], own: dict[str, Any], tensors: dict[str, Any]) -> tuple[str, ...]:
    """Say in plain sentences what is odd about a package."""
    found = []
    words = f"{rdf['name']} {_description(rdf)} {rdf.get('tags')}".lower()
    if not own and "enhancer" not in words and "shallow2deep" not in words:
        found.append(
            "This package does not call itself a prediction enhancer: it may expect images, not "
            "maps of a forest."
        )
    for step in tensors["preprocessing"]:
        if step["name"] not in ("scale_range", "ensure_dtype"):
            found.append(f"The package asks for {step['name']}, which is not applied to maps.")
    if "6406757" in str(rdf.get("id")):
        found.append(
            "This first version was trained on maps of boundaries; a later one takes maps of "
            "mitochondria."
        )
    return tuple(found)
