"""The runs of a viewer: started or found again, followed in a thread, stopped, resumed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cellda.core.runs.commands import ENHANCER
from napari_cellda.core.runs.folder import CHECKPOINTS
from napari_cellda.core.runs.history import RunView
from napari_cellda.core.runs.table import RUNS_VARIABLE
from napari_cellda.ui.frames import keep
from napari_cellda.ui.model_loading import agreed, ask_consent, check_project, trust_words
from napari_cellda.ui.run_layers import RunLayers, remove_pictures
from napari_cellda.ui.worker import TaskHandle, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_cellda.core.events import Preview, Stop
    from napari_cellda.core.runs.launch import Launched
    from napari_cellda.ui.run_layers import Place
    from napari_cellda.ui.state import Session


RESUMABLE = ("stopped", "cancelled", "failed", "killed")
OUTSIDE = ("resume the run", "--inputs", "the disk is full")
"""In the sentences of failures that can be mended without another run."""


def runs_folder() -> Path:
    """Return where new runs go unless the user says otherwise."""
    return Path(os.environ.get(RUNS_VARIABLE) or Path.home() / "cellda" / "runs")


class RunWatch:
    """One run as the window sees it.

    Nothing here waits: what takes time happens in a thread, and the signals tell of it.

    Parameters
    ----------
    session : Session
        Ends the following, not the run, when it closes.
    folder : Path
        The run's.

    Signals
    -------
    changed
        `view` is another.
    framed(Preview)
        The run has taken a picture, or took it earlier and is opened again.
    failed(Exception)
        Something that was asked for here did not work.
    forgotten
        It was deleted: there is nothing to show any more.
    """

    changed = Signal()
    framed = Signal(object)
    failed = Signal(object)
    forgotten = Signal()

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder = session, folder
        self.view = RunView()
        self.frames: dict[str, list[Preview]] = {}
        """The pictures so far, by name and in order; of very many some, see `keep`."""
        self.pictures = RunLayers(self)
        """Its pictures in the viewer, whichever panels show the run."""
        self.shows_pictures = True
        """Whether new pictures go there."""
        self.command = ""
        """The first word of what started it here: "adapt" or "enhancer"."""
        self.wish = ""
        """What was asked of it and has not happened yet: "stop", "cancel" or nothing."""
        self._launched: Launched | None = None
        self._following: TaskHandle | None = None
        self._beginning: TaskHandle | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def has_begun(self) -> bool:
        """Whether there is a run in its folder; one that was refused has left none."""
        return (self.folder / "run.yaml").is_file()

    @property
    def can_resume(self) -> bool:
        """Whether to go on with it may lead further than it came."""
        if self.alive or self.view.state not in RESUMABLE or not self.has_begun:
            return False
        # Its inputs and settings stay what they were, so they would fail again; what its sentence
        # blames on the machine is another matter.
        fails_again = self.view.state == "failed" and not self._has_checkpoint
        return not fails_again or any(words in self.view.text for words in OUTSIDE)

    @property
    def _has_checkpoint(self) -> bool:
        return any((self.folder / CHECKPOINTS).glob("last.*"))

    @property
    def alive(self) -> bool:
        """Whether it is starting, waiting or at work."""
        return self._beginning is not None or self.view.alive

    @property
    def being_prepared(self) -> bool:
        """Whether its inputs are still being written: it has no process yet."""
        return self._beginning is not None

    def start(self, words: Sequence[str], prepare: Callable[[Stop], object] | None = None) -> None:
        """Start its process.

        Parameters
        ----------
        words : sequence of str
            The command, see `core.runs.launch.start_run`.
        prepare : callable, optional
            Called first, in the thread: writes the inputs that are not on disk yet, until it is
            to stop.
        """
        from napari_cellda.core.runs.folder import drop_unbegun
        from napari_cellda.core.runs.launch import start_run

        def begin(stop: Callable[[], bool]) -> Launched | None:
            launched = None
            try:
                if prepare is not None:
                    prepare(stop)
                if not stop():
                    launched = start_run(words, self.folder)
            finally:
                if launched is None:
                    drop_unbegun(self.folder)
            return launched

        self.view, self.wish, self.frames, self.command = RunView(), "", {}, words[0]
        self._beginning = run_task(
            begin,
            title="start run",
            on_result=self._on_started,
            on_error=self._on_not_started,
        )
        self.changed.emit()

    def resume(self) -> None:
        """Go on from its last checkpoint; asks about a program that nobody agreed to run."""
        from napari_cellda.core.jobs import Run

        try:
            run = Run(self.folder)
        except Exception as error:
            self.failed.emit(error)
            return
        if run.record.method == ENHANCER:
            self.start([*ENHANCER.split(), "--resume"])
            return
        trusted = frozenset(self.session.trusted)
        has_project = any(item.role == "project" for item in run.record.inputs)
        may_lack_maps = not run.checkpoint_path("last").is_file()

        def check(stop: Stop) -> None:
            if has_project and may_lack_maps:
                check_project(run.input_path("project"), trusted)

        self.start(["adapt", "--resume", *trust_words(trusted)], check)

    def follow(self) -> None:
        """Read what it has done and does, until it has ended."""
        from napari_cellda.core.runs.folder import drop_unbegun
        from napari_cellda.core.runs.follow import follow_run
        from napari_cellda.ui import plots

        if self._following is not None and self._following.running:
            return
        launched = self._launched

        def task(stop: Callable[[], bool]) -> Generator[RunView | Preview, None, RunView]:
            plots.load()
            last = yield from follow_run(self.folder, stop, launched)
            if launched is not None and not (last.alive or launched.crashed):
                drop_unbegun(self.folder)
            return last

        self._following = run_task(
            task,
            session=self.session,
            title="follow run",
            on_event=self._on_news,
            on_error=self._on_error,
        )

    def show_pictures(self, on: bool) -> None:
        """Show its pictures in the viewer, those in deleted layers too; or show no new ones."""
        self.shows_pictures = on
        if on:
            self.pictures.forget_deleted()
            taken = (frame for frames in self.frames.values() for frame in frames)
            self.pictures.show(*sorted(taken, key=lambda frame: frame.index))
        self.changed.emit()

    def stop(self) -> None:
        """Ask it to end with what it has learned so far."""
        from napari_cellda.core.jobs import Run

        self.wish = "stop"
        self.changed.emit()

        def ask(stop: Callable[[], bool]) -> None:
            if self.has_begun:
                Run(self.folder).ask_to_stop()
            else:  # it has not begun: there is nothing to keep
                self._cancel()

        run_task(ask, title="stop run", on_error=self._on_error)

    def cancel(self) -> None:
        """End it at once."""
        self.wish = "cancel"
        self.changed.emit()
        run_task(lambda stop: self._cancel(), title="cancel run", on_error=self._on_error)

    def _cancel(self) -> None:
        from napari_cellda.core.runs.launch import cancel_run

        if self._beginning is not None:
            self._beginning.stop()
        cancel_run(self.folder, self._launched)

    def _on_started(self, launched: Launched | None) -> None:
        self._beginning = None
        if launched is None:
            self.view = RunView(state="cancelled")
            self.changed.emit()
            return
        self._launched = launched
        if self.wish:  # asked when the process was about to start
            (self.stop if self.wish == "stop" else self.cancel)()
        if not self.session.is_closed:
            self.follow()

    def _on_not_started(self, error: Exception) -> None:
        self._beginning = None
        # Only a resume meets a program here: a new run is checked before it is begun.
        if agreed(self.session, error, partial(ask_consent, None)):
            self.resume()
            return
        self.view = RunView(state="failed", text=str(error) or type(error).__name__)
        self.changed.emit()

    def _on_news(self, news: Any) -> None:
        if isinstance(news, RunView):
            self.view = news
            if not news.alive:
                self.wish = ""
            self.changed.emit()
        else:
            keep(self.frames.setdefault(news.name, []), news)
            if self.shows_pictures:
                self.pictures.show(news)
            self.framed.emit(news)

    def _on_error(self, error: Exception) -> None:
        self.wish = ""
        self.failed.emit(error)


class SessionRuns:
    """All runs that a viewer has to do with; get it with `SessionRuns.of`.

    Signals
    -------
    added(RunWatch)
        A run was started or opened.
    """

    added = Signal(object)

    def __init__(self, session: Session) -> None:
        self.session = session
        self.watches: dict[Path, RunWatch] = {}

    @classmethod
    def of(cls, session: Session) -> SessionRuns:
        """Return the session's, made on the first call."""
        found = session.parts.get(cls.__name__)
        if found is None:
            found = session.parts[cls.__name__] = cls(session)
            from napari_cellda.ui.closing import guard

            guard(found)
        assert isinstance(found, SessionRuns)
        return found

    @property
    def alive(self) -> list[RunWatch]:
        """Those that go on."""
        return [watch for watch in self.watches.values() if watch.alive]

    def watch(self, folder: Path) -> RunWatch:
        """Return the watch of a run; a new one does not follow yet."""
        folder = folder.resolve()
        if folder not in self.watches:
            self.watches[folder] = RunWatch(self.session, folder)
        return self.watches[folder]

    def start(
        self,
        words: Sequence[str],
        folder: Path,
        prepare: Callable[[Stop], object] | None = None,
        *,
        place: Place | None = None,
        show_pictures: bool = True,
    ) -> RunWatch:
        """Start a new run.

        Parameters
        ----------
        words, folder, prepare
            See `RunWatch.start`.
        place : Place, optional
            Where its pictures go, see `RunLayers`.
        show_pictures : bool
            Whether they go into the viewer.
        """
        watch = self.watch(folder)
        watch.pictures.place, watch.shows_pictures = place, show_pictures
        watch.start(words, prepare)
        self.added.emit(watch)
        return watch

    def open(self, folder: Path) -> RunWatch:
        """Show a run that is there already, and attach to it if it goes on."""
        watch = self.watch(folder)
        if not (watch.alive and watch.frames):
            watch.frames = {}
        watch.show_pictures(True)
        watch.follow()
        self.added.emit(watch)
        return watch

    def forget(self, folder: Path) -> None:
        """Drop a run that was deleted, with its pictures; one that is still there stays."""
        if folder.exists():  # it is at work, or could not be deleted
            return
        folder = folder.resolve()
        remove_pictures(self.session.viewer, folder)
        watch = self.watches.pop(folder, None)
        if watch is not None:
            watch.forgotten.emit()
