"""Small widgets that several panels are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_cellda.ui.panels.section import Section


def check_box(text: str, tip: str, *, on: bool) -> QCheckBox:
    """Make a box with a tooltip."""
    box = QCheckBox(text)
    box.setToolTip(tip)
    box.setChecked(on)
    return box


def choices(entries: Sequence[tuple[str, str, str]]) -> QComboBox:
    """Make a list of (value, title, tooltip)."""
    combo = QComboBox()
    for index, (value, title, tip) in enumerate(entries):
        combo.addItem(title, value)
        combo.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)
    return combo


def form_in(section: Section) -> QFormLayout:
    """Make a form at the end of a section."""
    form = QFormLayout()
    section.body.addLayout(form)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def names(paths: Sequence[Path], most: int = 6) -> str:
    """Name some files, and count the rest."""
    listed = ", ".join(path.name for path in paths[:most])
    return f"{listed} and {len(paths) - most} more" if len(paths) > most else listed
