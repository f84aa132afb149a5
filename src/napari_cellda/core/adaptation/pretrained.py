"""Beginning with a network that was trained before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from napari_cellda.core.nets.packable import Packable

KINDS = {
    "Segmenter": "one U-Net",
    "TwinSegmenters": "two U-Nets that differ",
    "StyledSegmenter": "a U-Net behind a change of style",
    "CksPrincipal": "a network that finds objects",
}
"""Architectures in words."""
WRAPPED = {
    "m.": "Of the two networks in '{source}' the first one is taken.",
    "segmenter.": "Of '{source}' the segmentation is taken, without the change of style before it.",
}
"""Where a segmenter lies inside another network, and what is told when it is taken out."""
BUILD = {"norm": "batch", "up": "bilinear", "growth": None}
"""How a segmenter is built unless told; no settings, so a network takes them over."""
SETTINGS = (
    "width", "depth", "widths", "depths", "pyramid", "head", "features", "drawing", "window",
)  # fmt: skip
IMAGES = {"in_channels": "channels", "n_classes": "classes"}
"""These two: what of a configuration decides the shapes of weights; by settings, by the images."""


@dataclass(frozen=True)
class Trained:
    """A network that was trained before."""

    source: Path
    """Where it was read from."""
    state: Mapping[str, torch.Tensor]
    architecture: str = ""
    """One of `modelzoo.weights.ARCHITECTURES`; "" for weights alone."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The constructor's arguments; empty for weights alone."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user about what was taken of it; `load_pretrained` adds them."""


def read_trained(source: Path) -> Trained:
    """Read a network, to begin with it.

    Parameters
    ----------
    source : Path
        A run's folder, a package, or a checkpoint of weights.

    Raises
    ------
    UserError
        If it is damaged, would run code, has no state dict, or is a checkpoint in a run's folder:
        the run's model is what it came to.
    """
    from napari_cellda.core.jobs import Run
    from napari_cellda.core.modelzoo.rdf import read_card
    from napari_cellda.core.modelzoo.source import find_package
    from napari_cellda.core.modelzoo.weights import load_state, weights_path
    from napari_cellda.core.runs.folder import CHECKPOINTS

    run = source.parent.parent
    if source.parent.name == CHECKPOINTS and (run / "run.yaml").is_file():
        raise UserError(f"'{source}' is to resume a run from; give the run's folder, '{run}'.")
    if source.is_file() and source.suffix in (".pt", ".pth", ".safetensors"):
        return Trained(source, load_state(source))
    folder = Run(source).finished_model() if (source / "run.yaml").is_file() else source
    card = read_card(find_package(folder))
    for entry in card.weights:
        if entry.format == "pytorch_state_dict":
            state = load_state(weights_path(card, entry))
            return Trained(source, state, entry.architecture, dict(entry.kwargs))
    raise UserError(f"'{source}' has no state dict, from which alone a training can begin.")


def load_pretrained(network: Packable, source: Path | Trained | None) -> None:
    """Load whatever fits of a trained network into a new one, in place.

    A segmenter is taken out of a network that wraps it, and built like it where width and depth
    are the same.

    Parameters
    ----------
    network : Packable
        Before an optimiser has got its parameters, which may be others afterwards.
    source : Path, Trained or None
        None leaves the network as it is.

    Raises
    ------
    UserError
        As `read_trained` does, and if less than half of the network's weights fit.
    """
    from napari_cellda.core.nets.segmenter import Segmenter

    if source is None:
        return
    trained = source if isinstance(source, Trained) else read_trained(source)
    if isinstance(network, Segmenter):
        trained = _unwrapped(trained)
        if all(trained.config.get(key) == network.config[key] for key in ("width", "depth")):
            network.rebuild(**{key: trained.config.get(key, BUILD[key]) for key in BUILD})
    mine = network.state_dict()
    fitting = {
        key: value
        for key, value in trained.state.items()
        if key in mine and mine[key].shape == value.shape
    }
    loaded, total = (sum(v.numel() for v in state.values()) for state in (fitting, mine))
    if loaded < total / 2:
        raise UserError(_refusal(trained, network, loaded / total))
    network.load_state_dict({**mine, **fitting})
    if not fitting.keys() == mine.keys() == trained.state.keys():
        trained.notes.append(_shortfall(trained, network, loaded / total))


def _unwrapped(trained: Trained) -> Trained:
    """Return the segmenter that lies inside another network, if that is so."""
    for prefix, note in WRAPPED.items():
        inner = {
            key.removeprefix(prefix): value
            for key, value in trained.state.items()
            if key.startswith(f"{prefix}unet.")
        }
        if inner:
            trained.notes.append(note.format(source=trained.source))
            return replace(trained, state=inner, architecture="Segmenter")
    return trained


def _refusal(trained: Trained, network: Packable, share: float) -> str:
    kind = type(network).__name__
    if trained.architecture not in ("", kind):
        theirs, ours = (KINDS.get(name, f"a {name}") for name in (trained.architecture, kind))
        return (
            f"'{trained.source}' holds {theirs}, and what is trained here is {ours}; choose the "
            "run or package of a method that trains the same."
        )
    sentence = f"'{trained.source}' holds another network: only {share:.0%} of the weights fit"
    if not trained.config:
        return f"{sentence}; choose one of the same method, width and depth."
    return f"{sentence} ({_compared(trained, network)}); {_advice(trained, network)}."


def _shortfall(trained: Trained, network: Packable, share: float) -> str:
    settings = _differing(trained, network, SETTINGS)
    why = f" ({_compared(trained, network)})" if trained.config else ""
    more = f"; with {_assigned(trained, settings)} it would be whole" if settings else ""
    # Not rounded up: 100 % would be all.
    return (
        f"'{trained.source}' is taken only in part{why}: {int(100 * share)}% of the weights that "
        f"are trained here come from it{more}."
    )


def _compared(trained: Trained, network: Packable) -> str:
    """Name what both sides are, where they differ; of U-Nets always width and depth."""
    names: list[str] = [name for name in ("width", "depth") if name in network.config]
    names += [n for n in _differing(trained, network, (*SETTINGS, *IMAGES)) if n not in names]
    theirs, ours = (
        ", ".join(f"{IMAGES.get(name, name)} {config.get(name)}" for name in names)
        for config in (trained.config, network.config)
    )
    return f"it has {theirs}; the network here {ours}"


def _advice(trained: Trained, network: Packable) -> str:
    settings = _differing(trained, network, SETTINGS)
    if settings:
        return f"set {_assigned(trained, settings)}, or begin with another"
    return "begin with another"


def _assigned(trained: Trained, settings: Iterable[str]) -> str:
    return " and ".join(f"{name}={trained.config[name]}" for name in settings)


def _differing(trained: Trained, network: Packable, names: Iterable[str]) -> list[str]:
    theirs, ours = trained.config, network.config
    return [n for n in names if n in ours and n in theirs and ours[n] != theirs[n]]
