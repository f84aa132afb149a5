"""Opening a model: find it, read its card, load the weights that deserve most trust."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.modelzoo.network import OnnxRunner, Runner, TorchRunner, choose_runner
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.modelzoo.probe import check_shape, probe_reach, probe_shape, settle_shape
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.modelzoo.source import find_package
from napari_cellda.core.modelzoo.weights import is_known, load_network, weights_path
from napari_cellda.core.nets.packable import Packable
from napari_cellda.core.nets.receptive_field import architecture_reach

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from napari_cellda.core.modelzoo.card import ModelCard, WeightsEntry


MOST_CONTEXT = 256
"""Pixels around a tile, at most, that are for a network whose reach has no end."""


@dataclass(frozen=True)
class Model:
    """An opened model: what it says about itself, and how to run it."""

    card: ModelCard
    runner: Runner
    """Probabilities (N, K, [Z], Y, X) of (N, C, [Z], Y, X); safe to call from any thread."""
    network: torch.nn.Module | None
    """The torch network, for training on; None when only ONNX or TorchScript could be loaded."""
    sha256: str
    """Of the weights in use."""


def open_model(source: str | Path, *, trusted: Collection[str] = ()) -> Model:
    """Open a model package.

    Parameters
    ----------
    source : str or Path
        A bundled or imported id, a folder, a zip file, an rdf.yaml, or a bioimage.io id, nickname,
        DOI or address.
    trusted : collection of str
        SHA-256 of TorchScript programs that somebody agreed to run.

    Returns
    -------
    Model

    Raises
    ------
    ProgramRefused
        If it is a TorchScript program from elsewhere that is not among the trusted.
    UserError
        If the package cannot be found, read or run; one plain sentence.

    Notes
    -----
    Weights are tried in the order of the trust they deserve: the state dict of an architecture
    that is built in (data only), ONNX (a graph of known operations), TorchScript (a program). A
    package's Python file is never run.
    """
    folder = find_package(source)
    card = read_card(folder)
    problems: list[UserError] = []
    for open_entry, entries in _by_trust(card):
        for entry in entries:
            try:
                return open_entry(card, entry, trusted)
            except UserError as error:
                problems.append(error)
    if problems:
        # A refusal first: it is what the user can mend by a word.
        raise next((p for p in problems if isinstance(p, ProgramRefused)), problems[0])
    formats = ", ".join(entry.format for entry in card.weights) or "none"
    raise UserError(
        f"{card.name} has no weights that can be used here (it has {formats}): a state dict of a "
        "known architecture, ONNX or TorchScript is expected."
    )


_Opener = Callable[["ModelCard", "WeightsEntry", Collection[str]], Model]


def _by_trust(card: ModelCard) -> list[tuple[_Opener, list[WeightsEntry]]]:
    def of(name: str) -> list[WeightsEntry]:
        return [entry for entry in card.weights if entry.format == name]

    return [
        (_open_state_dict, [entry for entry in card.weights if is_known(entry)]),
        (_open_onnx, of("onnx")),
        (_open_torchscript, of("torchscript")),
        (_refuse_architecture, [e for e in of("pytorch_state_dict") if not is_known(e)]),
    ]


def _is_bundled(folder: Path | None) -> bool:
    return folder is not None and bundled_folder(folder.name) == folder


def _open_state_dict(card: ModelCard, entry: WeightsEntry, trusted: Collection[str]) -> Model:
    path = weights_path(card, entry)
    network = load_network(card, entry, path)
    card = replace(card, weight_format=entry.format)
    if isinstance(network, Packable):
        # The RDF's minimum leaves room for a halo; this network takes a single cell.
        cells = 1 if network.tiles_exactly else 2  # a norm needs more than one value
        least = tuple(cells * multiple for multiple in network.multiples)
        halo = tuple(max(asked, min(network.context, MOST_CONTEXT)) for asked in card.halo)
        card = replace(card, min_shape=least, step=network.multiples, halo=halo)
    if card.receptive_field is None:
        card = replace(card, receptive_field=architecture_reach(network))
    card = replace(card, tiles_exactly=bool(network.tiles_exactly))
    runner = choose_runner(network, card, _onnx_twin(card))
    check_shape(runner, card, probe_shape(card))
    return Model(card, runner, network, entry.sha256 or file_sha256(path))


def _onnx_twin(card: ModelCard) -> Path | None:
    """Return the ONNX file that a package has beside its state dict, if it is there and intact."""
    try:
        return next((weights_path(card, e) for e in card.weights if e.format == "onnx"), None)
    except UserError:
        return None


def _open_onnx(card: ModelCard, entry: WeightsEntry, trusted: Collection[str]) -> Model:
    path = weights_path(card, entry)
    try:
        runner = OnnxRunner(path, sigmoid=card.sigmoid_outside)
    except Exception as error:  # onnxruntime raises its own kinds, which are not exported
        raise UserError(
            f"{entry.source} of {card.name} is no ONNX file that can be run."
        ) from error
    return _measured(replace(card, weight_format=entry.format), runner, path)


def _open_torchscript(card: ModelCard, entry: WeightsEntry, trusted: Collection[str]) -> Model:
    path = weights_path(card, entry)
    digest = file_sha256(path)
    if digest not in trusted and not _is_bundled(card.folder):
        raise ProgramRefused(card.name, path, digest)
    runner = TorchRunner(_load_torchscript(card, path), sigmoid=card.sigmoid_outside)
    return _measured(replace(card, weight_format=entry.format), runner, path)


def _load_torchscript(card: ModelCard, path: Path) -> torch.nn.Module:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated")
        try:
            network: torch.nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location="cpu"
            )
        except Exception as error:  # a damaged file raises many kinds
            raise UserError(f"{path.name} of {card.name} is no TorchScript file.") from error
    return network.eval()


def _refuse_architecture(card: ModelCard, entry: WeightsEntry, trusted: Collection[str]) -> Model:
    named = entry.architecture or "an unnamed class"
    raise UserError(
        f"{card.name} has only a state dict of {named}, which is not built in; its own Python file "
        "is never run. A package with ONNX or TorchScript weights can be used."
    )


def _measured(card: ModelCard, runner: Runner, path: Path) -> Model:
    """Find out by running what an unknown network takes and how far it looks."""
    card = settle_shape(runner, card)
    reach = card.receptive_field or probe_reach(runner, card)
    card = replace(card, receptive_field=reach, tiles_exactly=reach is not None)
    return Model(card, runner, None, file_sha256(path))
