"""The session and its classes, axes and images: plain values, no window."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.images import image_from_array
from napari_cellda.ui.advice import OPEN_AN_IMAGE, next_panel, next_step
from napari_cellda.ui.arrays import IN_MEMORY_BYTES, Scratch, SpreadArray, spread
from napari_cellda.ui.axes import (
    ImageChoice,
    axes_choices,
    default_channels,
    read_layer,
    spread_axis,
)
from napari_cellda.ui.classes import (
    CLASS_KEYS,
    ENHANCED_COLOR,
    MAP_COLORS,
    MAX_CLASSES,
    PALETTE,
    ClassList,
    class_list,
)
from napari_cellda.ui.painted import PaintedImage
from napari_cellda.ui.state import Session


class Viewer:
    """Anything that can be referred to weakly."""


def layer_of(data: Any, **attributes: Any) -> Any:
    """Make what `read_layer` looks at of a napari layer."""
    rgb = attributes.get("rgb", False)
    first = data[0] if isinstance(data, list) else data
    ndim = first.ndim - rgb
    defaults = {
        "data": data,
        "name": "slide",
        "ndim": ndim,
        "rgb": rgb,
        "multiscale": isinstance(data, list),
        "scale": np.ones(ndim),
        "axis_labels": tuple(str(i - ndim) for i in range(ndim)),
        "metadata": {},
        "units": ("pixel",) * ndim,
        "source": SimpleNamespace(path=None),
    }
    return SimpleNamespace(**{**defaults, **attributes})


def painted_image(session: Session | None = None) -> PaintedImage:
    layer = layer_of(np.zeros((20, 30), np.uint8))
    choice = ImageChoice(layer, "yx", "grey")
    painted = PaintedImage(choice, read_layer(choice), strokes=object())
    if session is not None:
        session.use_image(painted)
    return painted


def count(signal: Any) -> list[Any]:
    seen: list[Any] = []
    signal.connect(lambda *args: seen.append(args))
    return seen


# -- sessions ----------------------------------------------------------------------------------


def test_each_viewer_has_one_session_of_its_own() -> None:
    one, two = Viewer(), Viewer()
    assert Session.of(one) is Session.of(one)
    assert Session.of(one) is not Session.of(two)
    Session.of(one).set_live(False)
    assert Session.of(two).live


def test_session_does_not_keep_its_viewer_alive() -> None:
    viewer = Viewer()
    session, gone = Session.of(viewer), weakref.ref(viewer)
    painted_image(session)
    del viewer
    gc.collect()
    assert gone() is None
    assert session.viewer is None


def test_state_needs_neither_qt_nor_napari() -> None:
    code = (
        "import sys, napari_cellda.ui.state, napari_cellda.ui.axes, napari_cellda.ui.advice\n"
        "print([m for m in ('qtpy', 'PyQt6', 'napari', 'torch', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_parts_are_made_once() -> None:
    session, made = Session(), []
    parts = [session.part("mine", lambda owner: made.append(owner) or object()) for _ in range(3)]
    assert made == [session]
    assert parts[0] is parts[1] is parts[2]


def test_setters_tell_only_about_changes() -> None:
    session = Session()
    seen = {
        name: count(getattr(session, name))
        for name in ("settings_changed", "live_changed", "classes_changed", "enhancer_changed")
    }
    session.set_spec(session.spec)
    session.set_normalisation("percentile")
    session.set_live(True)
    session.set_classes(ClassList())
    session.set_enhancer_options(rescale=1.0)
    assert not any(seen.values())
    session.set_spec(FeatureSpec(name="s2d"))
    session.set_normalisation("zscore")
    session.set_live(False)
    session.set_classes(ClassList().add())
    session.set_enhancer_options(rescale=2.0)
    assert [len(calls) for calls in seen.values()] == [2, 1, 1, 1]


def test_other_normalisation_is_measured_anew() -> None:
    session = Session()
    painted = painted_image(session)
    painted.norm = object()  # type: ignore[assignment]
    session.set_normalisation("minmax")
    assert painted.norm is None


def test_deleted_image_leaves_with_a_last_chance_to_save() -> None:
    session = Session()
    painted = painted_image(session)
    other = painted_image(session)
    leaving = count(session.leaving)
    changed = count(session.image_changed)
    session.forget_layer(other.layer)
    assert session.images == [painted]
    assert session.current is None
    assert leaving == [(other,)]
    assert changed


def test_deleted_strokes_are_gone_and_the_image_stays() -> None:
    session = Session()
    painted = painted_image(session)
    painted.strokes_array, painted.index = np.zeros((20, 30)), object()  # type: ignore[assignment]
    seen = count(session.strokes_changed)
    session.forget_layer(painted.strokes)
    assert (painted.strokes, painted.strokes_array, painted.index) == (None, None, None)
    assert session.current is painted
    assert seen


def test_deleted_result_stays_away() -> None:
    session = Session()
    painted = painted_image(session)
    painted.results["mask"] = object()
    session.forget_layer(painted.results["mask"])
    assert painted.results == {}
    assert painted.unwanted == {"mask"}


def test_foreign_layer_is_none_of_our_business() -> None:
    session = Session()
    painted_image(session)
    seen = count(session.image_changed)
    session.forget_layer(object())
    assert not seen


def test_enhanced_class_that_is_removed_falls_back_to_the_first() -> None:
    session = Session()
    session.set_classes(ClassList().add())
    session.set_enhancer_options(class_index=2)
    session.set_classes(session.classes.remove(2))
    assert session.enhancer_options.class_index == 1


def test_the_same_class_stays_enhanced_when_one_before_it_is_removed() -> None:
    session = Session()
    session.set_classes(ClassList().add("rim").add("halo").add("spot"))
    session.set_enhancer_options(class_index=3)
    before = session.classes
    session.set_classes(before.remove(2))
    assert session.classes[session.enhancer_options.class_index].name == "halo"
    session.set_classes(before)
    assert session.classes[session.enhancer_options.class_index].name == "halo"


def test_what_is_missing_is_said_plainly() -> None:
    session = Session()
    with pytest.raises(UserError, match="No image is chosen"):
        session.require_current()
    with pytest.raises(UserError, match="No forest is trained yet"):
        session.require_classifier()


def test_closed_session_says_so_once_and_keeps_nothing() -> None:
    session = Session()
    painted_image(session)
    seen = count(session.closed)
    session.close()
    session.close()
    assert len(seen) == 1
    assert session.images == []


def test_advice_tells_the_next_step() -> None:
    session = Session()
    say = lambda **state: next_step(session, **{"loaded": True, "busy": False, **state})  # noqa: E731
    assert say() == OPEN_AN_IMAGE
    painted = painted_image(session)
    painted.strokes = None
    assert "Start painting" in say()
    painted.strokes = object()
    counts, unknown = [0, 0], None
    painted.index = SimpleNamespace(counts=lambda n: counts, unknown=lambda n: unknown)  # type: ignore[assignment]
    assert say() == "Paint some background: press Q, then draw on the image."
    counts[0] = 5
    assert say() == "Now paint some foreground: press W, then draw on the image."
    counts[1] = 7
    assert "Loading" in say(loaded=False)
    assert say(busy=True) == "Computing the map..."
    assert say(busy=True, left=31) == "Computing the map, 31 parts to go..."
    assert say().startswith("Paint where the map is wrong")
    session.live = False
    assert "Train now" in say()
    unknown = 3
    assert say() == "Label 3 is no class; press Add class."
    unknown = 255
    assert say() == "Labels above 8 are no classes and do not count; erase them."


def test_advice_leads_on_to_the_next_panel() -> None:
    session = Session()
    painted = painted_image(session)
    painted.strokes = object()
    painted.index = SimpleNamespace(counts=lambda n: [5, 5], unknown=lambda n: None)  # type: ignore[assignment]
    assert next_panel(session) is None
    session.set_classifier(object())  # type: ignore[arg-type]
    assert next_panel(session) == "Enhance"
    assert "Enhance" in next_step(session, loaded=True, busy=False)
    session.set_enhancer(object())  # type: ignore[arg-type]
    assert next_panel(session) == "Export"
    assert "Export" in next_step(session, loaded=True, busy=False)


# -- classes -----------------------------------------------------------------------------------


def test_classes_are_added_with_free_names_colours_and_keys() -> None:
    classes = ClassList()
    for _ in range(MAX_CLASSES - 2):
        classes = classes.add()
    assert classes.names[2:4] == ("class 2", "class 3")
    assert len(set(classes.names)) == len(set(classes.colors)) == MAX_CLASSES
    assert {item.key for item in classes} == set(CLASS_KEYS)
    with pytest.raises(UserError, match="8 classes already"):
        classes.add()


def test_no_map_has_the_colour_of_any_strokes_or_of_the_enhanced_map() -> None:
    shown = [*PALETTE, *MAP_COLORS.values(), ENHANCED_COLOR]
    parts = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in shown])
    distance = np.abs(parts[:, None] - parts[None]).sum(axis=-1)
    assert (distance[~np.eye(len(parts), dtype=bool)] > 40).all()
    odd = ClassList().recolor(1, "#204060")[1]
    assert odd.map_color == "#8f9faf"


def test_keys_are_kept_if_they_are_ours() -> None:
    names = ["ground", "a", "b"]
    assert [c.key for c in class_list(names, keys=["Q", "R", "T"])] == ["Q", "R", "T"]
    for odd in (["Q", "Q", "R"], ["Q", "W"], ["Q", "W", "Z"]):
        assert [c.key for c in class_list(names, keys=odd)] == list(CLASS_KEYS[:3])


def test_freed_colour_and_key_are_given_again() -> None:
    classes = ClassList().add("a").add("b")
    freed = classes[2]
    again = classes.remove(2).add("c")
    assert (again[3].color, again[3].key) == (freed.color, freed.key)
    assert again.names == ("background", "foreground", "b", "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.remove(0), "background class cannot be removed"),
        (lambda c: c.remove(1), "Two classes are needed"),
        (lambda c: c.rename(1, "  "), "needs a name"),
        (lambda c: c.rename(1, "background"), "already"),
        (lambda c: c.add("foreground"), "already"),
        (lambda c: class_list(["a"]), "1 classes were given"),
        (lambda c: class_list(["a", "a"]), "not all different"),
    ],
)
def test_impossible_changes_are_refused(change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(ClassList())


def test_rename_to_its_own_name_is_no_change() -> None:
    assert ClassList().rename(1, " foreground ") == ClassList()


# -- axes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "attributes", "expected"),
    [
        ((50, 60), {}, "yx"),
        ((50, 60, 3), {"rgb": True}, "yxc"),
        ((50, 60, 4), {"rgb": True}, "yxc"),
        ((7, 50, 60), {}, "zyx"),
        ((3, 50, 60), {}, "cyx"),
        ((9, 50, 60, 3), {"rgb": True}, "zyxc"),
        ((7, 50, 60), {"axis_labels": ("Time", "y", "x")}, "tyx"),
        ((7, 50, 60), {"metadata": {"axes": "CYX"}}, "cyx"),
        ((5, 9, 50, 60), {}, "tzyx"),
        ((2, 9, 50, 60), {}, "czyx"),
        ((9, 2, 50, 60), {}, "zcyx"),
        ((5, 2, 9, 50, 60), {}, "tczyx"),
        ((5, 9, 2, 50, 60), {}, "tzcyx"),
    ],
)
def test_likeliest_axes_come_first(
    shape: tuple[int, ...], attributes: dict[str, Any], expected: str
) -> None:
    choices = axes_choices(layer_of(np.zeros(shape, np.uint8), **attributes))
    assert choices[0] == expected
    assert len(set(choices)) == len(choices)


def test_six_axes_are_refused() -> None:
    with pytest.raises(UserError, match="'slide' has 6 axes; 2 to 5"):
        axes_choices(layer_of(np.zeros((1,) * 6)))


@pytest.mark.parametrize(
    ("axes", "rgb", "place"),
    [
        ("yx", False, None),
        ("yxc", True, None),
        ("cyx", False, None),
        ("czyx", False, None),
        ("zcyx", False, 1),
        ("tczyx", False, 1),
        ("tzcyx", False, 2),
    ],
)
def test_channel_axis_between_others_needs_one_in_strokes(
    axes: str, rgb: bool, place: int | None
) -> None:
    assert spread_axis(axes, rgb) == place


def test_rgb_layer_is_read_with_all_colours_or_as_grey_and_without_alpha() -> None:
    data = np.random.default_rng(0).integers(0, 255, (10, 12, 4), dtype=np.uint8)
    layer = layer_of(data, rgb=True, name="slide [1]")
    image = read_layer(ImageChoice(layer, "yxc", default_channels(layer, "yxc")))
    assert (image.n_channels, image.label_shape, image.name) == (3, (10, 12), "slide [1]")
    assert read_layer(ImageChoice(layer, "yxc", "grey")).n_channels == 1


def test_chosen_channels_of_a_lazy_layer_are_read_alone() -> None:
    data = da.from_array(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5), chunks=(1, 1, 4, 5))
    image = read_layer(ImageChoice(layer_of(data), "zcyx", (0, 2)))
    assert image.n_channels == 2
    block = image.load((slice(0, 1), slice(None), slice(1, 2), slice(None), slice(None)))
    np.testing.assert_array_equal(block[0, :, 0], data[1, [0, 2]])


def test_other_layers_serve_as_channels() -> None:
    one, two = np.zeros((4, 5), np.uint8), da.ones((4, 5), dtype=np.uint16)
    choice = ImageChoice(layer_of(one), "yx", "all", (layer_of(two, name="gfp"),))
    image = read_layer(choice)
    assert (image.n_channels, image.label_axes) == (2, "yx")
    bad = ImageChoice(layer_of(one), "yx", "all", (layer_of(np.zeros((4, 6)), name="gfp"),))
    with pytest.raises(UserError, match=r"same shape; found 'slide' \(4, 5\), 'gfp' \(4, 6\)"):
        read_layer(bad)


def test_multiscale_layer_keeps_its_levels() -> None:
    levels = [np.zeros((40, 60)), np.zeros((20, 30)), np.zeros((10, 15))]
    image = read_layer(ImageChoice(layer_of(levels), "yx", "grey"))
    assert image.limits == (1, 40, 60)
    assert [level.shape[-2:] for level in image.levels] == [(20, 30), (10, 15)]


def test_pixel_size_and_unit_come_along() -> None:
    layer = layer_of(
        np.zeros((4, 5, 6)), scale=np.array([2.0, 0.5, 0.25]), units=("micrometer",) * 3
    )
    image = read_layer(ImageChoice(layer, "zyx", "grey"))
    assert (image.pixel_size, image.unit) == ((2.0, 0.5, 0.25), "micrometer")


# -- arrays ------------------------------------------------------------------------------------


def test_large_arrays_live_on_disk_and_leave_with_the_scratch_folder() -> None:
    scratch = Scratch()
    small = scratch.zeros((4, 5), np.uint8)
    assert isinstance(small, np.ndarray)
    side = int(IN_MEMORY_BYTES**0.5) + 1
    large = scratch.zeros((1, side, side), np.uint8)
    assert large.chunks == (1, 512, 512)
    assert large[0, 5, 5] == 0
    folder = large.store.root
    assert folder.exists()
    scratch.close()
    assert not folder.exists()
    large[0, 5, 5] = 1  # a thread that has not noticed yet
    assert folder.exists()
    del scratch
    gc.collect()
    assert not folder.parent.exists()


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_spread_axis_repeats_what_is_there_and_writes_through(kind: str) -> None:
    zarr = pytest.importorskip("zarr")
    base: Any = np.zeros((2, 4, 5), np.uint8)
    if kind == "zarr":
        base = zarr.create_array(
            store={}, shape=base.shape, chunks=(1, 2, 5), dtype="uint8", fill_value=0
        )
    seen = spread(base, 1, 3)
    assert (seen.shape, seen.dtype, seen.ndim) == ((2, 3, 4, 5), np.uint8, 4)
    seen[1, 2, 1:3, 2:4] = 7
    seen[(slice(0, 1), slice(1, 2), slice(0, 2), slice(0, 2))] = np.full((1, 1, 2, 2), 4)
    expected = np.zeros((2, 4, 5), np.uint8)
    expected[1, 1:3, 2:4], expected[0, :2, :2] = 7, 4
    np.testing.assert_array_equal(base[:], expected)
    np.testing.assert_array_equal(seen[1, 0], expected[1])
    np.testing.assert_array_equal(seen[:, 1:3, 2], np.repeat(expected[:, None, 2], 2, axis=1))
    np.testing.assert_array_equal(seen[..., 3], np.repeat(expected[:, None, :, 3], 3, axis=1))
    np.testing.assert_array_equal(np.asarray(seen), np.repeat(expected[:, None], 3, axis=1))


def test_no_spread_axis_is_the_array_itself() -> None:
    base = np.zeros((4, 5))
    assert spread(base, None, 3) is base
    assert not isinstance(spread(base[np.newaxis], 1, 2), SpreadArray)


def test_strokes_shape_of_every_kind_of_axes() -> None:
    for axes, shape in (("tczyx", (2, 3, 4, 5, 6)), ("cyx", (3, 5, 6))):
        image = image_from_array(np.zeros(shape), axes, name="x")
        assert image.label_shape == tuple(n for n, a in zip(shape, axes, strict=True) if a != "c")
