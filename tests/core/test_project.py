"""A project reopens exactly, and a file that is none is refused in one sentence."""

import io
import json
import zipfile

import numpy as np
import pytest
import zarr

from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams, fit_forest
from napari_cellda.core.images import image_from_array
from napari_cellda.core.images.normalisation import measure_normalisation
from napari_cellda.core.project import (
    ClassStyle,
    EnhancerReference,
    ImageReference,
    PaintedPixels,
    Project,
    find_image,
    fingerprint,
    load_project,
    relative_to_project,
    save_project,
)


def stack(seed=0):
    rng = np.random.default_rng(seed)
    return image_from_array(rng.random((3, 80, 90), np.float32), "zyx", name="stack")


def project(image, **more):
    reference = ImageReference(
        name=image.name,
        path="stack.tif",
        axes=image.axes,
        fingerprint=fingerprint(image),
        normalisation=measure_normalisation(image),
    )
    return Project(
        images=(reference,),
        classes=(ClassStyle(name="background"), ClassStyle(name="cells", color="#ff00ff")),
        features=FeatureSpec(name="compact"),
        **more,
    )


@pytest.fixture
def saved(tmp_path):
    image = stack()
    strokes = np.zeros(image.label_shape, np.uint8)
    strokes[0, 3, 4:30], strokes[2, 70, 50:80] = 1, 2
    rng = np.random.default_rng(1)
    features = rng.random((60, 28), np.float32)
    forest = fit_forest(features, np.arange(60) % 2, 2, ForestParams(trees=5))
    reference = EnhancerReference(
        source="nuclei", sha256="0" * 64, options=EnhancerOptions(rescale=1.5)
    )
    path = tmp_path / "work.cellda"
    save_project(
        path, project(image, enhancer=reference, panel={"live": False}), {0: strokes}, forest
    )
    return path, strokes, forest, features


def test_everything_comes_back(saved):
    path, strokes, forest, features = saved
    found, painted, same_forest = load_project(path)
    assert found == project(stack(), enhancer=found.enhancer, panel={"live": False})
    assert found.enhancer.options.rescale == 1.5
    np.testing.assert_array_equal(painted[0], strokes)
    np.testing.assert_array_equal(same_forest.predict(features.T), forest.predict(features.T))


def test_strokes_go_in_as_pixels_and_come_out_on_disk(tmp_path):
    strokes = np.zeros((2, 3, 40, 50), np.uint8)
    strokes[1, 2, 5:9, 7], strokes[0, 0, 39, 49] = 3, 1
    where = np.flatnonzero(strokes)
    pixels = PaintedPixels(strokes.shape, where, strokes.flat[where])
    save_project(tmp_path / "p.cellda", project(stack()), {0: pixels}, None)
    made = []

    def zeros(shape, dtype):
        made.append(zarr.create_array(store={}, shape=shape, dtype=dtype, fill_value=0))
        return made[-1]

    _, found, _ = load_project(tmp_path / "p.cellda", zeros)
    assert found[0] is made[0]
    np.testing.assert_array_equal(found[0][:], strokes)


def test_a_project_without_forest_or_strokes(tmp_path):
    save_project(tmp_path / "new.cellda", project(stack()), {}, None)
    _, strokes, forest = load_project(tmp_path / "new.cellda")
    assert strokes == {}
    assert forest is None


def test_the_fingerprint_knows_an_image_again():
    assert fingerprint(stack()) == fingerprint(stack())
    assert fingerprint(stack()) != fingerprint(stack(seed=1))
    pixels = np.random.default_rng(0).integers(0, 9, (40, 50), np.uint16)
    little = image_from_array(pixels, "yx", name="a")
    big = image_from_array(pixels.astype(">u2"), "yx", name="b")
    assert fingerprint(little) == fingerprint(big)


def test_paths_inside_the_folder_move_with_it(tmp_path):
    image, outside = tmp_path / "p" / "data" / "a.tif", tmp_path / "b.tif"
    image.parent.mkdir(parents=True)
    image.touch()
    outside.touch()
    path = tmp_path / "p" / "work.cellda"
    assert relative_to_project(image, path) == "data/a.tif"
    assert relative_to_project(outside, path) == str(outside)
    base = project(stack()).images[0]
    assert find_image(base.model_copy(update={"path": "data/a.tif"}), path) == image
    assert find_image(base.model_copy(update={"path": "data/moved.tif"}), path) is None
    assert find_image(base.model_copy(update={"path": None}), path) is None


def rewrite(path, **changes):
    """Replace members of a project; None leaves one out."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members |= {name.replace("__", "/"): content for name, content in changes.items()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)


def strokes_file(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"project.json": None}, "holds no project.json"),
        ({"evil.py": b"print()"}, "holds evil.py"),
        ({"strokes__../../x.npz": b""}, "holds strokes"),
        ({"project.json": b"{"}, "damaged"),
        ({"project.json": json.dumps({"format": 99}).encode()}, "format 1"),
        ({"forest.npz": b"nonsense"}, "forest"),
        ({"strokes__0.npz": b"nonsense"}, "damaged"),
        (
            {"strokes__0.npz": strokes_file(shape=[4, 4], indices=[16], values=[1])},
            "do not fit their shape",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=[4, 4], indices=[-1], values=[1])},
            "do not fit their shape",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=np.array([{}]), indices=[0], values=[1])},
            "damaged",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=4, indices=[0], values=[1])},
            "not lists of whole numbers",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=[4, 4], indices=[0.5], values=[1])},
            "not lists of whole numbers",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=[4, 4], indices=[0], values=["1"])},
            "not lists of whole numbers",
        ),
        (
            {"strokes__0.npz": strokes_file(shape=[2**32, 2**32], indices=[], values=[])},
            "whole numbers|damaged",
        ),
    ],
)
def test_damaged_and_foreign_files_are_refused(saved, changes, sentence):
    path, *_ = saved
    rewrite(path, **changes)
    with pytest.raises(UserError, match=sentence):
        load_project(path)


@pytest.mark.parametrize("depth", [1000, 20_000])
def test_deep_json_is_refused(saved, depth):
    rewrite(saved[0], **{"project.json": b'{"panel":' + b"[" * depth + b"]" * depth + b"}"})
    with pytest.raises(UserError, match="is not a napari-cellda project"):
        load_project(saved[0])


def patch_members(path, at_local, at_central, value):
    """Change two bytes of every member's headers, which zipfile writes no odd values into."""
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\3\4", at_local), (b"PK\1\2", at_central)):
        place = content.find(signature)
        while place >= 0:
            content[place + at : place + at + 2] = value.to_bytes(2, "little")
            place = content.find(signature, place + 1)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at_local", "at_central", "value"),
    [
        pytest.param(6, 8, 1, id="encrypted"),
        pytest.param(8, 10, 99, id="unknown compression"),
        pytest.param(8, 10, 8, id="not deflated"),
        pytest.param(8, 10, 14, id="not lzma"),
    ],
)
def test_members_that_cannot_be_unpacked_are_refused(saved, at_local, at_central, value):
    path, *_ = saved
    rewrite(path, **{"project.json": b"\xff" * 50})
    patch_members(path, at_local, at_central, value)
    with pytest.raises(UserError, match=rf"'{path.name}' is not a napari-cellda project"):
        load_project(path)


@pytest.mark.parametrize("inside", [False, True])
def test_a_bomb_is_refused(saved, monkeypatch, inside):
    path, *_ = saved
    monkeypatch.setattr("napari_cellda.core.modelzoo.archive.HARMLESS_BYTES", 2**16)
    nothing = np.zeros(200_000, np.int64)
    buffer = io.BytesIO()
    save = np.savez_compressed if inside else np.savez
    save(buffer, shape=[999, 999], indices=nothing, values=nothing.astype(np.uint8))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("strokes/1.npz", buffer.getvalue())
    with pytest.raises(UserError, match="zip bomb"):
        load_project(path)


def test_a_member_that_ends_too_early_is_refused(saved):
    path, *_ = saved
    rewrite(path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        last = max(file.infolist(), key=lambda info: info.header_offset)
        size = last.file_size
    longer = (size + 10_000).to_bytes(4, "little")
    place = content.rfind(b"PK\1\2")
    content = content[: place + 20] + longer * 2 + content[place + 28 :]
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a napari-cellda project"):
        load_project(path)


def test_what_is_no_project_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no project '.*absent.cellda'"):
        load_project(tmp_path / "absent.cellda")
    (tmp_path / "text.cellda").write_text("hello")
    with pytest.raises(UserError, match=r"'text.cellda' is not a napari-cellda project"):
        load_project(tmp_path / "text.cellda")
