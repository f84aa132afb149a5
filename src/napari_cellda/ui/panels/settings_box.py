"""A preset, and the form of all settings behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QVBoxLayout, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.runs.commands import changed_settings
from napari_cellda.ui.forms import Form
from napari_cellda.ui.panels.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from napari_cellda.core.params import BaseParams

PRESETS = {
    "cpu": ("Quick (processor)", "Minutes to an hour on a processor"),
    "gpu": ("Thorough (GPU)", "For a graphics card"),
    "published": ("As published", "The settings of the paper; needs a GPU and patience"),
}


class SettingsBox(QWidget):
    """Holds settings of one kind at a time.

    Signals
    -------
    changed
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.preset = QComboBox()
        for name, (title, tip) in PRESETS.items():
            self.preset.addItem(title, name)
            self.preset.setItemData(self.preset.count() - 1, tip, 3)
        self.details = Section("All settings", folded=True)
        self.form: Form[Any] | None = None
        self._make: Callable[[str], BaseParams] | None = None
        self._skip: Collection[str] = ()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        row = QFormLayout()
        row.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        row.addRow("Preset", self.preset)
        layout.addLayout(row)
        layout.addWidget(self.details)
        self.preset.activated.connect(self._on_preset)
        self.details.opened.connect(self._show_form)

    def set_kind(self, make: Callable[[str], BaseParams], skip: Collection[str] = ()) -> None:
        """Hold settings that `make` gives for a preset's name; `skip` has no row in the form."""
        self._make, self._skip = make, skip
        self._value = make(self.preset.currentData())
        if self.form is not None:
            self.details.body.removeWidget(self.form)
            self.form.deleteLater()
            self.form = None
        if self.details.is_open:
            self._show_form()
        self.changed.emit()

    @property
    def value(self) -> BaseParams:
        """The settings now; see `insist` for what is shown beside them."""
        return self._value

    def insist(self) -> None:
        """Make sure that the settings are what the form shows.

        Raises
        ------
        UserError
            If an entry is refused: nobody expects a run with the value before it.
        """
        refusals = self.form.refusals if self.form is not None else {}
        if refusals:
            self.details.open()
            raise UserError(f"Correct this under All settings first: {', '.join(refusals)}.")

    def choose(self, preset: str, settings: Mapping[str, Any] | None = None) -> None:
        """Take a preset, with some settings changed."""
        self.preset.setCurrentIndex(self.preset.findData(preset))
        self._on_preset()
        if settings:
            self._value = type(self._value).model_validate({**self._value.model_dump(), **settings})
            if self.form is not None:
                self.form.set_value(self._value)
            self.changed.emit()

    def changes(self) -> dict[str, Any]:
        """Return what differs from the preset."""
        assert self._make is not None, "it has a kind"
        return changed_settings(self._value, self._make(self.preset.currentData()))

    def _on_preset(self) -> None:
        if self._make is None:
            return
        self._value = self._make(self.preset.currentData())
        if self.form is not None:
            self.form.set_value(self._value)
        self.changed.emit()

    def _show_form(self) -> None:
        """Make the form when it is looked at: it has dozens of rows."""
        if self.form is None and self._make is not None:
            self.form = Form(self._value, skip=self._skip)
            self.form.changed.connect(self._on_form)
            self.details.body.addWidget(self.form)

    def _on_form(self, value: BaseParams) -> None:
        self._value = value
        self.changed.emit()
