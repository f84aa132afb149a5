"""The one line that tells a user what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.ui.classes import MAX_CLASSES

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

OPEN_AN_IMAGE = "Open an image: drag a file into the window, or use File ▸ Open Sample ▸ CellDA."

MANY = 10
"""From so many parts on, the rest is counted."""


def next_step(session: Session, *, loaded: bool, busy: bool, left: int = 0) -> str:
    """Say what to do next.

    Parameters
    ----------
    session : Session
    loaded : bool
        Whether the libraries are loaded.
    busy : bool
        Whether the background thread is working.
    left : int
        Parts of the map still to come.

    Returns
    -------
    str
        One line, plain words.
    """
    painted = session.current
    if painted is None:
        return OPEN_AN_IMAGE
    if painted.strokes is None:
        return "Press 'Start painting' to begin with strokes for this image."
    unknown = _unknown_label(session)
    if unknown is not None and unknown <= MAX_CLASSES:
        return f"Label {unknown} is no class; press Add class."
    if unknown is not None:
        return f"Labels above {MAX_CLASSES} are no classes and do not count; erase them."
    counts = painted_counts(session)
    missing = [k for k, count in enumerate(counts) if count == 0]
    if len(missing) > len(counts) - 2:
        return _paint(session, missing, first=len(missing) == len(counts))
    if not loaded:
        return "Loading the libraries; keep painting."
    if session.flat_images:
        return f"'{session.flat_images[0]}' is constant, so its map is flat."
    if session.classifier is None and not session.live:
        return "Press 'Train now' to see the forest's answer."
    if busy:
        return (
            "Computing the map..." if left < MANY else f"Computing the map, {left} parts to go..."
        )
    if missing:
        return _paint(session, missing, first=False)
    if session.enhancer is None:
        return (
            "Paint where the map is wrong; U shows an unsure spot. Is it right but noisy? "
            "Enhance cleans it."
        )
    return "Paint where the map is still wrong, or write masks and objects with Export."


def next_panel(session: Session) -> str | None:
    """Return the panel that comes after painting; None while there is no map yet."""
    if session.classifier is None:
        return None
    return "Enhance" if session.enhancer is None else "Export"


def _paint(session: Session, missing: list[int], *, first: bool) -> str:
    item = session.classes[missing[0]]
    begin = "Paint some" if first else "Now paint some"
    return f"{begin} {item.name}: press {item.key}, then draw on the image."


def _unknown_label(session: Session) -> int | None:
    """Return the least label painted that is no class; None if there is none."""
    n_classes = len(session.classes)
    found = [p.index.unknown(n_classes) for p in session.images if p.index is not None]
    return min((label for label in found if label is not None), default=None)


def painted_counts(session: Session) -> list[int]:
    """Count the painted pixels of every class, over all images."""
    n_classes = len(session.classes)
    total = [0] * n_classes
    for painted in session.images:
        if painted.index is not None:
            for k, count in enumerate(painted.index.counts(n_classes)):
                total[k] += int(count)
    return total
