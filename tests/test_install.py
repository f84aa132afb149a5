"""Installed as users do, in a fresh environment: the core alone, then napari and no extras."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).resolve().parent.parent
TORCH = os.environ.get("TORCH", "torch==2.13.0")  # before the rest, as the Makefile does
SCRIPTS = "Scripts" if os.name == "nt" else "bin"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OPEN_EVERY_PANEL = """
import sys, napari
from npe2 import PluginManager

viewer = napari.Viewer(show=False)
widgets = PluginManager.instance().iter_widgets()
names = [w.display_name for w in widgets if w.plugin_name == "napari-cellda"]
for name in names:
    dock, widget = viewer.window.add_plugin_dock_widget("napari-cellda", name)
    assert widget is not None, name
napari.qt.get_qapp().processEvents()
viewer.close()
print("opened", *names)
"""


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def core_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with this package and nothing else; return its folder of programs."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    programs = folder / SCRIPTS
    for what in (TORCH, ROOT):
        run(programs / "python", "-m", "pip", "install", "--quiet", what)
    return programs


@pytest.fixture(scope="module")
def with_napari(core_only: Path) -> Path:
    """Add napari with a Qt binding, as somebody has who then installs the plugin."""
    run(core_only / "python", "-m", "pip", "install", "--quiet", "napari[pyqt6]")
    return core_only


def test_core_classifies_without_napari_or_qt(core_only: Path, tmp_path: Path):
    assert not {"napari", "PyQt6", "qtpy"} & set(run(core_only / "pip", "list").split())
    image = np.full((96, 96), 40, np.uint8)
    image[30:60, 30:60] = 200
    strokes = np.zeros_like(image)
    strokes[5:10, 5:90], strokes[40:45, 35:55] = 1, 2
    iio.imwrite(tmp_path / "cells.png", image)
    iio.imwrite(tmp_path / "strokes.png", strokes)
    out = tmp_path / "out"
    program = core_only / "napari-cellda"
    run(
        program,
        "classify",
        tmp_path / "cells.png",
        "--strokes",
        tmp_path / "strokes.png",
        "-o",
        out,
    )
    mask = tifffile.imread(out / "cells_mask.tif")
    assert mask.dtype == np.uint8
    assert ((mask == 1) == (image == 200)).mean() > 0.98
    probability_map = tifffile.imread(out / "cells_probability.tif")
    assert probability_map.shape == (2, 96, 96)
    np.testing.assert_allclose(probability_map.sum(axis=0), 1, atol=1e-5)


def test_headless_demo_runs_without_napari(core_only: Path, tmp_path: Path):
    told = run(core_only / "napari-cellda", "demo", "--headless", "-o", tmp_path)
    assert "enhanced" in told
    names = {path.name for path in tmp_path.iterdir()}
    assert {"scores.csv", "immunohistochemistry_mask.tif"} <= names


def test_bundled_models_are_installed(core_only: Path):
    listed = run(core_only / "napari-cellda", "models", "list")
    for folder in (ROOT / "models").glob("*/rdf.yaml"):
        assert folder.parent.name in listed


needs_display = pytest.mark.skipif(
    sys.platform == "linux" and not os.environ.get("DISPLAY"), reason="needs a display"
)


@needs_display
def test_every_panel_opens_without_extras(with_napari: Path, tmp_path: Path):
    script = tmp_path / "open_every_panel.py"
    script.write_text(OPEN_EVERY_PANEL)
    opened = run(with_napari / "python", script)
    assert "opened Paint Enhance Export" in opened


@needs_display
def test_demo_leaves_its_picture_masks_and_scores(with_napari: Path, tmp_path: Path):
    run(with_napari / "python", "-m", "napari_cellda.ui.demo", "-o", tmp_path)
    picture = iio.imread(tmp_path / "window.png")
    assert picture.shape[0] > 600
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10000
    names = {path.name for path in tmp_path.iterdir()}
    assert {"scores.csv", "immunohistochemistry_mask.tif"} <= names
