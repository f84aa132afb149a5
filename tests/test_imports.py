"""The core, the methods and the command line never load a GUI package."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.util import resolve_name
from pathlib import Path

import pytest

import napari_cellda

PACKAGE = Path(napari_cellda.__file__).parent
ROOT = Path(__file__).parents[1]
GUI = {"napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "vispy", "PyQt5", "PyQt6", "PySide6"}
HEAVY = {"torch", "sklearn", "sklearnex", "numba", "bioimageio", "scipy", "skimage", "dask", "zarr"}
GUI_FREE = ("core", "methods", "cli")
OTHER_NAMES = {"pyyaml": "yaml", "scikit-image": "skimage", "scikit-learn": "sklearn"}


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the top-level packages that it loaded."""
    report = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_without_gui() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "napari_cellda.")]
    return [name for name in names if name.split(".")[1] in GUI_FREE]


def test_fresh_interpreter_loads_no_gui_package():
    modules = modules_without_gui()
    assert any(name.startswith("napari_cellda.core.") for name in modules)
    loaded = loaded_after("\n".join(f"import {name}" for name in modules))
    assert loaded.isdisjoint(GUI)


@pytest.mark.parametrize("module", ["napari_cellda", "napari_cellda.cli"])
def test_import_is_cheap(module: str):
    assert loaded_after(f"import {module}").isdisjoint(HEAVY | GUI)


def test_reading_the_manifest_is_cheap():
    code = "from npe2 import PluginManifest; PluginManifest.from_distribution('napari-cellda')"
    assert loaded_after(code).isdisjoint(HEAVY | GUI)


def imported(node: ast.AST, package: str) -> list[str]:
    """Name the modules that a statement imports, relative ones in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = resolve_name("." * node.level + (node.module or ""), package)
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def package_of(path: Path) -> str:
    inside = path.is_relative_to(PACKAGE)
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts) if inside else "other"


def offending_lines(path: Path, forbidden: set[str]) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{path.name}:{node.lineno} imports {name}"
        for node in ast.walk(tree)
        for name in imported(node, package_of(path))
        if any(f"{name}.".startswith(f"{f}.") for f in forbidden)
    ]


def sources(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]


@pytest.mark.parametrize("part", GUI_FREE)
def test_no_line_imports_the_gui(part: str):
    forbidden = GUI | {"napari_cellda.ui"}
    lines = [line for path in sources(part) for line in offending_lines(path, forbidden)]
    # The command `demo` opens the window: the one door from the command line to the GUI.
    lines = [line for line in lines if "imports napari_cellda.ui.demo" not in line]
    assert lines == []


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [("core", {"napari_cellda.methods", "napari_cellda.cli"}), ("methods", {"napari_cellda.cli"})],
)
def test_imports_go_one_way(part: str, forbidden: set[str]):
    assert [line for path in sources(part) for line in offending_lines(path, forbidden)] == []


def test_every_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]]
    needed = {OTHER_NAMES.get(name, name.replace("-", "_")) for name in names}
    used = [f"{name}." for path in PACKAGE.rglob("*.py") for name in imports_of(path)]
    assert {name for name in needed if not any(u.startswith(f"{name}.") for u in used)} == set()


def imports_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [name for node in ast.walk(tree) for name in imported(node, package_of(path))]


def test_the_scan_names_the_offending_line(tmp_path: Path):
    path = tmp_path / "bad.py"
    path.write_text("import os\n\ndef f():\n    from napari.layers import Image\n")
    assert offending_lines(path, GUI) == ["bad.py:4 imports napari.layers.Image"]
