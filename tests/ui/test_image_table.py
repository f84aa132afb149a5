"""The table of which classes are in which image."""

from __future__ import annotations

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_cellda.ui.panels.image_table import ImageTable


def test_classes_of_images_are_remembered_while_no_image_is_chosen(qtbot: QtBot):
    table = ImageTable()
    qtbot.addWidget(table)
    table.show_axes(["a", "b"], ["round", "long"])
    table.item(0, 1).setCheckState(Qt.CheckState.Unchecked)
    table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    table.show_axes([], ["round", "long"])
    table.show_axes(["b", "a"], ["round", "long"])
    assert table.as_csv().splitlines()[1:] == ["b,0,1", "a,1,0"]
    table.item(1, 1).setCheckState(Qt.CheckState.Checked)
    table.show_axes(["a"], [])
    table.show_axes(["a"], ["long"])
    assert table.as_csv().splitlines()[1:] == ["a,1"]


def test_long_names_of_images_leave_room_for_the_classes(qtbot: QtBot):
    table = ImageTable()
    qtbot.addWidget(table)
    table.resize(300, 140)
    table.show()
    name = "a_very_long_name_of_an_experiment_on_some_day_and_of_a_field_of_view_017"
    table.show_axes([name], ["long"])
    qtbot.waitUntil(lambda: table.viewport().width() >= 140)
    assert table.verticalHeaderItem(0).toolTip() == name
    assert table.as_csv() == f"image,long\n{name},1\n"
