"""What *Did it help?* computes beside the window, and how it is shown."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note
from napari_cellda.ui.compare_layers import NEXT_KEY, OWN
from napari_cellda.ui.layers import TAG, fade_in, keep_selection, on_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np

    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.pipeline import MapMaker, Pipeline
    from napari_cellda.core.runs.apply import Applied
    from napari_cellda.core.runs.table import RunLine
    from napari_cellda.core.runs.verdict import MapFigures
    from napari_cellda.ui.axes import ImageChoice
    from napari_cellda.ui.state import Session

RESERVED = ("forest", "enhanced")
"""Names of the session's own maps."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came of comparing several models; empty when stopped."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    """Maps, classes or objects by the models' names."""
    figures: list[MapFigures] = field(default_factory=list)


def compare_models(
    pipeline: Pipeline | None,
    models: Sequence[tuple[str, Path]],
    image: Image,
    truth: Image | None,
    trusted: Collection[str],
    stop: Stop,
) -> Task[Comparison]:
    """Show what the session and some runs make of an image; the last run is the judged one.

    A forest that does not suit the image is left out: nobody has chosen it, and it is not judged.
    """
    from napari_cellda.core.runs.apply import finds_objects
    from napari_cellda.core.runs.verdict import judge, show_models

    makers: list[tuple[str, MapMaker]] = []
    if pipeline is not None and not _suits(pipeline, image):
        yield Note(
            "Your own map is left out: its forest was trained on other channels than those of "
            f"'{image.name}'."
        )
    elif pipeline is not None:
        makers.append(("enhanced" if pipeline.enhancer is not None else "forest", pipeline))
    opened = [(name, open_run(folder, trusted)) for name, folder in models]
    judged, maker = opened[-1]
    card = maker.network.card
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        shown = yield from show_models(
            [*makers, *opened], image, Path(scratch), objects=finds_objects(card), stop=stop
        )
        if judged not in shown:
            return Comparison()
        names = class_names(card.training, shown[judged].n_classes)
        figures = yield from judge(shown, judged, truth, names, stop=stop)
    return Comparison({name: one.picture for name, one in shown.items()}, figures)


def _suits(pipeline: Pipeline, image: Image) -> bool:
    """Whether an image has the channels that a forest was trained on."""
    try:
        pipeline.classifier.check(image.select(pipeline.channels))
    except UserError:
        return False
    return True


def apply_run(
    folder: Path, image: Image, trusted: Collection[str], objects: bool, stop: Stop
) -> Task[tuple[Applied, list[str]] | None]:
    """Run a run's model on a whole image; return what it shows, and the names of its classes."""
    from napari_cellda.core.runs.apply import apply_model

    maker = open_run(folder, trusted)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        applied = yield from apply_model(maker, image, Path(scratch), objects=objects, stop=stop)
    if applied is None:
        return None
    return applied, class_names(maker.network.card.training, len(applied.maps.probability))


def open_run(folder: Path, trusted: Collection[str]) -> Any:
    """Open the model of a run, a `NetworkPipeline`.

    Raises
    ------
    UserError
        If the run is gone, or its model cannot be opened.
    """
    from napari_cellda.core.batch import open_map_maker

    insist_on_folder(folder)
    return open_map_maker(str(folder), trusted=trusted)[0]


def insist_on_folder(folder: Path) -> None:
    """Make sure that a run is still there; it may be deleted by another program.

    Raises
    ------
    UserError
        If its folder is gone.
    """
    if not folder.is_dir():
        raise UserError(f"The run's folder '{folder}' is gone.")


def run_card(folder: Path) -> ModelCard | None:
    """Return the card of a run's model; None when it cannot be read, as opening it will tell."""
    from napari_cellda.core.modelzoo.rdf import read_card

    try:
        return read_card(folder / "model")
    except (UserError, OSError):
        return None


def makes_objects(card: ModelCard | None) -> bool:
    """Whether a model finds or separates objects."""
    from napari_cellda.core.runs.apply import finds_objects

    return card is not None and finds_objects(card)


def takes_grey(card: ModelCard | None) -> bool:
    """Whether a model takes images of one channel, and no channel by its number."""
    return card is not None and card.n_inputs == 1 and card.channels in (None, "grey")


def class_names(training: dict[str, Any], n_classes: int) -> list[str]:
    """Return the names of the foreground classes, as the run wrote them down."""
    found = [str(name) for name in training.get("classes", ())][1:]
    return found if len(found) == n_classes - 1 else [f"class {k}" for k in range(1, n_classes)]


def other_name(line: RunLine, judged: str) -> str:
    """Return what another run is called beside the judged one: its bound, or its folder."""
    return line.bound if line.bound and line.bound != judged else line.name


def own_name(name: str) -> str:
    """Return what the judged run is called: its folder, unless the session has maps so named."""
    return f"run {name}" if name in RESERVED else name


# -- layers -------------------------------------------------------------------------------------


def show_applied(
    session: Session, choice: ImageChoice, run: str, applied: Applied, names: Sequence[str]
) -> Any:
    """Add what a run shows of an image as a Labels layer, its maps hidden below.

    Parameters
    ----------
    session : Session
    choice : ImageChoice
        The image that it was applied to.
    run : str
        Its name.
    applied : Applied
    names : sequence of str
        Of the foreground classes.

    Returns
    -------
    napari Labels layer
        An ordinary one: it can be corrected, and taken as a mask or as truth.
    """
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels

    from napari_cellda.ui.run_layers import keep_camera

    title = f"{choice.layer.name} · {run}"
    made: list[Any] = []
    for k, name in enumerate(names, 1):
        data, place = on_layer(choice, applied.maps.probability[k])
        looks = {"colormap": fade_in(OWN), "contrast_limits": (0, 1), "visible": False}
        tag = {TAG: {"role": f"applied:{name}"}}
        made.append(ImageLayer(data, name=f"{title} · {name} map", metadata=tag, **looks, **place))
    data, place = on_layer(choice, applied.labels)
    features: dict[str, Any] = {"index": range(len(names) + 1), "class": ["background", *names]}
    if applied.table is not None:
        features = {"index": applied.table["label"], **applied.table}
    made.append(Labels(data, name=title, opacity=0.6, features=features, **place))
    with keep_selection(session.viewer), keep_camera(session.viewer):
        for layer in made:
            session.viewer.add_layer(layer)
    return made[-1]


# -- figures ------------------------------------------------------------------------------------


def figures_text(figures: Sequence[MapFigures]) -> str:
    """Return the figures as small tables of rich text."""
    if not figures:
        return ""
    scored = any(one.dice is not None for one in figures)
    head = ["", "covers", "sure", "agrees", *(["Dice", "IoU"] if scored else [])]
    rows = [head]
    for one in figures:
        shares = (f"{one.foreground:.0%}", f"{one.sure:.0%}", f"{one.agreement:.2f}")
        scores = [_number(one.dice), _number(one.iou)] if scored else []
        rows.append([one.name, *shares, *scores])
    if not scored:
        below = "<p>Agreement is with the new map: it tells how alike, not how right.</p>"
    else:
        below = _more_scores(figures)
    hint = f"<p>Press <b>{NEXT_KEY}</b> to see the next map.</p>" if len(figures) > 1 else ""
    return _table(rows) + below + hint


def _more_scores(figures: Sequence[MapFigures]) -> str:
    """Return a second table where there are several classes, or objects."""
    classes = list(dict.fromkeys(name for one in figures for name in one.classes))
    if classes:
        rows = [["", *(f"Dice {name}" for name in classes)]]
        rows += [[one.name, *(_number(one.classes.get(c)) for c in classes)] for one in figures]
        unlike = [one.name for one in figures if not one.classes]
        note = f"Not scored, having other classes: {escape(', '.join(unlike))}."
        above = "Dice and IoU above are means over the classes."
        return _table(rows) + f"{above} {note}" if unlike else _table(rows) + above
    if any(one.instance_dice is not None for one in figures):
        rows = [["Objects", "AP50", "object Dice"]]
        rows += [[one.name, _number(one.ap50), _number(one.instance_dice)] for one in figures]
        return _table(rows)
    return ""


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(
        "<tr>"
        + "".join(f"<td style='padding-right:8px'>{escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in rows
    )
    return f"<table>{cells}</table>"
