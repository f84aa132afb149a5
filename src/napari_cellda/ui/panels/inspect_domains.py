"""The tab Domains: how far sets of images are apart, and which is the nearest source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stage, Step
from napari_cellda.ui.panels.inspect_plots import make_map
from napari_cellda.ui.panels.inspect_tabs import side_by_side
from napari_cellda.ui.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.events import Event, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.inspect.domain_map import Patches
    from napari_cellda.ui.state import Session
    from napari_cellda.ui.worker import TaskHandle

OPEN = "Images in the viewer"
MOST_IMAGES = 24
"""Of a folder, so many images are looked at, evenly spread."""
PATCHES = 120
"""About so many patches of each domain."""


class DomainsTab(QWidget):
    """Choose sets of images, map them, hear which is nearest.

    Parameters
    ----------
    session : Session
    trying : callable
        Wraps an action so that its error is shown in the panel.

    Signals
    -------
    told(str, str)
        A sentence for the panel's banner, and its kind.
    """

    told = Signal(str, str)

    def __init__(self, session: Session, trying: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._session, self._trying = session, trying
        self.folders: dict[str, Path] = {}
        self.network: Path | None = None
        self.patches: dict[str, Patches] = {}
        self._spots: np.ndarray | None = None
        self._task: TaskHandle | None = None
        self.plot: Any = None
        self._make_widgets()
        self._lay_out()
        self._connect()
        self._refresh()
        self.destroyed.connect(lambda: self._abandon())

    def _make_widgets(self) -> None:
        self.list = QListWidget()
        self.list.setFixedHeight(90)
        self.list.setToolTip("Each folder of images is one domain, beside the images in the viewer")
        self.add = QPushButton("Add a folder\u2026")
        self.remove = QPushButton("Remove")
        self.by = QComboBox()
        self.by.addItem("pixel features", "features")
        self.by.addItem("a network's bottleneck\u2026", "network")
        self.by.setToolTip("What a patch is described by")
        self.layout_by = QComboBox()
        self.layout_by.addItem("PCA", "pca")
        self.layout_by.addItem("t-SNE", "tsne")
        self.layout_by.setToolTip("PCA keeps distances, t-SNE keeps neighbours")
        self.pictures = QCheckBox("pictures")
        self.start = QPushButton("Map")
        self.cancel = QPushButton("Stop")
        self.progress = QProgressBar()
        self.progress.setFixedHeight(6)
        self.progress.setTextVisible(False)
        self.target = QComboBox()
        self.target.setToolTip("The domain that a model is wanted for")
        self.advice = QLabel("Add folders of images whose labels you have.")
        self.advice.setWordWrap(True)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 8, 4, 4)
        layout.setSpacing(8)
        layout.addWidget(self.list)
        layout.addLayout(side_by_side(self.add, self.remove))
        form = QFormLayout()
        form.addRow("Patches by", self.by)
        row = side_by_side(self.layout_by, self.pictures)
        form.addRow("Map by", row)
        layout.addLayout(form)
        layout.addLayout(side_by_side(self.start, self.cancel))
        layout.addWidget(self.progress)
        self._plot_place = QVBoxLayout()
        layout.addLayout(self._plot_place)
        form = QFormLayout()
        form.addRow("Target", self.target)
        layout.addLayout(form)
        layout.addWidget(self.advice)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.add.clicked.connect(self._trying(self._ask_folder))
        self.remove.clicked.connect(self._trying(self._remove))
        self.by.activated.connect(self._trying(self._on_by))
        self.layout_by.activated.connect(self._trying(self._lay_out_again))
        self.pictures.toggled.connect(lambda _: self._draw())
        self.start.clicked.connect(self._trying(self.map))
        self.cancel.clicked.connect(self._stop)
        self.target.currentIndexChanged.connect(self._advise)

    # -- what is mapped -------------------------------------------------------------------------

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A folder of images")
        if chosen:
            self.add_folder(Path(chosen))

    def add_folder(self, folder: Path, name: str = "") -> None:
        """Add a domain: a folder of images, called like it (or what it lies in) unless named.

        Raises
        ------
        UserError
            If there is a domain of this name.
        """
        name = name or (folder.parent.name if folder.name == "images" else folder.name)
        if name in self.folders or name == OPEN:
            raise UserError(f"There is a domain called '{name}' already.")
        self.folders[name] = folder
        self._refresh()

    def _remove(self) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self.folders):
            del self.folders[list(self.folders)[row]]
            self._refresh()

    def _on_by(self) -> None:
        if self.by.currentData() == "network":
            chosen = QFileDialog.getExistingDirectory(self, "A run or a model package")
            self.network = Path(chosen) if chosen else None
            self.by.setCurrentIndex(int(bool(chosen)))

    # -- mapping --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether patches are being looked at."""
        return self._task is not None

    def map(self) -> None:
        """Look at the patches in the background, then lay them out.

        Raises
        ------
        UserError
            If there are not two domains.
        """
        mine = [painted.image for painted in self._session.images]
        if len(self.folders) + bool(mine) < 2:
            raise UserError("A map needs two sets of images; add a folder, or open an image.")
        folders = dict(self.folders)
        network = self.network if self.by.currentData() == "network" else None
        method = self.layout_by.currentData()

        def work(stop: Callable[[], bool]) -> Task[tuple[dict[str, Patches], np.ndarray]]:
            patches = yield from _embed(mine, folders, network, stop)
            return patches, _project(patches, method)

        self._task = run_task(
            work,
            session=self._session,
            title="domain map",
            on_event=self._on_event,
            on_result=self._take,
            on_error=self._fail,
            on_finished=self._on_finished,
        )
        self._refresh()

    def _stop(self) -> None:
        self._abandon()
        self._on_finished()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.abandon()

    def _lay_out_again(self) -> None:
        patches, method = self.patches, self.layout_by.currentData()
        if not patches or self.running:
            return

        def take(spots: np.ndarray) -> None:
            self._spots = spots
            self._draw()

        self._task = run_task(
            lambda stop: _project(patches, method),
            session=self._session,
            title="domain map",
            on_result=take,
            on_finished=self._on_finished,
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.progress.setRange(0, event.total or 0)
        elif isinstance(event, Step):
            self.progress.setValue(event.index)

    def _take(self, found: tuple[dict[str, Patches], np.ndarray]) -> None:
        self.patches, self._spots = found
        chosen = self.target.currentText()
        self.target.blockSignals(True)
        self.target.clear()
        self.target.addItems(list(self.patches))
        self.target.setCurrentIndex(max(0, self.target.findText(chosen)))
        self.target.blockSignals(False)
        self._draw()
        self._advise()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.told.emit(str(error), "error")
        else:
            self._session.report(error)

    def _on_finished(self) -> None:
        self._task = None
        self._refresh()

    def _advise(self, *_: Any) -> None:
        from napari_cellda.core.inspect.domain_map import advice, gaps_to

        target = self.target.currentText()
        if target in self.patches and len(self.patches) > 1:
            gaps = gaps_to(target, {name: one.vectors for name, one in self.patches.items()})
            self.advice.setText(advice(target, gaps))

    def _draw(self) -> None:
        if self._spots is None:
            return
        if self.plot is None:
            self.plot = make_map()
            self._plot_place.addWidget(self.plot)
        domains = [name for name, one in self.patches.items() for _ in one.vectors]
        thumbnails = np.concatenate([one.thumbnails for one in self.patches.values()])
        self.plot.draw(self._spots, domains, thumbnails, pictures=self.pictures.isChecked())

    def _refresh(self) -> None:
        names = list(self.folders)
        if names != [self.list.item(i).text() for i in range(self.list.count())]:
            self.list.clear()
            self.list.addItems(names)
        self.remove.setEnabled(bool(names))
        self.start.setEnabled(not self.running)
        self.cancel.setEnabled(self.running)
        self.progress.setVisible(self.running)


def _embed(
    mine: list[Image],
    folders: dict[str, Path],
    network: Path | None,
    stop: Callable[[], bool],
) -> Task[dict[str, Patches]]:
    """Embed the patches of the open images and of every folder."""
    from napari_cellda.core.inspect.domain_map import embed_patches

    model = None if network is None else _open_network(network)
    grey = model is not None
    domains = {OPEN: [_grey(image) for image in mine] if grey else mine} if mine else {}
    for name, folder in folders.items():
        domains[name] = _open_folder(folder)
    n_channels = {image.n_channels for images in domains.values() for image in images}
    if len(n_channels) > 1:  # domains of different channels meet in grey
        domains = {name: [_grey(image) for image in images] for name, images in domains.items()}
    found = {}
    for name, images in domains.items():
        per_image = max(1, PATCHES // len(images))
        found[name] = yield from embed_patches(
            images, per_image=per_image, network=model, stop=stop
        )
    return found


def _open_folder(folder: Path) -> list[Image]:
    from napari_cellda.core.images import open_image
    from napari_cellda.core.paths import find_images

    files = find_images(folder)
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST_IMAGES)).astype(int))
    return [open_image(files[i]) for i in chosen]


def _grey(image: Image) -> Image:
    return image if image.n_channels == 1 else image.select("grey")


def _open_network(source: Path) -> Any:
    from napari_cellda.core.modelzoo.model import open_model

    is_run = (source / "run.yaml").is_file()
    model = open_model(source / "model" if is_run else source)
    if model.network is None:
        raise UserError(
            f"{model.card.name} has no network of a known architecture to look into; choose pixel "
            "features, or another model."
        )
    return model.network


def _project(patches: dict[str, Patches], method: Any) -> np.ndarray:
    from napari_cellda.core.inspect.domain_map import project

    return project(np.concatenate([one.vectors for one in patches.values()]), method)
