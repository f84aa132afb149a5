"""Where to paint next: find the most uncertain unpainted spot, in view or in the whole stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.classifier import Normalised
from napari_cellda.core.confidence import most_uncertain, uncertainty_map
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.core.images.label_arrays import read_region
from napari_cellda.core.tiles import Region
from napari_cellda.ui.layers import TAG, geometry, keep_selection
from napari_cellda.ui.view import look_at, visible_region
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.events import Event, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.live.stroke_index import TileStrokes
    from napari_cellda.ui.state import PaintedImage, Session

MAX_PLANES = 24
"""A stack is searched in at most so many planes, evenly spread."""
TREES = 20
"""The search of a stack asks a part of the forest only: it looks for doubt, not for an answer."""
AROUND = 15
"""Pixels around a stroke, or around a spot already shown, that do not count as unpainted."""


@dataclass(frozen=True)
class Spot:
    """A pixel of an image and how uncertain the forest is there."""

    t: int
    z: int
    y: int
    x: int
    uncertainty: float


def jump_in_view(session: Session) -> Spot:
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
    tiles = painted.index.snapshot() if painted.index is not None else ()
    near_mask = painted_mask(tiles, view, _shown(session, painted))
    found = most_uncertain(uncertainty, near_mask, radius=AROUND)
    if found is None:
        raise UserError("No unpainted spot is left in view; zoom out or move on.")
    y, x = view.y.start + found[0], view.x.start + found[1]
    spot = Spot(view.t, view.z.start, y, x, float(uncertainty[found]))
    _show(session, painted, spot, move=False)
    return spot


def jump_in_stack(session: Session) -> None:
    """Look for the most uncertain unpainted spot in all planes, in the background, and go there."""
    classifier = session.require_classifier()
    painted = session.require_current()
    if painted.norm is None:
        raise UserError("The map of this image is not there yet; wait for it or paint a stroke.")
    source = Normalised(painted.image, painted.norm)
    tiles = painted.index.snapshot() if painted.index is not None else ()
    shown = _shown(session, painted)

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            session.say(f"Looking for uncertain spots, plane {event.index}...")

    def on_result(spot: Spot | None) -> None:
        if spot is None:
            session.say("No unpainted spot is left in this stack.")
        elif painted in session.images:
            _show(session, painted, spot, move=True)

    run_task(
        lambda stop: search_planes(classifier, source, tiles, shown, stop),
        session=session,
        title="uncertain spots",
        on_event=on_event,
        on_result=on_result,
    )


def search_planes(
    classifier: PixelClassifier,
    source: Normalised,
    tiles: Sequence[TileStrokes],
    shown: Sequence[Spot],
    stop: Callable[[], bool],
) -> Task[Spot | None]:
    """Find the most uncertain unpainted spot of an image, looking at evenly spread planes.

    Returns
    -------
    Spot or None
        None: everything is painted, or `stop` said so before the first plane.
    """
    quick = replace(classifier, forest=classifier.forest.truncated(TREES))
    planes = _spread_planes(source.image)
    yield Stage("Look for uncertain spots", len(planes))
    best: Spot | None = None
    for done, plane in enumerate(planes, 1):
        if stop():
            break
        uncertainty = uncertainty_map(quick.predict(source, plane, stop=stop))[0]
        found = most_uncertain(uncertainty, painted_mask(tiles, plane, shown), radius=AROUND)
        if found is not None and (best is None or uncertainty[found] > best.uncertainty):
            best = Spot(plane.t, plane.z.start, *found, float(uncertainty[found]))
        yield Step(done)
    return best


def _spread_planes(image: Image) -> list[Region]:
    nz, ny, nx = image.limits
    total = image.n_times * nz
    chosen = np.unique(np.linspace(0, total - 1, min(total, MAX_PLANES)).round().astype(int))
    return [
        Region(int(i) // nz, slice(int(i) % nz, int(i) % nz + 1), slice(0, ny), slice(0, nx))
        for i in chosen
    ]


def painted_mask(
    tiles: Sequence[TileStrokes], region: Region, shown: Sequence[Spot] = ()
) -> np.ndarray:
    """Mark strokes, and spots shown before, in one plane; (Y, X) bool of the region."""
    mask = np.zeros(region.shape[1:], bool)
    for strokes in tiles:
        z, y, x = np.unravel_index(strokes.flat, strokes.tile.shape)
        on_plane = (strokes.tile.t == region.t) & (z + strokes.tile.z.start == region.z.start)
        _mark(mask, region, y[on_plane] + strokes.tile.y.start, x[on_plane] + strokes.tile.x.start)
    for spot in shown:
        if (spot.t, spot.z) == (region.t, region.z.start):
            _mark(mask, region, np.array([spot.y]), np.array([spot.x]))
    return mask


def _mark(mask: np.ndarray, region: Region, y: np.ndarray, x: np.ndarray) -> None:
    y, x = y - region.y.start, x - region.x.start
    inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    mask[y[inside], x[inside]] = True


def _shown(session: Session, painted: PaintedImage) -> list[Spot]:
    """Return the spots shown since the forest last changed, so that the key moves on."""
    forest = session.classifier.forest if session.classifier is not None else None
    known = session.parts.get("uncertain")
    if known is None or known[0] is not forest or known[1] is not painted:
        known = session.parts["uncertain"] = (forest, painted, [])
    spots: list[Spot] = known[2]
    return spots


def _show(session: Session, painted: PaintedImage, spot: Spot, *, move: bool) -> None:
    _shown(session, painted).append(spot)
    if move:
        look_at(session.viewer, painted, {"t": spot.t, "z": spot.z, "y": spot.y, "x": spot.x})
    _ring(session, painted, spot)
    session.say("The forest is least sure in the ring; paint what is there.")


def _ring(session: Session, painted: PaintedImage, spot: Spot) -> None:
    """Draw a ring around the spot; one layer, moved from spot to spot."""
    from napari.layers import Points

    values = {"t": spot.t, "z": spot.z, "y": spot.y, "x": spot.x}
    place = [values[axis] for axis in painted.image.label_axes]
    settings: dict[str, Any] = geometry(painted)
    ndim = len(settings["scale"])
    place = place if len(place) == ndim else place[:1] + [0] * (ndim - len(place)) + place[1:]
    ring = session.parts.get("ring")
    if ring is not None and ring in session.viewer.layers and ring.ndim == ndim:
        ring.data = np.array([place])
        ring.visible = True
        return
    ring = session.parts["ring"] = Points(
        np.array([place]),
        name="Look here",
        size=2 * AROUND,
        face_color="transparent",
        border_color="magenta",
        border_width=0.08,
        out_of_slice_display=False,
        metadata={TAG: {"role": "ring"}},
        **settings,
    )
    with keep_selection(session.viewer):
        session.viewer.add_layer(ring)


def hide_ring(session: Session) -> None:
    """Take the ring away, e.g. because the spot was painted."""
    ring = session.parts.get("ring")
    if ring is not None:
        ring.visible = False
