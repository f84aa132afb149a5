"""What a model package says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.images import Channels


@dataclass(frozen=True)
class WeightsEntry:
    """One set of weights of a package."""

    format: str
    """``"pytorch_state_dict"``, ``"onnx"`` or ``"torchscript"``; others are never loaded."""
    source: str
    """File name inside the package."""
    sha256: str | None = None
    architecture: str = ""
    """Name of the class that a state dict belongs to; never imported, only compared with ours."""
    import_from: str = ""
    """Module or source file that the architecture is said to come from; "" when not given."""
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """A model's description, read from its RDF; spatial tuples are (y, x) or (z, y, x) pixels."""

    id: str
    name: str
    description: str = ""
    authors: tuple[str, ...] = ()
    licence: str = ""
    """SPDX id."""
    attribution: str = ""
    """Who and what to cite; one per line."""
    cover: Path | None = None
    documentation: Path | None = None
    folder: Path | None = None
    format_version: str = ""
    kind: str = "enhancer"
    """``"enhancer"`` takes a forest map; ``"network"`` takes an image."""
    output_kind: str = "foreground"
    """foreground: one map, and perhaps a boundary; classes: one map per class, background first;
    instances: dense maps from which an instance step makes objects."""
    instance_step: dict[str, Any] = field(default_factory=dict)
    """Settings of that step."""
    input_axes: str = "bcyx"
    """``"bcyx"`` or ``"bczyx"``."""
    n_inputs: int = 1
    channels: Channels | None = None
    """Of an image, those that a network was trained on; None: not recorded."""
    n_outputs: int = 1
    output_names: tuple[str, ...] = ("foreground",)
    min_shape: tuple[int, ...] = (16, 16)
    step: tuple[int, ...] = (16, 16)
    """0 along an axis of fixed size."""
    halo: tuple[int, ...] = (0, 0)
    """What the RDF asks for; the enhancer takes the receptive field when that is larger."""
    receptive_field: tuple[int, ...] | None = None
    """Measured reach; None: not recorded, or without end."""
    tiles_exactly: bool = True
    """Whether tiles equal the whole image; known once the model is open."""
    preprocessing: tuple[dict[str, Any], ...] = ()
    """Steps as `rdf_steps` reads them from either format, nothing left out."""
    sigmoid_outside: bool = False
    """True: the network returns logits and the RDF asks for a sigmoid after it."""
    weights: tuple[WeightsEntry, ...] = ()
    weight_format: str = ""
    """The entry in use, once the model is open; "" before."""
    structure: str = ""
    """What the foreground is, e.g. ``"nuclei"``; "" when the package does not say."""
    object_diameter: float | None = None
    """Equivalent diameter of the objects it was trained on, in pixels; None when unknown."""
    feature_sets: tuple[str, ...] = ()
    """Feature sets of the forests it was trained on; empty when unknown."""
    training: dict[str, Any] = field(default_factory=dict)
    """Whatever the trainer recorded."""
    warnings: tuple[str, ...] = ()
    """Plain sentences about what is odd in this package."""

    @property
    def ndim(self) -> int:
        """2 for ``bcyx``, 3 for ``bczyx``."""
        return len(self.input_axes) - 2
