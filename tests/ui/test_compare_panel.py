"""The panel Compare, used as a person would: models against truth, domains against each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import yaml
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from scipy.ndimage import gaussian_filter

from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.samples import nuclei_field
from napari_cellda.ui.panels import inspect_domains
from napari_cellda.ui.panels.compare import ComparePanel
from napari_cellda.ui.panels.inspect_compare import CompareTab
from napari_cellda.ui.panels.inspect_domains import DomainsTab
from napari_cellda.ui.panels.inspect_folders import natural_name
from painting import WAIT_MS


@pytest.fixture
def panel(qtbot: QtBot):
    viewer = ViewerModel()
    panel = ComparePanel(viewer)
    panel.viewer_kept_alive = viewer
    qtbot.addWidget(panel)
    panel.show()
    yield panel
    panel.session.close()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Truth, a model that is right, and one that misses an image."""
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 10:30] = 1
    for name, planes in (
        ("truth", {"a": truth, "b": truth}),
        ("good", {"a": truth, "b": truth}),
        ("poor", {"a": truth, "b": truth * 0}),
    ):
        (tmp_path / name).mkdir()
        for stem, plane in planes.items():
            imageio.imwrite(tmp_path / name / f"{stem}.png", plane)
    return tmp_path


def add(tab: CompareTab | DomainsTab, folder: Path) -> None:
    tab.folders.add(folder, natural_name(folder))


def compare(panel: ComparePanel, qtbot: QtBot) -> None:
    panel.models.start.click()
    qtbot.waitUntil(lambda: not panel.models.work.running, timeout=WAIT_MS)


def test_models_are_compared_shown_and_reported(
    panel: ComparePanel, qtbot: QtBot, folders: Path, tmp_path: Path
):
    tab = panel.models
    add(tab, folders / "good")
    tab.folders.add(folders / "poor", "the poor one")
    assert not tab.start.isEnabled()
    tab.set_reference(folders / "truth")
    compare(panel, qtbot)
    assert panel.banner.text == ""
    titles = [tab.table.horizontalHeaderItem(c).text() for c in range(tab.table.columnCount())]
    cells = {
        tab.table.item(row, 0).text(): tab.table.item(row, titles.index("Dice (F1)")).text()
        for row in range(tab.table.rowCount())
    }
    assert cells == {"good": "1.000 ± 0.000", "the poor one": "0.500 ± 0.500"}
    assert "Worst images: b" in tab.extremes.text()
    report = tmp_path / "report.html"
    tab.write_report(report)
    assert "the poor one" in report.read_text()
    tab.write_table(tmp_path / "table.json")
    assert set(json.loads((tmp_path / "table.json").read_text())["models"]) == set(cells)


def test_a_model_can_be_renamed_and_removed(panel: ComparePanel, folders: Path):
    tab = panel.models
    add(tab, folders / "good")
    tab.folders.table.item(0, 0).setText("mine")
    assert list(tab.folders.paths) == ["mine"]
    tab.folders.table.setCurrentCell(0, 0)
    tab.folders.remove.click()
    assert tab.folders.paths == {}


def test_names_without_a_partner_are_all_told(panel: ComparePanel, qtbot: QtBot, folders: Path):
    (folders / "good" / "b.png").unlink()
    add(panel.models, folders / "good")
    panel.models.set_reference(folders / "truth")
    compare(panel, qtbot)
    assert "has none for b" in panel.banner.text
    assert panel.models.evaluation is None


def smaller(folder: Path) -> None:
    imageio.imwrite(folder / "a.png", np.zeros((30, 50), np.uint8))


def too_bright(folder: Path) -> None:
    (folder / "a.png").unlink()
    tifffile.imwrite(folder / "a.tif", np.full((40, 50), 1.5, np.float32))


def below_zero(folder: Path) -> None:
    (folder / "a.png").unlink()
    tifffile.imwrite(folder / "a.tif", np.full((40, 50), -3, np.int16))


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (smaller, "has shape (30, 50), its truth"),
        (too_bright, "holds values from 1.5 to 1.5; expected probabilities in [0, 1]."),
        (below_zero, "holds the label -3; expected labels from 0."),
        (empty, "holds no image; expected"),
    ],
)
def test_predictions_that_cannot_be_compared_are_told(
    panel: ComparePanel, qtbot: QtBot, folders: Path, spoil: Callable[[Path], None], told: str
):
    spoil(folders / "good")
    add(panel.models, folders / "good")
    panel.models.set_reference(folders / "truth")
    compare(panel, qtbot)
    assert told in panel.banner.text
    assert panel.models.evaluation is None


def test_two_models_of_one_name_are_refused(panel: ComparePanel, folders: Path):
    add(panel.models, folders / "good")
    panel.models._trying(lambda: add(panel.models, folders / "good"))()
    assert panel.banner.text.startswith("There is a prediction called 'good' already")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two networks, one said to be larger, with images and truth."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for seed in range(2):
        field = nuclei_field((64, 64), seed=seed)
        tifffile.imwrite(tmp_path / "images" / f"{seed}.tif", field.image / np.float32(255))
        imageio.imwrite(tmp_path / "masks" / f"{seed}.png", (field.labels > 0).astype(np.uint8))
    for name, n_parameters in (("small", 50_000), ("large", 200_000)):
        shutil.copytree(bundled_folder("nuclei"), tmp_path / name)
        rdf = tmp_path / name / "rdf.yaml"
        described = yaml.safe_load(rdf.read_text())
        described["config"]["cellda"]["training"]["parameters"] = n_parameters
        rdf.write_text(yaml.safe_dump(described))
    return tmp_path


def test_models_are_applied_and_held_against_their_size(
    panel: ComparePanel, qtbot: QtBot, models: Path, tmp_path: Path
):
    tab = panel.models
    tab.set_reference(models / "masks")
    for name in ("small", "large"):
        add(tab, models / name)
    compare(panel, qtbot)
    assert panel.banner.text == "'small' is a model; choose the folder of images to try it on."
    tab.set_images(models / "images")
    compare(panel, qtbot)
    assert panel.banner.text == ""
    sizes = {name: model.n_parameters for name, model in tab.evaluation.models.items()}
    assert sizes == {"small": 50_000, "large": 200_000}
    assert tab.upper_bound.itemText(2) == "large"
    tab.upper_bound.setCurrentIndex(2)
    assert tab.sizes.texts == ["small  0.00", "large  1.00"]
    tab.write_report(tmp_path / "report.html")
    assert "like the upper bound large" in (tmp_path / "report.html").read_text()


def test_an_image_that_a_model_cannot_use_is_told(panel: ComparePanel, qtbot: QtBot, models: Path):
    (models / "images" / "1.tif").write_bytes(b"no image")
    tab = panel.models
    tab.set_reference(models / "masks")
    tab.set_images(models / "images")
    add(tab, models / "small")
    compare(panel, qtbot)
    assert panel.banner.text.startswith("'small' cannot predict 1 of 2 images; of the first it was")
    assert "1.tif' is damaged or not a TIFF image" in panel.banner.text
    assert tab.evaluation is None


def test_images_that_the_truth_does_not_know_are_told_first(
    panel: ComparePanel, qtbot: QtBot, models: Path, folders: Path
):
    tab = panel.models
    add(tab, models / "small")
    tab.set_images(models / "images")
    tab.set_reference(folders / "truth")
    compare(panel, qtbot)
    assert "has none for 0, 1" in panel.banner.text
    assert "has none for a, b" in panel.banner.text


# -- domains -----------------------------------------------------------------------------------


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """Folders of noise with fine, fine and coarse structures."""
    for number, (name, scale) in enumerate((("target", 1), ("alike", 1), ("coarse", 6))):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(number)
        for stem in "ab":
            plane = gaussian_filter(rng.random((96, 96)), scale)
            plane = (plane - plane.min()) / np.ptp(plane) * 255
            imageio.imwrite(tmp_path / name / f"{stem}.png", plane.astype(np.uint8))
    return tmp_path


def test_the_domain_map_advises_the_nearest_source(
    panel: ComparePanel, qtbot: QtBot, textures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inspect_domains, "PATCHES", 12)
    tab = panel.domains
    for name in ("target", "alike", "coarse"):
        add(tab, textures / name)
    tab.start.click()
    qtbot.waitUntil(lambda: not tab.work.running, timeout=WAIT_MS)
    assert panel.banner.text == ""
    assert tab.target.currentText() == "target"
    assert "'alike' is the nearest source" in tab.advice.text()
    tab.target.setCurrentIndex(tab.target.findText("coarse"))
    assert tab.advice.text().startswith("By looks, to 'coarse'")
    assert tab.plot.pictures == []
    tab.pictures.setChecked(True)
    assert len(tab.plot.pictures) == sum(len(one.vectors) for one in tab.patches.values())


def test_a_map_needs_two_domains(panel: ComparePanel, textures: Path):
    add(panel.domains, textures / "target")
    panel.domains.start.click()
    assert panel.banner.text.startswith("A map needs two sets of images")


def test_an_empty_folder_is_told(panel: ComparePanel, qtbot: QtBot, textures: Path):
    (textures / "empty").mkdir()
    add(panel.domains, textures / "target")
    add(panel.domains, textures / "empty")
    panel.domains.start.click()
    qtbot.waitUntil(lambda: not panel.domains.work.running, timeout=WAIT_MS)
    assert "holds no image" in panel.banner.text
