"""Where to paint next: the most uncertain spot in view, or the ranked places of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.confidence import RADIUS, most_uncertain
from napari_cellda.core.errors import UserError
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.inspect.places import Place
from napari_cellda.ui.layers import geometry
from napari_cellda.ui.ring import hide_ring, show_ring
from napari_cellda.ui.view import look_at, visible_region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.live.stroke_index import TileStrokes
    from napari_cellda.core.tiles import Region
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

__all__ = ["hide_ring", "jump_in_stack", "jump_in_view"]


def jump_in_view(session: Session) -> Place:
    """Show the most uncertain unpainted spot that is visible.

    Raises
    ------
    UserError
        If there is no forest yet, or no unpainted spot is left.
    """
    session.require_classifier()
    painted = session.require_current()
    array = painted.arrays.get("uncertainty")
    if array is None:
        raise UserError("The map of this image is not there yet; wait for it or paint a stroke.")
    view = visible_region(session.viewer, painted)
    uncertainty = read_region(painted.image, array, view)[0]
    near_mask = painted_mask(stroke_tiles(painted), view, _shown(session, painted))
    found = most_uncertain(uncertainty, near_mask, radius=RADIUS)
    if found is None:
        raise UserError("No unpainted spot is left in view; zoom out or move on.")
    y, x = view.y.start + found[0], view.x.start + found[1]
    place = Place(view.t, view.z.start, y, x, float(uncertainty[found]))
    _shown(session, painted).append(place)
    ring_place(session, painted, place)
    session.say("The forest is least sure in the ring; paint what is there.")
    return place


def jump_in_stack(session: Session) -> None:
    """Go to the next of the places to paint in all planes, looking for them in the background."""
    from napari_cellda.ui.inspect_guide import Guide

    Guide.of(session).next()


def painted_mask(
    tiles: Sequence[TileStrokes], region: Region, shown: Sequence[Place] = ()
) -> np.ndarray:
    """Mark strokes, and places shown before, in one plane; (Y, X) bool of the region."""
    mask = np.zeros(region.shape[1:], bool)
    for strokes in tiles:
        z, y, x = np.unravel_index(strokes.flat, strokes.tile.shape)
        on_plane = (strokes.tile.t == region.t) & (z + strokes.tile.z.start == region.z.start)
        _mark(mask, region, y[on_plane] + strokes.tile.y.start, x[on_plane] + strokes.tile.x.start)
    for place in shown:
        if (place.t, place.z) == (region.t, region.z.start):
            _mark(mask, region, np.array([place.y]), np.array([place.x]))
    return mask


def stroke_tiles(painted: PaintedImage) -> Sequence[TileStrokes]:
    """Return what is painted on an image, frozen."""
    return painted.index.snapshot() if painted.index is not None else ()


def _mark(mask: np.ndarray, region: Region, y: np.ndarray, x: np.ndarray) -> None:
    y, x = y - region.y.start, x - region.x.start
    inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    mask[y[inside], x[inside]] = True


def _shown(session: Session, painted: PaintedImage) -> list[Place]:
    """Return the places shown since the forest last changed, so that the key moves on."""
    forest = session.classifier.forest if session.classifier is not None else None
    known = session.parts.get("uncertain")
    if known is None or known[0] is not forest or known[1] is not painted:
        known = session.parts["uncertain"] = (forest, painted, [])
    places: list[Place] = known[2]
    return places


def go_to_place(session: Session, painted: PaintedImage, place: Place) -> None:
    """Move sliders and camera to a place, and ring it."""
    where = {"t": place.t, "z": place.z, "y": place.y, "x": place.x}
    look_at(session.viewer, painted, where)
    ring_place(session, painted, place)


def ring_place(session: Session, painted: PaintedImage, place: Place) -> None:
    """Draw the ring around a place of an image."""
    values = {"t": place.t, "z": place.z, "y": place.y, "x": place.x}
    spot = [values[axis] for axis in painted.image.label_axes]
    settings = geometry(painted)
    ndim = len(settings["scale"])
    # An image whose channels lie between its axes has one more in the viewer.
    spot = spot if len(spot) == ndim else spot[:1] + [0] * (ndim - len(spot)) + spot[1:]
    show_ring(session, spot, settings)
