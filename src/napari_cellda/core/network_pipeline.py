"""A network of a model package on images, as `predict` runs it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.classifier import Normalised
from napari_cellda.core.events import Stage, Step, never
from napari_cellda.core.instances.drawn import DrawnObjects
from napari_cellda.core.modelzoo.preprocessing import rdf_normalisation
from napari_cellda.core.modelzoo.structures import known_structure
from napari_cellda.core.pipeline import (
    PIECE_2D,
    PIECE_3D,
    Maps,
    note_invalid,
    pieces_of,
    write_enhanced,
)

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.enhancer.tiled import TiledNetwork
    from napari_cellda.core.events import Stop, Task
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
        source = self.prepare(image, normalisation)
        maps, pieces = self.new_maps(image, stack, folder), self.pieces(image)
        yield Stage(f"{self.network.card.name} on {image.name}", len(pieces))
        not_finite = 0
        for done, piece in enumerate(pieces, 1):
            found = self.map_piece(source, piece, stop)
            if found is None:
                break
            write_enhanced(image, maps, piece, found)
            not_finite += source.count_invalid(piece)
            yield Step(done)
        yield from note_invalid(image, not_finite)
        return replace(maps, drawn=self.drawn_objects(source, stack, folder))

    def prepare(self, image: Image, normalisation: Normalisation | None = None) -> Normalised:
        """Check that an image fits the network, and measure it unless that was done before."""
        return Normalised(image, normalisation or rdf_normalisation(self.network.card, image))

    def new_maps(self, image: Image, stack: ExitStack, folder: Path) -> Maps:
        """Make room for all maps of an image; closing `stack` frees it."""
        card = self.network.card
        shape = image.label_shape
        n_classes = card.n_outputs if card.output_kind == "classes" else 2
        probability = stack.enter_context(scratch_array((n_classes, *shape), np.float32, folder))
        boundary: Any = None
        if "boundary" in card.output_names[1:]:
            boundary = stack.enter_context(scratch_array(shape, np.float32, folder))
        of_membranes = known_structure(card.structure) == "boundaries"
        return Maps(probability, boundary=boundary, of_membranes=of_membranes)

    def drawn_objects(
        self, source: Normalised, stack: ExitStack, folder: Path
    ) -> DrawnObjects | None:
        """Return what draws objects, if the network does; closing `stack` frees its room."""
        if not self.draws_objects:
            return None
        import torch

        network: Any = self.network.model.network
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return DrawnObjects(deepcopy(network).to(device), source, stack, folder, device)

    @property
    def draws_objects(self) -> bool:
        """Whether the network finds objects itself, such as that of CKS."""
        network: Any = self.network.model.network
        return self.network.card.output_kind == "instances" and hasattr(network, "find")

    def pieces(self, image: Image) -> list[Region]:
        """Return the pieces in which an image is computed, in scan order."""
        shape = PIECE_3D if self.network.card.ndim == 3 else PIECE_2D
        return pieces_of(image, shape)

    def map_piece(
        self, source: Normalised, piece: Region, stop: Stop = never
    ) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Return the (K, Z, Y, X) map of one piece and its boundary map; None when stopped."""
        card, limits = self.network.card, source.image.limits
        found = self.network.run_region(lambda part: source.read(part)[0], piece, limits, stop)
        if found is None:
            return None
        names = card.output_names
        boundary_map = found[names.index("boundary")] if "boundary" in names[1:] else None
        of_classes = card.output_kind == "classes"
        return found if of_classes else np.stack([1 - found[0], found[0]]), boundary_map
