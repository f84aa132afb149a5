"""The page of the papers' tables: filled from files of results, with what is missing named."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADAPTATION = """# Adaptation on real images

`python benchmarks/adaptation.py`; cpu preset. Each cell is of this commit or an earlier one.

commit 1234567; some processor, 2 cores; Python 3.11

| pair | score | cell | mean | sd | seeds | against source-only | minutes |
|---|---|---|---|---|---|---|---|
| fluo-tissue | dice | source-only | 0.400 | 0.010 | 3 | +0.000 | 2.0 |
| fluo-tissue | dice | culpico | 0.550 | 0.020 | 3 | +0.150 | 5.0 |
| fluo-tissue | dice | target-only | 0.700 | 0.010 | 2 | +0.300 | 2.0 |
| tissue-fluo | dice | source-only | 0.500 | 0.100 | 3 | +0.000 | 2.0 |
| tissue-fluo | dice | culpico | 0.480 | 0.010 | 3 | -0.020 | 5.0 |

Not run: much.
"""


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "page.py")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adaptation.md").write_text(ADAPTATION)
    return tmp_path


def test_a_papers_table_has_its_cells_and_says_what_was_not_run(
    page: SimpleNamespace, folder: Path
):
    text = page.fill_in("<!-- paper: culpico -->", folder)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == (
        "|  | source only | both networks, nothing exchanged | CULPICO | target only |"
    )
    cells = {row.split(" | ")[0]: row.strip(" |").split(" | ")[1:] for row in rows}
    assert cells["| fluorescence → tissue"] == [
        "0.400 ± 0.010 (3)",
        "not run",
        "0.550 ± 0.020 (3)",
        "0.700 ± 0.010 (2)",
    ]
    assert cells["| tissue → fluorescence"] == [
        "0.500 ± 0.100 (3)",
        "not run",
        "0.480 ± 0.010 (3)",
        "not run",
    ]
    assert cells["| T98G → LIVECell"] == ["not run"] * 4


def test_the_reading_follows_from_the_numbers(page: SimpleNamespace, folder: Path):
    text = page.fill_in("<!-- paper: culpico -->", folder)
    assert "fluorescence → tissue +0.150 (better, 50% of the way to target only)" in text
    assert "tissue → fluorescence -0.020 (not clearly different)" in text
    assert "0.8 hours" in text  # (2 x 3 + 5 x 3 + 2 x 2 + 2 x 3 + 5 x 3) minutes


def test_the_chart_has_a_dot_for_every_cell(page: SimpleNamespace, folder: Path):
    (svg,) = re.findall(r"<svg.*</svg>", page.fill_in("<!-- paper: culpico -->", folder))
    dots = [e for e in ET.fromstring(svg).iter() if e.tag == "circle" and len(e)]
    assert len(dots) == 5
    assert page.fill_in("<!-- paper: stylefilter -->", folder).count("<svg") == 0


def test_missing_cells_and_the_place_are_named(page: SimpleNamespace, folder: Path):
    text = page.fill_in("<!-- missing --> <!-- measured: adaptation.md -->", folder)
    assert "**tissue-fluo** cellsegssda, cellseguda, culpico alone, target-only" in text
    assert "**fluo-tissue** cellsegssda, cellseguda, culpico alone, enhanced, forest, ps" in text
    assert "**fluo-points** cks, cks no prior, cks-masks" in text
    assert "**usiigaci-points** cks, cks-masks;" in text  # which has no run without the prior
    assert "commit 1234567; some processor, 2 cores; Python 3.11" in text


def test_without_results_the_page_stands(page: SimpleNamespace, tmp_path: Path):
    text = page.fill_in(page.PAGE.read_text(), tmp_path)
    assert "adaptation.md: not run" in text
    assert "*overlay.md has not been measured yet.*" in text
    assert "<!--" not in text


def test_every_cell_of_the_page_is_one_of_the_benchmark(page: SimpleNamespace):
    benchmark = (ROOT / "benchmarks" / "adaptation.py").read_text()
    for paper in page.PAPERS.values():
        for pair in paper.rows:
            assert f'"{pair}"' in benchmark
        for cell in paper.columns:
            assert f'"{cell}"' in benchmark


def test_the_page_as_it_is_holds_every_table(page: SimpleNamespace):
    text = page.fill_in(page.PAGE.read_text())
    assert "<!--" not in text
    for paper in page.PAPERS.values():
        assert " | ".join(paper.columns.values()) in text


def test_rows_that_were_read_are_written_as_they_were(page: SimpleNamespace, folder: Path):
    rows = page.read_rows(folder / "adaptation.md")
    lines = [line for line in ADAPTATION.splitlines() if line.startswith("|")]
    assert [page.as_row(row.values()) for row in rows] == lines[2:]
    assert page.read_rows(folder / "none.md") == []
