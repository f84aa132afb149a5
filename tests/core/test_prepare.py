"""What a training is given, read from files."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_cellda.core.adaptation.inputs import AdaptInputs, open_inputs
from napari_cellda.core.adaptation.prepare import prepare_domains
from napari_cellda.core.events import Note
from napari_cellda.methods import find_method


def prepare(tmp_path, method, *, names=(), **given):
    """Return the domains and the notes."""
    found = find_method(method)
    opened = open_inputs(AdaptInputs(target_images=tmp_path / "images", **given), found)
    task = prepare_domains(opened, found, "zscore", tmp_path / "cache", names=names)
    notes = []
    while True:
        try:
            event = next(task)
        except StopIteration as end:
            return end.value, notes
        if isinstance(event, Note):
            notes.append(event.text)


def write(tmp_path, folder, name, array, **keywords):
    (tmp_path / folder).mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / folder / name, array, **keywords)
    return tmp_path / folder


def stack(tmp_path, name="s.tif", planes=4):
    array = np.random.default_rng(0).integers(0, 255, (planes, 40, 48)).astype(np.uint8)
    write(tmp_path, "images", name, array, imagej=True, metadata={"axes": "ZYX"})


def test_planes_of_a_stack_without_points_were_not_looked_at(tmp_path):
    stack(tmp_path)
    flat = np.random.default_rng(1).integers(0, 255, (40, 48)).astype(np.uint8)
    write(tmp_path, "images", "empty.tif", flat)
    points = tmp_path / "points"
    points.mkdir()
    (points / "s.csv").write_text("z,row,col\n2,10,10\n2,20,30\n")
    (points / "empty.csv").write_text("row,col\n")
    prepared, notes = prepare(tmp_path, "cks", points=points, diameter=10.0)
    counts = {p.name: None if p.points is None else len(p.points) for p in prepared.target.planes}
    assert counts == {"empty": 0, "s, z 0": None, "s, z 1": None, "s, z 2": 2, "s, z 3": None}
    assert "3 plane(s) of stacks have no points, such as 's, z 0', and are left out." in notes


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", None])
def test_the_classes_of_a_map_are_where_its_file_says(tmp_path, axes):
    stack(tmp_path, planes=2)
    maps = np.random.default_rng(0).random((2, 2, 40, 48), np.float32)
    stored = maps.swapaxes(0, 1) if axes == "ZCYX" else maps
    how = {"metadata": {"axes": axes}} if axes else {}
    folder = write(tmp_path, "maps", "s_probability.tif", stored, **how)
    prepared, _ = prepare(tmp_path, "pseudo-label", pseudo_labels=folder)
    for z, plane in enumerate(prepared.target.planes):
        np.testing.assert_array_equal(plane.pseudo_map, maps[:, z])


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_strokes_of_several_classes_without_names_are_told_of(tmp_path, names):
    image = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    write(tmp_path, "images", "i.tif", image)
    strokes = np.zeros((40, 48), np.uint8)
    strokes[2:6], strokes[10:14], strokes[20:24] = 1, 2, 3
    folder = write(tmp_path, "strokes", "i.tif", strokes)
    prepared, notes = prepare(tmp_path, "supervised", names=names, target_strokes=folder)
    told = [note for note in notes if "The annotations show 2 classes, which count as one" in note]
    assert len(told) == (not names)
    assert prepared.target.planes[0].labels.max() == (2 if names else 1)
