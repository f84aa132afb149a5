import numpy as np
import pytest
from scipy import ndimage

from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec, compute_features


def plane(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


# -- a slow, literal reference -------------------------------------------------------------------


def gaussian_kernel(sigma: float, order: int, window: float) -> np.ndarray:
    """Sampled Gaussian derivative, scaled so that it differentiates a polynomial exactly."""
    radius = int(np.ceil((window or 3 + 0.5 * order) * sigma))
    x = np.arange(-radius, radius + 1)
    g = np.exp(-(x**2) / (2 * sigma**2))
    if order == 0:
        return g / g.sum()
    if order == 1:
        kernel = -x * g
        return kernel / -(x * kernel).sum()
    kernel = (x**2 / sigma**2 - 1) * g
    kernel -= kernel.mean()
    return kernel / (x**2 * kernel / 2).sum()


def derive(image: np.ndarray, sigma: float, orders: tuple[int, ...], window: float) -> np.ndarray:
    out = image.astype(np.float64)
    for axis, order in enumerate(orders):
        kernel = gaussian_kernel(sigma, order, window)
        # convolve1d flips the kernel, so that a derivative along the axis has its sign.
        out = ndimage.convolve1d(out, kernel, axis=axis, mode="mirror")
    return out


def smooth(image: np.ndarray, sigma: float, window: float) -> np.ndarray:
    return derive(image, sigma, (0,) * image.ndim, window)


def unit(ndim: int, *axes: int) -> tuple[int, ...]:
    return tuple(axes.count(axis) for axis in range(ndim))


def eigenvalues(matrix: dict[tuple[int, int], np.ndarray], ndim: int) -> list[np.ndarray]:
    full = np.stack(
        [np.stack([matrix[min(i, j), max(i, j)] for j in range(ndim)], -1) for i in range(ndim)],
        -1,
    )
    return list(np.moveaxis(np.linalg.eigvalsh(full)[..., ::-1], -1, 0))


def reference(image: np.ndarray, spec: FeatureSpec) -> list[np.ndarray]:
    n, window = image.ndim, spec.set.window
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    found: list[np.ndarray] = []
    for group, scale in spec.filters():
        base, s = image, scale
        if spec.name == "ilastik":
            base = smooth(image, np.sqrt(scale**2 - 1) if scale > 1 else scale, 3.5)
            s = min(scale, 1.0)
        if group == "raw":
            found.append(image)
        elif group == "gaussian":
            found.append(smooth(base, s, window))
        elif group == "dog":
            found.append(smooth(base, s, window) - smooth(base, 0.66 * s, window))
        elif group == "laplacian":
            found.append(sum(derive(base, s, unit(n, i, i), window) for i in range(n)))
        elif group == "gradient":
            squares = [derive(base, s, unit(n, i), window) ** 2 for i in range(n)]
            found.append(np.sqrt(sum(squares)))
        elif group == "hessian":
            found += eigenvalues({p: derive(base, s, unit(n, *p), window) for p in pairs}, n)
        else:
            # Inner scale: of the derivatives. Outer scale: of what their products are averaged by.
            first = [derive(base, s, unit(n, i), window) for i in range(n)]
            outer = {"ilastik": 0.5, "compact": 0.5, "s2d": 2.0}[spec.name] * s
            found += eigenvalues(
                {(i, j): smooth(first[i] * first[j], outer, window) for i, j in pairs}, n
            )
    return found


@pytest.mark.parametrize("name", ["ilastik", "compact", "s2d"])
def test_every_channel_equals_the_literal_reference(name):
    spec = FeatureSpec(name=name)
    image = plane(61, 47)
    features = compute_features(image[None], spec)
    expected = reference(image, spec)
    assert len(features) == len(expected)
    for title, got, want in zip(spec.names(), features, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1, want.std()), err_msg=title)


@pytest.mark.parametrize("name", ["ilastik", "compact", "s2d"])
def test_every_3d_channel_equals_the_literal_reference(name):
    spec = FeatureSpec(name=name, ndim=3, scales=(0.3, 0.7, 1.6))
    stack = plane(9, 14, 11)
    features = compute_features(stack[None], spec)
    expected = reference(stack, spec)
    assert len(features) == len(expected)
    for title, got, want in zip(spec.names(), features, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1, want.std()), err_msg=title)


# -- what there is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "flat", "deep"), [("ilastik", 49, 61), ("compact", 28, 36), ("s2d", 44, 56)]
)
def test_counts(name, flat, deep):
    assert FeatureSpec(name=name).count() == flat
    assert FeatureSpec(name=name, ndim=3).count() == deep
    assert len(set(FeatureSpec(name=name).names(3))) == 3 * flat


def test_groups_and_scales_are_selectable_and_ordered():
    spec = FeatureSpec(groups=("hessian", "gaussian"), scales=(5.0, 0.3, 1.0))
    assert spec.filters() == (
        ("gaussian", 0.3),
        ("gaussian", 1.0),
        ("gaussian", 5.0),
        ("hessian", 1.0),
        ("hessian", 5.0),
    )
    assert spec.names()[-1] == "Hessian of Gaussian eigenvalue, 5 px, 2"
    whole = FeatureSpec()
    image = plane(1, 30, 30)
    part, full = compute_features(image, spec), compute_features(image, whole)
    for name, got in zip(spec.names(), part, strict=True):
        np.testing.assert_array_equal(got, full[whole.names().index(name)])


def test_empty_selection_means_all():
    assert FeatureSpec(groups=(), scales=()) == FeatureSpec()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"groups": ("wavelet",)}, "wavelet"),
        ({"scales": (-1.0,)}, "-1 pixels"),
        ({"scales": (float("nan"),)}, "nan pixels"),
    ],
)
def test_unknown_groups_and_scales_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        FeatureSpec(**settings)


def test_a_selection_without_features_is_refused():
    with pytest.raises(UserError, match="leave no feature"):
        FeatureSpec(groups=("hessian",), scales=(0.3,)).filters()


# -- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ilastik", "compact", "s2d"])
@pytest.mark.parametrize("rows", [slice(0, 40), slice(100, 140), slice(200, 230)])
def test_a_tile_with_its_halo_equals_the_whole_image(name, rows):
    spec = FeatureSpec(name=name)
    image = plane(1, 230, 120)
    whole = compute_features(image, spec)[:, rows]
    first = max(0, rows.start - spec.halo)
    tile = compute_features(image[:, first : rows.stop + spec.halo], spec)
    tile = tile[:, rows.start - first :][:, : rows.stop - rows.start]
    np.testing.assert_allclose(tile, whole, atol=1e-6)


def test_the_halo_is_not_larger_than_needed():
    for name in ("ilastik", "compact", "s2d"):
        spec = FeatureSpec(name=name)
        centre = spec.halo + 5
        image = np.zeros((1, 2 * centre + 1, 3), np.float32)
        image[:, centre] = 1e6
        flat = np.abs(compute_features(image, spec)).max(axis=(0, 2)) > 0
        assert flat[centre - spec.halo]
        assert not flat[centre - spec.halo - 1]


def test_a_3d_tile_equals_the_whole_stack():
    spec = FeatureSpec(ndim=3, scales=(0.7, 1.6))
    stack = plane(1, 40, 24, 20)
    whole = compute_features(stack, spec)
    tile = compute_features(stack[:, 15 - spec.halo : 20 + spec.halo], spec)
    np.testing.assert_allclose(tile[:, spec.halo : spec.halo + 5], whole[:, 15:20], atol=1e-6)


# -- shapes and values ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (3, 100_000), (7, 300)])
@pytest.mark.parametrize("name", ["ilastik", "s2d"])
def test_tiny_and_thin_images(shape, name):
    image = plane(1, *shape)
    features = compute_features(image, FeatureSpec(name=name))
    assert features.shape[1:] == shape
    assert np.isfinite(features).all()
    if max(shape) < 1000:
        spec = FeatureSpec(name=name)
        for title, got, want in zip(spec.names(), features, reference(image[0], spec), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4, err_msg=title)


def test_a_constant_image_has_no_edges():
    features = compute_features(np.full((1, 20, 20), 3, np.float32), FeatureSpec())
    names = FeatureSpec().names()
    for name, channel in zip(names, features, strict=True):
        expected = 3 if name.startswith("Gaussian smoothing") else 0
        np.testing.assert_allclose(channel, expected, atol=1e-4, err_msg=name)


def test_image_channels_are_computed_each():
    image = plane(2, 25, 30)
    spec = FeatureSpec(name="compact")
    both = compute_features(image, spec)
    for c in range(2):
        np.testing.assert_array_equal(
            both[28 * c : 28 * (c + 1)], compute_features(image[c : c + 1], spec)
        )


def test_planes_of_a_stack_are_filtered_one_by_one_in_2d():
    stack = plane(2, 3, 25, 30)
    spec = FeatureSpec()
    features = compute_features(stack, spec)
    assert features.shape == (98, 3, 25, 30)
    for z in range(3):
        np.testing.assert_array_equal(features[:, z], compute_features(stack[:, z], spec))


def test_threads_change_nothing():
    image = plane(1, 90, 80)
    one = compute_features(image, FeatureSpec(), threads=1)
    np.testing.assert_array_equal(one, compute_features(image, FeatureSpec(), threads=4))
    assert one.flags.c_contiguous
    assert one.dtype == np.float32


def test_other_number_types_and_layouts():
    image = (plane(1, 40, 50) * 255).astype(np.uint8)
    expected = compute_features(image.astype(np.float32), FeatureSpec())
    np.testing.assert_array_equal(compute_features(image.astype(">f8"), FeatureSpec()), expected)
    turned = np.asfortranarray(image)
    np.testing.assert_array_equal(compute_features(turned, FeatureSpec()), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad):
    image = plane(1, 20, 20)
    image[0, 3, 3] = bad
    with pytest.raises(UserError, match="not finite"):
        compute_features(image, FeatureSpec())


@pytest.mark.parametrize("shape", [(20, 20), (1, 0, 20), (1, 2, 3, 4, 5)])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(UserError, match="shape"):
        compute_features(np.zeros(shape, np.float32), FeatureSpec())


def test_3d_features_of_a_plane_are_refused():
    with pytest.raises(UserError, match="3D features"):
        compute_features(plane(1, 20, 20), FeatureSpec(ndim=3))
