"""Painted pixels, tile by tile."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_cellda.core.classifier import painted_tiles
from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.images import Image, image_from_array
from napari_cellda.core.live.stroke_index import StrokeIndex
from napari_cellda.core.tiles import Region

SPEC = FeatureSpec()


def make(shape: tuple[int, ...], axes: str) -> tuple[Image, np.ndarray, StrokeIndex]:
    image = image_from_array(np.zeros(shape, np.uint8), axes, name="slide")
    return image, np.zeros(image.label_shape, np.uint8), StrokeIndex(image, SPEC)


def test_finds_what_the_trainer_finds_in_the_same_order() -> None:
    image, strokes, index = make((2, 3, 600, 1030), "tzyx")
    rng = np.random.default_rng(0)
    for t, z, y, x in rng.integers(0, strokes.shape, (40, 4)):
        strokes[t, z, y : y + 3, x : x + 3] = rng.integers(1, 4)
    assert index.update(strokes)
    found = index.snapshot()
    expected = list(painted_tiles(image, strokes, SPEC))
    assert [tile.tile for tile in found] == [tile for tile, _ in expected]
    for tile, (_, painted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(tile.flat, np.flatnonzero(painted))
        np.testing.assert_array_equal(tile.ids, painted[painted > 0])


def test_reads_only_the_regions_named() -> None:
    _, strokes, index = make((600, 600), "yx")
    strokes[10, 10] = strokes[590, 590] = 1
    assert index.update(strokes, [Region(0, slice(0, 1), slice(0, 20), slice(0, 20))])
    assert index.counts(2).tolist() == [1, 0]
    assert index.update(strokes)
    assert index.counts(2).tolist() == [2, 0]


def test_tells_whether_anything_changed() -> None:
    _, strokes, index = make((50, 50), "yx")
    assert not index.update(strokes)
    strokes[3, 3] = 2
    assert index.update(strokes)
    assert not index.update(strokes)
    strokes[3, 3] = 1
    assert index.update(strokes)
    strokes[3, 3] = 0
    assert index.update(strokes)
    assert index.snapshot() == ()


def test_snapshot_does_not_change_afterwards() -> None:
    _, strokes, index = make((50, 50), "yx")
    strokes[3, 3] = 2
    index.update(strokes)
    (before,) = index.snapshot()
    strokes[4, 4] = 1
    index.update(strokes)
    assert before.ids.tolist() == [2]
    assert index.snapshot()[0].digest != before.digest


def test_reads_zarr() -> None:
    zarr = pytest.importorskip("zarr")
    _, _, index = make((4, 80, 90), "zyx")
    strokes = zarr.create_array(
        store={}, shape=(4, 80, 90), chunks=(1, 64, 64), dtype="uint8", fill_value=0
    )
    strokes[2, 70:75, 80:85] = 3
    assert index.update(strokes)
    assert index.counts(3).tolist() == [0, 0, 25]
    assert index.snapshot()[0].tile.z == slice(2, 3)


def test_refuses_another_shape() -> None:
    _, _, index = make((50, 60), "yx")
    with pytest.raises(UserError, match=r"'slide' have shape \(60, 50\).*needs \(50, 60\) \(yx\)"):
        index.update(np.zeros((60, 50), np.uint8))


def test_strokes_are_read_while_another_thread_paints() -> None:
    _, strokes, index = make((256, 256), "yx")
    strokes[0, 0] = 1
    stopped = threading.Event()

    def paint() -> None:
        while not stopped.is_set():
            strokes[1:] = 2
            strokes[1:] = 0

    painter = threading.Thread(target=paint)
    painter.start()
    try:
        for _ in range(300):
            index.update(strokes)
    finally:
        stopped.set()
        painter.join()
    index.update(strokes)
    assert index.counts(2).tolist() == [1, 0]


def test_labels_that_are_no_class_are_left_out_and_none_turns_into_one() -> None:
    strokes = np.zeros((40, 50), np.int32)
    strokes[5, 5:9] = 1, 3, 257, -1
    index = StrokeIndex(image_from_array(strokes, "yx", name="x"), FeatureSpec())
    index.update(strokes)
    (tile,) = index.snapshot()
    assert tile.ids.tolist() == [1, 3, 255, 255]
    (known,) = index.snapshot(2)
    assert (known.ids.tolist(), known.flat.tolist()) == ([1], [5 * 50 + 5])
    assert known.digest != tile.digest
    assert index.snapshot(255)[0] is tile
    assert (index.unknown(2), index.unknown(3), index.unknown(255)) == (3, 255, None)
    strokes[5, 5] = 0
    index.update(strokes)
    assert index.snapshot(2) == ()
