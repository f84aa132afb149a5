import numpy as np
import pytest
from scipy import ndimage

from napari_cellda.core.events import run_quietly
from napari_cellda.core.instances import InstanceParams, instances_from_maps
from napari_cellda.core.instances.objects import ObjectTally, measure_objects
from napari_cellda.core.instances.tiled import label_tiles
from napari_cellda.core.tiles import grid


def tiled(foreground, boundary=None, *, tile, halo, first=1, stop=lambda: False, **settings):
    given = boundary if foreground is None else foreground
    labels = np.zeros(given.shape, np.uint32)
    reads = []

    def read_maps(region):
        reads.append(region.shape)
        return tuple(None if m is None else m[region.slices] for m in (foreground, boundary))

    def write(region, block):
        labels[region.slices] = block

    task = label_tiles(
        read_maps,
        lambda region: labels[region.slices],
        write,
        labels.shape,
        InstanceParams(**settings),
        tile=tile,
        halo=halo,
        first=first,
        stop=stop,
    )
    following = run_quietly(task)
    assert all(np.prod(shape) <= np.prod(np.add(tile, 2 * np.array(halo))) for shape in reads)
    return labels, following


def blobs(shape, seed=0, share=0.15):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (0, 3, 3))
    noise = (noise - noise.min()) / np.ptp(noise)
    return (noise > np.quantile(noise, 1 - share)).astype(np.float32)


def agreement(a, b):
    """Share of the pixels of `a` that lie in an object with an equal one in `b`."""
    overlap = np.zeros((a.max() + 1, b.max() + 1), int)
    np.add.at(overlap, (a.ravel(), b.ravel()), 1)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    same = (overlap / union)[1:, 1:].max(axis=1) > 0.99
    return overlap[1:].sum(axis=1)[same].sum() / overlap[1:].sum()


def test_large_groups_are_nearly_the_same():
    foreground = blobs((1, 260, 300), share=0.3)
    expected = instances_from_maps(foreground, method="distance")
    labels, _ = tiled(foreground, tile=(1, 64, 64), halo=(0, 40, 40), method="distance")
    assert labels.max() == pytest.approx(expected.max(), rel=0.05)
    assert agreement(expected, labels) > 0.9


@pytest.mark.parametrize("method", ["distance", "watershed"])
@pytest.mark.parametrize("tile", [(1, 64, 64), (1, 100, 37), (1, 500, 500)])
def test_tiles_equal_the_whole(method, tile):
    foreground = blobs((1, 260, 300))
    boundary = ndimage.gaussian_filter(np.random.default_rng(3).random(foreground.shape), (0, 1, 1))
    boundary = (boundary if method == "watershed" else boundary * 0).astype(np.float32)
    groups, _ = ndimage.label(foreground)
    boxes = ndimage.find_objects(groups)
    assert max(part.stop - part.start for box in boxes for part in box) <= 40
    expected = instances_from_maps(foreground, boundary, method=method)
    labels, following = tiled(foreground, boundary, tile=tile, halo=(0, 40, 40), method=method)
    np.testing.assert_array_equal(labels > 0, expected > 0)
    assert labels.max() == expected.max() == following - 1
    assert agreement(expected, labels) > 0.99
    assert (np.unique(labels) == np.arange(following)).all()


def test_stacks():
    foreground = blobs((20, 90, 80), seed=1)
    expected = instances_from_maps(foreground, method="distance", waist=50)
    labels, _ = tiled(foreground, tile=(8, 40, 40), halo=(6, 30, 30), method="distance", waist=50)
    assert labels.max() == expected.max()
    assert agreement(expected, labels) > 0.99


def test_an_object_larger_than_tile_and_halo_is_one():
    foreground = np.zeros((1, 200, 200), np.float32)
    foreground[0, 80:120, 5:195] = 1
    foreground[0, 5:195, 80:120] = 1
    boundary = np.zeros_like(foreground)
    labels, _ = tiled(foreground, boundary, tile=(1, 32, 32), halo=(0, 8, 8))
    np.testing.assert_array_equal(labels, foreground)


def test_size_and_border_are_judged_over_the_whole_object():
    foreground = np.zeros((1, 64, 64), np.float32)
    foreground[0, 28:36, 28:36] = 1  # 16 pixels in each of four tiles
    foreground[0, 28:36, :12] = 1
    foreground[0, 50:53, 50:53] = 1
    settings = {"tile": (1, 32, 32), "halo": (0, 16, 16), "min_size": 60}
    labels, following = tiled(foreground, **settings, remove_border=True)
    assert (labels > 0).sum() == 64
    assert following == 2
    labels, following = tiled(foreground, **settings, first=10)
    assert np.unique(labels).tolist() == [0, 10, 11]
    assert following == 12


def test_multicut_fills_the_whole_image():
    boundary = np.zeros((1, 120, 120), np.float32)
    boundary[0, 30::30] = 1
    boundary[0, :, 30::30] = 1
    labels, following = tiled(None, boundary, tile=(1, 50, 50), halo=(0, 35, 35))
    assert (labels > 0).all()
    assert following == 17


def test_empty_and_stopped():
    nothing, following = tiled(np.zeros((1, 50, 50), np.float32), tile=(1, 20, 20), halo=(0, 5, 5))
    assert not nothing.any()
    assert following == 1
    _, following = tiled(
        blobs((1, 50, 50)), tile=(1, 20, 20), halo=(0, 5, 5), first=7, stop=lambda: True
    )
    assert following == 7


@pytest.mark.parametrize("shape", [(1, 61, 83), (5, 31, 42)])
def test_measures_add_up_over_tiles(shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 30, shape) * 2
    class_mask, score_map = rng.integers(0, 4, shape), rng.random(shape)
    expected = measure_objects(labels, class_mask, score_map, (2.0, 0.5, 0.5), "micrometer")
    is_3d = shape[0] > 1
    tally = ObjectTally(3 if is_3d else 2)
    for tile in grid(shape, (2, 20, 30)):
        part = tile.slices if is_3d else (0, *tile.slices[1:])
        origin = [s.start for s in tile.slices][0 if is_3d else 1 :]
        tally.add(labels[part], class_mask[part], score_map[part], origin)
    found = tally.table((2.0, 0.5, 0.5), "micrometer")
    assert list(found) == list(expected)
    for name, column in expected.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(found[name], column)
        else:
            np.testing.assert_array_equal(found[name], column)
