from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from napari_cellda.core.forest import simd, traversal
from napari_cellda.core.forest.from_sklearn import export_forest
from napari_cellda.core.forest.trees import Forest


def samples(
    n: int, n_features: int, n_classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_features)).astype(np.float32)
    score = features[:, 0] + 0.5 * features[:, 1] * features[:, 2] + rng.normal(0, 0.4, n)
    labels = np.searchsorted(np.quantile(score, np.linspace(0, 1, n_classes + 1)[1:-1]), score)
    return features, labels


def fitted(n_classes: int = 3, **settings: object) -> tuple[RandomForestClassifier, Forest]:
    features, labels = samples(400, 5, n_classes)
    settings = {"n_estimators": 20, "random_state": 0, **settings}
    model = RandomForestClassifier(**settings).fit(features, labels)
    return model, export_forest(model, features, labels, n_classes)


def check(model: RandomForestClassifier, forest: Forest, features: np.ndarray) -> None:
    """Compare with predict_proba, for features (F, ...)."""
    expected = model.predict_proba(features.reshape(len(features), -1).T)
    got = forest.predict(features)
    assert got.dtype == np.float32
    assert got.shape == (forest.n_classes, *features.shape[1:])
    np.testing.assert_allclose(got.reshape(len(got), -1).T, expected, rtol=0, atol=1e-6)
    plain = traversal.predict(forest.layout, features, vectorised=False)
    np.testing.assert_array_equal(plain, got)


@pytest.mark.parametrize("leaf_size", [1, 2, 7, 100])
@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_equals_predict_proba_for_any_leaf_size(leaf_size, n_classes):
    model, forest = fitted(n_classes, min_samples_leaf=leaf_size)
    check(model, forest, samples(130 * 100, 5, 2, seed=1)[0].T.reshape(5, 130, 100))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("n_trees", [1, 2, 99])
def test_equals_predict_proba_for_any_depth(depth, n_trees):
    model, forest = fitted(4, max_depth=depth, n_estimators=n_trees)
    check(model, forest, samples(1000, 5, 2, seed=1)[0].T.reshape(5, 20, 50))


def test_many_trees():
    model, forest = fitted(3, n_estimators=400, max_depth=3, min_samples_leaf=3)
    check(model, forest, samples(1000, 5, 2, seed=1)[0].T)


def test_mixed_and_single_class_leaves_in_one_forest():
    features, labels = samples(300, 5, 3)
    # The same pixel painted as several classes: no tree can part them.
    features[:60] = features[60:120]
    labels[:30] = (labels[60:90] + 1) % 3
    model = RandomForestClassifier(30, random_state=1).fit(features, labels)
    forest = export_forest(model, features, labels, 3)
    single = forest.leaves.max(1) == 1
    assert single.any()
    assert not single.all()
    check(model, forest, np.concatenate([features, samples(500, 5, 3, 2)[0]]).T)


@pytest.mark.parametrize(
    "shape",
    [
        *[(1,), (7,), (64,), (1000,), (1, 1), (1, 100), (3, 1000), (2, 65), (7, 7), (8, 8)],
        *[(9, 17), (65, 63), (4, 20_000), (9_000, 1), (2, 9, 11), (1, 1, 1)],
    ],
)
def test_shapes(shape):
    model, forest = fitted(3, n_estimators=5)
    features = samples(int(np.prod(shape)), 5, 2, seed=3)[0].T
    check(model, forest, np.ascontiguousarray(features).reshape(5, *shape))


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (0, 3, 3)])
def test_no_pixels(shape):
    _, forest = fitted(3, n_estimators=5)
    assert forest.predict(np.zeros((5, *shape), np.float32)).shape == (3, *shape)


def test_views_are_read_in_place_and_other_layouts_copied():
    model, forest = fitted(3, n_estimators=5)
    whole = samples(90 * 80 * 2, 5, 2, seed=4)[0].T.copy().reshape(5, 2, 90, 80)
    for view in (
        whole[:, :, 11:83, 5:70],
        whole[:, 1, 3:, :-1],
        whole[:, :, ::-1, ::2],
        np.asfortranarray(whole),
        whole.transpose(0, 1, 3, 2),
        whole.astype(np.float64),
        whole[:, 0, 40, 3:77],
    ):
        check(model, forest, view)
    assert np.shares_memory(traversal._windows(whole[:, 0, 11:83, 5:70], 0)[0][0], whole)


def test_values_equal_to_a_threshold_go_left_as_in_scikit_learn():
    # Whole numbers: thresholds fall on halves, and on the values themselves where these are halves.
    rng = np.random.default_rng(0)
    features = rng.integers(0, 9, (500, 5)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] > 8).astype(int)
    model = RandomForestClassifier(20, random_state=0).fit(features, labels)
    forest = export_forest(model, features, labels, 2)
    check(model, forest, features.T)
    check(model, forest, features.T + np.float32(0.5))


def test_values_around_thresholds_that_float32_cannot_hold():
    # Neighbouring float32 numbers: the midpoint lies between them and must be rounded down.
    start = np.float32(1)
    features = np.empty((64, 1), np.float32)
    for i in range(64):
        features[i], start = start, np.nextafter(start, np.float32(2))
    labels = np.arange(64) % 2
    model = RandomForestClassifier(20, random_state=0).fit(features, labels)
    check(model, export_forest(model, features, labels, 2), features.T)


def test_extreme_values():
    model, forest = fitted(3)
    features = samples(400, 5, 2, seed=5)[0].T.copy()
    features[:, ::7] = 1e30
    features[:, ::11] = -1e30
    features[:, ::13] = 0
    features[:, ::17] = 1e-45
    check(model, forest, features)


def test_trees_of_a_single_leaf():
    features, labels = samples(300, 5, 3)
    model = RandomForestClassifier(10, min_samples_leaf=200, random_state=0).fit(features, labels)
    forest = export_forest(model, features, labels, 3)
    assert len(forest.feature) == 0
    check(model, forest, samples(100, 5, 2)[0].T)


def test_a_class_without_samples_has_probability_zero():
    features, labels = samples(300, 5, 2)
    labels = np.where(labels == 1, 3, 1)
    model = RandomForestClassifier(10, random_state=0).fit(features, labels)
    forest = export_forest(model, features, labels, 5)
    got = forest.predict(features.T)
    np.testing.assert_allclose(got[[1, 3]].T, model.predict_proba(features), atol=1e-6)
    assert (got[[0, 2, 4]] == 0).all()


def test_probabilities_add_up_to_one_and_stay_in_range():
    _, forest = fitted(8, min_samples_leaf=5, n_estimators=37)
    got = forest.predict(samples(5000, 5, 2, seed=6)[0].T)
    np.testing.assert_allclose(got.sum(0, dtype=np.float64), 1, atol=5e-7)
    assert got.min() >= 0
    assert got.max() <= 1


def test_threads_change_nothing_and_several_callers_do_not_disturb_each_other():
    _, forest = fitted(3)
    features = samples(300 * 300, 5, 2, seed=7)[0].T.copy().reshape(5, 300, 300)
    expected = forest.predict(features, threads=1)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda n: forest.predict(features, threads=n), (1, 2, 3, 4, None)):
            np.testing.assert_array_equal(got, expected)


def test_the_plain_kernel_takes_over_where_vectors_do_not_compile(monkeypatch):
    features = samples(100, 5, 2)[0].T
    _, forest = fitted(3)
    expected = forest.predict(features)
    original = traversal.predict_window

    def broken(layout, flat, window, room, scratch, out):
        if scratch is None:
            raise AttributeError("llvmlite changed")
        original(layout, flat, window, room, scratch, out)

    monkeypatch.setattr(traversal, "predict_window", broken)
    traversal.can_vectorise.cache_clear()
    try:
        assert not traversal.can_vectorise()
        np.testing.assert_array_equal(forest.predict(features), expected)
    finally:
        traversal.can_vectorise.cache_clear()


def test_vectors_compile_here():
    assert traversal.can_vectorise()


def test_comparison_has_no_python_form():
    with pytest.raises(TypeError, match="compiled code"):
        simd.above(np.zeros(64), 0, 0.0, None)


def test_kernels_compile_where_nothing_may_be_written(monkeypatch):
    def refuse(**options: object) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: ("compiled", function, options)

    monkeypatch.setattr(simd.numba, "njit", refuse)
    kind, _, options = simd.compiled(len)
    assert kind == "compiled"
    assert options["nogil"]
    assert "cache" not in options
