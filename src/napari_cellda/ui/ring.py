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
    from napari.layers import Points

    ring = session.parts.get("ring")
    if ring is not None and ring in session.viewer.layers and ring.ndim == len(place):
        for name, value in placement.items():  # units as well: mixed ones are drawn without any
            setattr(ring, name, value)
        ring.data = np.array([place], float)
        ring.size = diameter
        ring.visible = True
        return
    if ring is not None and ring in session.viewer.layers:
        session.viewer.layers.remove(ring)
    ring = session.parts["ring"] = Points(
        np.array([place], float),
        name="Look here",
        size=diameter,
        face_color="transparent",
        border_color="magenta",
        border_width=0.08,
        out_of_slice_display=False,
        metadata={TAG: {"role": "ring"}},
        **placement,
    )
    with keep_selection(session.viewer):
        session.viewer.add_layer(ring)


def hide_ring(session: Session) -> None:
    """Take the ring away, e.g. because the place was painted."""
    ring = session.parts.get("ring")
    if ring is not None:
        ring.visible = False
