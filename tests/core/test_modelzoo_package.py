import shutil

import numpy as np
import pytest
import torch
import yaml
import zoo_packages as zoo

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo import describe_model, import_model, list_models
from napari_cellda.core.modelzoo import package as package_module
from napari_cellda.core.modelzoo import shelf as shelf_module
from napari_cellda.core.modelzoo.check import check_model, validation_summary
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.modelzoo.package import PackageInfo, write_package
from napari_cellda.core.modelzoo.places import DATA_VARIABLE
from napari_cellda.core.modelzoo.rdf import read_card


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data" / "models"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A package with everything, and its network."""
    pytest.importorskip("onnxscript")
    network = zoo.random_unet(width=4, depth=2, out_channels=2)
    folder = tmp_path_factory.mktemp("packages") / "full-one"
    return zoo.make_own(folder, network, onnx=True), network


def test_a_package_holds_what_it_should(full):
    folder, _ = full
    assert {path.name for path in folder.iterdir()} == {
        "rdf.yaml",
        "README.md",
        "cover.png",
        "test_input.npy",
        "test_output.npy",
        "weights.pt",
        "weights.onnx",
    }
    own = zoo.read_rdf(folder)["config"]["cellda"]
    assert own == {
        "kind": "enhancer",
        "output_kind": "foreground",
        "output_names": ["foreground", "boundary"],
        "structure": "nuclei",
        "object_diameter": 20.0,
        "feature_sets": ["ilastik"],
        "training": {"steps": 3},
        "receptive_field": [23, 23],
    }


def test_bioimageio_finds_it_valid_and_says_nothing(full, capfd):
    valid, summary = validation_summary(full[0])
    assert valid
    assert "bioimageio.spec" in summary
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("weights", ["pytorch_state_dict", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_bioimageio_core_gets_the_same_from_it(full, weights):
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.spec import ValidationContext, load_model_description

    folder, network = full
    batch = np.random.default_rng(1).random((1, 1, 16, 24), np.float32)
    with ValidationContext(perform_io_checks=False, disable_cache=True):
        description = load_model_description(folder / "rdf.yaml", perform_io_checks=False)
        pipeline = core.create_prediction_pipeline(description, weight_format=weights)
        with pipeline:
            axes = ("batch", "channel", "y", "x")
            tensor = core.Tensor.from_numpy(batch, dims=axes)
            sample = core.Sample(members={"input": tensor}, stat={}, id="test")
            theirs = (
                pipeline.predict_sample_without_blocking(
                    sample, skip_input_padding=True, skip_output_cropping=True
                )
                .members["output"]
                .data
            )
    ours = open_model(folder).runner(batch)
    np.testing.assert_allclose(ours, theirs.to_numpy(), atol=0.01)
    with torch.inference_mode():
        exact = network(torch.from_numpy(batch)).sigmoid().numpy()
    np.testing.assert_allclose(theirs.to_numpy(), exact, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_bioimageio_core_passes_its_own_test(full):
    core = pytest.importorskip("bioimageio.core")
    from bioimageio.spec import ValidationContext

    with ValidationContext(perform_io_checks=False, disable_cache=True):
        summary = core.test_model(full[0] / "rdf.yaml")
    assert summary.status == "passed", summary.format()


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_network_comes_back(ndim, tmp_path):
    network = zoo.random_unet(width=4, depth=2, ndim=ndim, up="transpose", norm="group")
    found = open_model(zoo.make_own(tmp_path / "own-one", network)).network
    assert found.config == network.config
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value)


def test_the_network_is_left_as_it_was(tmp_path):
    network = zoo.random_unet(width=4, depth=2).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    zoo.make_own(tmp_path / "own-one", network)
    assert network.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_the_test_output_is_that_of_the_trained_network(tmp_path):
    """Written in eval mode, even when the network comes straight from training."""
    network = zoo.random_unet(width=4, depth=2).train()
    report = check_model(zoo.make_own(tmp_path / "own-one", network))
    assert report.difference < 0.01


def test_the_halo_grows_with_the_test_input(tmp_path):
    network = zoo.random_unet(width=4, depth=2)
    info = PackageInfo(id="x-y", name="A small enhancer", description="d")
    for side, halo in ((16, 4), (64, 24)):
        given = np.zeros((1, side, side), np.float32)
        card = read_card(write_package(network, info, given, tmp_path / "x-y", onnx=False))
        assert card.halo == (halo, halo)
        assert card.min_shape == (2 * halo + 4,) * 2
        assert card.receptive_field == (23, 23)


def test_numpy_values_in_the_training_record_are_written(tmp_path):
    training = {
        "score": np.float32(0.5),
        "histogram": np.arange(3),
        "where": tmp_path,
        "nested": {"steps": (np.int64(1), None, True)},
    }
    folder = zoo.make_own(tmp_path / "own-one", training=training)
    assert read_card(folder).training == {
        "score": 0.5,
        "histogram": [0, 1, 2],
        "where": str(tmp_path),
        "nested": {"steps": [1, None, True]},
    }


def test_a_cover_can_be_given(tmp_path):
    import imageio.v3 as imageio

    cover = np.arange(256, dtype=np.uint8).reshape(16, 16)
    network = zoo.random_unet(width=4, depth=2)
    info = PackageInfo(id="x-y", name="A small enhancer", description="d")
    given = np.zeros((1, 16, 16), np.float32)
    folder = write_package(network, info, given, tmp_path / "x-y", cover=cover, onnx=False)
    np.testing.assert_array_equal(imageio.imread(read_card(folder).cover), cover)


@pytest.mark.parametrize(
    ("shape", "names", "named"),
    [
        ((16, 16), ("foreground",), "shape"),
        ((2, 16, 16), ("foreground",), r"\(1, Y, X\)"),
        ((1, 16, 17), ("foreground",), "multiples of 4"),
        ((1, 16, 16), ("foreground", "boundary"), "1 outputs, and 2 names"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(shape, names, named, tmp_path):
    info = PackageInfo(id="x-y", name="A small enhancer", description="d", output_names=names)
    network = zoo.random_unet(width=4, depth=2)
    with pytest.raises(UserError, match=named):
        write_package(network, info, np.zeros(shape, np.float32), tmp_path / "x-y")
    assert not list(tmp_path.rglob("*.pt"))


def test_what_bioimageio_refuses_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"does not make a bioimage\.io package") as caught:
        zoo.make_own(tmp_path / "own-one", licence="my own")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_older_package_stays_when_writing_fails(tmp_path, monkeypatch):
    folder = zoo.make_own(tmp_path / "own-one", description="the old one")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package_module, "_write_files", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        zoo.make_own(folder)
    assert read_card(folder).description == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["own-one"]


def test_an_older_package_is_replaced(tmp_path):
    folder = zoo.make_own(tmp_path / "own-one", description="the old one")
    (folder / "leftover.txt").touch()
    zoo.make_own(folder, description="the new one")
    assert read_card(folder).description == "the new one"
    assert not (folder / "leftover.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["own-one"]


def test_a_good_package_is_reported_so(full):
    report = check_model(full[0])
    assert report.valid
    assert report.difference < 0.01
    text = str(report)
    assert "valid by bioimageio.spec" in text
    assert "reproduced within" in text


def test_a_published_package_is_reported(tmp_path):
    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    # torch-em writes the expected output from the map as it is stretched by the RDF.
    rdf = zoo.read_rdf(folder)
    del rdf["inputs"][0]["preprocessing"]
    zoo.write_rdf(folder, rdf)
    report = check_model(folder)
    assert report.valid, report.summary
    assert report.difference < 0.01


def test_scale_range_is_applied_to_the_test_of_a_package(tmp_path):
    folder, network = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    given = np.load(folder / "test_input_0.npy")
    stretched = (given - given.min()) / (given.max() - given.min() + 1e-6)
    with torch.inference_mode():
        np.save(folder / "test_output_0.npy", network(torch.from_numpy(stretched)).numpy())
    np.save(folder / "test_input_0.npy", 40 + 100 * given)
    assert check_model(folder).difference < 0.01


def test_a_changed_package_is_reported(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    np.save(folder / "test_output.npy", np.zeros((1, 2, 16, 16), np.float32))
    assert check_model(folder).difference > 0.05


def test_an_invalid_package_is_reported_with_the_summary(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    rdf = zoo.read_rdf(folder)
    del rdf["license"]
    rdf["inputs"][0]["data"]["type"] = "complex"
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    report = check_model(folder)
    assert not report.valid
    assert "not valid" in str(report)
    assert "data" in report.summary
    assert "It runs" in report.runs  # lenient: the flaw does not matter for running it


def test_a_package_that_does_not_run_is_reported(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    for name in ("weights.pt", "weights.onnx"):
        (folder / name).write_bytes(b"damaged")
    report = check_model(folder)
    assert report.difference is None
    assert "sha256" in report.runs


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_test_array_is_no_fault(content, full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    (folder / "test_input.npy").write_bytes(content)
    assert check_model(folder).difference is None


def test_a_pickled_test_array_is_not_run(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    ran = []

    class Harm:
        def __reduce__(self):
            return (ran.append, (1,))

    array = np.empty(1, object)
    array[0] = Harm()
    np.save(folder / "test_input.npy", array, allow_pickle=True)
    ran.clear()
    assert check_model(folder).difference is None
    assert not ran


def test_a_test_array_outside_is_not_read(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "full-one")
    (folder / "test_input.npy").rename(tmp_path / "test_input.npy")
    rdf = zoo.read_rdf(folder)
    rdf["inputs"][0]["test_tensor"]["source"] = "../test_input.npy"
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    assert check_model(folder).difference is None


def test_checking_runs_no_program(tmp_path, monkeypatch):
    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    (folder / "weights.pt").unlink()
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    report = check_model(folder)
    assert "nobody agreed to run it" in report.runs
    assert not report.works


def test_importing_makes_an_id_of_it(full, shelf):
    assert import_model(full[0]) == "full-one"
    assert open_model("full-one").card.folder == shelf / "full-one"
    rows = {row["id"]: row for row in list_models()}
    assert rows["full-one"]["from"] == "imported"
    assert rows["full-one"]["made for"] == "nuclei, 20 px across"
    assert [path.name for path in shelf.iterdir()] == ["full-one"]


def test_importing_a_zip_leaves_its_python_behind(tmp_path, shelf):
    folder, _ = zoo.make_published(tmp_path / "m", "amiable-crocodile", initial_features=4)
    assert import_model(zoo.zip_folder(folder, tmp_path / "m.zip")) == "amiable-crocodile"
    assert not list(shelf.rglob("*.py"))
    assert open_model("amiable-crocodile").network is not None


def test_importing_takes_only_what_the_description_names(full, tmp_path, shelf):
    folder = shutil.copytree(full[0], tmp_path / "downloads")
    (folder / "tax-return.pdf").touch()
    (folder / "letters").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "licence.txt").write_text("free")
    (folder / "predict.py").touch()
    (tmp_path / "secret.txt").touch()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    attachments = ["texts/licence.txt", "gone.txt", "predict.py", "link.txt", "../secret.txt"]
    attachments += [
        "x" * 5000,
        "a\0b",
        f"../{folder.name}/tax-return.pdf",
        str(folder / "tax-return.pdf"),
        "https://example.org/more.txt",
    ]
    zoo.change_rdf(folder, attachments=[{"source": source} for source in attachments])
    (folder / "rdf.yaml").rename(folder / "my.rdf.yaml")
    import_model(folder / "my.rdf.yaml")
    copied = {path.relative_to(shelf / "full-one") for path in shelf.rglob("*") if path.is_file()}
    named = {path.name for path in full[0].iterdir()}
    assert {path.as_posix() for path in copied} == {*named, "texts/licence.txt"}
    assert open_model("full-one").network is not None


@pytest.mark.parametrize("odd", [5, "cover.png", [None, 3], {"a": {"b": 1}}, [[["x"]]]])
def test_odd_lists_of_files_do_not_hinder_an_import(odd, full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "m")
    weights = {**zoo.read_rdf(folder)["weights"], "keras_hdf5": None}
    zoo.change_rdf(folder, attachments=odd, test_inputs=odd, test_outputs=odd, weights=weights)
    assert import_model(folder) == "full-one"


def test_an_import_that_cannot_be_written_is_told(full, shelf):
    shelf.parent.mkdir()
    shelf.touch()
    with pytest.raises(UserError, match=r"'full-one' could not be copied to '.*: File exists"):
        import_model(full[0])


def test_the_description_that_was_named_is_the_one_that_is_read(full, tmp_path):
    folder = shutil.copytree(full[0], tmp_path / "downloads")
    shutil.copyfile(folder / "rdf.yaml", folder / "other.rdf.yaml")
    assert import_model(folder / "rdf.yaml") == "full-one"
    with pytest.raises(UserError, match=r"beside other\.rdf\.yaml lies rdf\.yaml"):
        import_model(folder / "other.rdf.yaml")


def test_importing_again_replaces(full, tmp_path, shelf):
    import_model(full[0])
    folder = shutil.copytree(full[0], tmp_path / "again")
    zoo.change_rdf(folder, description="the new one")
    assert import_model(folder) == "full-one"
    assert read_card(shelf / "full-one").description == "the new one"
    assert [path.name for path in shelf.iterdir()] == ["full-one"]


def test_a_bundled_id_cannot_be_taken(full, monkeypatch):
    monkeypatch.setattr(shelf_module, "list_bundled", lambda: ["full-one"])
    with pytest.raises(UserError, match="bundled"):
        import_model(full[0])


def test_an_id_with_slashes_becomes_a_plain_name(full, tmp_path, shelf):
    folder = shutil.copytree(full[0], tmp_path / "m")
    zoo.change_rdf(folder, id="../10.5281/zenodo.1")
    assert import_model(folder) == "10.5281-zenodo.1"
    assert (shelf / "10.5281-zenodo.1" / "rdf.yaml").is_file()


def test_a_model_that_cannot_be_read_is_listed_with_the_reason(shelf):
    (shelf / "broken").mkdir(parents=True)
    (shelf / "broken" / "rdf.yaml").write_text("nothing")
    (row,) = (row for row in list_models() if row["id"] == "broken")
    assert "no named fields" in row["name"]


def test_a_description_is_plain_and_loads_no_weights(full, tmp_path):
    import json

    folder = shutil.copytree(full[0], tmp_path / "full-one")
    (folder / "weights.pt").unlink()
    described = describe_model(folder)
    assert json.loads(json.dumps(described)) == described
    assert described["outputs"] == ["foreground", "boundary"]
    assert described["weights"] == {"onnx": "weights.onnx", "pytorch_state_dict": "UNet"}


def test_listing_models_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys; from napari_cellda.core.modelzoo import list_models; list_models();"
        "print([m for m in ('torch', 'bioimageio', 'onnxruntime', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
