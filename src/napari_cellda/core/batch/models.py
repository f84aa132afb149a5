"""What a batch runs: a saved project, a run's folder or a model package."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.classifier import PixelClassifier
from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.enhancer.tiled import TiledNetwork
from napari_cellda.core.errors import UserError
from napari_cellda.core.forest.trees import ARRAYS
from napari_cellda.core.jobs import Run
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.network_pipeline import NetworkPipeline
from napari_cellda.core.pipeline import Pipeline
from napari_cellda.core.project import EnhancerReference, load_project

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_cellda.core.images import Channels
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.instances import InstanceParams
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.pipeline import MapMaker


@dataclass(frozen=True)
class Recipe:
    """How another process opens the same map maker: by a name, not by its arrays."""

    model: str
    """A project, ``X.cellda``; a run's folder; or whatever `open_model` opens."""
    channels: Channels | None = None
    """None: those that the model was trained on, see `open_map_maker`."""
    trusted: tuple[str, ...] = ()
    """See `open_model`."""

    def open(self) -> MapMaker:
        """Open it here."""
        return open_map_maker(self.model, self.channels, self.trusted)[0]


def open_map_maker(
    model: str, channels: Channels | None = None, trusted: Collection[str] = ()
) -> tuple[MapMaker, dict[str, Normalisation], InstanceParams | None]:
    """Open a project, a run or a package, whichever `model` names; see `open_pipeline`.

    Unless channels are named they are those that it was trained on. Of a package that does not say:
    all, or grey where it takes one.
    """
    path = Path(model)
    if path.suffix == ".cellda":
        return open_pipeline(path, channels, trusted)
    run = Run(path) if (path / "run.yaml").is_file() else None
    source = model if run is None else run.finished_model()
    network = TiledNetwork(open_model(source, trusted=trusted))
    if channels is None:
        channels = _usual_channels(network.card, run)
    return NetworkPipeline(network, channels), {}, None


def _usual_channels(card: ModelCard, run: Run | None) -> Channels:
    """Return the channels that a network was trained on, as its package or its run tells."""
    found = card.channels
    if found is None and run is not None and card.kind == "network":
        found = run.record.options.get("channels")  # packages did not always tell
    if found is None:
        return "grey" if card.n_inputs == 1 else "all"
    return found if isinstance(found, str) else tuple(found)


def open_pipeline(
    path: Path, channels: Channels | None = None, trusted: Collection[str] = ()
) -> tuple[Pipeline, dict[str, Normalisation], InstanceParams | None]:
    """Open a saved project to run it.

    Returns
    -------
    pipeline : Pipeline
    measured : dict of fingerprint to Normalisation
        Of the project's own images.
    instances : InstanceParams or None

    Raises
    ------
    UserError
        If it is no project, has no forest, or its enhancer is not the one that was saved.
    """
    project, _, forest = load_project(path)
    if forest is None:
        raise UserError(f"'{path.name}' holds no trained forest; paint and save it again.")
    classifier = PixelClassifier(
        project.features,
        project.normalisation,
        project.channels if channels is None else channels,
        tuple(style.name for style in project.classes),
        forest,
    )
    enhancer, options = None, EnhancerOptions()
    if project.enhancer is not None:
        enhancer, options = open_saved_enhancer(project.enhancer, trusted), project.enhancer.options
    measured = {image.fingerprint: image.normalisation for image in project.images}
    return Pipeline(classifier, enhancer, options), measured, project.instances


def open_saved_enhancer(reference: EnhancerReference, trusted: Collection[str] = ()) -> Enhancer:
    """Open a project's enhancer; a UserError if its weights are not those that were saved."""
    enhancer = Enhancer.open(reference.source, trusted=trusted)
    if enhancer.model.sha256 != reference.sha256:
        raise UserError(
            f"The enhancer '{reference.source}' has other weights than the project was saved with "
            f"({enhancer.model.sha256[:12]} instead of {reference.sha256[:12]})."
        )
    return enhancer


def identity(pipeline: MapMaker) -> str:
    """Return a hash of all in a map maker that decides its maps: the rest of a recipe's name."""
    digest = hashlib.sha256()
    parts: list[Any] = [pipeline.channels]
    if isinstance(pipeline, Pipeline):
        classifier, enhancer = pipeline.classifier, pipeline.enhancer
        parts += [classifier.spec.model_dump(), classifier.normalisation, classifier.n_classes]
        parts += [enhancer and enhancer.model.sha256, pipeline.options.model_dump()]
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(classifier.forest, name)).tobytes())
    elif isinstance(pipeline, NetworkPipeline):
        parts.append(pipeline.network.model.sha256)
    digest.update(json.dumps(parts, default=str).encode())
    return digest.hexdigest()
