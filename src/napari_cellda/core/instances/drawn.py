"""The objects of a whole image that a network finds and draws itself, plane by plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import scratch_array
from napari_cellda.core.instances.windows import finder, paint_objects, window_params

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from napari_cellda.core.classifier import Normalised
    from napari_cellda.core.events import Stop
    from napari_cellda.core.instances.separate import InstanceParams
    from napari_cellda.core.tiles import Region


@dataclass
class DrawnObjects:
    """A network that draws objects, and the image that it is asked about.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode, with ``find``, such as `CksPrincipal`.
    source : Normalised
    stack : ExitStack
        Closing it frees the scores.
    folder : Path
        Where scores too large for memory are kept meanwhile.
    device : str
        Where the network is.
    """

    network: Any
    source: Normalised
    stack: ExitStack
    folder: Path
    device: str = "cpu"
    scores: Any = field(default=None, init=False)
    """(...) float32, of `image.label_shape`: each object's score at its pixels, once drawn."""

    def draw(
        self, instances: Any, params: InstanceParams, *, t: int, first: int, stop: Stop
    ) -> int:
        """Draw the objects of one time point.

        Parameters
        ----------
        instances : array of uint32, of `image.label_shape`
            Zeros; receives the objects.
        params : InstanceParams
            Of which `min_size`, `remove_border` and `least_score` count.
        t : int
        first : int
            Number of the first object.
        stop : callable
            Asked before every tile.

        Returns
        -------
        int
            The next free number. Planes of a stack have objects of their own.
        """
        image = self.source.image
        if self.scores is None:
            room = scratch_array(image.label_shape, np.float32, self.folder)
            self.scores = self.stack.enter_context(room)
        settings = window_params(
            self.network, min_size=params.min_size, remove_border=params.remove_border
        )
        for z in range(image.limits[0]):
            plane = image.label_index(t, z)
            painted = paint_objects(
                finder(self.network, self.device, params.least_score),
                self._read,
                instances[plane],
                self.scores[plane],
                settings,
                first=first,
                t=t,
                z=z,
                stop=stop,
            )
            first += len(painted.scores)
        return first

    def _read(self, region: Region) -> np.ndarray:
        return self.source.read(region)[0][:, 0]
