"""Live painting's background thread: the engine, what it is asked, what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cellda.core.live.snapshot import EnhancedTile, ForestTile
from napari_cellda.core.live.trainer import Trainer
from napari_cellda.ui.results import prepare_arrays, write_answer
from napari_cellda.ui.snapshots import n_outputs

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from napari_cellda.core.classifier import PixelClassifier
    from napari_cellda.core.events import Stop
    from napari_cellda.core.images.normalisation import Normalisation
    from napari_cellda.core.live.engine import Engine
    from napari_cellda.core.live.snapshot import Answer, Snapshot
    from napari_cellda.ui.arrays import Scratch
    from napari_cellda.ui.painted import PaintedImage

    Adopted = tuple[Snapshot, PixelClassifier, Mapping[Hashable, Normalisation]]


@dataclass(frozen=True, eq=False)
class Question:
    """What the background thread is asked; no snapshot: load the libraries."""

    snapshot: Snapshot | None = None
    painted: PaintedImage | None = None
    score_only: bool = False


@dataclass(frozen=True, eq=False)
class Loaded:
    """The libraries are loaded and the kernels compiled."""


@dataclass(frozen=True, eq=False)
class OutOfBag:
    """The forest's accuracy on painted pixels that a tree did not see."""

    score: float


@dataclass(frozen=True, eq=False)
class Written:
    """Result arrays were written to."""

    roles: list[str]
    left: int = 0
    """Parts of this kind still to come."""


class LiveWork:
    """Owns the engine and its helper process; only `answer` runs in the thread.

    Parameters
    ----------
    scratch : Scratch
        Makes the result arrays.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.engine: Engine | None = None
        self.trainer = Trainer()
        self.trainer.start()
        self._adopted: Adopted | None = None

    def adopt(
        self,
        snapshot: Snapshot,
        classifier: PixelClassifier,
        measured: Mapping[Hashable, Normalisation],
    ) -> None:
        """Have a forest taken over before the next question is answered; see `Engine.adopt`."""
        self._adopted = snapshot, classifier, measured

    def normalisation_of(self, key: Hashable) -> Normalisation | None:
        """Return what was measured for an image; None if nothing was."""
        return None if self.engine is None else self.engine.normalisation_of(key)

    def answer(
        self, question: Question, superseded: Stop, stop: Stop
    ) -> Iterator[Answer | Loaded | OutOfBag | Written]:
        """Answer a question in the background; see `Engine.answer`."""
        if self.engine is None:
            from napari_cellda.core.live.engine import ready_engine

            self.engine = ready_engine(self.trainer)
            yield Loaded()
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            self.engine.adopt(*adopted)
        snapshot, painted = question.snapshot, question.painted
        if snapshot is None or painted is None:
            return
        if question.score_only:
            score = self.engine.score(snapshot, lambda: superseded() or stop())
            if score is not None:
                yield OutOfBag(score)
            return
        n_classes = len(snapshot.class_names)
        yield Written(prepare_arrays(painted, n_classes, n_outputs(snapshot), self._scratch))
        with_mask = snapshot.enhancement is None
        for answer in self.engine.answer(snapshot, superseded, stop):
            if isinstance(answer, ForestTile | EnhancedTile):
                yield Written(write_answer(painted, answer, with_mask=with_mask), answer.left)
            else:
                yield answer

    def close(self) -> None:
        """End the helper process and free the engine."""
        self.trainer.close()
        self.engine = None
