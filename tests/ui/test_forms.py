"""A form for any settings model: it gives back what it was given and refuses the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator
from qtpy.QtCore import Qt

from napari_cellda.core.adaptation.method import PRESETS
from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.enhancer_training.params import enhancer_params
from napari_cellda.core.errors import UserError
from napari_cellda.core.features.sets import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.params import BaseParams, Preset
from napari_cellda.core.runs.commands import changed_settings
from napari_cellda.methods import discover, find_method
from napari_cellda.ui.forms import Form

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


class Everything(BaseParams):
    """One field of every kind."""

    steps: int = Field(500, ge=1, le=1000)
    """Steps of the optimiser."""
    rate: float = Field(1e-4, gt=0, lt=1)
    depth: int | None = Field(None, ge=1)
    kind: Literal["a", "b"] = "b"
    on: bool = True
    name: str | None = None
    sizes: tuple[float, ...] | None = (1.0, 2.5)

    @field_validator("sizes")
    @classmethod
    def _positive(cls, sizes: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if sizes and min(sizes) <= 0:
            raise UserError("Sizes must be positive.")
        return sizes


def shown(form: Form[Any]) -> dict[str, Any]:
    entered = {name: editor.get() for name, editor in form._editors.items()}
    return type(form.value)(**entered).model_dump()


@pytest.mark.parametrize("params", [Everything, ForestParams, FeatureSpec, EnhancerOptions])
def test_form_gives_back_its_defaults(qtbot: QtBot, params: type[BaseParams]) -> None:
    form = Form(params())
    qtbot.addWidget(form)
    assert shown(form) == params().model_dump()
    assert set(form._editors) == set(params.model_fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_form_shows_every_preset_as_it_is(qtbot: QtBot, preset: Preset) -> None:
    kinds = {method.name: method.settings(preset) for method in discover()}
    for name, settings in {**kinds, "enhancer": enhancer_params(preset)}.items():
        form = Form(settings)
        qtbot.addWidget(form)
        assert shown(form) == settings.model_dump(), name


def test_only_what_is_edited_changes(qtbot: QtBot) -> None:
    settings = find_method("pseudo-label").settings("cpu")
    form = Form(settings)
    qtbot.addWidget(form)
    enter(form, "steps", 7)
    assert changed_settings(form.value, settings) == {"steps": 7}


@pytest.mark.parametrize("value", [1e-5, 1 / 3, 2.5e-9, 123456.75])
def test_no_digit_of_a_number_is_lost(qtbot: QtBot, value: float) -> None:
    class Params(BaseParams):
        rate: float = 1.0

    form = Form(Params())
    qtbot.addWidget(form)
    box: Any = form._editors["rate"].widget
    form.set_value(Params(rate=value))
    box.lineEdit().setText(box.text())
    box.interpretText()
    assert form._editors["rate"].get() == value
    assert form.value.rate == value


def test_refused_edit_counts_together_with_the_one_that_allows_it(qtbot: QtBot) -> None:
    class Params(BaseParams):
        low: int = 0
        high: int = 5

        @model_validator(mode="after")
        def _ordered(self) -> Params:
            if self.low > self.high:
                raise UserError("Low must not exceed high.")
            return self

    form = Form(Params())
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.refused):
        enter(form, "low", 8)
    enter(form, "high", 9)
    assert form.value == Params(low=8, high=9)


def test_help_comes_from_the_model(qtbot: QtBot) -> None:
    form = Form(Everything())
    qtbot.addWidget(form)
    assert form._editors["steps"].widget.toolTip() == "Steps of the optimiser."


def enter(form: Form[Any], name: str, value: Any) -> None:
    widget: Any = form._editors[name].widget
    if name in ("name", "sizes"):
        widget.setText(value)
        widget.editingFinished.emit()
    elif name == "on":
        widget.setChecked(value)
    elif name == "kind":
        widget.setCurrentIndex(widget.findData(value))
        widget.activated.emit(widget.currentIndex())
    else:
        widget.setValue(value)


@pytest.mark.parametrize(
    ("name", "entered", "expected"),
    [
        ("steps", 7, 7),
        ("rate", 0.25, 0.25),
        ("depth", 4, 4),
        ("kind", "a", "a"),
        ("on", False, False),
        ("name", "nuclei", "nuclei"),
        ("sizes", "3, 4.5", (3.0, 4.5)),
        ("sizes", "2", (2.0,)),
        ("sizes", "", None),
    ],
)
def test_every_kind_of_value_is_entered(
    qtbot: QtBot, name: str, entered: Any, expected: Any
) -> None:
    form = Form(Everything())
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.changed) as signal:
        enter(form, name, entered)
    assert getattr(signal.args[0], name) == expected
    assert form.value == Everything(**{name: expected})


@pytest.mark.parametrize(
    ("entered", "message"), [("1, x", "Sizes is "), ("-1", "Sizes must be positive.")]
)
def test_what_is_not_allowed_is_refused_and_changes_nothing(
    qtbot: QtBot, entered: str, message: str
) -> None:
    form = Form(Everything())
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.refused) as signal, qtbot.assertNotEmitted(form.changed):
        enter(form, "sizes", entered)
    assert isinstance(signal.args[0], UserError)
    assert str(signal.args[0]).startswith(message)
    assert form.value == Everything()


def test_a_refused_entry_is_marked_and_holds_up_no_other(qtbot: QtBot) -> None:
    settings = find_method("cks").settings("cpu")
    form = Form(settings)
    qtbot.addWidget(form)
    crop: Any = form._editors["crop"].widget
    widths: Any = form._editors["widths"].widget
    with qtbot.assertNotEmitted(form.changed):
        crop.setValue(100)
        widths.setText("xyz")
        widths.editingFinished.emit()
    with qtbot.assertNotEmitted(form.refused):
        enter(form, "batch", 5)
    assert changed_settings(form.value, settings) == {"batch": 5}
    assert list(form.refusals) == ["Crop", "Widths"]
    layout: Any = form.layout()
    row, _ = layout.getWidgetPosition(crop)
    reason = layout.itemAt(row + 1, layout.ItemRole.SpanningRole).widget()
    assert reason.text == "Crop is 100; expected a multiple of 32."
    assert str(form.refusals["Widths"]) == "Widths is 'xyz'; expected a whole number."
    crop.setValue(128)
    assert list(form.refusals) == ["Widths"]
    assert layout.itemAt(row + 1, layout.ItemRole.SpanningRole) is None
    form.set_value(settings)
    assert not form.refusals
    assert shown(form) == settings.model_dump()


def test_numbers_keep_within_their_limits(qtbot: QtBot) -> None:
    form = Form(Everything())
    qtbot.addWidget(form)
    enter(form, "steps", 5000)
    assert form.value.steps == 1000
    enter(form, "steps", 0)
    assert form.value.steps == 1


def test_arrows_lead_to_values_that_are_allowed_and_of_use(qtbot: QtBot) -> None:
    form = Form(find_method("cks").settings("cpu"))
    qtbot.addWidget(form)
    for name, expected in (("crop", 224), ("steps", 3100), ("learning_rate", 0.0011)):
        box = form._editors[name].widget
        qtbot.keyClick(box, Qt.Key.Key_Up)
        assert getattr(form.value, name) == pytest.approx(expected), name
    assert not form.refusals


def test_new_value_is_shown_without_a_signal(qtbot: QtBot) -> None:
    form = Form(Everything(), skip=("on",))
    qtbot.addWidget(form)
    with qtbot.assertNotEmitted(form.changed):
        form.set_value(Everything(steps=3, depth=2, on=False))
    assert form._editors["depth"].get() == 2
    enter(form, "steps", 4)
    assert form.value == Everything(steps=4, depth=2, on=False)
