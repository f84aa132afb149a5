"""Strokes are saved while they change, whole or not at all, and found again by their image."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.images import image_from_array
from napari_cellda.core.live.stroke_index import StrokeIndex
from napari_cellda.ui import autosave
from napari_cellda.ui.autosave import (
    Autosave,
    SavedStrokes,
    age,
    autosave_path,
    load_strokes,
    put_back,
    save_strokes,
)
from napari_cellda.ui.axes import ImageChoice, read_layer
from napari_cellda.ui.classes import ClassList, class_list
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.state import Session
from napari_cellda.ui.worker import run_task
from painting import WAIT_MS, cells, paint_both, wait_idle

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_cellda.ui.panels.paint import PaintPanel

Open = Callable[..., "PaintPanel"]


def stack_with_strokes() -> tuple[Any, np.ndarray, StrokeIndex]:
    image = image_from_array(np.zeros((2, 3, 600, 530), np.uint8), "tzyx", name="stack")
    strokes = np.zeros(image.label_shape, np.uint8)
    rng = np.random.default_rng(0)
    strokes.flat[rng.integers(0, strokes.size, 500)] = rng.integers(1, 4, 500)
    index = StrokeIndex(image, FeatureSpec())
    index.update(strokes)
    return image, strokes, index


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_strokes_come_back_pixel_by_pixel(tmp_path: Path, kind: str) -> None:
    image, strokes, index = stack_with_strokes()
    path = tmp_path / "a" / "b.npz"
    save_strokes(path, image, index.snapshot(), class_list(["ground", "a", "b"]))
    saved = load_strokes(path, image)
    assert saved is not None
    assert saved.classes.names == ("ground", "a", "b")
    array: Any = np.zeros(strokes.shape, np.uint8)
    if kind == "zarr":
        array = zarr.create_array(
            store={}, shape=strokes.shape, chunks=(1, 1, 512, 512), dtype="uint8", fill_value=0
        )
    painted = SimpleNamespace(strokes_array=array, image=image, strokes=SimpleNamespace(data=array))
    put_back(painted, saved)  # type: ignore[arg-type]
    np.testing.assert_array_equal(array[:], strokes)
    assert [p.name for p in path.parent.iterdir()] == ["b.npz"]


def test_strokes_painted_since_are_not_covered(tmp_path: Path) -> None:
    image, strokes, index = stack_with_strokes()
    save_strokes(tmp_path / "b.npz", image, index.snapshot(), ClassList().add())
    saved = load_strokes(tmp_path / "b.npz", image)
    array = np.where(strokes > 0, 7, 0).astype(np.uint8)
    painted = SimpleNamespace(strokes_array=array, image=image, strokes=SimpleNamespace(data=array))
    put_back(painted, saved)  # type: ignore[arg-type]
    assert set(np.unique(array)) == {0, 7}


def test_no_file_and_no_strokes_are_nothing_to_offer(tmp_path: Path) -> None:
    image, _, _ = stack_with_strokes()
    assert load_strokes(tmp_path / "none.npz", image) is None
    save_strokes(tmp_path / "empty.npz", image, (), ClassList())
    assert load_strokes(tmp_path / "empty.npz", image) is None


@pytest.mark.parametrize("damage", ["truncated", "foreign", "pickle", "outside", "other image"])
def test_damaged_file_is_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    image, _, index = stack_with_strokes()
    path = tmp_path / "b.npz"
    save_strokes(path, image, index.snapshot(), ClassList().add())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "foreign":
        path.write_text("not strokes")
    elif damage == "pickle":
        np.savez(path, about=np.array([{"a": 1}], dtype=object))
    elif damage == "outside":
        with np.load(path) as arrays:
            content = dict(arrays)
        content["indices"] = content["indices"] + 10**9
        np.savez(path, **content)
    else:
        image = image_from_array(np.zeros((600, 530), np.uint8), "yx", name="stack")
    with pytest.raises(UserError, match="Strokes saved for 'stack' cannot be read"):
        load_strokes(path, image)


def layer_of(data: Any) -> Any:
    return SimpleNamespace(
        data=data, name="x", ndim=2, rgb=False, multiscale=False, scale=(1, 1), units=None
    )


def test_image_is_known_by_its_pixels_whatever_its_name_and_kind() -> None:
    data = (1000 * cells((300, 310))).astype(np.uint16)
    path = autosave_path(ImageChoice(layer_of(data), "yx", "grey"))
    same = [data.copy(), da.from_array(data, chunks=100), data.astype(">u2")]
    same.append(zarr.create_array(store={}, data=data, chunks=(64, 64)))
    for other in same:
        assert autosave_path(ImageChoice(layer_of(other), "yx", "grey")) == path
    edited = data.copy()
    edited[150, 155] += 1
    assert autosave_path(ImageChoice(layer_of(edited), "yx", "grey")) != path


def test_new_image_never_takes_the_file_of_one_that_is_gone(qtbot: QtBot) -> None:
    session = Session()
    saver = Autosave(session)
    for number in range(40):
        layer = layer_of(np.full((64, 64), number, np.uint8))
        choice = ImageChoice(layer, "yx", "grey")
        painted = PaintedImage(choice, read_layer(choice))
        assert saver.path_of(painted) == autosave_path(choice)
    del painted
    gc.collect()
    assert len(saver._paths) == 0
    session.close()


def test_oldest_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosave, "KEEP", 2)
    image, _, index = stack_with_strokes()
    import os

    for number in range(4):
        path = tmp_path / f"{number}.npz"
        save_strokes(path, image, index.snapshot(), ClassList().add())
        os.utime(path, (number, number))
    save_strokes(tmp_path / "4.npz", image, index.snapshot(), ClassList().add())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3.npz", "4.npz"]


def test_age_is_said_in_words() -> None:
    saved = SavedStrokes(Path(), datetime(2026, 5, 3, 14, 2), ClassList(), np.zeros(1), np.zeros(1))
    assert age(saved, datetime(2026, 5, 3, 20, 0)) == "today 14:02"
    assert age(saved, datetime(2026, 5, 4, 20, 0)) == "3 May 14:02"


# -- in the panel ------------------------------------------------------------------------------


def saved_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz")) if folder.exists() else []


def test_strokes_are_saved_while_painting_and_offered_after_a_crash(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    qtbot.waitUntil(lambda: len(saved_files(own_autosave)) == 1, timeout=WAIT_MS)
    strokes = panel.session.current.strokes_array.copy()
    # A crash: nothing is closed. The same image is opened again.
    again = open_panel(cells(), name="the same image")
    qtbot.waitUntil(lambda: not again.restore_bar.isHidden(), timeout=WAIT_MS)
    assert f"({np.count_nonzero(strokes):,} pixels)" in again.restore_bar.text.text()
    again.restore_bar.bring_back.click()
    wait_idle(again, qtbot)
    np.testing.assert_array_equal(again.session.current.strokes_array, strokes)
    assert again.session.classifier is not None
    assert again.restore_bar.isHidden()


def test_classes_come_back_with_their_strokes(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells())
    panel.add_class.click()
    panel.session.current.strokes.paint((60, 60), 3)
    wait_idle(panel, qtbot)
    Autosave.of(panel.session).save()
    qtbot.waitUntil(lambda: bool(saved_files(own_autosave)), timeout=WAIT_MS)
    again = open_panel(cells())
    qtbot.waitUntil(lambda: not again.restore_bar.isHidden(), timeout=WAIT_MS)
    again._editor.rename(1, "nuclei")
    again.restore_bar.bring_back.click()
    assert again.session.classes == panel.session.classes
    assert again._editor.undo_title is None


def test_offer_can_be_discarded_for_good(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    Autosave.of(panel.session).save()
    qtbot.waitUntil(lambda: bool(saved_files(own_autosave)), timeout=WAIT_MS)
    again = open_panel(cells())
    qtbot.waitUntil(lambda: not again.restore_bar.isHidden(), timeout=WAIT_MS)
    again.restore_bar.discard.click()
    assert saved_files(own_autosave) == []
    assert again.restore_bar.isHidden()


def test_painting_puts_the_offer_away(open_panel: Open, qtbot: QtBot, own_autosave: Path) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    Autosave.of(panel.session).save()
    qtbot.waitUntil(lambda: bool(saved_files(own_autosave)), timeout=WAIT_MS)
    again = open_panel(cells())
    qtbot.waitUntil(lambda: not again.restore_bar.isHidden(), timeout=WAIT_MS)
    again.session.current.strokes.paint((5, 5), 1)
    qtbot.waitUntil(again.restore_bar.isHidden)


def test_strokes_deleted_by_mistake_were_saved(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    panel.session.viewer.layers.remove(panel.session.current.strokes)
    qtbot.waitUntil(lambda: bool(saved_files(own_autosave)), timeout=WAIT_MS)
    panel.start.click()
    qtbot.waitUntil(lambda: not panel.restore_bar.isHidden(), timeout=WAIT_MS)


def test_full_disk_is_told_and_painting_goes_on(
    open_panel: Open, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise UserError("'strokes.npz' cannot be written: the disk is full.")

    panel = open_panel(cells())
    monkeypatch.setattr(autosave, "save_strokes", full)
    paint_both(panel)
    wait_idle(panel, qtbot)
    Autosave.of(panel.session).save()
    qtbot.waitUntil(lambda: "disk is full" in panel.banner.text, timeout=WAIT_MS)


def test_unchanged_strokes_are_not_written_again(
    open_panel: Open, qtbot: QtBot, own_autosave: Path
) -> None:
    panel = open_panel(cells())
    paint_both(panel)
    wait_idle(panel, qtbot)
    saver = Autosave.of(panel.session)
    saver.save()
    qtbot.waitUntil(lambda: bool(saved_files(own_autosave)), timeout=WAIT_MS)
    saved_files(own_autosave)[0].unlink()
    saver.save()
    done: list[int] = []
    run_task(lambda stop: None, on_finished=lambda: done.append(1))
    qtbot.waitUntil(lambda: bool(done))
    assert saved_files(own_autosave) == []
