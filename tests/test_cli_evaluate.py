"""`evaluate` as a user types it: folders in, one JSON object out, files, one-sentence errors."""

import csv
import json
import re
from html.parser import HTMLParser

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from napari_cellda.cli import main

PIXEL_KEYS = ["iou", "dice", "precision", "recall", "hd95", "asd"]
KEYS = [*PIXEL_KEYS, "ap50", "ap75", "map", "instance_dice", "f1_50", "vi_split", "vi_merge"]


def disks(shift=0, labels=False):
    """Three disks; the third touches the second."""
    y, x = np.mgrid[:64, :80]
    image = np.zeros((64, 80), np.uint16)
    for label, centre in enumerate([(15, 15), (40, 40), (40, 57)], 1):
        inside = (y - centre[0]) ** 2 + (x - centre[1] - shift) ** 2 < 9**2
        image[inside] = label if labels else 1
    return image


@pytest.fixture
def folders(tmp_path):
    """Two images: truth as 0 and 255, the prediction once right and once two pixels off."""
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
    for i, shift in enumerate((0, 2)):
        iio.imwrite(tmp_path / "truth" / f"im{i}.png", (disks() * 255).astype(np.uint8))
        tifffile.imwrite(tmp_path / "pred" / f"im{i}_mask.tif", disks(shift).astype(np.uint8))
    return tmp_path


@pytest.fixture
def objects(tmp_path):
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
    for i, shift in enumerate((0, 2)):
        iio.imwrite(tmp_path / "truth" / f"im{i}.png", disks(labels=True).astype(np.uint8))
        tifffile.imwrite(tmp_path / "pred" / f"im{i}_instances.tif", disks(shift, labels=True))
        table = "label,score,area\n" + "".join(f"{k},0.{9 - k},1\n" for k in (1, 2, 3))
        (tmp_path / "pred" / f"im{i}_objects.csv").write_text(table)
    return tmp_path


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


def evaluate(capsys, folder, *more):
    code = run("--prediction", folder / "pred", "--reference", folder / "truth", *more)
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_the_json_object_has_the_promised_shape(folders, capsys):
    found = evaluate(capsys, folders)
    assert set(found) == {"images", "mean", "std", "undefined", "classes"}
    for part in ("mean", "std", "undefined"):
        assert list(found[part]) == KEYS
    assert [image["image"] for image in found["images"]] == ["im0", "im1"]
    assert set(KEYS) < set(found["images"][0])
    assert set(found["classes"]) == {"1"}
    first, second = found["images"]
    assert [first[key] for key in PIXEL_KEYS] == [1, 1, 1, 1, 0, 0]
    shared, both = (disks() & disks(2)).sum(), (disks() | disks(2)).sum()
    assert second["iou"] == pytest.approx(shared / both)
    assert found["mean"]["iou"] == pytest.approx((1 + shared / both) / 2)
    assert found["std"]["iou"] == pytest.approx((1 - shared / both) / 2)
    assert found["mean"]["ap50"] is None  # masks have no objects
    assert found["undefined"] == {key: 0 if key in PIXEL_KEYS else 2 for key in KEYS}
    one = found["classes"]["1"]
    assert one["area_fraction"]["truth"] == pytest.approx((disks() > 0).mean())
    assert one["objects"] == {"prediction": 4, "truth": 4}  # two touch
    assert one["size_histogram"]["unit"] == "pixel²"
    assert sum(one["size_histogram"]["truth"]) == 4


def test_an_empty_prediction_is_counted_and_not_hidden(folders, capsys):
    tifffile.imwrite(folders / "pred" / "im1_mask.tif", np.zeros((64, 80), np.uint8))
    found = evaluate(capsys, folders)
    assert found["images"][1]["dice"] == 0
    assert found["images"][1]["hd95"] is None
    assert found["undefined"]["hd95"] == 1
    assert found["mean"]["hd95"] == 0  # of the other image
    assert found["mean"]["dice"] == 0.5


def test_of_our_outputs_the_kind_chooses_the_file(folders, capsys):
    # What classify writes beside the mask must not disturb.
    for i in range(2):
        base = folders / "pred" / f"im{i}"
        tifffile.imwrite(f"{base}_probability.tif", np.zeros((2, 64, 80), np.float32))
        tifffile.imwrite(f"{base}_instances.tif", np.zeros((64, 80), np.uint32))
    assert evaluate(capsys, folders)["images"][0]["iou"] == 1


def test_classes(folders, capsys):
    truth, predicted = disks(labels=True), disks(labels=True)
    predicted[predicted == 3] = 1
    for i in range(2):
        tifffile.imwrite(folders / "pred" / f"im{i}_mask.tif", predicted.astype(np.uint8))
        iio.imwrite(folders / "truth" / f"im{i}.png", truth.astype(np.uint8))
    found = evaluate(capsys, folders, "--reference-type", "classes")
    assert set(found["classes"]) == {"1", "2", "3"}
    assert found["classes"]["3"]["iou"] == 0
    assert found["classes"]["3"]["undefined"]["hd95"] == 2
    assert found["classes"]["2"]["dice"] == found["classes"]["2"]["pooled"]["dice"] == 1
    per_class = [found["classes"][c]["iou"] for c in "123"]
    assert found["mean"]["iou"] == pytest.approx(np.mean(per_class))
    as_binary = evaluate(capsys, folders, "--reference-type", "binary")
    assert as_binary["mean"]["iou"] == 1


def test_instances_with_scores(objects, capsys):
    found = evaluate(capsys, objects, "--kind", "instances")
    assert found["undefined"] == dict.fromkeys(KEYS, 0)
    assert found["images"][0]["map"] == found["images"][0]["instance_dice"] == 1
    assert found["images"][0]["vi_split"] == found["images"][0]["vi_merge"] == 0
    assert 0 < found["images"][1]["map"] < 1
    assert found["mean"]["f1_50"] == 1
    assert found["classes"]["1"]["objects"] == {"prediction": 6, "truth": 6}
    assert found["classes"]["1"]["map"] == found["mean"]["map"]


def test_without_scores_average_precision_is_undefined(objects, capsys):
    (objects / "pred" / "im1_objects.csv").unlink()
    found = evaluate(capsys, objects, "--kind", "instances")
    assert [found["undefined"][key] for key in ("ap50", "ap75", "map", "f1_50")] == [1, 1, 1, 0]
    assert found["images"][1]["ap50"] is None
    assert found["mean"]["ap50"] == 1


def test_a_binary_truth_is_split_into_its_parts(objects, capsys):
    for i in range(2):
        iio.imwrite(objects / "truth" / f"im{i}.png", (disks() * 255).astype(np.uint8))
    assert run("--prediction", objects / "pred", "--reference", objects / "truth",
               "--kind", "instances") == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert "4-connected parts" in err
    assert json.loads(out)["classes"]["1"]["objects"] == {"prediction": 6, "truth": 4}


def membranes(n=4, size=96):
    """A grid of cells between membranes of three pixels."""
    mask = np.zeros((size, size), bool)
    for at in np.linspace(0, size, n, endpoint=False).astype(int)[1:]:
        mask[at - 1 : at + 2] = mask[:, at - 1 : at + 2] = True
    return mask


def test_boundaries_are_cut_and_compared_as_partitions(tmp_path, capsys):
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
    mask = membranes()
    foreground = np.clip(mask * 0.9 + 0.05, 0, 1).astype(np.float32)
    probability = np.stack([1 - foreground, foreground])
    tifffile.imwrite(tmp_path / "pred" / "a_probability.tif", probability, imagej=True,
                     metadata={"axes": "CYX"})  # fmt: skip
    iio.imwrite(tmp_path / "truth" / "a.png", (mask * 255).astype(np.uint8))
    found = evaluate(capsys, tmp_path, "--kind", "boundary")
    assert found["mean"]["iou"] == 1
    assert found["mean"]["vi_split"] == found["mean"]["vi_merge"] == 0  # membranes do not count
    assert found["mean"]["f1_50"] == 1
    assert found["undefined"]["ap50"] == 1
    assert found["classes"]["1"]["objects"] == {"prediction": 16, "truth": 16}
    # A gap joins cells.
    foreground[:, 40:60][mask[:, 40:60]] = 0.05
    probability = np.stack([1 - foreground, foreground])
    tifffile.imwrite(tmp_path / "pred" / "a_probability.tif", probability, imagej=True,
                     metadata={"axes": "CYX"})  # fmt: skip
    assert evaluate(capsys, tmp_path, "--kind", "boundary")["mean"]["vi_merge"] > 0.1


def test_several_predictions(folders, capsys):
    other = folders / "other"
    other.mkdir()
    for i in range(2):
        tifffile.imwrite(other / f"im{i}.tif", disks(4).astype(np.uint8))
    code = run("--prediction", f"ours={folders / 'pred'}", other, "--reference", folders / "truth")
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["models"]
    assert list(found["models"]) == ["ours", "other"]
    assert found["models"]["ours"]["mean"]["iou"] > found["models"]["other"]["mean"]["iou"]


def test_tables(folders, capsys):
    printed = evaluate(capsys, folders, "-o", folders / "t.json")
    assert json.loads((folders / "t.json").read_text()) == printed
    evaluate(capsys, folders, "-o", folders / "t.csv")
    rows = list(csv.DictReader((folders / "t.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["im0", "im1"]
    assert float(rows[1]["iou"]) == printed["images"][1]["iou"]
    assert rows[0]["map"] == ""


def test_stacks_are_scored_by_slice_too(folders, capsys):
    for path in [*(folders / "truth").iterdir(), *(folders / "pred").iterdir()]:
        path.unlink()
    truth = np.stack([disks() * (z != 1) for z in range(3)]).astype(np.uint8)
    predicted = np.stack([disks(z)[:] for z in range(3)]).astype(np.uint8)
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 2}
    for name, stack in (("truth/s.tif", truth), ("pred/s_mask.tif", predicted)):
        tifffile.imwrite(folders / name, stack, imagej=True, metadata=metadata, resolution=(2, 2))
    found = evaluate(capsys, folders, "--overlays", folders / "ov", "-o", folders / "t.csv")
    (image,) = found["images"]
    assert image["unit"] == "micrometer"
    assert [s["slice"] for s in image["slices"]] == [0, 1, 2]
    assert image["slices"][0]["iou"] == 1
    assert image["slices"][1]["iou"] == 0
    assert image["slices"][1]["hd95"] is None
    assert image["undefined_slices"]["hd95"] == 1
    shared, both = (truth & predicted).sum(), (truth | predicted).sum()
    assert image["iou"] == pytest.approx(shared / both)
    assert image["slices"][2]["hd95"] == 1.0  # two pixels of half a micrometer
    assert tifffile.imread(folders / "ov" / "s_overlay.tif").shape == (3, 64, 80)
    assert len((folders / "t.csv").read_text().splitlines()) == 1 + 1 + 3


def test_overlays_are_label_images_in_colour(folders, capsys):
    from napari_cellda.core.compare import OVERLAY_VALUES, pixel_overlay
    from napari_cellda.core.images.readers import read_labels

    evaluate(capsys, folders, "--overlays", folders / "deep" / "ov")
    path = folders / "deep" / "ov" / "im1_overlay.png"
    np.testing.assert_array_equal(read_labels(path), pixel_overlay(disks(2), disks()))
    colours = np.unique(iio.imread(path, mode="RGB").reshape(-1, 3), axis=0)
    assert len(colours) == 4
    assert read_labels(path).max() == OVERLAY_VALUES["false negative"]
    assert sorted(p.name for p in (folders / "deep").iterdir()) == ["ov"]


def test_the_report_stands_alone(folders, capsys):
    name = "a<b>"
    code = run("--prediction", f"{name}={folders / 'pred'}", f"two={folders / 'pred'}",
               "--reference", folders / "truth", "--report", folders / "r.html")  # fmt: skip
    assert code == 0
    page = (folders / "r.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert name not in page
    assert "a&lt;b&gt;" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 4  # two images of two models
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "Paired differences" in page
    assert page.count("<svg") >= 6
    parser = Balanced()
    parser.feed(page)
    assert parser.open_tags == []


class Balanced(HTMLParser):
    """Checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open_tags = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def overwrite(folder, name, array):
    tifffile.imwrite(folder / name, array)


def masks_of(folder):
    return sorted((folder / "pred").iterdir())


MISTAKES = {
    "shapes": (
        lambda f: overwrite(f, "pred/im1_mask.tif", np.zeros((8, 9), np.uint8)),
        (),
        r"shape \(8, 9\).*\(64, 80\)",
    ),
    "range": (
        lambda f: overwrite(f, "pred/im1_mask.tif", np.full((64, 80), 1.5, np.float32)),
        (),
        r"1\.5 to 1\.5.*\[0, 1\]",
    ),
    "negative": (
        lambda f: overwrite(f, "pred/im1_mask.tif", np.full((64, 80), -3, np.int16)),
        (),
        "label -3",
    ),
    "ignored": (
        lambda f: overwrite(f, "truth/im2.tif", np.full((64, 80), -1, np.int16)),
        (),
        r"im2",
    ),
    "fractions": (
        lambda f: [overwrite(f, f"pred/im{i}.tif", np.full((64, 80), 0.5)) for i in (0, 1)],
        ("--kind", "instances"),
        "fractions",
    ),
    "empty": (lambda f: [p.unlink() for p in masks_of(f)], (), "holds no image"),
    "unpaired": (
        lambda f: [p.rename(p.with_name(p.name.replace("im", "x"))) for p in masks_of(f)],
        (),
        r"x0, x1.*im0, im1",
    ),
    "kind": (lambda f: None, ("--kind", "pixels"), "semantic, instances or boundary"),
    "type": (lambda f: None, ("--reference-type", "x"), "classes, instances or binary"),
    "bound": (lambda f: None, ("--upper-bound", "x"), "--upper-bound is 'x'"),
    "scores": (
        lambda f: (
            overwrite(f, "pred/im1.tif", disks()),
            overwrite(f, "pred/im0.tif", disks()),
            (f / "pred" / "im1_objects.csv").write_text("a,b\n1,2\n"),
        ),
        ("--kind", "instances"),
        "columns label and score",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(folders, capsys, mistake):
    spoil, more, sentence = MISTAKES[mistake]
    spoil(folders)
    before = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    code = run("--prediction", folders / "pred", "--reference", folders / "truth",
               "--overlays", folders / "ov", "--report", folders / "r.html",
               "-o", folders / "t.json", *more)  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert re.search(sentence, " ".join(err.split())), err
    assert {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()} == before
    assert not (folders / "ov").exists()


def test_an_ignored_class_is_refused_unless_named(folders, capsys):
    truth = disks().astype(np.int16)
    truth[:, :30] = -1
    for path in (folders / "truth").iterdir():
        path.unlink()
    for i in range(2):
        tifffile.imwrite(folders / "truth" / f"im{i}.tif", truth)
    arguments = ("--prediction", folders / "pred", "--reference", folders / "truth")
    assert run(*arguments) == 2
    assert "--ignore -1" in capsys.readouterr().err
    found = evaluate(capsys, folders, "--ignore", "-1")
    assert found["images"][0]["iou"] == 1
    assert found["classes"]["1"]["objects"]["truth"] == 2
    truth[truth == -1] = 255
    truth[40:44] = 2
    for i in range(2):
        tifffile.imwrite(folders / "truth" / f"im{i}.tif", truth)
    assert run(*arguments) == 2
    assert "--ignore 255" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(("-o", "t.txt"), "expected .json or .csv"), (("--report", "r.pdf"), "expected .html")],
)
def test_endings_are_checked_first(folders, capsys, more, sentence):
    assert run("--prediction", folders / "pred", "--reference", folders / "truth", *more) == 2
    assert sentence in capsys.readouterr().err


def test_names_of_predictions(folders, capsys):
    pred = folders / "pred"
    assert run("--prediction", pred, pred, "--reference", folders / "truth") == 2
    assert "Two predictions are called 'pred'" in capsys.readouterr().err
    assert run("--prediction", "=x", "--reference", folders / "truth") == 2
    assert "NAME=DIR" in capsys.readouterr().err
