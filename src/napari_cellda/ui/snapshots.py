"""Freeze what a session looks like now, for the background thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.live.snapshot import Enhancement, PaintedSnapshot, Snapshot
from napari_cellda.ui.view import centre_of, visible_region

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session


def painted_images(session: Session) -> tuple[PaintedSnapshot, ...]:
    """Freeze the strokes of all images that have as many channels as the current one."""
    current = session.current
    return tuple(
        PaintedSnapshot(p.key, p.image, p.index.snapshot(len(session.classes)))
        for p in session.images
        if p.index is not None
        and current is not None
        and p.image.n_channels == current.image.n_channels
    )


def make_snapshot(session: Session, images: tuple[PaintedSnapshot, ...]) -> Snapshot:
    """Freeze a session that has a current image.

    Parameters
    ----------
    session : Session
    images : tuple of PaintedSnapshot
        The strokes to train on, from `painted_images` now or (without live update) before.
    """
    painted = session.require_current()
    if all(item.key != painted.key for item in images):
        images = (*images, PaintedSnapshot(painted.key, painted.image, ()))
    view = visible_region(session.viewer, painted)
    return Snapshot(
        images=images,
        target=painted.key,
        view=view,
        centre=centre_of(view),
        spec=session.spec,
        normalisation=session.normalisation,
        channels=painted.choice.channels,
        class_names=session.classes.names,
        params=session.forest_params,
        enhancement=chosen_enhancement(session),
    )


def chosen_enhancement(session: Session) -> Enhancement | None:
    """Return how the map is enhanced live; None if it is not."""
    options = session.enhancer_options
    if session.enhancer is None or not options.live:
        return None
    return Enhancement(session.enhancer, options.class_index, options.scale_range, options.rescale)


def n_outputs(snapshot: Snapshot) -> int:
    """Return how many maps the enhancer gives; 0 without one."""
    chosen = snapshot.enhancement
    return 0 if chosen is None else chosen.enhancer.card.n_outputs
