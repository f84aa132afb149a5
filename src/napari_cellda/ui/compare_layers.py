"""Maps of several models on one image: one at a time by a key, or side by side."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.ui.axes import ImageChoice
from napari_cellda.ui.layers import TAG, fade_in, keep_selection, on_layer
from napari_cellda.ui.run_layers import GAP, keep_camera

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.ui.state import Session

NEXT_KEY = "Y"
"""Shows the next map."""
COLORS = {
    "forest": "#e69f00",
    "enhanced": "#56b4e9",
    "source-only": "#cc79a7",
    "target-only": "#d55e00",
    "fine-tuned": "#f0e442",
}
OWN = "#009e73"


class CompareLayers:
    """The layers of one comparison; `NEXT_KEY` goes through them.

    Parameters
    ----------
    session : Session
    choice : ImageChoice
        What the maps lie on.
    """

    def __init__(self, session: Session, choice: ImageChoice) -> None:
        self._session = session
        self._image, self._axes = weakref.ref(choice.layer), choice.axes
        self._layers: list[weakref.ref[Any]] = []
        self.apart = False

    @property
    def layers(self) -> list[Any]:
        """Those that are still there."""
        viewer = self._session.viewer
        found = [reference() for reference in self._layers]
        return [one for one in found if viewer is not None and one in viewer.layers]

    def show(self, maps: Mapping[str, np.ndarray]) -> None:
        """Show maps, or labels of classes or objects, by their names, the last one in front.

        Parameters
        ----------
        maps : mapping of str to array of the image's `label_shape`
        """
        from napari.layers import Image as ImageLayer
        from napari.layers import Labels

        viewer, image = self._session.viewer, self._image()
        self.clear()
        if viewer is None or image is None:
            return
        choice = ImageChoice(image, self._axes, "all")
        for name, array in maps.items():
            data, place = on_layer(choice, array)
            looks: dict[str, Any] = {}
            if array.dtype.kind == "f":
                looks = {"colormap": fade_in(COLORS.get(name, OWN)), "contrast_limits": (0, 1)}
            layer = (ImageLayer if looks else Labels)(
                data,
                name=f"Compare · {name}",
                opacity=0.7,
                metadata={TAG: {"role": f"compare:{name}"}},
                **looks,
                **place,
            )
            with keep_selection(viewer), keep_camera(viewer):
                viewer.add_layer(layer)
            self._layers.append(weakref.ref(layer))
        self._show_only(len(self.layers) - 1)
        viewer.bind_key(NEXT_KEY, lambda viewer: self.show_next(), overwrite=True)

    def show_next(self) -> str:
        """Show the next map alone, and return its name."""
        layers = self.layers
        if not layers:
            return ""
        if self.apart:
            self.set_apart(False)
        now = next((i for i, one in enumerate(layers) if one.visible), -1)
        self._show_only((now + 1) % len(layers))
        name = str(layers[(now + 1) % len(layers)].name)
        self._session.say(f"{name} ({NEXT_KEY}: the next one)")
        return name

    def set_apart(self, apart: bool) -> None:
        """Lay all maps side by side, or on top of each other, one visible, and show them whole."""
        moved = apart or self.apart
        self.apart = apart
        image = self._image()
        layers = self.layers
        if image is None or not layers:
            return
        width = layers[0].data.shape[-1] + GAP
        for number, layer in enumerate(layers):
            step = np.zeros(layer.ndim)
            step[-1] = number * width * layer.scale[-1] if apart else 0
            # Along the rows of the image, which may be turned.
            layer.translate = image.translate[image.ndim - layer.ndim :] + layer.rotate @ step
            layer.visible = apart or number == len(layers) - 1
        if moved:  # else the view stays where the user looks
            self._session.viewer.reset_view()

    def clear(self) -> None:
        """Take the layers out of the viewer."""
        for layer in self.layers:
            self._session.viewer.layers.remove(layer)
        self._layers = []
        self.apart = False

    def _show_only(self, shown: int) -> None:
        for number, layer in enumerate(self.layers):
            layer.visible = number == shown
