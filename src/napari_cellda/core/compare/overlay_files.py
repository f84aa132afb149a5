"""Overlays as files: PNG with the colours as its palette, TIFF for stacks; and small pictures."""

from __future__ import annotations

import io
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.atomic import make_folder, move, plain_disk_errors
from napari_cellda.core.compare.matching import ObjectMatches
from napari_cellda.core.compare.overlays import (
    OVERLAY_COLORS,
    boundary_overlay,
    instance_overlay,
    pixel_overlay,
)
from napari_cellda.core.compare.pairing import OVERLAY
from napari_cellda.core.compare.scoring import MATCH_IOU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_cellda.core.compare.overlaps import Overlaps
    from napari_cellda.core.compare.reading import Kind, PlanePair

BOUNDARY_TOLERANCE = 2
"""Pixels that a boundary may be off and still be found."""
PICTURE = 320
"""Longest side of the small pictures, in pixels."""


def plane_overlay(pair: PlanePair, overlaps: Overlaps | None, kind: Kind) -> NDArray[np.uint8]:
    """Draw the overlay that fits a kind of comparison."""
    if kind == "instances" and overlaps is not None:
        return instance_overlay(ObjectMatches.of(overlaps), MATCH_IOU, overlaps)
    if kind == "boundary":
        masks = (pair.predicted_mask > 0, pair.truth_mask > 0)
        return boundary_overlay(*masks, BOUNDARY_TOLERANCE, ignore=pair.ignore)
    return pixel_overlay(pair.predicted_mask, pair.truth_mask, pair.ignore)


@contextmanager
def staged(folder: Path | None) -> Iterator[Path | None]:
    """Lend a folder beside `folder`; its files move there if all goes well, else they vanish."""
    if folder is None:
        yield None
        return
    make_folder(folder.resolve().parent)
    with (
        plain_disk_errors(folder),
        tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=".overlays-") as aside,
    ):
        yield Path(aside)
        for path in sorted(Path(aside).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(aside)
                make_folder(target.parent)
                move(path, target)


@contextmanager
def overlay_file(
    folder: Path | None, name: str, shape: tuple[int, ...]
) -> Iterator[Callable[[int, NDArray[np.uint8]], None]]:
    """Take the overlays of one image plane by plane and write them.

    Parameters
    ----------
    folder : Path or None
        None writes nothing.
    name : str
        Of the image; the file is NAME_overlay.png, or .tif for several planes.
    shape : (planes, Y, X)

    Yields
    ------
    callable
        Takes the index of a plane and its overlay.
    """
    from napari_cellda.core.export.tiff import open_tiff_writer

    with ExitStack() as stack:
        if folder is None:
            yield lambda index, overlay: None
        elif shape[0] == 1:
            path = folder / f"{name}{OVERLAY}.png"
            yield lambda index, overlay: _write_palette_png(path, overlay)
        else:
            path = folder / f"{name}{OVERLAY}.tif"
            writer = stack.enter_context(open_tiff_writer(path, shape, "zyx", np.uint8))
            yield lambda index, overlay: writer.write((index,), overlay)


def small_picture(overlay: NDArray[np.uint8]) -> bytes:
    """Return an overlay as a small PNG in its colours, on black."""
    from PIL import Image as Pillow

    colours = np.array(_palette(), np.uint8).reshape(-1, 3)[overlay]
    picture = Pillow.fromarray(colours)
    picture.thumbnail((PICTURE, PICTURE), Pillow.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write_palette_png(path: Path, overlay: NDArray[np.uint8]) -> None:
    from PIL import Image as Pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Pillow.fromarray(overlay)
    picture.putpalette(_palette())
    picture.save(path, "PNG")


def _palette() -> list[int]:
    """Red, green, blue of every value."""
    return [int(c[i : i + 2], 16) for c in OVERLAY_COLORS.values() for i in (1, 3, 5)]
