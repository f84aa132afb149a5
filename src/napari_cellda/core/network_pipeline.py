"""A network of a model package on images, as `predict` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import Normalised, never
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.images.label_arrays import write_region
from napari_cellda.core.modelzoo.preprocessing import rdf_normalisation
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.pipeline import PIECE_2D, PIECE_3D, Maps
from napari_cellda.core.tiles import grid

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.classifier import Stop
    from napari_cellda.core.enhancer.tiled import TiledNetwork
    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.tiles import Region


@dataclass(frozen=True)
class NetworkPipeline:
    """One network, adapted or from a package; see `pipeline.MapMaker`.

    An enhancer may be run on maps that another program made, such as ilastik's.
    """

    network: TiledNetwork
    channels: Channels = "grey"

    def compute(
        self,
        image: Image,
        stack: ExitStack,
        folder: Path,
        *,
        normalisation: Normalisation | None = None,
        stop: Stop = never,
    ) -> Task[Maps]:
        """Compute the maps of an image: one per class, and a boundary if there is one.

        Raises
        ------
        UserError
            If the image has other channels than the network takes, or a network that takes maps
            is given an image.
        """
        card = self.network.card
        source = Normalised(image, normalisation or rdf_normalisation(card, image))
        of_classes = card.output_kind == "classes"
        n_classes = card.n_outputs if of_classes else 2
        probability = stack.enter_context(
            scratch_array((n_classes, *image.label_shape), np.float32, folder)
        )
        boundary: Any = None
        if "boundary" in card.output_names[1:]:
            boundary = stack.enter_context(scratch_array(image.label_shape, np.float32, folder))

        def read(region: Region) -> np.ndarray:
            return source.read(region)[0]

        shape = PIECE_3D if card.ndim == 3 else PIECE_2D
        pieces = [p for t in range(image.n_times) for p in grid(image.limits, shape, t)]
        yield Stage(f"{card.name} on {image.name}", len(pieces))
        for done, piece in enumerate(pieces, 1):
            found = self.network.run_region(read, piece, image.limits, stop)
            if found is None:
                break
            maps = found if of_classes else np.stack([1 - found[0], found[0]])
            write_region(image, probability, piece, maps)
            if boundary is not None:
                write_region(image, boundary, piece, found[card.output_names.index("boundary")])
            yield Step(done)
        of_membranes = known_structure(card.structure) == "boundaries"
        return Maps(probability, boundary=boundary, of_membranes=of_membranes)
