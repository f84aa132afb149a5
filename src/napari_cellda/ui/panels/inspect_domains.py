"""The tab Domains: how far sets of images are apart, and which is the nearest source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QVBoxLayout,
)

from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.ui.panels.inspect_folders import Folders
from napari_cellda.ui.panels.inspect_tabs import WorkBar, WorkTab, button
from napari_cellda.ui.panels.parts import choices, row_of

if TYPE_CHECKING:
    from napari_cellda.core.events import Stop, Task
    from napari_cellda.core.images import Image
    from napari_cellda.core.inspect.domain_map import Patches
    from napari_cellda.ui.panels.inspect_tabs import Trying
    from napari_cellda.ui.state import Session

DESCRIBED_BY = (
    ("features", "pixel features", "Mean and deviation of the forest's features"),
    ("network", "a network's bottleneck\u2026", "Of a run or a model package"),
)
MAPPED_BY = (
    ("pca", "PCA", "Keeps distances"),
    ("tsne", "t-SNE", "Keeps neighbours"),
)
OPEN = "Images in the viewer"
MOST_IMAGES = 24
"""Of a folder, so many images are looked at, evenly spread."""
PATCHES = 120
"""About so many patches of each domain."""


class DomainsTab(WorkTab):
    """Choose sets of images, map them, hear which is nearest."""

    def __init__(self, session: Session, trying: Trying) -> None:
        super().__init__(session, trying)
        self.network: Path | None = None
        self.patches: dict[str, Patches] = {}
        self._spots: np.ndarray | None = None
        self.plot: Any = None
        self.build()

    def _make_widgets(self) -> None:
        asks = {"Add a folder\u2026": self._ask_folder}
        self.folders = Folders("domain", asks, self._trying, taken=(OPEN,))
        self.folders.table.setToolTip(
            "Each folder of images is one domain, beside the images in the viewer"
        )
        self.by = choices(DESCRIBED_BY)
        self.layout_by = choices(MAPPED_BY)
        self.pictures = QCheckBox("pictures")
        self.start = button("Map")
        self.bar = WorkBar(self.work, self.start)
        self.target = QComboBox()
        self.target.setToolTip("The domain that a model is wanted for")
        self.advice = QLabel("Add folders of images whose labels you have.")
        self.advice.setWordWrap(True)

    def _lay_out(self) -> None:
        self.body.addWidget(self.folders)
        form = QFormLayout()
        form.addRow("Patches by", self.by)
        form.addRow("Map by", row_of(self.layout_by, self.pictures, stretch=1))
        self.body.addLayout(form)
        self.body.addWidget(self.bar)
        self._plot_place = QVBoxLayout()
        self.body.addLayout(self._plot_place)
        form = QFormLayout()
        form.addRow("Target", self.target)
        self.body.addLayout(form)
        self.body.addWidget(self.advice)
        self.body.addStretch(1)

    def _connect(self) -> None:
        self.by.activated.connect(self._trying(self._on_by))
        self.layout_by.activated.connect(self._trying(self._lay_out_again))
        self.pictures.toggled.connect(lambda _: self._draw())
        self.start.clicked.connect(self._trying(self.map))
        self.target.currentIndexChanged.connect(self._advise)

    # -- what is mapped -------------------------------------------------------------------------

    def _ask_folder(self) -> str:
        return QFileDialog.getExistingDirectory(self, "A folder of images")

    def _on_by(self) -> None:
        if self.by.currentData() == "network":
            chosen = QFileDialog.getExistingDirectory(self, "A run or a model package")
            self.network = Path(chosen) if chosen else None
            self.by.setCurrentIndex(int(bool(chosen)))

    # -- mapping --------------------------------------------------------------------------------

    def map(self) -> None:
        """Look at the patches in the background, then lay them out.

        Raises
        ------
        UserError
            If there are not two domains.
        """
        mine = [painted.image for painted in self._session.images]
        folders = dict(self.folders.paths)
        if len(folders) + bool(mine) < 2:
            raise UserError("A map needs two sets of images; add a folder, or open an image.")
        network = self.network if self.by.currentData() == "network" else None
        method = self.layout_by.currentData()

        def work(stop: Stop) -> Task[tuple[dict[str, Patches], np.ndarray] | None]:
            patches = yield from _embed(mine, folders, network, stop)
            return None if stop() else (patches, _project(patches, method))

        self.work.begin(work, "domain map", self._take)

    def _lay_out_again(self) -> None:
        patches, method = self.patches, self.layout_by.currentData()
        if patches and not self.work.running:
            self.work.begin(
                lambda stop: (patches, _project(patches, method)), "domain map", self._take
            )

    def _take(self, found: tuple[dict[str, Patches], np.ndarray] | None) -> None:
        if found is None:
            return
        self.patches, self._spots = found
        chosen = self.target.currentText()
        self.target.blockSignals(True)
        self.target.clear()
        self.target.addItems(list(self.patches))
        self.target.setCurrentIndex(max(0, self.target.findText(chosen)))
        self.target.blockSignals(False)
        self._draw()
        self._advise()

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
            from napari_cellda.ui.panels.inspect_plots import DomainMap

            self.plot = DomainMap()
            self._plot_place.addWidget(self.plot)
        domains = [name for name, one in self.patches.items() for _ in one.vectors]
        thumbnails = np.concatenate([one.thumbnails for one in self.patches.values()])
        self.plot.draw(self._spots, domains, thumbnails, pictures=self.pictures.isChecked())

    def _refresh(self) -> None:
        self.start.setEnabled(not self.work.running)


def _embed(
    mine: list[Image],
    folders: dict[str, Path],
    network: Path | None,
    stop: Stop,
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
    from napari_cellda.core.jobs import Run
    from napari_cellda.core.modelzoo.model import open_model

    is_run = (source / "run.yaml").is_file()
    try:
        network = open_model(Run(source).finished_model() if is_run else source).network
    except ProgramRefused:
        network = None  # a yes would not help: nobody can look into a program
    if network is None:
        raise UserError(
            f"'{source.name}' has no network of a known architecture to look into; choose pixel "
            "features, or another model."
        )
    return network


def _project(patches: dict[str, Patches], method: Any) -> np.ndarray:
    from napari_cellda.core.inspect.domain_map import project

    return project(np.concatenate([one.vectors for one in patches.values()]), method)
