"""From napari's Image layers to core's images: which axis is what, and which channels count.

No Qt and no napari import: a layer is any object with the few attributes read here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.images.units import standard_unit
from napari_cellda.core.paths import stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.images import Channels, Image

# Axes of what napari shows (an RGB layer's colour axis comes last and is not counted). t stands
# before z, as in strokes and results.
CHOICES = {
    2: ("yx",),
    3: ("zyx", "tyx", "cyx"),
    4: ("tzyx", "czyx", "zcyx", "tcyx", "ctyx"),
    5: ("tczyx", "tzcyx", "ctzyx"),
}
CHOSEN_AXES = "napari-cellda axes"
"""A key of a layer's metadata: the axes that the user chose in one panel count in all of them."""
FEW = 4
"""An axis at most this long is rather channels than planes."""

AXIS_NAMES = {"t": "time", "c": "channel", "z": "z", "y": "y", "x": "x"}


@dataclass(frozen=True)
class ImageChoice:
    """What the user chose to work on."""

    layer: Any
    axes: str
    """Axes of the layer's data, such as "yx", "zyx", "yxc" (RGB), "tczyx"."""
    channels: Channels
    """"grey", "all" or indices, of the layer's own channels or of `layer` and `others` together."""
    others: tuple[Any, ...] = ()
    """More layers of the same shape that serve as further channels."""


def axes_choices(layer: Any) -> tuple[str, ...]:
    """Return the axes that a layer may have, the likeliest first.

    Raises
    ------
    UserError
        If the layer has more than five axes or fewer than two.
    """
    if layer.ndim not in CHOICES:
        raise UserError(f"The layer '{layer.name}' has {layer.ndim} axes; 2 to 5 are expected.")
    if layer.rgb:
        return tuple(f"{a}c" for a in CHOICES[layer.ndim] if "c" not in a) if layer.ndim < 5 else ()
    choices = CHOICES[layer.ndim]
    guess = _named_axes(layer, choices) or _likely_axes(layer.data.shape, choices)
    return (guess, *(axes for axes in choices if axes != guess))


def axes_of(layer: Any) -> str:
    """Return the axes that the user chose for a layer, or else the likeliest of its choices."""
    choices = axes_choices(layer)
    chosen = layer.metadata.get(CHOSEN_AXES)
    return chosen if chosen in choices else choices[0]


def keep_axes(layer: Any, axes: str) -> None:
    """Let every panel know the axes that the user chose, where they are not the likeliest."""
    if axes != axes_of(layer):
        layer.metadata[CHOSEN_AXES] = axes


def channel_count(layer: Any) -> int:
    """Return how many channels a layer has; the colours of RGB count as one."""
    axes = axes_of(layer)
    if layer.rgb or "c" not in axes:
        return 1
    return int(data_of(layer).shape[axes.index("c")])


def data_of(layer: Any) -> Any:
    """Return a layer's data, of several levels the finest."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _named_axes(layer: Any, choices: Sequence[str]) -> str | None:
    """Take the axes from the layer's metadata or axis labels, if those say."""
    labels = tuple(str(label).strip().lower()[:1] for label in layer.axis_labels)
    for named in (str(layer.metadata.get("axes", "")).lower(), "".join(labels)):
        if named in choices:
            return named
    return None


def _likely_axes(shape: Sequence[int], choices: Sequence[str]) -> str:
    short = [axis for axis, size in enumerate(shape[:-2]) if size <= FEW]
    for axes in choices:
        if "c" in axes and axes.index("c") in short:
            return axes
    return choices[0]


def default_channels(layer: Any, axes: str) -> Channels:
    """Return the channels to begin with: all of them, or grey where there is only one."""
    return "all" if "c" in axes else "grey"


def read_layer(choice: ImageChoice) -> Image:
    """Make core's image of what was chosen, lazily.

    Raises
    ------
    UserError
        If the layer is empty, not of real numbers, or its axes or channels do not fit.
    """
    from napari_cellda.core.images import image_from_array

    layer = choice.layer
    levels = list(layer.data) if layer.multiscale else [layer.data]
    axes = choice.axes
    if choice.others:
        levels, axes = [_stack([layer, *choice.others])], f"c{axes}"
    image = image_from_array(
        levels[0],
        axes,
        name=image_name(layer),
        pixel_size=_pixel_size(layer, choice.axes),
        unit=_unit(layer),
        rgb=bool(layer.rgb),
        levels=tuple(levels[1:]),
    )
    return replace(image.select(choice.channels), path=path_of(layer))


def _stack(layers: list[Any]) -> Any:
    import dask.array as da

    arrays = [data_of(layer) for layer in layers]
    if len({tuple(array.shape) for array in arrays}) > 1:
        found = ", ".join(f"'{layer.name}' {tuple(layer.data.shape)}" for layer in layers)
        raise UserError(f"Layers used as channels need the same shape; found {found}.")
    return da.stack([da.asanyarray(array) for array in arrays])


def image_name(layer: Any) -> str:
    """Return the stem of the layer's file, or its name if it has none."""
    path = path_of(layer)
    return stem(path) if path is not None else str(layer.name)


def path_of(layer: Any) -> Path | None:
    """Return the file that a layer was opened from; None without one."""
    source = getattr(getattr(layer, "source", None), "path", None)
    return Path(source) if source else None


def _pixel_size(layer: Any, axes: str) -> tuple[float, ...]:
    shown = axes.replace("c", "") if layer.rgb else axes
    sizes = dict(zip(shown, layer.scale, strict=True))
    return tuple(float(sizes.get(axis, 1.0)) for axis in "zyx")


def _unit(layer: Any) -> str:
    units = getattr(layer, "units", None)
    return standard_unit(str(units[-1]) if units else None)


def spread_axis(axes: str, rgb: bool) -> int | None:
    """Return where strokes and results need a channel axis of their own in the viewer.

    napari lines layers up by their last axes. Where the channel axis comes first (or last, as in
    RGB) strokes simply lack it; where it stands between others, e.g. "tcyx", they need one too, or
    their time would be taken for the image's channel. None: not needed.
    """
    place = -1 if rgb else axes.find("c")
    return place if place > 0 else None
