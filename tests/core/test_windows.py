"""Objects from windows: what is on top, what is hidden, and tiles that agree with the whole."""

from __future__ import annotations

import numpy as np
import torch

from napari_cellda.core.instances.windows import (
    FoundObjects,
    WindowParams,
    find_in_plane,
    finder,
    paint_objects,
)


def objects(entries, side=8):
    """Squares: (row, column, size, score) each."""
    points, scores, masks, corners = [], [], [], []
    for row, column, size, score in entries:
        mask = np.zeros((side, side), bool)
        low = (side - size) // 2
        mask[low : low + size, low : low + size] = True
        points.append((row, column))
        scores.append(score)
        masks.append(mask)
        corners.append((row - side // 2, column - side // 2))
    return FoundObjects(
        np.array(points, float).reshape(-1, 2),
        np.array(scores, np.float32),
        np.array(masks).reshape(-1, side, side),
        np.array(corners).reshape(-1, 2),
    )


def paint(entries, shape=(24, 24), **settings):
    found = objects(entries)
    return find_in_plane(
        lambda block: found, np.zeros((1, *shape), np.float32), WindowParams(**settings)
    )


def test_the_better_score_lies_on_top_whatever_comes_first():
    entries = [(10, 10, 6, 0.5), (10, 13, 6, 0.9)]
    for order in (entries, entries[::-1]):
        labels, painted = paint(order)
        better = 1 + int(painted.scores.argmax())
        assert labels[10, 11] == better
        assert np.count_nonzero(labels == better) == 36
        assert len(painted.scores) == 2


def test_what_is_mostly_hidden_is_dropped():
    labels, painted = paint([(10, 10, 6, 0.9), (10, 11, 6, 0.8), (18, 18, 4, 0.3)])
    np.testing.assert_allclose(painted.scores, [0.9, 0.3], atol=1e-6)
    assert labels.max() == 2
    assert np.count_nonzero(labels == 1) == 36
    assert len(paint([(10, 10, 6, 0.9), (10, 11, 6, 0.8)], visible=0.1)[1].scores) == 2


def test_windows_may_stick_out_and_small_or_border_objects_go():
    entries = [(0, 0, 6, 0.9), (23, 12, 8, 0.8), (12, 12, 2, 0.7)]
    labels, painted = paint(entries)
    assert labels[0, 0] == 1
    assert len(painted.scores) == 3
    assert painted.points.tolist() == [[0, 0], [23, 12], [12, 12]]
    assert len(paint(entries, min_size=5)[1].scores) == 2
    assert paint(entries, remove_border=True)[1].points.tolist() == [[12, 12]]
    assert paint([])[0].max() == 0


def test_tiles_give_what_the_whole_gives():
    rng = np.random.default_rng(0)
    shape = (150, 170)
    image = np.zeros((1, *shape), np.float32)
    for row, column in rng.uniform(3, 147, (60, 2)).astype(int):
        image[0, row, column] = rng.uniform(0.3, 1)

    def find(block):  # every bright pixel is an object of 6 x 6 pixels
        places = np.argwhere(block[0] > 0)
        return objects([(r, c, 6, block[0, r, c]) for r, c in places])

    alone, _ = find_in_plane(find, image, WindowParams())
    labels, scores = np.zeros(shape, np.uint32), np.zeros(shape, np.float32)
    painted = paint_objects(
        find,
        lambda region: image[:, region.y, region.x],
        labels,
        scores,
        WindowParams(tile=64, margin=16),
        first=5,
    )
    assert labels[labels > 0].min() == 5
    assert len(np.unique(labels)) == len(painted.scores) + 1
    pairs = np.unique(np.stack([alone.ravel(), labels.ravel()]), axis=1)
    assert len(pairs[0]) == len(np.unique(alone)) == len(np.unique(labels))
    for k in range(len(painted.scores)):
        np.testing.assert_array_equal(scores[labels == k + 5], np.float32(painted.scores[k]))


def test_it_stops_between_tiles():
    asked = []
    labels = np.zeros((300, 300), np.uint32)
    paint_objects(
        lambda block: objects([(20, 20, 6, 0.5)]),
        lambda region: asked.append(region) or np.zeros((1, *region.shape[1:]), np.float32),
        labels,
        np.zeros(labels.shape, np.float32),
        WindowParams(tile=64, margin=16),
        stop=lambda: len(asked) >= 2,
    )
    assert len(asked) == 2
    assert labels.max() > 0


def test_a_block_that_is_only_read_is_not_written_to():
    class Writes:
        def find(self, x, least_score):
            x += 1
            return torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 8, 8), torch.zeros(0, 2)

    block = np.zeros((1, 8, 8), np.float32)
    block.flags.writeable = False
    finder(Writes())(block)
    assert not block.any()
