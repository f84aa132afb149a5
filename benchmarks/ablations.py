"""Take methods apart: what each of their terms is worth on real images.

    python benchmarks/ablations.py [METHOD ...] [--seeds N] [--set KEY=VALUE ...]

Every variant is a run of its own, with the inputs, images and scores of `adaptation.py`, and
differs from the method's cpu preset by the settings in its row alone. Finished ones are kept,
and so are the rows that another machine wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adaptation import CONTESTS, WORK, Contest, do_cell, learn, score
from page import as_row, read_rows
from pairs import pair
from timing import DATA, RESULTS, where

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLE = RESULTS / "ablations.md"


@dataclass(frozen=True)
class Ablation:
    """A cell of `adaptation.py`, and variants of it: settings by name, none for the whole."""

    pair: str
    cell: str
    variants: Mapping[str, tuple[str, ...]]

    @property
    def contest(self) -> Contest:
        """The cell's contest."""
        return next(contest for contest in CONTESTS if contest.pair == self.pair)


_PSEUDO_LABEL = {
    "whole": (),
    "no consistency (CL)": ("consistency=false",),
    "no rectification (LR)": ("rectify=false",),
    "neither": ("consistency=false", "rectify=false"),
    "light as it is": ("jitter=0",),
    "teacher kept": ("keep=teacher",),
    "light as it is, teacher kept": ("jitter=0", "keep=teacher"),
}
_CELLSEGUDA = {
    "whole": (),
    "no adversary": ("lam_adv=0",),
    "no reconstruction": ("lam_rec=0",),
    "neither": ("lam_adv=0", "lam_rec=0"),
    "neither, norms of the training": ("lam_adv=0", "lam_rec=0", "norm_statistics=training"),
    "never inverted": ("invert=0",),
}
_STYLEFILTER = {
    "whole": (),
    "no weights of classes": ("match_shares=false",),
    "labels of the network as it is": ("match_shares=false", "teacher=current"),
    "no adaptation": ("source_share=0.55",),
    "no style": ("style_share=0",),
}
_CKS = {
    "whole": (),
    "principal by the winner": ("principal_loss=winner",),
    "principal by entropy": ("principal_loss=entropy",),
    "both teach each other": ("head_start=1600",),
    "both, collaborator by entropy": ("head_start=1600", "collaborator_loss=entropy"),
    "no head start": ("head_start=0",),
    "no prior": ("prior=off",),  # without which there is no head start either
}
ABLATIONS = (
    Ablation("vnc-isbi", "pseudo-label", _PSEUDO_LABEL),
    Ablation("fluo-tissue", "pseudo-label", _PSEUDO_LABEL),
    Ablation("fluo-tissue", "cellseguda", _CELLSEGUDA),
    Ablation("tissue-fluo", "cellseguda", _CELLSEGUDA),
    Ablation("organelles", "stylefilter", _STYLEFILTER),
    Ablation("organelles", "stylefilter labels", _STYLEFILTER),
    Ablation("fluo-points", "cks", _CKS),
)


def place(what: Ablation, name: str, seed: int, changes: list[str]) -> Path:
    """Return the folder of one variant."""
    return WORK / what.pair / "-".join([f"{what.cell}, {name}", *changes, f"seed {seed}"])


def do_variant(what: Ablation, name: str, seed: int, changes: list[str]) -> dict[str, float]:
    """Train, predict and score one variant; what is there already is not done again."""
    contest, data = what.contest, pair(what.pair)
    if what.cell == "pseudo-label":
        do_cell("enhanced", contest, seed, [])  # whose maps it learns from
    folder = place(what, name, seed, changes)
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "scores.json"
    if result.exists():
        return json.loads(result.read_text())
    started = time.monotonic()
    settings = [f"{what.cell}:{change}" for change in (*what.variants[name], *changes)]
    scores = score(learn(what.cell, contest, data, seed, folder, settings), contest, data)
    scores["seconds"] = time.monotonic() - started
    result.write_text(json.dumps(scores))
    return scores


def table(seeds: int, changes: list[str]) -> str:
    """Return the table as Markdown, from the variants that are done."""
    rows = ["| pair | method | variant | settings | score | mean | sd | seeds |", "|---" * 8 + "|"]
    columns = "pair", "method", "variant", "settings"
    before = {tuple(row[c] for c in columns): row for row in read_rows(TABLE)}
    for what in ABLATIONS:
        for name, settings in what.variants.items():
            files = [place(what, name, seed, changes) / "scores.json" for seed in range(seeds)]
            key = what.contest.score
            values = [json.loads(f.read_text())[key] for f in files if f.exists()]
            words = what.pair, what.cell, name, " ".join((*settings, *changes))
            known = before.get(words, {"seeds": "0"})
            if len(values) < int(known["seeds"]):  # its runs are another machine's
                rows.append(as_row(known.values()))
            elif values:
                found = f"{np.mean(values):.3f}", f"{np.std(values):.3f}", f"{len(values)}"
                rows.append(as_row([*words, key, *found]))
    return "\n".join(rows) + "\n"


def main() -> None:
    """Run what is asked for, and write the table after every variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="all of them when none is named")
    parser.add_argument("--pairs", nargs="*", help="all of them when none is named")
    parser.add_argument("--variants", nargs="*", help="all of them when none is named")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE, for every variant")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"There is no folder of real images at {DATA}.")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for seed in range(options.seeds):
        for what in ABLATIONS:
            if options.methods and what.cell not in options.methods:
                continue
            if options.pairs and what.pair not in options.pairs:
                continue
            for name in what.variants:
                if options.variants and name not in options.variants:
                    continue
                try:
                    scores = do_variant(what, name, seed, options.set)
                    print(what.pair, what.cell, name, seed, scores, flush=True)
                except RuntimeError as error:
                    print(what.pair, what.cell, name, seed, f"failed: {error}", flush=True)
    made = table(options.seeds, options.set)
    words = where("torch", "numpy", "lightning-fabric")
    print(made)
    TABLE.write_text(
        "# What the terms of each method are worth\n\n`python benchmarks/ablations.py`; cpu "
        f"preset, scores on all test images.\n\n{words}\n\n{made}"
    )


if __name__ == "__main__":
    main()
