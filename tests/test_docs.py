"""What the documentation says is so: commands, options, pictures, links, examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from napari_cellda.cli import app
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.paths import pair_by_stem
from napari_cellda.methods import discover
from napari_cellda.ui.classes import CLASS_KEYS
from napari_cellda.ui.keys import ENHANCED_KEY, FOREST_KEY, STACK_KEY, STROKES_KEY, UNCERTAIN_KEY

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
MAKEFILE = (ROOT / "Makefile").read_text()


def parameters() -> dict[str, dict[str, str]]:
    """Return the long options of every command, by its full name, with their help."""
    found: dict[str, dict[str, str]] = {}

    def visit(command, name: str) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            visit(inner, f"{name} {part}".strip())
        if not hasattr(command, "commands"):
            options = {o: p.help for p in command.params for o in p.opts if o.startswith("--")}
            found[name] = {o: text or "" for o, text in options.items() if o != "--help"}

    visit(typer.main.get_command(app), "")
    return found


def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"(?m)^## (.+)$", page.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


COMMAND_LINE = sections(ROOT / "docs" / "command-line.md")


@pytest.mark.parametrize(("name", "options"), parameters().items())
def test_every_option_is_documented_and_every_documented_one_exists(
    name: str, options: dict[str, str]
):
    text = COMMAND_LINE.get(name) or COMMAND_LINE[name.split()[0]]
    assert name in text
    written = set(re.findall(r"--[a-z][a-z-]+", text))
    assert written == set(options)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("classify", "`all` (unless told)"),
        ("predict", "that the model was trained on unless told"),
        ("enhancer train", "`grey` (unless told)"),
        ("adapt", "`grey` (unless told)"),
    ],
)
def test_help_tells_the_channels_that_a_command_takes(name: str, default: str):
    assert default in parameters()[name]["--channels"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path):
    for target in re.findall(r"(?m)^\s*make (\w+)|`make (\w+)", page.read_text()):
        assert re.search(rf"(?m)^{''.join(target)}:", MAKEFILE), f"make {''.join(target)}"


def test_readme_opens_with_the_picture_and_two_commands():
    text = (ROOT / "README.md").read_text()
    picture, demo, test = (text.index(word) for word in ("![", "make demo", "make test"))
    assert picture < demo < test < 1500


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_strokes_of_examples_find_their_images(page: Path):
    text = page.read_text().replace("\\\n", " ")
    for words in re.findall(r"classify ((?:[\w/]+\.\w+ )+)--strokes ((?:[\w/]+\.\w+ )+)", text):
        images, strokes = (part.split() for part in words)
        assert pair_by_stem(images, strokes)


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_every_tutorial_is_found_from_where_readers_begin(start: str):
    page = ROOT / start
    found = {(page.parent / target).resolve() for target in LINK.findall(page.read_text())}
    assert set((ROOT / "docs" / "tutorials").glob("*.md")) <= found


def test_the_settings_of_objects_are_told_with_what_they_are_unless_changed():
    text = (ROOT / "docs" / "methods" / "instances.md").read_text()
    told = dict(re.findall(r"(?m)^\| ([A-Z][a-z ]+?) \| ([\d.]+)(?: px)? \|", text))
    params = InstanceParams()
    assert {label: float(value) for label, value in told.items()} == {
        "Threshold": params.threshold,
        "Waist": params.waist,
        "Membranes above": params.boundary_threshold,
        "Cut or join": params.beta,
        "At least": params.min_size,
    }


def test_the_paper_of_every_method_can_be_cited():
    citation = (ROOT / "CITATION.cff").read_text()
    assert [m.name for m in discover() if m.paper.split()[-1] not in citation] == []


def test_the_system_libraries_are_those_that_make_looks_for():
    tasks = (ROOT / "scripts" / "tasks.py").read_text()
    wanted = re.findall(r'"lib[^"]+\.so[^"]*": "([^"]+)"', tasks)
    assert wanted
    text = (ROOT / "docs" / "install.md").read_text()
    assert [name for name in wanted if f" {name}" not in text] == []


def test_keys_are_those_of_the_window():
    text = (ROOT / "docs" / "quickstart.md").read_text()
    keys = (" ".join(CLASS_KEYS), STROKES_KEY, FOREST_KEY, ENHANCED_KEY, UNCERTAIN_KEY, STACK_KEY)
    for key in keys:
        assert f"| {key} |" in text


def examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for i, code in enumerate(re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text())):
            found.append((f"{page.stem} {i}", code))
    return found


@pytest.mark.parametrize(("name", "code"), examples(), ids=[name for name, _ in examples()])
def test_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "example"}
    exec(compile(code, name, "exec"), scope)
    assert len(scope) > 2
