"""The images of a project: found on disk, opened as layers, known again by their pixels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.project import find_image, fingerprint
from napari_cellda.ui.axes import ImageChoice, axes_choices, read_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.images import Channels, Image
    from napari_cellda.core.project import ImageReference, Project


def look_for(reference: ImageReference, project_path: Path) -> list[Path]:
    """Return where an image may be: where it was, and under its name near the project.

    Which of them is the right one is seen when it is opened.
    """
    if reference.path is None:
        return []
    there = find_image(reference, project_path)
    name, folder = Path(reference.path).name, project_path.resolve().parent
    folders = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    nearby = [path / name for path in folders if (path / name).exists()]
    return list(dict.fromkeys([there, *nearby] if there is not None else nearby))


def open_as_layer(
    viewer: Any, path: Path, reference: ImageReference, project: Project, project_path: Path
) -> ImageChoice:
    """Open an image of a project as a layer.

    Parameters
    ----------
    viewer : napari.Viewer
    path : Path
        Where it is now.
    reference : ImageReference
    project : Project
    project_path : Path
        Further images that serve as channels are looked for beside it.

    Returns
    -------
    ImageChoice
        Of the layer that is the image, with the axes and channels that it was used with.

    Raises
    ------
    UserError
        If the file cannot be opened, or holds another image; then no layer is left.
    """
    layers = _open(viewer, path, reference.reader, reference.name, reference.axes)
    channels = project.channels if reference.channels is None else reference.channels
    try:
        others = tuple(
            _open(viewer, project_path.resolve().parent / other, reference.reader, None, "")[0]
            for other in reference.others
        )
        for layer in layers:
            choice = _matching_choice(layer, reference, channels, others)
            if choice is not None:
                return choice
        raise UserError(
            f"'{path.name}' is not the image '{reference.name}' that the project was saved with: "
            "its size, type or pixels are others."
        )
    except UserError:
        for layer in layers:
            viewer.layers.remove(layer)
        raise


def _matching_choice(
    layer: Any, reference: ImageReference, channels: Channels, others: Sequence[Any]
) -> ImageChoice | None:
    """Return how the layer has to be read to be the image; None if it is another."""
    for axes in dict.fromkeys((reference.axes, *axes_choices(layer))):
        if len(axes) != layer.ndim + bool(layer.rgb):
            continue
        with suppress(UserError):
            choice = ImageChoice(layer, axes, channels, tuple(others))
            if fingerprint(read_layer(choice)) == reference.fingerprint:
                return choice
    return None


def _open(viewer: Any, path: Path, reader: str | None, name: str | None, wanted: str) -> list[Any]:
    """Open a file with the plugin that opened it before, or else with our own readers."""
    from napari.layers import Image

    if not path.exists():
        raise UserError(f"'{path}' is not there any more.")
    if reader is not None:
        with suppress(Exception):  # the plugin is not installed here, or has changed
            opened = [one for one in viewer.open(path, plugin=reader) if isinstance(one, Image)]
            if opened:
                return opened
    return [_add(viewer, path, name, wanted)]


def _add(viewer: Any, path: Path, name: str | None, wanted: str) -> Any:
    from napari_cellda.core.images import open_image

    image = open_image(path, channels="all")
    axes, levels = layer_arrays(image, wanted)
    shown = axes.removesuffix("c") if image.rgb else axes
    sizes = dict(zip("zyx", image.pixel_size, strict=True))
    settings: dict[str, Any] = {"scale": [sizes.get(axis, 1.0) for axis in shown]}
    if image.unit != "pixel":
        settings["units"] = [image.unit if axis in sizes else "pixel" for axis in shown]
    return viewer.add_image(
        levels if len(levels) > 1 else levels[0],
        name=name or image.name,
        rgb=image.rgb,
        multiscale=len(levels) > 1,
        **settings,
    )


def layer_arrays(image: Image, wanted: str) -> tuple[str, list[Any]]:
    """Return an image as a layer shows it, lazily.

    Parameters
    ----------
    image : Image
        With all its channels.
    wanted : str
        Axes in the order that a layer had; not used if the image has others.

    Returns
    -------
    axes : str
        Its own axes, colours last.
    levels : list of array
        Finest first.
    """
    axes = wanted if sorted(wanted) == sorted(image.axes) else image.axes
    if image.rgb:
        axes = axes.replace("c", "") + "c"
    index = tuple(slice(None) if axis in axes else 0 for axis in "tczyx")
    present = [axis for axis in "tczyx" if axis in axes]
    order = [present.index(axis) for axis in axes]
    return axes, [level[index].transpose(order) for level in (image.data, *image.levels)]
