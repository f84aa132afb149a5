"""Layers and folders of nuclei: which channel counts, and the points found in it. No Qt."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.ui.axes import ImageChoice, axes_of, channel_count, read_layer, spread_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_cellda.ui.inputs import Picked

CHOSEN_CHANNEL = "napari-cellda nuclei channel"
"""A key of a layer's metadata: the channel that the user chose."""


def choose_channel(layers: Sequence[Any], channel: int) -> None:
    """Say in which channel of these layers the nuclei are."""
    for layer in layers:
        layer.metadata[CHOSEN_CHANNEL] = channel


def nuclei_channel(nuclei: Picked) -> int | None:
    """Return which channel of the nuclei images counts; None: their only one, or RGB as grey.

    Raises
    ------
    UserError
        If there are several channels, and it was not said which of them counts.
    """
    if nuclei.path is not None:
        _check_folder(nuclei)
        return None
    counts = {layer.name: channel_count(layer) for layer in nuclei.layers}
    if set(counts.values()) == {1}:
        return None
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise UserError(
            f"The nuclei layers differ in their number of channels ({found}); choose layers that "
            "have as many."
        )
    channel, *others = {layer.metadata.get(CHOSEN_CHANNEL) for layer in nuclei.layers}
    if channel is None or others:
        name, count = next(iter(counts.items()))
        raise UserError(
            f"The nuclei layer '{name}' seems to have {count} channels: choose one with the button "
            "Find points to correct; or if they are planes, choose this layer's Axes in the panel "
            "Paint."
        )
    return int(channel)


def _check_folder(nuclei: Picked) -> None:
    from napari_cellda.core.batch_record import find_originals
    from napari_cellda.core.images import open_image

    assert nuclei.path is not None
    image = open_image(find_originals(nuclei.path)[0], channels="all")
    if image.n_channels > 1 and not image.rgb:
        raise UserError(
            f"The nuclei image '{image.path}' has {image.n_channels} channels; open these images "
            "in napari and choose their layers instead, to say in which channel the nuclei are."
        )


def points_axes(layer: Any) -> str:
    """Return the axes of points on an Image layer: its own, without channels where those can go."""
    axes = axes_of(layer)
    keep_channel = spread_axis(axes, bool(layer.rgb)) is not None
    return axes if keep_channel else axes.replace("c", "")


def nuclei_points(
    layer: Any, diameter: float | None, channel: int | None = None
) -> NDArray[np.float64]:
    """Find the nuclei of a layer, plane by plane, as a run finds them in its file.

    Parameters
    ----------
    layer : napari Image layer
        Of several scales the finest counts.
    diameter : float, optional
        Of a typical cell, in pixels.
    channel : int, optional
        Which one counts; None: the only one, or the luminance of RGB.

    Returns
    -------
    (n, d) ndarray
        In pixels of the layer, along its `points_axes`.

    Raises
    ------
    UserError
        If there are none, or no such channel.
    """
    from napari_cellda.core.points import find_nuclei

    chosen = "grey" if channel is None else (channel,)
    image = read_layer(ImageChoice(layer, axes_of(layer), chosen))
    found = []
    for t, z in product(range(image.n_times), range(image.limits[0])):
        points = find_nuclei(image, t, z, diameter)
        place = {"t": t, "z": z, "c": channel or 0}
        before = [float(place[axis]) for axis in points_axes(layer)[:-2]]
        found.append(np.hstack([np.tile(before, (len(points), 1)), points]))
    points = np.concatenate(found)
    if not len(points):
        raise UserError(
            f"No nuclei were found in '{layer.name}'; expected bright ones on a dark ground, of "
            "about the diameter below."
        )
    return points
