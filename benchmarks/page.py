"""The page of the papers' tables: read from results/*.md whenever the documentation is built.

    python benchmarks/page.py

prints the page as it stands and names the cells that are missing. As a hook of mkdocs it fills in
docs/benchmarks.md, in which ``<!-- paper: NAME -->`` stands for a table of `PAPERS`,
``<!-- results: FILE -->`` for a file of results, ``<!-- results: FILE | SECTION -->`` for its
head and one section, and ``<!-- measured: FILE -->`` for where it was measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"
MISSING = "not run"


@dataclass(frozen=True)
class Score:
    """One cell of a table: the mean over seeds, on test images."""

    mean: float
    spread: float
    """Standard deviation over the seeds."""
    seeds: int
    minutes: float | None = None


@dataclass(frozen=True)
class Paper:
    """A comparison in the shape of a paper's table."""

    title: str
    rows: dict[str, str]
    """What a row is called, by the pair as the results call it."""
    columns: dict[str, str]
    """What a column is called, by the cell as the results call it."""
    command: str
    adapted: tuple[str, ...]
    """Cells that a reader wants to see between the bounds."""
    score: str = "Dice"


LOWER, UPPER = "source-only", "target-only"
BOUNDS = {LOWER: "source only", UPPER: "target only"}
NUCLEI = {"fluo-tissue": "fluorescence → tissue", "tissue-fluo": "tissue → fluorescence"}
CELLS = {"usiigaci-livecell": "T98G → LIVECell", "livecell-usiigaci": "LIVECell → T98G"}
PAPERS = {
    "shallow-to-deep": Paper(
        "From shallow to deep, Tables 2, 4 and 6",
        {"vnc-isbi": "membranes, VNC → ISBI", "fluo-tissue": "nuclei, fluorescence → tissue"},
        {
            LOWER: "source only",
            "forest": "forest (RF)",
            "enhanced": "enhanced (PE)",
            "pseudo-label": "adapted by PE's labels",
            UPPER: "target only",
        },
        "python benchmarks/adaptation.py --pairs vnc-isbi fluo-tissue",
        ("enhanced", "pseudo-label"),
    ),
    "culpico": Paper(
        "CULPICO, Tables 1 and 2",
        {**CELLS, **NUCLEI},
        {
            LOWER: "source only",
            "culpico alone": "both networks, nothing exchanged",
            "culpico": "CULPICO",
            UPPER: "target only",
        },
        "python benchmarks/adaptation.py --pairs usiigaci-livecell livecell-usiigaci fluo-tissue "
        "tissue-fluo",
        ("culpico",),
    ),
    "cellseguda": Paper(
        "CellSegUDA and CellSegSSDA",
        NUCLEI,
        {
            LOWER: "source only",
            "cellseguda": "CellSegUDA",
            "cellsegssda": "CellSegSSDA, a quarter of the masks",
            UPPER: "target only",
        },
        "python benchmarks/adaptation.py --pairs fluo-tissue tissue-fluo",
        ("cellseguda", "cellsegssda"),
    ),
    "stylefilter": Paper(
        "StyleFilter, Table 1",
        {"organelles": "four classes, changed contrast, blur and noise"},
        {
            LOWER: "source only",
            "stylefilter": "StyleFilter",
            "stylefilter labels": "with image-level labels",
            UPPER: "target only",
        },
        "python benchmarks/adaptation.py --pairs organelles",
        ("stylefilter", "stylefilter labels"),
    ),
    "cks": Paper(
        "CKS, Tables III and IV",
        {"fluo-points": "nuclei, fluorescence", "usiigaci-points": "T98G, phase contrast"},
        {
            "cks no prior": "points, without the prior",
            "cks": "points (CKS)",
            "cks-masks": "masks",
        },
        "python benchmarks/adaptation.py --pairs fluo-points usiigaci-points",
        ("cks",),
        "AP50",
    ),
}

# -- reading ---------------------------------------------------------------------------------------


def read_scores(path: Path) -> dict[tuple[str, str], Score]:
    """Read the table of adaptation.py: its scores by pair and cell; {} without the file."""
    found = {}
    for row in read_rows(path):
        minutes = float(row["minutes"]) if row.get("minutes") else None
        score = Score(float(row["mean"]), float(row["sd"]), int(row["seeds"]), minutes)
        found[row["pair"], row["cell"]] = score
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a file's only table, by the words of its heading; [] without one."""
    lines = _lines(path) if path.is_file() else []
    heading, _, *rows = [
        [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        for line in lines or ("|", "|")
    ]
    return [dict(zip(heading, row, strict=True)) for row in rows]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def provenance(path: Path) -> str:
    """Return the line that says where and on which commit a result was measured."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"commit [0-9a-f]{7}.*?(?=\.?\s*(?:\n|$))", text)
    return found.group(0) if found else ""


def missing_cells(scores: dict[tuple[str, str], Score]) -> list[str]:
    """Name what is in a paper's table and was not run."""
    wanted = {(pair, cell) for p in PAPERS.values() for pair in p.rows for cell in _of(p, pair)}
    return sorted(f"{pair}: {cell}" for pair, cell in wanted - set(scores))


def _grouped(missing: list[str]) -> str:
    """Name the cells of every pair together."""
    by_pair: dict[str, list[str]] = {}
    for one in missing:
        pair, cell = one.split(": ")
        by_pair.setdefault(pair, []).append(cell)
    return "; ".join(f"**{pair}** {', '.join(cells)}" for pair, cells in by_pair.items())


def _of(paper: Paper, pair: str) -> list[str]:
    """Return the cells of a row; the prior of CKS was left out on one pair only."""
    only_once = {"cks no prior": "fluo-points"}
    return [cell for cell in paper.columns if only_once.get(cell, pair) == pair]


# -- writing ---------------------------------------------------------------------------------------


def paper_table(paper: Paper, scores: dict[tuple[str, str], Score]) -> str:
    """Return one paper's table, its chart, how to make it, and what it says."""
    header = ["", *paper.columns.values()]
    lines = [as_row(header), as_row(["---"] + ["---:"] * len(paper.columns))]
    for pair, title in paper.rows.items():
        cells = [
            _cell(scores.get((pair, cell))) if cell in _of(paper, pair) else ""
            for cell in paper.columns
        ]
        lines.append(as_row([title, *cells]))
    own = [s for (pair, cell), s in scores.items() if pair in paper.rows and cell in paper.columns]
    minutes = sum((s.minutes or 0) * s.seeds for s in own)
    told = f"{paper.score} on all test images, mean ± deviation over seeds (how many)"
    if minutes:
        told += f"; {minutes / 60:.1f} hours of training, prediction and scoring in all"
    parts = ["\n".join(lines), f"{told}. `{paper.command}`"]
    parts += [text for text in (reading(paper, scores), chart(paper, scores)) if text]
    return "\n\n".join(parts)


def as_row(cells: Iterable[str]) -> str:
    """Return one row of a table, as it is written in Markdown."""
    return "| " + " | ".join(cells) + " |"


def _cell(score: Score | None) -> str:
    return MISSING if score is None else f"{score.mean:.3f} ± {score.spread:.3f} ({score.seeds})"


def reading(paper: Paper, scores: dict[tuple[str, str], Score]) -> str:
    """Say how far the adapted models come from the lower to the upper bound."""
    sentences = []
    for cell in paper.adapted:
        told = []
        for pair, title in paper.rows.items():
            low, own, high = (scores.get((pair, c)) for c in (LOWER, cell, UPPER))
            if low is None or own is None:
                continue
            gain = own.mean - low.mean
            sure = abs(gain) > own.spread + low.spread
            word = ("better" if gain > 0 else "worse") if sure else "not clearly different"
            way = ""
            if high is not None and high.mean > low.mean:
                way = f", {gain / (high.mean - low.mean):.0%} of the way to target only"
            told.append(f"{title} {gain:+.3f} ({word}{way})")
        if told:
            sentences.append(f"**{paper.columns[cell]}** against source only: {'; '.join(told)}.")
    return " ".join(sentences)


def chart(paper: Paper, scores: dict[tuple[str, str], Score]) -> str:
    """Draw every row as a line of dots with their deviations; "" without scores."""
    left, width, step = 230, 360, 34
    rows = [(title, pair) for pair, title in paper.rows.items()]
    known = [(pair, cell) for _, pair in rows for cell in paper.columns if (pair, cell) in scores]
    if not known:
        return ""
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + width * tick
        parts.append(f'<path d="M{x:.0f} 4V{step * len(rows)}" stroke="#8884"/>')
        parts.append(_text(x, step * len(rows) + 14, f"{tick:g}", "middle"))
    for i, (title, pair) in enumerate(rows):
        y = step * (i + 0.5)
        parts.append(_text(left - 12, y + 4, title, "end"))
        for number, (cell, name) in enumerate(paper.columns.items()):
            if (pair, cell) in scores:
                parts.append(_dot(scores[pair, cell], number, name, left, width, y))
    for number, name in enumerate(paper.columns.values()):
        y = step * len(rows) + 34 + 16 * number
        parts.append(f'<circle cx="{left}" cy="{y - 4}" r="5" fill="{COLORS[number]}"/>')
        parts.append(_text(left + 12, y, name, "start"))
    height = step * len(rows) + 34 + 16 * len(paper.columns)
    return (
        f'<svg viewBox="0 0 {left + width + 20} {height}" role="img" style="max-width: 620px">'
        f"<title>{escape(paper.title)}</title>{''.join(parts)}</svg>"
    )


COLORS = ("#d55e00", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#999999")
"""Okabe and Ito's, which colour-blind people tell apart."""


def _dot(score: Score, number: int, name: str, left: float, width: float, y: float) -> str:
    x, half = left + width * score.mean, width * score.spread
    y += 4 * (number - 2)
    color = COLORS[number]
    return (
        f'<path d="M{x - half:.1f} {y:.1f}H{x + half:.1f}" stroke="{color}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"><title>{escape(name)}: '
        f"{_cell(score)}</title></circle>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="12" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def results(name: str, section: str = "", folder: Path = RESULTS) -> str:
    """Return a file of results for the page: its title left out, its headings one level lower.

    Parameters
    ----------
    name : str
    section : str
        The heading of the only part to show, beside what stands before all headings; "": all.
    folder : Path
    """
    path = folder / name
    if not path.is_file():
        return f"*{name} has not been measured yet.*"
    head, *parts = re.split(r"(?m)^(?=## )", path.read_text(encoding="utf-8").split("\n", 1)[1])
    if section:
        own = [part for part in parts if part.startswith(f"## {section}\n")]
        parts = [part.split("\n", 1)[1] for part in own]
        head += f"All tables: `benchmarks/results/{name}`.\n"
    return re.sub(r"(?m)^##", "###", "\n".join([head, *parts]).strip())


def fill_in(markdown: str, folder: Path = RESULTS) -> str:
    """Replace what stands for tables by the tables."""
    scores = read_scores(folder / "adaptation.md")

    def put(match: re.Match[str]) -> str:
        kind, name, section = match.groups(default="")
        if kind == "paper":
            return paper_table(PAPERS[name], scores)
        if kind == "results":
            return results(name, section, folder)
        return provenance(folder / name) or f"{name}: {MISSING}"

    pattern = r"<!-- (paper|results|measured): (\S+)(?: \| (.+?))? -->"
    missing = missing_cells(scores)
    told = f"Not run: {_grouped(missing)}." if missing else "All of them were run."
    return re.sub(pattern, put, markdown).replace("<!-- missing -->", told)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the page while mkdocs builds it."""
    return fill_in(markdown) if page.file.src_uri == PAGE.name else markdown


if __name__ == "__main__":
    print(fill_in(PAGE.read_text(encoding="utf-8")))
    print("\n".join(["", "Missing:", *missing_cells(read_scores(RESULTS / "adaptation.md"))]))
