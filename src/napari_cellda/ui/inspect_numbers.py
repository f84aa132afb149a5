"""The figures of layers against layers: scored plane by plane in the background, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note
from napari_cellda.core.inspect.comparison import Comparing, refuse_ignored, to_labels
from napari_cellda.core.inspect.maps import check_shapes
from napari_cellda.ui.axes import data_of
from napari_cellda.ui.background import BackgroundWork
from napari_cellda.ui.connect import connect_while_alive
from napari_cellda.ui.inspect_layers import go_to
from napari_cellda.ui.object_scores import scores_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cellda.core.compare.overlaps import Overlaps
    from napari_cellda.core.compare.reading import Kind, PlanePair, Scheme
    from napari_cellda.core.compare.scoring import Figures, ImageResult
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.ui.state import Session

AXES = {2: "yx", 3: "zyx", 4: "tzyx"}
LIVE_MS = 700
"""A live table follows the maps after so long without another change."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One pair of layers and its figures."""

    result: Any
    """The layer that was judged."""
    reference: Any
    figures: ImageResult
    scheme: Scheme

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.result.name} / {self.reference.name}"


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    image: str
    part: str
    """"all", "class 2" or "plane 13"."""
    figures: Figures
    scored: Scored
    plane: int | None = None
    """Of a plane's row."""


class Numbers(BackgroundWork):
    """Scores pairs of layers and keeps what came of it; `changed` says that rows may be others."""

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(session, parent)
        self.scored: list[Scored] = []
        self.live = False
        self._again: Callable[[], None] | None = None
        self._timer = QTimer(self, singleShot=True, interval=LIVE_MS)
        self._timer.timeout.connect(self._score_again)
        connect_while_alive(self, session.results_changed, self._on_results)

    def score(
        self, result: Any, reference: Any, kind: Kind, *, classes: bool, ignore: int | None = None
    ) -> None:
        """Score a pair of layers, or score it again.

        Parameters
        ----------
        result, reference : napari layers
        kind : {"semantic", "instances", "boundary"}
        classes : bool
            Whether the numbers of a semantic reference are classes; else all are foreground.
        ignore : int, optional
            Number in the reference that marks pixels that do not count.

        Raises
        ------
        UserError
            If the shapes differ or have other than two to four axes.
        """
        arrays = data_of(result), data_of(reference)
        check_shapes(*arrays, (result.name, reference.name))
        scheme = self._scheme(kind, reference, classes, ignore)
        images = [
            _as_image(array, layer, kind)
            for array, layer in zip(arrays, (result, reference), strict=True)
        ]
        total = int(np.prod(arrays[0].shape[:-2], dtype=np.int64))
        scores = scores_of(result) if kind == "instances" else None
        again = partial(self.score, result, reference, kind, classes=classes, ignore=ignore)
        self._again = again
        self.begin(
            lambda stop: _score(images[0], images[1], scheme, scores, stop),
            "figures",
            lambda found: self._take(result, reference, scheme, found),
            total=total,
        )

    def clear(self) -> None:
        """Empty the table."""
        self._abandon()
        self.scored, self._again = [], None
        self.changed.emit()

    def rows(self) -> list[Row]:
        """Return the rows of the table: of each pair the whole, its classes, its planes."""
        rows = []
        for one in self.scored:
            found = one.figures
            rows.append(Row(one.name, "all", _with_contents(found, None), one))
            if len(found.classes) > 1:
                for index in found.classes:
                    rows.append(Row(one.name, f"class {index}", _with_contents(found, index), one))
            for plane, figures in enumerate(found.slices):
                rows.append(Row(one.name, f"plane {plane}", figures, one, plane))
        return rows

    def go_to(self, row: Row) -> None:
        """Show the image of a row, and its plane if it has one."""
        layer = row.scored.reference
        if layer not in self._session.viewer.layers:
            raise UserError(f"The layer '{layer.name}' is no longer in the viewer.")
        shape = data_of(layer).shape
        if row.plane is not None:
            plane = tuple(int(i) for i in np.unravel_index(row.plane, shape[:-2]))
            go_to(self._session, layer, plane, shape[-2] / 2, shape[-1] / 2)
        layer.visible = True

    def write(self, path: Path) -> None:
        """Write the table as CSV or JSON, by the ending of `path`.

        Raises
        ------
        UserError
            If the table is empty, or the ending is another one.
        """
        from napari_cellda.core.compare.evaluate import Evaluation
        from napari_cellda.core.compare.summary import ModelResult
        from napari_cellda.core.compare.tables import write_table

        if not self.scored:
            raise UserError("The table is empty; score two layers first.")
        images = tuple(one.figures for one in self.scored)
        model = ModelResult("viewer", images)
        write_table(path, Evaluation(self.scored[0].scheme, {"viewer": model}))

    def _scheme(self, kind: Kind, reference: Any, classes: bool, ignore: int | None) -> Scheme:
        from napari_cellda.core.compare.reading import Scheme

        if kind == "semantic" and classes:
            return Scheme(kind, "classes", ignore, tuple(range(1, len(self._session.classes))))
        binary = kind == "semantic" or np.dtype(reference.dtype).kind in "fb"
        return Scheme(kind, "binary" if binary else "instances", ignore)

    def _take(self, result: Any, reference: Any, scheme: Scheme, found: ImageResult | None) -> None:
        if found is None:
            return
        new = Scored(result, reference, found, scheme)
        same = [i for i, s in enumerate(self.scored) if s.name == new.name]
        if self.scored and self.scored[0].scheme.kind != scheme.kind:
            self.scored, same = [], []  # figures of different kinds make no table
        if same:
            self.scored[same[0]] = new
        else:
            self.scored.append(new)

    def _on_results(self, painted: Any) -> None:
        if self.live and self._again is not None:
            self._timer.start()

    def _score_again(self) -> None:
        if self._again is not None and not self.running and not self._session.is_closed:
            try:
                self._again()
            except UserError as error:
                self.failed.emit(str(error))


def _as_image(array: Any, layer: Any, kind: Kind) -> Image:
    """Wrap a layer's data lazily; a map's objects are its connected parts, in a single plane."""
    from napari_cellda.core.images import image_from_array
    from napari_cellda.core.images.units import standard_unit

    if array.ndim not in AXES:
        raise UserError(f"'{layer.name}' has {array.ndim} axes; 2 to 4 are scored.")
    if kind == "instances" and array.ndim == 2 and np.dtype(array.dtype).kind in "fb":
        array = to_labels(np.asarray(array), layer.name, Comparing(kind="objects"))
    units = getattr(layer, "units", None)
    return image_from_array(
        array,
        AXES[array.ndim],
        name=layer.name,
        pixel_size=[float(size) for size in layer.scale[-3:]],
        unit=standard_unit(str(units[-1]) if units else None),
    )


def _score(
    predicted: Image,
    truth: Image,
    scheme: Scheme,
    scores: Callable[[], dict[int, float]] | None,
    stop: Stop,
) -> Task[ImageResult | None]:
    from napari_cellda.core.compare.reading import numbers_in
    from napari_cellda.core.compare.scoring import score_image

    strangers: set[int] = set()

    def see(index: int, pair: PlanePair, overlaps: Overlaps | None) -> None:
        if scheme.reference_type == "classes":
            if scheme.ignore is None:
                refuse_ignored(pair.truth_mask, truth.name)
            for mask in (pair.predicted_mask, pair.truth_mask):
                strangers.update(numbers_in(mask) - set(scheme.classes))

    found = yield from score_image(
        truth.name,
        predicted,
        truth,
        scheme,
        scores=None if scores is None else scores(),
        pixel_size=truth.pixel_size,
        unit=truth.unit,
        see=see,
        stop=stop,
    )
    if strangers:
        which = ", ".join(map(str, sorted(strangers)))
        yield Note(f"Class {which} is none of the classes in Paint, so it gets no figures.")
    return found


def _with_contents(found: ImageResult, index: int | None) -> Figures:
    """Add area fraction and object counts to the figures of an image or of one of its classes."""
    classes = found.classes.values() if index is None else [found.classes[index]]
    figures = found.figures if index is None else found.classes[index].figures
    counts = [one.counts for one in classes]
    scored = max((count.scored for count in counts), default=0)
    return figures | {
        "area": sum(count.predicted for count in counts) / scored if scored else float("nan"),
        "objects": float(sum(len(one.predicted_sizes) for one in classes)),
        "true objects": float(sum(len(one.truth_sizes) for one in classes)),
    }
