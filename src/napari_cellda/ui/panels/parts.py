"""Small widgets that several panels are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def row_of(*widgets: QWidget, stretch: int | Sequence[int] = 0) -> QHBoxLayout:
    """Lay widgets out side by side; `stretch` is the share of what is left, for each or for all."""
    layout = QHBoxLayout()
    layout.setSpacing(6)
    shares = [stretch] * len(widgets) if isinstance(stretch, int) else stretch
    for widget, share in zip(widgets, shares, strict=True):
        layout.addWidget(widget, share)
    return layout


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


class FolderField(QWidget):
    """A field for a folder, and a button that chooses one.

    Parameters
    ----------
    folder : Path
        Shown at first.
    tip : str
    title : str
        Of the window in which one is chosen.

    Signals
    -------
    changed
        The user has entered or chosen a folder.
    """

    changed = Signal()

    def __init__(self, folder: Path, tip: str, title: str) -> None:
        super().__init__()
        self._title = title
        self.field = QLineEdit(str(folder))
        self.field.setToolTip(tip)
        self.field.editingFinished.connect(self.changed)
        self.browse = QPushButton("Choose\u2026")
        self.browse.clicked.connect(lambda: self._choose())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.field, 1)
        layout.addWidget(self.browse)

    def path(self) -> Path:
        """Return what is in the field.

        Raises
        ------
        UserError
            If it is empty, or no folder can be there.
        """
        text = self.field.text().strip()
        if not text:
            raise UserError("No folder is given; choose where the files shall go.")
        try:
            folder = Path(text).expanduser()
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # who writes there makes it, or says what is in its way
        except (RuntimeError, ValueError) as error:  # a user or a letter that there is not
            raise UserError(f"{text!r} is no folder; choose another.") from error
        except OSError as error:
            raise UserError(f"'{folder}' cannot be read: {error.strerror}.") from error
        return folder

    def _choose(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self._title, self.field.text())
        if chosen:
            self.field.setText(chosen)
            self.changed.emit()


class ResultsFolder(FolderField):
    """The folder that results go to."""

    def __init__(self, tip: str) -> None:
        super().__init__(Path.home() / "cellda", tip, "Folder for the files")
