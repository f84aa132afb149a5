"""A form for any settings model: one row per field, help from the model itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from qtpy.QtCore import QLocale, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from napari_cellda.core.errors import UserError
from napari_cellda.core.params import BaseParams, refusal, without_none
from napari_cellda.ui.panels.banner import Banner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic.fields import FieldInfo

P = TypeVar("P", bound=BaseParams)

MANY = 2**31 - 1
DECIMALS = 40
"""A spin box rounds to so many: more than a learning rate can have."""


class Form(QWidget, Generic[P]):
    """Edits a frozen settings model.

    An entry that is refused stays, and the line below it says why.

    Parameters
    ----------
    value : BaseParams
        Shown at first; its class tells the fields.
    skip : collection of str
        Fields that are not shown and keep their value.

    Signals
    -------
    changed(object)
        The new settings, after every edit that is allowed.
    refused(object)
        The `UserError` of an edit that is not.

    Attributes
    ----------
    refusals : dict of str to UserError
        Why what is entered is not taken, by the titles of the fields; empty when all is.
    """

    changed = Signal(object)
    refused = Signal(object)

    def __init__(self, value: P, *, skip: Collection[str] = ()) -> None:
        super().__init__()
        self._value = value
        self._editors: dict[str, _Editor] = {}
        self._entered: dict[str, Any] = {}
        self.refusals: dict[str, UserError] = {}
        self._reasons: dict[str, Banner] = {}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, field in type(value).model_fields.items():
            if name in skip:
                continue
            editor = _editor_for(field)
            editor.set(getattr(value, name))
            editor.widget.setToolTip(field.description or "")
            editor.on_change(partial(self._on_change, name))
            self._editors[name] = editor
            layout.addRow(_title(name), editor.widget)
            layout.labelForField(editor.widget).setToolTip(field.description or "")

    @property
    def value(self) -> P:
        """The settings as they are shown, but for entries that are refused."""
        return self._value

    def set_value(self, value: P) -> None:
        """Show other settings, without a signal."""
        self._value = value
        self._entered.clear()
        self._show_refusals({})
        for name, editor in self._editors.items():
            editor.set(getattr(value, name))

    def _on_change(self, name: str) -> None:
        self._entered.pop(name, None)
        self._entered[name] = self._editors[name].get()  # the latest comes last
        value, refused = self._allowed()
        self._entered = {name: self._entered[name] for name in refused}
        self._show_refusals(refused)
        if value != self._value:
            self._value = value
            self.changed.emit(value)
        if name in refused:
            self.refused.emit(refused[name])

    def _allowed(self) -> tuple[P, dict[str, UserError]]:
        """Return the settings with the entries that are allowed, and why the others are not."""
        value = self._value
        refused: dict[str, UserError] = {}
        try:  # what was refused before may be allowed together with the latest
            return self._with(value, *self._entered), refused
        except UserError:
            pass
        for name in reversed(self._entered):
            try:
                value = self._with(value, name)
            except UserError as error:
                refused[name] = error
        return value, dict(reversed(refused.items()))

    def _with(self, value: P, *names: str) -> P:
        """Return settings with some of the entries.

        Raises
        ------
        UserError
            If they are not allowed.
        """
        entered = {name: self._entered[name] for name in names}
        try:
            return type(value)(**{**value.model_dump(), **entered})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:
                raise UserError(f"{first['msg']}.") from error
            raise UserError(f"{_title(str(first['loc'][0]))} {refusal(first)}") from error

    def _show_refusals(self, refused: Mapping[str, UserError]) -> None:
        """Say below each entry that is refused why it is."""
        layout: Any = self.layout()
        for name in [name for name in self._reasons if name not in refused]:
            layout.removeRow(self._reasons.pop(name))
        for name, error in refused.items():
            if name not in self._reasons:
                self._reasons[name] = Banner()
                row, _ = layout.getWidgetPosition(self._editors[name].widget)
                layout.insertRow(row + 1, self._reasons[name])
            self._reasons[name].tell(str(error), "warning")
        self.refusals = {_title(name): error for name, error in refused.items()}


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


class _Editor:
    """One widget for one kind of value; `get` and `set` speak Python."""

    def __init__(self, widget: Any, get: Any, set_: Any, changed: Any) -> None:
        self.widget = widget
        self.get = get
        self._set = set_
        self._changed = changed

    def set(self, value: Any) -> None:
        """Show a value without telling anybody."""
        self.widget.blockSignals(True)
        self._set(value)
        self.widget.blockSignals(False)

    def on_change(self, callback: Any) -> None:
        """Call back when the user has entered another value."""
        self._changed.connect(lambda *_: callback())


def _editor_for(field: FieldInfo) -> _Editor:
    kind, optional = without_none(field.annotation)
    if kind is bool:
        box = QCheckBox()
        return _Editor(box, box.isChecked, box.setChecked, box.toggled)
    if get_origin(kind) is Literal:
        return _choice(get_args(kind))
    if kind is int or kind is float:
        return _number(kind, field, optional=optional)
    return _text(optional=optional)


def _limits(field: FieldInfo) -> tuple[float, float]:
    low, high = -float(MANY), float(MANY)
    for rule in field.metadata:
        low = max(low, getattr(rule, "ge", None) or getattr(rule, "gt", None) or low)
        if getattr(rule, "ge", None) == 0 or getattr(rule, "gt", None) == 0:
            low = max(low, 0.0)
        high = min(high, *(v for v in (getattr(rule, n, None) for n in ("le", "lt")) if v), high)
    return low, high


def _choice(options: tuple[Any, ...]) -> _Editor:
    box = QComboBox()
    for option in options:
        box.addItem(str(option), option)
    return _Editor(
        box, box.currentData, lambda v: box.setCurrentIndex(box.findData(v)), box.activated
    )


class _FloatBox(QDoubleSpinBox):
    """Shows a number with all of its digits and no others."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(DECIMALS)

    def textFromValue(self, value: float) -> str:
        """Return the shortest text that is read as the same number."""
        locale = self.locale()
        locale.setNumberOptions(QLocale.NumberOption.OmitGroupSeparator)
        return str(
            locale.toString(value, "f", QLocale.FloatingPointPrecisionOption.FloatingPointShortest)
        )


def _number(kind: type, field: FieldInfo, *, optional: bool) -> _Editor:
    """Make a spin box; where None is allowed, its lowest value shows "auto" and means None.

    Its arrows go from multiple to multiple where only these are allowed, else by about a tenth.
    """
    low, high = _limits(field)
    box: Any
    step: float
    if kind is int:
        box = QSpinBox()
        low, high = int(low), int(high)
        step = 1
    else:
        box = _FloatBox()
        step = 10**-4
    if optional:
        box.setSpecialValueText("auto")
        low -= step
    box.setRange(low, high)
    multiple = next(
        (rule.multiple_of for rule in field.metadata if hasattr(rule, "multiple_of")), 0
    )
    if multiple:
        box.setSingleStep(multiple)
    else:
        box.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
    box.setKeyboardTracking(False)

    def get() -> Any:
        return None if optional and box.value() == box.minimum() else box.value()

    def set_(value: Any) -> None:
        box.setValue(box.minimum() if value is None else value)

    return _Editor(box, get, set_, box.valueChanged)


def _text(*, optional: bool) -> _Editor:
    """Make a line for text and for tuples, which the settings split at the commas themselves.

    Empty means None where that is allowed.
    """
    line = QLineEdit()

    def get() -> Any:
        return line.text().strip() or (None if optional else "")

    def set_(value: Any) -> None:
        shown = ", ".join(str(v) for v in value) if isinstance(value, tuple) else value
        line.setText("" if shown is None else str(shown))

    return _Editor(line, get, set_, line.editingFinished)
