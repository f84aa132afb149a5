import numpy as np
import pytest
from scipy import ndimage

from napari_cellda.core.errors import UserError
from napari_cellda.core.instances import InstanceParams, instances_from_maps
from napari_cellda.core.instances.basins import basin_passes, local_maxima, merge_shallow_basins
from napari_cellda.core.instances.multicut import join_fragments, oversegment, partition

METHODS = ("watershed", "distance", "multicut")


def discs(shape, centres, radius):
    grid = np.indices(shape)
    distances = [np.sqrt(((grid.T - c).T ** 2).sum(0)) for c in centres]
    return (np.min(distances, axis=0) <= radius).astype(np.float32)


def same_partition(a, b):
    """Whether two label images are equal but for the numbers."""
    pairs = {(int(i), int(j)) for i, j in zip(a.ravel(), b.ravel(), strict=True)}
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


def membranes(size=60, gap=20):
    boundary = np.zeros((size, size), np.float32)
    boundary[gap::gap] = 1
    boundary[:, gap::gap] = 1
    return boundary


@pytest.mark.parametrize("ndim", [2, 3])
def test_touching_discs_are_split_at_the_waist(ndim):
    shape = (40, 60)[:2] if ndim == 2 else (30, 40, 60)
    middle = [size / 2 for size in shape]
    centres = [np.array([*middle[:-1], 20]), np.array([*middle[:-1], 37])]
    foreground = discs(shape, centres, 10)
    labels = instances_from_maps(foreground, method="distance")
    assert labels.dtype == np.uint32
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, foreground > 0.5)
    index = tuple(int(m) for m in middle[:-1])
    assert labels[(*index, 20)] != labels[(*index, 37)]
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_waist_sets_how_much_is_split():
    foreground = discs((40, 60), [(20, 22), (20, 36)], 10)  # the waist is about 3 px narrower
    assert instances_from_maps(foreground, method="distance", waist=1).max() == 2
    assert instances_from_maps(foreground, method="distance", waist=6).max() == 1


def test_a_bar_and_a_border_object_stay_whole():
    foreground = np.zeros((40, 90), np.float32)
    foreground[5:15, 4:80] = 1
    foreground[25:, 60:] = 1
    assert instances_from_maps(foreground, method="distance").max() == 2


def test_beyond_the_border_is_background():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((90, 90)), 3)
    foreground = (noise > np.median(noise)).astype(np.float32)
    inside = instances_from_maps(np.pad(foreground, 9), method="distance")[9:-9, 9:-9]
    assert same_partition(instances_from_maps(foreground, method="distance"), inside)


@pytest.mark.parametrize("ndim", [2, 3])
def test_boundary_separates_what_touches(ndim):
    shape = (30, 44) if ndim == 2 else (8, 30, 44)
    foreground = np.zeros(shape, np.float32)
    foreground[..., 5:25, 4:40] = 1
    boundary = np.zeros(shape, np.float32)
    boundary[..., 5:25, 21:23] = 1
    labels = instances_from_maps(foreground, boundary)
    expected = np.zeros(shape, int)
    expected[..., 5:25, 4:22] = 1
    expected[..., 5:25, 22:40] = 2
    np.testing.assert_array_equal(labels, expected)
    assert instances_from_maps(foreground, boundary * 0).max() == 1


def test_an_object_that_is_all_boundary_is_kept():
    foreground = np.zeros((20, 40), np.float32)
    foreground[5:15, 3:15] = 1
    foreground[5:15, 20:30] = 1
    boundary = np.zeros_like(foreground)
    boundary[:, 20:30] = 1
    assert instances_from_maps(foreground, boundary, method="watershed").max() == 2


@pytest.mark.parametrize("foreground", [None, np.ones((60, 60), np.float32)])
def test_multicut_finds_the_cells_between_membranes(foreground):
    boundary = membranes()
    labels = instances_from_maps(foreground, boundary, method="multicut")
    assert labels.min() > 0  # every pixel belongs to a cell
    inside = boundary < 0.5
    cells, n_cells = ndimage.label(inside)
    assert labels.max() == n_cells == 9
    assert same_partition(labels[inside], cells[inside])


def test_multicut_in_3d():
    boundary = np.zeros((20, 40, 40), np.float32)
    boundary[:, 20], boundary[10] = 1, 1
    labels = instances_from_maps(None, boundary)
    assert labels.max() == 4
    assert len(np.unique(labels[:9, :18])) == 1


def test_multicut_closes_a_gap_but_ignores_a_stub():
    boundary = np.zeros((40, 80), np.float32)
    boundary[:, 40] = 0.9
    boundary[18:22, 40] = 0.3  # a gap of 4 in a membrane of 40
    boundary[:4, 60] = 0.9  # a stub of 4
    labels = instances_from_maps(None, boundary)
    assert labels.max() == 2
    assert (labels[:, :39] == labels[0, 0]).all()
    assert (labels[:, 42:] == labels[0, 79]).all()


def test_multicut_keeps_to_the_foreground():
    boundary = membranes()
    foreground = np.zeros((60, 60), np.float32)
    foreground[:, :41] = 1
    labels = instances_from_maps(foreground, boundary, method="multicut")
    assert labels.max() == 6
    np.testing.assert_array_equal(labels > 0, foreground > 0.5)


def test_islands_are_not_joined_through_the_background():
    foreground = np.zeros((40, 60), np.float32)
    foreground[5:35, 5:25] = 1
    foreground[5:35, 35:55] = 1
    labels = instances_from_maps(foreground, np.zeros((40, 60)), method="multicut")
    assert labels.max() == 2
    assert labels[20, 10] != labels[20, 40]


def test_the_cut_is_the_best_of_all():
    """Against every partition of four fragments, by the cost of the equation in the notes."""
    fragments = np.ones((16, 16), np.uint32)
    fragments[:5, 5:], fragments[5:, :2], fragments[5:, 12:] = 2, 3, 4  # edges of unequal length
    rng = np.random.default_rng(4)
    for beta in (0.3, 0.4, 0.5, 0.6, 0.7):
        boundary = ndimage.zoom(rng.random((4, 4)), 4, order=1).astype(np.float32)
        found = join_fragments(fragments, boundary, beta)
        costs = [cut_cost(fragments, parts, boundary, beta) for parts in partitions(4)]
        own = [int(found[fragments == k][0]) for k in (1, 2, 3, 4)]
        assert cut_cost(fragments, own, boundary, beta) == pytest.approx(min(costs))


def partitions(n):
    """Yield all ways to group n things."""
    if n == 1:
        yield [0]
        return
    for parts in partitions(n - 1):
        for group in range(max(parts) + 2):
            yield [*parts, group]


def cut_cost(fragments, parts, boundary, beta):
    """Add the costs of the edges between different groups, pixel pair by pixel pair."""
    edges = {}
    for y in range(fragments.shape[0]):
        for x in range(fragments.shape[1]):
            for dy, dx in ((0, 1), (1, 0)):
                if y + dy < fragments.shape[0] and x + dx < fragments.shape[1]:
                    a, b = fragments[y, x], fragments[y + dy, x + dx]
                    if a != b:
                        edge = edges.setdefault((int(a), int(b)), [])
                        edge += [boundary[y, x], boundary[y + dy, x + dx]]
    longest = max(map(len, edges.values()))
    total = 0
    for (a, b), values in edges.items():
        p = np.clip(np.mean(values), 1e-3, 1 - 1e-3)
        cost = np.log((1 - p) / p) + np.log((1 - beta) / beta)
        total += (parts[a - 1] != parts[b - 1]) * cost * len(values) / longest
    return total


def test_auto_chooses_by_the_maps():
    foreground, boundary = np.ones((30, 30), np.float32), membranes(30, 10)
    for given, method in [
        ((foreground, None), "distance"),
        ((foreground, boundary), "watershed"),
        ((None, boundary), "multicut"),
    ]:
        np.testing.assert_array_equal(
            instances_from_maps(*given), instances_from_maps(*given, method=method)
        )


def test_small_objects_are_dropped():
    foreground = np.zeros((40, 40), np.float32)
    foreground[2:12, 2:12] = 1  # 100
    foreground[30:33, 30:33] = 1  # 9
    assert instances_from_maps(foreground, min_size=9).max() == 2
    assert instances_from_maps(foreground, min_size=10).max() == 1
    assert instances_from_maps(foreground, min_size=101).max() == 0


def test_border_objects_are_dropped_and_the_rest_renumbered():
    foreground = np.zeros((3, 40, 40), np.float32)
    foreground[:, :8, 10:20] = 1
    foreground[:, 15:25, 15:25] = 1  # touches the first and last plane, which is no border
    foreground[:, 30:38, 33:] = 1
    labels = instances_from_maps(foreground, method="distance", remove_border=True)
    assert np.unique(labels).tolist() == [0, 1]
    assert (labels[:, 15:25, 15:25] == 1).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 4000), (1, 1, 1), (4, 1, 9), (2, 6, 5)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tiny_thin_and_constant_maps(method, shape, value):
    foreground = np.full(shape, value, np.float32)
    labels = instances_from_maps(foreground, np.zeros(shape), method=method, min_size=0)
    assert labels.shape == shape
    assert labels.dtype == np.uint32
    assert labels.max() == value
    assert (labels == value).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_constant_boundaries_give_one_cell(value):
    labels = instances_from_maps(None, np.full((30, 40), value, np.float32))
    assert (labels == 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_nan_is_background(method):
    foreground = np.ones((30, 30))
    foreground[:, 10:] = np.nan
    labels = instances_from_maps(foreground, np.zeros((30, 30)), method=method)
    np.testing.assert_array_equal(labels > 0, ~np.isnan(foreground))


@pytest.mark.parametrize("method", METHODS)
def test_one_plane_of_a_stack_is_treated_as_2d(method):
    rng = np.random.default_rng(0)
    foreground = ndimage.gaussian_filter(rng.random((80, 80)), 3)
    foreground = (foreground - foreground.min()) / np.ptp(foreground)
    boundary = ndimage.gaussian_filter(rng.random((80, 80)), 2)
    flat = instances_from_maps(foreground, boundary, method=method)
    np.testing.assert_array_equal(
        instances_from_maps(foreground[None], boundary[None], method=method), flat[None]
    )
    assert flat.max() > 1


def test_spacing_counts_in_anisotropic_stacks():
    foreground = np.zeros((12, 30, 64), np.float32)
    foreground[2:10, 3:27, 4:28] = 1  # 8 planes high
    foreground[2:10, 3:27, 36:60] = 1
    foreground[4:8, 3:27, 28:36] = 1  # a bridge of 4 planes: 2 planes narrower on each side
    flat = instances_from_maps(foreground, method="distance", waist=3)
    tall = instances_from_maps(foreground, method="distance", waist=3, spacing=(3, 1, 1))
    assert (flat.max(), tall.max()) == (1, 2)


def test_maps_are_not_changed():
    foreground = np.ones((20, 20), np.float32)
    boundary = membranes(20, 10)
    copies = foreground.copy(), boundary.copy()
    for method in METHODS:
        instances_from_maps(foreground, boundary, method=method)
    np.testing.assert_array_equal(foreground, copies[0])
    np.testing.assert_array_equal(boundary, copies[1])


@pytest.mark.parametrize(
    ("foreground", "boundary", "settings", "message"),
    [
        (None, None, {}, "none was given"),
        (np.ones((5, 5)), np.ones((5, 6)), {}, r"\[\(5, 5\), \(5, 6\)\]"),
        (np.ones(5), None, {}, r"expected one shape, \(Y, X\)"),
        (np.ones((5, 5)), None, {"method": "multicut"}, "multicut needs a boundary map"),
        (np.ones((5, 5)), None, {"method": "watershed"}, "watershed needs a boundary map"),
        (None, np.ones((5, 5)), {"method": "distance"}, "distance needs a foreground map"),
    ],
)
def test_refused(foreground, boundary, settings, message):
    with pytest.raises(UserError, match=message):
        instances_from_maps(foreground, boundary, **settings)


def test_params_round_trip_and_settings_override():
    params = InstanceParams(method="distance", min_size=3, remove_border=True)
    assert InstanceParams.model_validate_json(params.model_dump_json()) == params
    assert all(field.description for field in InstanceParams.model_fields.values())
    foreground = np.ones((9, 9), np.float32)
    assert instances_from_maps(foreground, None, params).max() == 0
    assert instances_from_maps(foreground, None, params, remove_border=False).max() == 1


def test_small_fragments_dissolve_into_their_neighbours():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((90, 90)), 1.5)
    boundary = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    for min_size, smallest in [(0, 1), (60, 60)]:
        params = InstanceParams(min_size=min_size, smoothing=0)
        sizes = np.bincount(oversegment(boundary, None, params).ravel())
        assert sizes[0] == 0  # no holes
        assert sizes[sizes > 0].min() >= smallest
        assert (sizes[sizes > 0].min() < 60) == (min_size == 0)


def test_partition_is_repeatable():
    boundary = ndimage.gaussian_filter(np.random.default_rng(0).random((90, 90)), 2)
    boundary = ((boundary - boundary.min()) / np.ptp(boundary)).astype(np.float32)
    first = partition(boundary, None, InstanceParams())
    np.testing.assert_array_equal(partition(boundary, None, InstanceParams()), first)
    assert first.max() > 1


# Basins


def test_local_maxima():
    height = np.array([[1, 0, 0], [0, 0, 2], [3, 0, 2]], np.float32)
    np.testing.assert_array_equal(local_maxima(height), [[1, 0, 0], [0, 0, 1], [1, 0, 1]])


def test_basin_passes():
    labels = np.array([[1, 1, 2, 0, 3], [1, 2, 2, 3, 3]], np.uint32)
    height = np.array([[5, 4, 3, 0, 9], [2, 6, 7, 8, 9]], np.float32)
    pairs, passes = basin_passes(labels, height)
    assert pairs.tolist() == [[1, 2], [2, 3]]
    assert passes.tolist() == [4, 7]  # over 4|6 and over 7|8


def test_shallow_basins_join_from_the_highest_pass_down():
    height = np.array([[9, 6, 7, 2, 8, 5, 6]], np.float32)
    labels = np.array([[1, 1, 2, 2, 3, 3, 4]], np.uint32)
    # dynamics: 1: highest; 2: 7 - 6 = 1; 3: 8 - 2 = 6; 4: 6 - 5 = 1
    for depth, expected in [
        (0.5, [1, 1, 2, 2, 3, 3, 4]),
        (2, [1, 1, 1, 1, 3, 3, 3]),
        (7, [1, 1, 1, 1, 1, 1, 1]),
    ]:
        found = merge_shallow_basins(labels, height, depth)
        assert same_partition(found, np.array([expected]))


def test_a_low_peak_joins_the_neighbour_with_the_higher_pass():
    height = np.array([[9, 6, 7, 6.9, 8]], np.float32)
    labels = np.array([[1, 1, 2, 2, 3]], np.uint32)
    found = merge_shallow_basins(labels, height, 1.5)
    assert same_partition(found, np.array([[1, 1, 3, 3, 3]]))


def test_merging_gives_the_h_maxima():
    from bioimage_cpp.segmentation import label, watershed
    from skimage.morphology import h_maxima

    rng = np.random.default_rng(1)
    height = ndimage.gaussian_filter(rng.random((120, 120)), 3).astype(np.float32) * 100
    seeds = label(local_maxima(height)).astype(np.uint32)
    basins = watershed(-height, seeds)
    for depth in (0.5, 1.0, 2.0):
        joined = merge_shallow_basins(basins, height, depth)
        _, expected = ndimage.label(h_maxima(height, depth), np.ones((3, 3)))
        assert abs(len(np.unique(joined)) - expected) <= 1
