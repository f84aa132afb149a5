"""napari finds the plugin, and everything its manifest names exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

import napari_cellda

ROOT = Path(__file__).resolve().parent.parent
INSIDE = Path(napari_cellda.__file__).parent / "napari.yaml"
MANIFEST = PluginManifest.from_file(INSIDE)
COMMANDS = MANIFEST.contributions.commands or []


def test_top_level_manifest_is_the_one_in_the_package():
    # Where git cannot make links (Windows, mostly) it writes the link's target into the file.
    assert (ROOT / "napari.yaml").read_text() in (
        INSIDE.read_text(),
        "src/napari_cellda/napari.yaml",
    )


def test_distribution_finds_the_manifest():
    assert PluginManifest.from_distribution("napari-cellda").name == "napari-cellda"


def test_manifest_is_valid():
    MANIFEST.validate_imports()
    assert MANIFEST.display_name == "CellDA"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.id)
def test_command_can_be_imported(command):
    assert callable(import_python_name(command.python_name))


def test_every_command_is_used_and_every_use_is_a_command():
    text = INSIDE.read_text()
    for command in COMMANDS:
        assert text.count(command.id) >= 2, f"{command.id} is declared but nothing uses it"


def test_panels_samples_and_writers_are_offered():
    names = {widget.display_name for widget in MANIFEST.contributions.widgets or []}
    assert {"Paint", "Enhance", "Export"} <= names
    assert len(MANIFEST.contributions.sample_data or []) >= 4
    assert MANIFEST.contributions.writers
