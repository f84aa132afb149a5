"""Sentences of the command line in the words of the panels."""

from __future__ import annotations

import re

from napari_cellda.core.errors import UserError
from napari_cellda.ui.adapt_inputs import ROLES

ROWS = {
    **{role: title for role, (title, _, _) in ROLES.items()},
    "diameter": "Diameter",
    "channels": "Channels",
    "source_channels": "Their channels",
    "classes": "Classes",
}
"""Titles of the rows in the panel Adapt, by the options of the command."""
PHRASES = {
    " with --classes (Classes in the panel)": " under Classes",
    ", or say with --inputs where it lies now": ", then resume the run",
    "; see: napari-cellda methods": "",
}
"""What only the command line can say, and what the panels say in its place."""


def panel_words(text: str) -> str:
    """Name rows of the panel Adapt where a sentence names options of the command."""
    for theirs, ours in PHRASES.items():
        text = text.replace(theirs, ours)
    return re.sub(r"(?<![^\s(])--([a-z]+(?:-[a-z]+)*)", _row, text)


def error_words(error: Exception) -> str:
    """Say what went wrong: a `UserError` as its one sentence, anything else with its type."""
    if isinstance(error, UserError):
        return panel_words(str(error))
    return f"Something went wrong: {type(error).__name__}: {error}"


def _row(found: re.Match[str]) -> str:
    name = found[1].replace("-", "_")
    return ROWS.get(name, name.replace("_", " "))
