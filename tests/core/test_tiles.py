import numpy as np
import pytest

from napari_cellda.core.tiles import Region, grid, nearest_first, reflect_pad, whole


def region(z=(0, 1), y=(0, 1), x=(0, 1), t=0):
    return Region(t, slice(*z), slice(*y), slice(*x))


def test_shape_and_slices():
    box = region((1, 3), (4, 9), (0, 7), t=2)
    assert box.shape == (2, 5, 7)
    assert box.slices == (slice(1, 3), slice(4, 9), slice(0, 7))


def test_regions_can_be_looked_up():
    assert {region((0, 1), (2, 3)): "here"}[region((0, 1), (2, 3))] == "here"
    assert len({region(), region(), region(t=1)}) == 2


def test_grow_is_clipped_to_the_image():
    grown = region((0, 1), (4, 8), (1, 99), t=3).grow((1, 2, 5), (1, 9, 100))
    assert grown == region((0, 1), (2, 9), (0, 100), t=3)


def test_inside_cuts_the_region_out_of_the_grown_block():
    image = np.arange(6 * 30 * 40).reshape(6, 30, 40)
    inner = region((2, 4), (0, 7), (33, 40))
    outer = inner.grow((1, 5, 5), image.shape)
    block = image[outer.slices]
    np.testing.assert_array_equal(block[inner.inside(outer)], image[inner.slices])


def test_overlap():
    assert region((0, 1), (0, 8), (0, 8)).overlap(region((0, 1), (5, 12), (2, 3))) == region(
        (0, 1), (5, 8), (2, 3)
    )
    apart = region((0, 1), (0, 4), (0, 4)).overlap(region((0, 1), (6, 9), (0, 4)))
    assert apart.shape == (1, 0, 4)


@pytest.mark.parametrize(
    ("limits", "tile"),
    [((1, 100, 130), (1, 64, 64)), ((7, 33, 9), (3, 16, 16)), ((1, 1, 1), (1, 512, 512))],
)
def test_grid_covers_every_pixel_once(limits, tile):
    hits = np.zeros(limits, int)
    for part in grid(limits, tile, t=4):
        assert part.t == 4
        assert all(s.start % size == 0 for s, size in zip(part.slices, tile, strict=True))
        hits[part.slices] += 1
    assert (hits == 1).all()


def test_grid_of_a_thin_image():
    tiles = grid((1, 3, 100_000), (1, 512, 512))
    assert len(tiles) == 196
    assert tiles[-1].shape == (1, 3, 100_000 - 195 * 512)


def test_grid_within_gives_exactly_the_touching_tiles():
    asked = region((0, 1), (60, 65), (64, 128))
    tiles = grid((1, 200, 200), (1, 64, 64), within=asked)
    everything = grid((1, 200, 200), (1, 64, 64))
    assert tiles == [tile for tile in everything if np.prod(tile.overlap(asked).shape)]
    assert [(tile.y.start, tile.x.start) for tile in tiles] == [(0, 64), (64, 64)]


def test_nearest_first():
    tiles = grid((1, 30, 30), (1, 10, 10))
    ordered = nearest_first(tiles, (0, 25, 4))
    assert (ordered[0].y.start, ordered[0].x.start) == (20, 0)
    assert (ordered[-1].y.start, ordered[-1].x.start) == (0, 20)
    assert sorted(map(repr, ordered)) == sorted(map(repr, tiles))


def test_whole():
    assert whole((2, 3, 4), t=1) == region((0, 2), (0, 3), (0, 4), t=1)


def reflected(values, before, after):
    """Walk back and forth over the values, one step at a time."""
    n = len(values)
    out = []
    for place in range(-before, n + after):
        while n > 1 and not 0 <= place < n:
            place = -place if place < 0 else 2 * (n - 1) - place
        out.append(values[place if n > 1 else 0])
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 3), (5, 0), (40, 41), (7, 100)])
def test_reflect_pad_equals_a_walk_back_and_forth(n, before, after):
    values = list(range(10, 10 + n))
    padded = reflect_pad(np.array(values, np.uint8), [before], [after])
    assert padded.tolist() == reflected(values, before, after)
    assert padded.dtype == np.uint8


def test_reflect_pad_leaves_leading_axes():
    block = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    padded = reflect_pad(block, (1, 2), (3, 0))
    assert padded.shape == (2, 7, 6)
    np.testing.assert_array_equal(padded[:, 1:4, 2:], block)
    assert padded[1, 0, 2] == block[1, 1, 0]


def test_reflect_pad_of_nothing_is_the_block_itself():
    block = np.zeros((4, 4))
    assert reflect_pad(block, (0, 0), (0, 0)) is block
