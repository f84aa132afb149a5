"""Export beside the window: what is exported, and the objects as a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.ui.layers import ensure_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.export.image import ExportChoice, Exported
    from napari_cellda.core.images import Image
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.pipeline import Pipeline
    from napari_cellda.ui.painted import PaintedImage
    from napari_cellda.ui.state import Session

    OpenSource = Callable[[], tuple[Image, Normalisation | None]]


def session_pipeline(session: Session) -> Pipeline:
    """Freeze the forest and the enhancer as they are now.

    Raises
    ------
    UserError
        If no forest is trained yet.
    """
    from napari_cellda.core.pipeline import Pipeline

    return Pipeline(session.require_classifier(), session.enhancer, plain_options(session))


def plain_options(session: Session) -> EnhancerOptions:
    """Return how the enhancer is applied, without what concerns the window alone."""
    chosen = session.enhancer_options.model_dump()
    return EnhancerOptions(**{k: chosen[k] for k in EnhancerOptions.model_fields})


def export_images(
    pipeline: Pipeline,
    sources: Sequence[OpenSource],
    choice: ExportChoice,
    stop: Stop,
) -> Task[list[Exported]]:
    """Export one image after the other; all of them are checked before the first.

    Parameters
    ----------
    pipeline : Pipeline
    sources : sequence of callable
        Each opens an image and returns it with its normalisation (None: measured on the way).
    choice : ExportChoice
    stop : callable

    Returns
    -------
    list of Exported
        Of the images that were finished; fewer than given if stopped.
    """
    from napari_cellda.core.export.image import export_image

    opened = [open_source() for open_source in sources]
    stems = [image.stem for image, _ in opened]
    for image, _ in opened:
        choice.check(image)
        if stems.count(image.stem) > 1:
            raise UserError(
                f"Two images would be written to the same files '{image.stem}_...'; rename the "
                f"layer '{image.name}'."
            )
    done: list[Exported] = []
    for image, normalisation in opened:
        if stop():
            break
        exported = yield from export_image(
            pipeline, image, choice, normalisation=normalisation, stop=stop
        )
        if exported is not None:
            done.append(exported)
    return done


def show_objects(session: Session, painted: PaintedImage, exported: Exported) -> Any:
    """Show the objects of an export as a Labels layer whose features are their table.

    Returns
    -------
    napari Labels layer or None
        None if there are no objects to show, or the user does not want that layer.
    """
    if exported.instances is None:
        return None
    layer = ensure_layer(
        session, painted, "instances", exported.instances, name="Objects", kind="labels"
    )
    if layer is not None and exported.table is not None:
        layer.features = {"index": exported.table["label"], **exported.table}
    return layer
