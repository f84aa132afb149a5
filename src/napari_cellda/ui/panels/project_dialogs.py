"""What is asked about projects: where to, where from, what is missing, whether to save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_cellda.ui.projects import ENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cellda.core.project import ImageReference

KINDS = f"Projects (*{ENDING})"


def ask_where_to_save(parent: QWidget, suggested: Path) -> Path | None:
    """Ask for the file of a project; None when cancelled."""
    name, _ = QFileDialog.getSaveFileName(parent, "Save project", str(suggested), KINDS)
    return Path(name) if name else None


def ask_which_to_open(parent: QWidget, folder: Path) -> Path | None:
    """Ask for a project; None when cancelled."""
    name, _ = QFileDialog.getOpenFileName(parent, "Open project", str(folder), KINDS)
    return Path(name) if name else None


def ask_unsaved(parent: QWidget, name: str) -> Literal["save", "drop", "cancel"]:
    """Ask what becomes of work that is not in a project yet; Escape cancels."""
    box = _box(parent, "Save the project?")
    box.setText(f"'{name}' has changes that are not saved." if name else "This work is not saved.")
    box.setInformativeText("Strokes alone are kept for a crash; a project keeps everything.")
    save = box.addButton("Save", QMessageBox.ButtonRole.AcceptRole)
    drop = box.addButton("Don't save", QMessageBox.ButtonRole.DestructiveRole)
    cancel = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(save)
    box.setEscapeButton(cancel)
    box.exec()
    answers: dict[object, Literal["save", "drop"]] = {save: "save", drop: "drop"}
    return answers.get(box.clickedButton(), "cancel")


def ask_copies(
    parent: QWidget, names: Sequence[str], folder: Path
) -> Literal["copy", "leave", "cancel"]:
    """Ask whether images that are not on disk shall be written beside the project."""
    box = _box(parent, "Save the images too?")
    listed = ", ".join(f"'{name}'" for name in names)
    box.setText(
        f"A project holds no images, and {listed} {'is' if len(names) == 1 else 'are'} in no file."
    )
    box.setInformativeText(
        f"Write {'it' if len(names) == 1 else 'them'} to the folder '{folder.name}' beside the "
        "project? Otherwise you will be asked for the file when you open the project."
    )
    copy = box.addButton("Save images", QMessageBox.ButtonRole.AcceptRole)
    leave = box.addButton("Project only", QMessageBox.ButtonRole.DestructiveRole)
    cancel = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(copy)
    box.setEscapeButton(cancel)
    box.exec()
    answers: dict[object, Literal["copy", "leave"]] = {copy: "copy", leave: "leave"}
    return answers.get(box.clickedButton(), "cancel")


def ask_for_image(parent: QWidget, reference: ImageReference, wrong: str) -> Path | None:
    """Ask where an image of a project is now; None leaves it out."""
    box = _box(parent, "Where is this image?")
    box.setText(wrong)
    box.setInformativeText(
        f"Choose the file of '{reference.name}', or open the project without it: its strokes stay "
        "in the project, and the forest stays as it is until you paint."
    )
    choose = box.addButton("Choose the file\u2026", QMessageBox.ButtonRole.AcceptRole)
    leave = box.addButton("Leave it out", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(choose)
    box.setEscapeButton(leave)
    box.exec()
    if box.clickedButton() is leave:
        return None
    if reference.path is not None and Path(reference.path).suffix == ".zarr":
        name = QFileDialog.getExistingDirectory(parent, f"Where is '{reference.name}'?")
    else:
        name, _ = QFileDialog.getOpenFileName(parent, f"Where is '{reference.name}'?")
    return Path(name) if name else None


def _box(parent: QWidget, title: str) -> QMessageBox:
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle(title)
    return box
