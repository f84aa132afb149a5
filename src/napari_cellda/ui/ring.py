"""A ring around the place to look at: one layer, moved from place to place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.layers import TAG, keep_selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_cellda.ui.state import Session

DIAMETER = 30
"""Pixels."""
COLORS = ("black", "white")
"""White in a black rim: seen on any image, and on a map in any colour."""
RIM = 0.16
"""Width of the black line, as a part of the smallest ring's diameter; the white one has half."""
SMALLEST = 20
"""Pixels of the screen, so that it is found in a large image that is seen as a whole."""


def show_ring(
    session: Session,
    place: Sequence[float],
    placement: Mapping[str, Any],
    *,
    diameter: float = DIAMETER,
) -> None:
    """Draw the ring, or move the one that is there.

    Parameters
    ----------
    session : Session
    place : sequence of float
        Coordinates in the data of the layer that it lies on.
    placement : dict
        Scale, translation, units... of that layer, as for a new layer.
    diameter : float
        Pixels.
    """
    ring, layers = session.parts.get("ring"), session.viewer.layers
    if ring is not None and ring in layers and ring.ndim != len(place):
        layers.remove(ring)
    if ring is None or ring not in layers:
        ring = session.parts["ring"] = _make_ring(session, place, placement)
    for name, value in placement.items():  # units as well: mixed ones are drawn without any
        setattr(ring, name, value)
    rim = RIM * min(1.0, (DIAMETER / diameter) ** 0.5)  # a large ring is no thick one
    ring.data = np.array([place, place], float)
    ring.size = [diameter, diameter * (1 - rim / 2)]
    ring.border_width = [rim, rim / 2]
    ring.visible = True
    with keep_selection(session.viewer):
        layers.move(layers.index(ring), len(layers))  # an overlay may have come above it


def _make_ring(session: Session, place: Sequence[float], placement: Mapping[str, Any]) -> Any:
    from napari.layers import Points

    ring = Points(
        np.array([place, place], float),
        name="Look here",
        face_color="transparent",
        border_color=list(COLORS),
        canvas_size_limits=(SMALLEST, 10_000),
        out_of_slice_display=False,
        metadata={TAG: {"role": "ring"}},
        **placement,
    )
    with keep_selection(session.viewer):
        session.viewer.add_layer(ring)
    return ring


def hide_ring(session: Session) -> None:
    """Take the ring away, e.g. because the place was painted."""
    ring = session.parts.get("ring")
    if ring is not None:
        ring.visible = False
