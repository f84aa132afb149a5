"""Result arrays and the layers that show them: which there are, and which are seen at first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.live.snapshot import EnhancedTile, ForestTile
from napari_cellda.ui.classes import ENHANCED_COLOR
from napari_cellda.ui.layers import (
    diverging,
    drop_results,
    ensure_layer,
    fade_in,
    mask_colormap,
    rename_layer,
    stacking_place,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_cellda.core.tiles import Region
    from napari_cellda.ui.arrays import Scratch
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

MASK_DTYPE = np.uint8
LARGE_PLANE = 2**22
"""Pixels of a plane beyond which its results get coarser levels."""
MAX_LEVELS = 6
"""So that a level's pixels fall on the corners of computed blocks, which are multiples of 64."""


def write_answer(
    painted: PaintedImage, answer: ForestTile | EnhancedTile, *, with_mask: bool
) -> list[str]:
    """Write one tile into the image's result arrays (see `prepare_arrays`).

    Called in the background thread, so that the window only has to redraw.

    Parameters
    ----------
    painted : PaintedImage
    answer : ForestTile or EnhancedTile
    with_mask : bool
        Whether a forest's tile is the last word; else the mask waits for the enhanced map.

    Returns
    -------
    list of str
        The roles that changed.
    """
    from napari_cellda.core.confidence import uncertainty_map

    blocks: dict[str, np.ndarray] = {}
    final_map = answer.probability_map
    if isinstance(answer, ForestTile):
        blocks = {f"forest:{k}": one for k, one in enumerate(final_map)}
        blocks["uncertainty"] = uncertainty_map(final_map)
    else:
        blocks["enhanced"] = answer.output_maps[0]
        blocks["difference"] = answer.output_maps[0] - answer.forest_map
        if len(answer.output_maps) > 1:
            blocks["boundary"] = answer.output_maps[1]
    if with_mask or isinstance(answer, EnhancedTile):
        blocks["mask"] = final_map.argmax(axis=0).astype(MASK_DTYPE)
    for role, block in blocks.items():
        write_result(painted, role, answer.region, block)
    return list(blocks)


def write_result(painted: PaintedImage, role: str, region: Region, block: np.ndarray) -> None:
    """Write a (Z, Y, X) block into a result's array and its coarser levels.

    The window may have dropped them meanwhile, with their class; then nothing is written.
    """
    from napari_cellda.core.images.label_arrays import write_region

    array = painted.arrays.get(role)
    if array is None:
        return
    write_region(painted.image, array, region, block)
    for number, level in enumerate(painted.levels.get(role, ()), 1):
        _write_level(painted, level, region, block, 2**number)


def _write_level(
    painted: PaintedImage, level: Any, region: Region, block: np.ndarray, step: int
) -> None:
    """Write every `step`-th pixel of a block to a coarser level."""
    from napari_cellda.core.images.label_arrays import write_region

    rows, columns = (
        slice(part.start // step, -(-part.stop // step)) for part in (region.y, region.x)
    )
    coarse = replace(region, y=rows, x=columns)
    write_region(painted.image, level, coarse, block[..., ::step, ::step])


def prepare_arrays(
    painted: PaintedImage, n_classes: int, n_outputs: int, scratch: Scratch
) -> list[str]:
    """Make the arrays that answers will be written to, so that layers can be made in time.

    Parameters
    ----------
    painted : PaintedImage
    n_classes : int
    n_outputs : int
        Outputs of the enhancer; 0 for none.
    scratch : Scratch

    Returns
    -------
    list of str
        The roles that are new.
    """
    roles = [f"forest:{k}" for k in range(n_classes)] + ["uncertainty", "mask"]
    roles += ["enhanced", "difference"] if n_outputs else []
    roles += ["boundary"] if n_outputs > 1 else []
    new = [role for role in roles if role not in painted.arrays]
    shape = painted.image.label_shape
    for role in new:
        dtype = MASK_DTYPE if role == "mask" else np.float32
        painted.levels[role] = [scratch.zeros(level, dtype) for level in coarser_shapes(shape)]
        painted.arrays[role] = scratch.zeros(shape, dtype)
    return new


def coarser_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shapes of the coarser levels of an array; none for planes of a common size.

    napari draws a single-scale plane as a whole after every change; of one with levels only what
    is visible, at the resolution of the screen.
    """
    shapes: list[tuple[int, ...]] = []
    *rest, height, width = shape
    while height * width > LARGE_PLANE and len(shapes) < MAX_LEVELS:
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((*rest, height, width))
    return shapes


def show_next(session: Session, painted: PaintedImage) -> bool:
    """Make one of the layers that result arrays still lack; True when more are to come.

    One at a time, since napari takes about 0.1 s for each, and the window stands still meanwhile.
    At first only the maps of the foreground classes are visible, each fading in its map
    colour; an enhanced map takes the place of the map that it enhances. The rest is there, hidden.
    """
    known = painted.results.keys() | painted.unwanted
    known |= set(_stale(session, painted))
    waiting = sorted(painted.arrays.keys() - known, key=_urgency)
    if not waiting:
        return False
    role = waiting[0]
    ensure_layer(session, painted, role, painted.arrays[role], **_looks(session, painted, role))
    if role == "enhanced":
        _hide(painted, f"forest:{session.enhancer_options.class_index}")
    return len(waiting) > 1


def _urgency(role: str) -> tuple[int, str]:
    """Sort so that the layers that will be visible are made first."""
    return -stacking_place(role), role


def _looks(session: Session, painted: PaintedImage, role: str) -> dict[str, Any]:
    """Return name, colour and first visibility of a role's layer, for `ensure_layer`."""
    classes, opacity = session.classes, session.opacity
    enhanced = classes[min(session.enhancer_options.class_index, len(classes) - 1)]
    if role.startswith("forest:"):
        k = int(role.split(":")[1])
        taken = "enhanced" in painted.results and classes[k] == enhanced
        return {
            "name": f"Forest {classes[k].name}",
            "colormap": fade_in(classes[k].map_color),
            "opacity": opacity,
            "visible": k > 0 and not taken,
        }
    return {
        "enhanced": {
            "name": f"Enhanced {enhanced.name}",
            "colormap": fade_in(ENHANCED_COLOR),
            "opacity": opacity,
        },
        "boundary": {"name": "Enhanced boundary", "colormap": fade_in("white"), "visible": False},
        "difference": {
            "name": "Enhanced minus forest",
            "colormap": diverging("blue", "red"),
            "contrast_limits": (-1, 1),
            "opacity": opacity,
            "visible": False,
        },
        "uncertainty": {"name": "Uncertainty", "colormap": fade_in("#ff8c00"), "visible": False},
        "mask": {
            "name": "Mask",
            "kind": "labels",
            "colormap": mask_colormap(session),
            "opacity": 0.5,
            "visible": False,
        },
    }[role]


def _hide(painted: PaintedImage, role: str) -> None:
    layer = painted.results.get(role)
    if layer is not None:
        layer.visible = False


def follow_classes(session: Session, painted: PaintedImage) -> None:
    """Bring colours and names of all layers in line with the classes.

    A layer that the user renamed keeps that name.
    """
    for role, layer in painted.results.items():
        if role.split(":")[0] in ("forest", "enhanced") and _class_of(session, role) is not None:
            looks = _looks(session, painted, role)
            layer.colormap = looks["colormap"]
            rename_layer(session, painted, layer, looks["name"])
        if role == "mask":
            layer.colormap = mask_colormap(session)


def _class_of(session: Session, role: str) -> int | None:
    k = int(role.split(":")[1]) if ":" in role else session.enhancer_options.class_index
    return k if k < len(session.classes) else None


def drop_stale(session: Session, painted: PaintedImage) -> None:
    """Drop the maps of classes that are no longer there."""
    drop_results(session, painted, _stale(session, painted))


def _stale(session: Session, painted: PaintedImage) -> list[str]:
    return [
        role
        for role in {*painted.arrays, *painted.results}
        if role.startswith("forest:") and _class_of(session, role) is None
    ]


def show_forest_again(session: Session, painted: PaintedImage) -> None:
    """Take the enhanced maps away and show the forest's where they had been."""
    if "enhanced" not in painted.arrays:
        return
    shown = painted.results.get("enhanced")
    drop_results(session, painted, ("enhanced", "difference", "boundary"))
    for role, layer in painted.results.items():
        if role.startswith("forest:") and role != "forest:0" and shown is not None:
            layer.visible = layer.visible or shown.visible


def layers_of(painted: PaintedImage, groups: Iterable[str]) -> list[Any]:
    """Return the result layers of some groups ("forest", "enhanced", "mask"...)."""
    wanted = set(groups)
    return [layer for role, layer in painted.results.items() if role.split(":")[0] in wanted]
