import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cellda.core.enhancer.zoom import Zoom
from napari_cellda.core.network_tiles import TileAxis, ceil_to, cut_axis, floor_to
from napari_cellda.core.tiles import Region

AXES = st.builds(
    TileAxis,
    step=st.sampled_from([1, 4, 8, 16]),
    least=st.sampled_from([1, 16, 32, 256]),
    halo=st.integers(0, 120),
    core=st.sampled_from([1, 16, 100, 512]),
    border=st.sampled_from([0, 4, 16]),
    fixed=st.booleans(),
    anchored=st.booleans(),
).filter(lambda axis: axis.least % axis.step == 0)


@given(axis=AXES, limit=st.integers(1, 700), data=st.data())
def test_blocks_cover_what_is_asked_and_obey_the_network(axis, limit, data):
    start = data.draw(st.integers(0, limit - 1))
    stop = data.draw(st.integers(start + 1, limit))
    spans = cut_axis(start, stop, limit, axis)
    kept = list(itertools.chain(*(range(s.core_start, s.core_stop) for s in spans)))
    assert kept == list(range(start, stop))
    low = -ceil_to(axis.border, axis.step)
    high = max(ceil_to(limit, axis.step) - low, low + axis.least)
    for span in spans:
        size = span.stop - span.start
        assert span.start % axis.step == 0
        assert size % axis.step == 0
        assert size >= axis.least
        assert not axis.fixed or size == axis.least
        assert low <= span.start <= span.core_start < span.core_stop <= span.stop <= high
        # The halo is there, unless the frame ends: the same for every tile.
        if not axis.fixed:
            assert span.start <= max(low, span.core_start - axis.halo)
            assert span.stop >= min(high, span.core_stop + axis.halo)


@given(axis=AXES.filter(lambda a: a.anchored), limit=st.integers(1, 700), data=st.data())
def test_anchored_tiles_are_the_same_whatever_is_asked(axis, limit, data):
    start = data.draw(st.integers(0, limit - 1))
    stop = data.draw(st.integers(start + 1, limit))
    every = {(s.start, s.stop) for s in cut_axis(0, limit, limit, axis)}
    assert {(s.start, s.stop) for s in cut_axis(start, stop, limit, axis)} <= every


def test_an_image_that_fits_is_one_block():
    axis = TileAxis(step=16, least=16, halo=107, core=1024, border=16)
    (span,) = cut_axis(0, 1000, 1000, axis)
    assert (span.start, span.stop) == (-16, 1024)
    assert (span.core_start, span.core_stop) == (0, 1000)


def test_cores_are_even():
    axis = TileAxis(step=16, least=16, halo=100, core=1024, border=16)
    cores = [s.core_stop - s.core_start for s in cut_axis(0, 1200, 1200, axis)]
    assert cores == [608, 592]


def test_a_region_inside_needs_only_its_halo():
    axis = TileAxis(step=16, least=16, halo=30, core=1024, border=16)
    (span,) = cut_axis(100, 200, 10_000, axis)
    assert (span.start, span.stop) == (64, 240)


def test_a_fixed_block_that_holds_the_image_is_one():
    axis = TileAxis(step=16, least=256, halo=32, core=1024, border=16, fixed=True)
    (span,) = cut_axis(0, 200, 200, axis)
    assert (span.start, span.stop) == (-16, 240)


def test_rounding():
    assert [ceil_to(n, 8) for n in (-9, 0, 1, 8)] == [-8, 0, 8, 8]
    assert [floor_to(n, 8) for n in (-9, 0, 1, 8)] == [-16, 0, 0, 8]


def literal_zoom(row, factor):
    """Interpolate linearly between pixel centres, with the ends held."""
    size = max(1, round(len(row) * factor))
    centres = (np.arange(size) + 0.5) / factor - 0.5
    return np.interp(centres, np.arange(len(row)), row)


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.7])
def test_enlarging_is_linear_interpolation(factor):
    row = np.random.default_rng(0).random(40).astype(np.float32)
    zoom = Zoom((1.0, 1.0, factor), (1, 1, 40))
    region = Region(0, slice(0, 1), slice(0, 1), slice(0, zoom.zoomed_limits[2]))
    found = zoom.read(lambda r: row[None, None, r.x], region)
    np.testing.assert_allclose(found[0, 0], literal_zoom(row, factor), atol=1e-6)


def test_shrinking_skips_nothing():
    row = np.zeros(40, np.float32)
    row[17] = 1
    zoom = Zoom((1.0, 1.0, 0.25), (1, 1, 40))
    region = Region(0, slice(0, 1), slice(0, 1), slice(0, 10))
    found = zoom.read(lambda r: row[None, None, r.x], region)[0, 0]
    assert found.sum() == pytest.approx(0.25)
    assert found.argmax() == 4


@pytest.mark.parametrize("factors", [(1.0, 0.4, 0.4), (1.0, 1.7, 1.7), (0.5, 0.5, 0.5)])
def test_a_piece_is_its_part_of_the_whole(factors):
    map_ = np.random.default_rng(0).random((5, 33, 47)).astype(np.float32)
    zoom = Zoom(factors, map_.shape)

    def read(region):
        block = map_[region.slices]
        assert block.shape == region.shape  # nothing outside the image is asked for
        return block

    z, y, x = zoom.zoomed_limits
    whole = zoom.read(read, Region(0, slice(0, z), slice(0, y), slice(0, x)))
    part = Region(0, slice(0, 1), slice(y // 3, y // 2 + 1), slice(x // 2, x))
    np.testing.assert_allclose(zoom.read(read, part), whole[part.slices], atol=1e-6)
    everything = Region(0, slice(0, 5), slice(0, 33), slice(0, 47))
    back = zoom.undo(np.stack([whole, 1 - whole]), everything)
    assert back.shape == (2, *map_.shape)
    piece = Region(0, slice(1, 3), slice(9, 20), slice(0, 47))
    needed = zoom.needed(piece)
    again = zoom.undo(np.stack([whole, 1 - whole])[(slice(None), *needed.slices)], piece)
    np.testing.assert_allclose(again, back[(slice(None), *piece.slices)], atol=1e-6)
    np.testing.assert_allclose(back.sum(axis=0), 1, atol=1e-5)


def test_a_constant_stays_constant():
    zoom = Zoom((1.0, 0.37, 2.9), (1, 20, 3))
    region = Region(0, slice(0, 1), *(slice(0, n) for n in zoom.zoomed_limits[1:]))
    found = zoom.read(lambda r: np.full(r.shape, 0.7, np.float32), region)
    np.testing.assert_allclose(found, 0.7, atol=1e-6)


def test_a_tiny_image_keeps_a_pixel():
    assert Zoom((1.0, 0.1, 0.1), (1, 3, 3)).zoomed_limits == (1, 1, 1)
