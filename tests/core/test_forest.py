import io
import json
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from napari_cellda.core.errors import UserError
from napari_cellda.core.forest import Forest, ForestParams, fit_forest, grow_forest, warm_up
from napari_cellda.core.forest import fit as forest_module
from napari_cellda.core.forest.from_sklearn import HiddenLeaves, export_forest
from napari_cellda.core.sampling import balance


def samples(n: int = 500, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6)).astype(np.float32)
    score = features[:, 0] + 0.5 * features[:, 1] + rng.normal(0, 0.3, n)
    return features, np.searchsorted(np.linspace(0, 1.5, n_classes - 1), score)


@pytest.fixture(params=["scikit-learn", "fast"])
def classifier(request, monkeypatch):
    """Train with plain scikit-learn, and with scikit-learn-intelex where it is installed."""
    if request.param == "fast":
        return pytest.importorskip("sklearnex.ensemble").RandomForestClassifier
    monkeypatch.setattr(forest_module, "fast_classifier", lambda: None)
    return RandomForestClassifier


def equal(a: Forest, b: Forest) -> bool:
    names = ("feature", "threshold", "children", "leaves", "node_starts", "leaf_starts")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "settings",
    [{}, {"min_samples_leaf": 4}, {"max_depth": 3}, {"max_features": "all"}, {"seed": 5}],
)
def test_the_forest_is_the_classifiers_own(classifier, n_classes, settings):
    features, labels = samples(n_classes=n_classes)
    params = ForestParams(trees=25, jobs=1, **settings)
    forest = fit_forest(features, labels, n_classes, params)
    chosen = balance(labels, seed=params.seed)
    if n_classes == 3 and {"min_samples_leaf", "max_depth"} & settings.keys():
        classifier = RandomForestClassifier
    model = classifier(
        25,
        min_samples_leaf=params.min_samples_leaf,
        max_depth=params.max_depth,
        max_features=None if params.max_features == "all" else "sqrt",
        random_state=params.seed,
        n_jobs=1,
    ).fit(features[chosen], labels[chosen])
    new = samples(2000, seed=1)[0]
    expected = model.predict_proba(new)
    np.testing.assert_allclose(forest.predict(new.T).T, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(forest.importances, model.feature_importances_, atol=1e-5)


def test_the_same_seed_gives_the_same_forest(classifier):
    features, labels = samples()
    params = ForestParams(trees=5)
    assert equal(fit_forest(features, labels, 3, params), fit_forest(features, labels, 3, params))
    other = fit_forest(features, labels, 3, ForestParams(trees=5, seed=1))
    assert not equal(fit_forest(features, labels, 3, params), other)


def test_growing_gives_a_first_forest_and_then_the_one_of_fitting(classifier):
    features, labels = samples()
    params = ForestParams(trees=30)
    first, whole = grow_forest(features, labels, 3, params, feature_names="abcdef")
    assert (first.n_trees, whole.n_trees) == (20, 30)
    assert equal(whole, fit_forest(features, labels, 3, params))
    assert whole.feature_names == tuple("abcdef")
    assert first.predict(features.T).argmax(0).tolist() != [0] * len(labels)


def test_small_forests_grow_at_once(classifier):
    features, labels = samples()
    (only,) = grow_forest(features, labels, 3, ForestParams(trees=20))
    assert only.n_trees == 20


def test_scores_and_importances(classifier):
    features, labels = samples(2000, 2)
    forest = fit_forest(features, labels, 2, ForestParams(trees=40, out_of_bag=True))
    assert forest.oob_score is not None
    assert 0.7 < forest.oob_score < 1
    assert forest.importances.argmax() == 0
    assert forest.importances.sum() == pytest.approx(1, abs=1e-5)
    assert fit_forest(features, labels, 2, ForestParams(trees=4)).oob_score is None


def test_a_score_of_few_trees_does_not_warn(classifier):
    features, labels = samples(60, 2)
    forest = fit_forest(features, labels, 2, ForestParams(trees=2, out_of_bag=True))
    assert forest.oob_score is not None


def test_rare_classes_are_balanced(classifier):
    features, labels = samples(4000, 2)
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:12]])
    settings = {"min_samples_leaf": 5, "random_state": 0}
    biased = classifier(30, **settings).fit(features[few], labels[few])
    forest = fit_forest(features[few], labels[few], 2, ForestParams(trees=30, min_samples_leaf=5))
    rare = features[labels == 1]
    assert forest.predict(rare.T)[1].mean() > 2 * biased.predict_proba(rare)[:, 1].mean()


def test_a_class_that_nobody_painted_has_probability_zero(classifier):
    features, labels = samples(n_classes=2)
    forest = fit_forest(features, labels * 2, 4, ForestParams(trees=5))
    assert forest.n_classes == 4
    assert (forest.predict(features.T)[[1, 3]] == 0).all()


def test_pixels_painted_as_two_classes(classifier):
    # Equal features, different labels: leaves that no split can part.
    features, labels = samples(300, 3)
    features, labels = np.tile(features, (2, 1)), np.concatenate([labels, (labels + 1) % 3])
    params = ForestParams(trees=30)
    forest = fit_forest(features, labels, 3, params)
    expected = np.zeros((300, 3))
    expected[np.arange(300), labels[:300]] += 0.5
    expected[np.arange(300), labels[300:]] += 0.5
    assert np.abs(forest.predict(features[:300].T).T - expected).mean() < 0.12


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("settings", [{"min_samples_leaf": 6}, {"max_depth": 4}, {}])
def test_hidden_leaves_are_restored_or_refused(n_classes, settings):
    fast = pytest.importorskip("sklearnex.ensemble").RandomForestClassifier
    features, labels = samples(600, n_classes)
    model = fast(20, random_state=0, **settings).fit(features, labels)
    try:
        forest = export_forest(model, features, labels, n_classes)
    except HiddenLeaves:
        assert n_classes > 2
        assert settings
        return
    new = samples(1000, seed=2)[0]
    np.testing.assert_allclose(forest.predict(new.T).T, model.predict_proba(new), atol=1e-6)


def test_works_without_the_fast_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearnex", None)
    monkeypatch.setitem(sys.modules, "sklearnex.ensemble", None)
    assert forest_module.fast_classifier() is None
    features, labels = samples(100)
    assert fit_forest(features, labels, 3, ForestParams(trees=3)).n_trees == 3


@pytest.mark.parametrize(
    ("features", "labels", "n_classes", "says"),
    [
        (np.zeros((0, 4)), np.zeros(0, int), 2, "Nothing is painted"),
        (np.zeros((5, 4)), np.zeros(5, int), 2, "Only one class"),
        (np.zeros((5, 4)), np.arange(5) % 2, 9, "2 to 8 classes apart; got 9"),
        (np.zeros((5, 4)), np.arange(5) % 2, 1, "got 1"),
        (np.zeros((5, 4)), np.arange(5), 3, "range from 0 to 4"),
        (np.zeros((5, 4)), np.arange(5) - 1, 5, "range from -1"),
        (np.zeros((4, 4)), np.arange(5) % 2, 2, "4 samples but 5 labels"),
        (np.full((5, 4), np.nan), np.arange(5) % 2, 2, "not finite"),
    ],
)
@pytest.mark.parametrize("fit", [fit_forest, lambda *args: list(grow_forest(*args))])
def test_samples_that_cannot_be_learned_from(fit, features, labels, n_classes, says):
    with pytest.raises(UserError, match=says):
        fit(features.astype(np.float32), labels, n_classes, ForestParams(trees=2))


def test_another_number_of_features_is_refused():
    features, labels = samples(100)
    forest = fit_forest(features, labels, 3, ForestParams(trees=2))
    with pytest.raises(UserError, match="trained on 6 features"):
        forest.predict(np.zeros((5, 4, 4), np.float32))


def test_truncated():
    features, labels = samples()
    forest = fit_forest(features, labels, 3, ForestParams(trees=9))
    parts = [forest.truncated(n).predict(features.T) for n in (3, 9, 100)]
    assert forest.truncated(3).n_trees == 3
    np.testing.assert_array_equal(parts[1], forest.predict(features.T))
    np.testing.assert_array_equal(parts[2], parts[1])
    assert np.abs(parts[0] - parts[1]).max() > 0
    np.testing.assert_allclose(parts[0] * 3, np.round(parts[0] * 3), atol=1e-6)


def test_warm_up_leaves_nothing_to_compile():
    from napari_cellda.core.forest import traversal

    warm_up()
    compiled = len(traversal.predict_window.signatures)
    features, labels = samples()
    for leaf_size in (1, 5):
        params = ForestParams(trees=3, min_samples_leaf=leaf_size)
        forest = fit_forest(features, labels, 3, params)
        forest.predict(np.zeros((6, 30, 50), np.float32)[:, 3:, 7:])
        forest.predict(np.zeros((6, 2, 30, 50), np.float32))
        forest.predict(np.zeros((6, 30), np.float32))
    assert len(traversal.predict_window.signatures) == compiled


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forest() -> Forest:
    features, labels = samples()
    params = ForestParams(trees=4, min_samples_leaf=3, out_of_bag=True)
    return fit_forest(features, labels, 3, params, feature_names=list("abcdef"))


def test_a_saved_forest_comes_back(forest, tmp_path):
    forest.save(tmp_path / "a.npz")
    back = Forest.load(tmp_path / "a.npz")
    assert equal(back, forest)
    assert (back.feature_names, back.n_features) == (forest.feature_names, 6)
    assert back.oob_score == forest.oob_score
    np.testing.assert_array_equal(back.importances, forest.importances)
    features = samples(seed=3)[0].T
    np.testing.assert_array_equal(back.predict(features), forest.predict(features))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_forest_goes_through_open_files(forest):
    buffer = io.BytesIO()
    forest.truncated(2).save(buffer)
    buffer.seek(0)
    back = Forest.load(buffer)
    assert (back.n_trees, back.oob_score, back.importances.size) == (2, None, 0)


def test_nothing_is_left_of_a_failed_save(forest, tmp_path, monkeypatch):
    (tmp_path / "a.npz").write_bytes(b"before")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(UserError, match="disk is full"):
        forest.save(tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"before"


def arrays_of(forest: Forest) -> dict[str, np.ndarray]:
    buffer = io.BytesIO()
    forest.save(buffer)
    buffer.seek(0)
    with np.load(buffer) as file:
        return dict(file)


def about(**changes: object) -> np.ndarray:
    text = {
        "format": "napari-cellda forest",
        "version": 1,
        "n_features": 6,
        "feature_names": list("abcdef"),
        "oob_score": 0.5,
    }
    return np.frombuffer(json.dumps(text | changes).encode(), np.uint8)


def changed(name: str, place: object, value: object) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


def put(name: str, make: object) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = make(arrays[name]) if callable(make) else make

    return change


HOSTILE = {
    "a child that leads back": changed("children", (5, 0), 0),
    "a child that is itself": changed("children", (5, 1), 5),
    "a child beyond the end": changed("children", (0, 0), 2**31 - 1),
    "a child of another tree": changed("children", (0, 0), -1_000_000),
    "the smallest leaf": changed("children", (0, 0), -(2**31)),
    "a leaf used twice": lambda a: changed("children", (-1, 0), a["children"][-1, 1])(a),
    "a node used twice": lambda a: changed("children", (0, 1), a["children"][0, 0])(a),
    "a feature beyond the last": changed("feature", 0, 6),
    "a negative feature": changed("feature", 0, -1),
    "a threshold that is no number": changed("threshold", 3, np.nan),
    "an infinite threshold": changed("threshold", 3, np.inf),
    "a probability that is no number": changed("leaves", (0, 0), np.nan),
    "a negative probability": changed("leaves", 0, [-0.5, 1.5, 0]),
    "probabilities beyond 1": changed("leaves", 0, [1, 1, 1]),
    "starts out of order": changed("node_starts", 1, 10**6),
    "starts that overflow": put("node_starts", np.array([0, 2**31 - 1, -2, -1, 3], np.int32)),
    "a negative start": changed("leaf_starts", 0, -1),
    "no trees": put("node_starts", np.zeros(1, np.int32)),
    "nothing at all": put("node_starts", np.zeros(0, np.int32)),
    "too few thresholds": put("threshold", lambda x: x[:-1]),
    "children side by side": put("children", np.ravel),
    "another dtype": put("children", lambda x: x.astype(np.int64)),
    "objects": put("threshold", lambda x: x.astype(object)),
    "nine classes": put("leaves", lambda x: np.pad(x, ((0, 0), (0, 6)))),
    "no classes": put("leaves", lambda x: x[:, :0]),
    "too few importances": put("importances", lambda x: x[:2]),
    "no format": put("about", np.frombuffer(b"{}", np.uint8)),
    "no text": put("about", np.frombuffer(b"\xff\x00", np.uint8)),
    "a list": put("about", np.frombuffer(b"[]", np.uint8)),
    "another format": put("about", about(format="forest")),
    "a newer version": put("about", about(version=2)),
    "a version that is text": put("about", about(version="1")),
    "features that are text": put("about", about(n_features="6")),
    "no features": put("about", about(n_features=0)),
    "too many features": put("about", about(n_features=2**40)),
    "names that are numbers": put("about", about(feature_names=[1, 2, 3, 4, 5, 6])),
    "too few names": put("about", about(feature_names=["a"])),
    "a score that is a list": put("about", about(oob_score=[])),
    "an array too few": lambda a: a.pop("leaves"),
    "an array too many": put("more", np.zeros(3)),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(forest, change, tmp_path):
    arrays = arrays_of(forest)
    change(arrays)
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=r"a\.npz"):
        Forest.load(tmp_path / "a.npz")


def test_the_unchanged_file_is_accepted(forest, tmp_path):
    np.savez(tmp_path / "a.npz", **(arrays_of(forest) | {"about": about()}))
    assert Forest.load(tmp_path / "a.npz").oob_score == 0.5


def test_missing_foreign_and_truncated_files(forest, tmp_path):
    with pytest.raises(UserError, match="is not there"):
        Forest.load(tmp_path / "none.npz")
    with pytest.raises(UserError, match="cannot be read"):
        Forest.load(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="expected a forest"):
        Forest.load(tmp_path / "text.npz")
    forest.save(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    for n in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.npz").write_bytes(content[:n])
        with pytest.raises(UserError, match="expected a forest"):
            Forest.load(tmp_path / "cut.npz")
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 255
    (tmp_path / "cut.npz").write_bytes(bytes(damaged))
    with pytest.raises(UserError, match="expected a forest"):
        Forest.load(tmp_path / "cut.npz")


def test_a_zip_bomb_is_refused(forest, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cellda.core.forest.file.MAX_BYTES", 2**22)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name in arrays_of(forest):
            with file.open(f"{name}.npy", "w") as member:
                member.write(bytes(2**20))
    with pytest.raises(UserError, match="unpacks to"):
        Forest.load(tmp_path / "bomb.npz")


def test_a_header_that_promises_too_much_is_refused(forest, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**45,)}
    )
    arrays = arrays_of(forest)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                if name == "threshold":
                    member.write(header.getvalue())
                else:
                    np.lib.format.write_array(member, array)
    with pytest.raises(UserError, match="expected a forest"):
        Forest.load(tmp_path / "a.npz")


def test_a_forest_is_checked_when_made(forest):
    with pytest.raises(UserError, match="damaged"):
        replace(forest, threshold=forest.threshold[:-1])
